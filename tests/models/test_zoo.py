from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models import cards, checkpoint, evaluate, train, zoo
from models.data import find, load
from models.layers import default_precision
from models.lineage import of_checkpoint, of_description
from models.measure import OnnxModel
from models.progress import cost
from models.recipes import OWN_SMALL
from models.steps import S_CNN, Family, Recipe, Step, TeacherRecipe, TeacherStep
from models.teacher_run import TeacherRun
from tests.models.datasets import write_folders, write_idx
from tests.models.exports import LOG, RECIPE, SPECS, trained

STEP = Step("resnet32")


def test_data_sets_are_found_in_the_folders_and_right_below(tmp_path: Path) -> None:
    own = write_folders(tmp_path / "root" / "pets", {"train": 1})
    fashion = write_idx(tmp_path / "fashion", train=10, test=10)
    (tmp_path / "root" / "empty").mkdir()
    (tmp_path / "root" / ".trash" / "train").mkdir(parents=True)
    assert find(tmp_path / "root", fashion, tmp_path / "nowhere") == {"pets": own, "fashion-mnist": fashion}


def test_a_class_is_no_data_set(tmp_path: Path) -> None:
    rails = write_folders(tmp_path / "rails", {"train": 1}, ("train", "tram"))
    (rails / "train" / "train" / "train").mkdir()
    assert find(rails) == {"rails": rails}


def test_own_images_get_an_s_cnn_and_a_collage_cnn_that_can_be_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    collage = Step(
        "collage-resnet", size=16, k=3, options={"widths": [8, 8, 8]}, recipe=Recipe(epochs=1, batch=9), teacher=S_CNN
    )
    narrow = {"widths": [8, 8, 8, 8], "stem": "small"}
    s_cnn = Step("resnet18", size=16, options=narrow, recipe=Recipe(epochs=1, batch=8))
    monkeypatch.setitem(OWN_SMALL.steps, S_CNN, s_cnn)
    monkeypatch.delitem(OWN_SMALL.steps, "collage-3x3")
    monkeypatch.setitem(OWN_SMALL.steps, "pretrained", collage)
    monkeypatch.setitem(OWN_SMALL.steps, "collage-3x3", replace(collage, parents=("pretrained",), teacher=""))
    own = write_folders(tmp_path / "pets", {"train": 20, "test": 5})
    out, runs = tmp_path / "models", tmp_path / "the owner's runs"
    arguments = ["--data", str(own), "--runs", str(runs), "--out", str(out), "--threads", "1"]
    zoo.main(arguments)
    s_cnn, collage = OnnxModel(out / "pets-s-cnn.onnx"), OnnxModel(out / "pets-collage-3x3.onnx")
    assert s_cnn.info.labels == collage.info.labels == ("cat", "dog")
    assert (collage.info.name, collage.info.k, collage.info.size) == ("pets-collage-3x3", 3, 48)
    assert len(list(out.iterdir())) == 2
    assert "calibration" in collage.info.extra
    first, last = of_description("", collage.info.extra)
    assert (first.name, first.epochs, first.parents, first.teachers) == ("pets-pretrained", 1, (), ("pets-s-cnn",))
    assert (last.name, last.epochs, last.parents, last.teachers) == ("pets-collage-3x3", 1, ("pets-pretrained",), ())
    assert first.training_s is not None
    assert last.training_s == collage.info.extra["training_s"]
    capsys.readouterr()

    before = {path: path.stat().st_mtime_ns for path in [*out.iterdir(), *runs.glob("*.pt")]}
    zoo.main(arguments)
    assert "training" not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing is done twice"
    of_old = out / "pets-collage-3x3.onnx"
    os.utime(of_old, (0, of_old.stat().st_mtime - 60))
    os.utime(of_old.with_name("pets-s-cnn.onnx"))
    zoo.main(arguments)
    assert of_old.stat().st_mtime_ns > before[of_old], "calibrated again, for another s-cnn"

    figures = tmp_path / "out"
    evaluate.main(["--data", str(own), "--models", str(out), "--out", str(figures), "--repeats", "1", "--seeds", "1"])
    cards.main(["--models", str(out), "--figures", str(figures / "evaluate.json")])
    text = (out / "README.md").read_text()
    rows = {row["model"]: row for row in json.loads((figures / "evaluate.json").read_text())["rows"]}
    for name in ("pets-s-cnn", "pets-collage-3x3"):
        assert f"## {name}" in text
        interval = 196 * (rows[name]["top1"] * (1 - rows[name]["top1"]) / 10) ** 0.5
        assert f"{100 * rows[name]['top1']:.2f} % ± {interval:.2f} top-1 on 10 test images" in text
    assert "- Training: 2 epochs in 2 runs; its s-cnn: 1 epoch in 1 run. 0.0 minutes in all.\n" in text
    assert "  2. `pets-collage-3x3`: collage-resnet, 1 epoch, from `pets-pretrained`\n" in text


def test_a_teacher_is_trained_as_a_step_and_goes_on_where_it_was_interrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write_folders(tmp_path / "pets", {"train": 20, "test": 2})
    first = TeacherStep(16, {"widths": [8, 8, 8], "views": 2}, TeacherRecipe(epochs=2, batch=12))
    steps = {
        "pretrained-teacher": first,
        "pretrained-more": replace(first, init="pretrained-teacher", recipe=TeacherRecipe(minutes=1e-5, batch=12)),
        "pretrained-s-cnn": Step(
            "resnet32", size=16, recipe=Recipe(epochs=1, batch=8), live_teachers=("pretrained-more",)
        ),
    }
    wanted = [zoo.Entry(own, role, step, str(tmp_path / "pets"), tmp_path / role) for role, step in steps.items()]
    teacher, *others = wanted
    data = load(own, 16)
    interrupted = TeacherRun(
        train.describe(data, "wide", 16, 1, dict(first.options)), data, first.recipe, "cpu", default_precision("cpu")
    )
    losses = [interrupted.advance() for _ in range(interrupted.steps_of_epoch)]
    interrupted._note(losses)
    interrupted.save(teacher.checkpoint)
    assert not teacher.finished
    zoo.build(wanted, tmp_path, "cpu", 1)
    printed = capsys.readouterr().out
    assert "model 1 of 3, pretrained-teacher: training pets-pretrained-teacher: --size 16 " in printed
    assert " --widths 8 8 8 --views 2 --epochs 2 --batch 12\n" in printed
    assert "resuming after step 3, " in printed
    assert f" tensors from {teacher.checkpoint}\n" in printed
    assert all(entry.finished for entry in wanted)
    found = [of_checkpoint(entry.role, checkpoint.read(entry.checkpoint)) for entry in others]
    assert [(stage.name, stage.parents, stage.teachers) for stage in (*found[0], *found[1])] == [
        ("pets-pretrained-teacher", (), ()),
        ("pretrained-more", ("pets-pretrained-teacher",), ()),
        ("pretrained-s-cnn", (), ("pets-pretrained-more",)),
    ]
    zoo.build(wanted, tmp_path, "cpu", 1)
    assert "training" not in capsys.readouterr().out


def test_a_time_for_all_models_is_shared_by_what_they_cost_and_exporting_takes_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Epochs without end, which only the clock ends."""
    narrow, endless = {"widths": [8, 8, 8, 8], "stem": "small"}, Recipe(epochs=1e6, batch=9)
    teacher = TeacherStep(16, {"widths": [8, 8, 8]}, TeacherRecipe(minutes=1e9, batch=9))
    s_cnn = Step("resnet18", size=16, options=narrow, recipe=endless, live_teachers=("pretrained-teacher",))
    collage = Step("collage-resnet", size=16, k=3, options={"widths": [8, 8, 8]}, recipe=endless, teacher=S_CNN)
    steps = {"pretrained-teacher": teacher, S_CNN: s_cnn, "collage-3x3": collage, "unshipped": s_cnn}
    family = Family(("pets",), "", "", (S_CNN, "collage-3x3"), steps)
    monkeypatch.setattr(zoo, "family_of", lambda name, folder: family)
    own = write_folders(tmp_path / "pets", {"train": 20, "test": 5})
    out, runs = tmp_path / "models", tmp_path / "runs"
    arguments = ["--data", str(own), "--runs", str(runs), "--out", str(out), "--threads", "1"]
    zoo.main([*arguments, "--minutes", "0.05"])
    assert not out.exists()
    made = {path.stem.removeprefix("pets-"): checkpoint.read(path) for path in runs.glob("*.pt")}
    assert made.keys() == {"pretrained-teacher", S_CNN, "collage-3x3"}, "what ships, and what that learns from"
    assert all(content["finished"] and content["log"] for content in made.values())
    minutes = [made[role]["recipe"]["minutes"] for role in ("pretrained-teacher", S_CNN, "collage-3x3")]
    costs = [cost(teacher), cost(s_cnn, [teacher]), cost(collage)]
    assert minutes[0] == pytest.approx(max(0.001, 0.85 * 0.05 * costs[0] / sum(costs)), rel=0.2)
    assert sum(minutes) < 0.05
    capsys.readouterr()
    zoo.main([*arguments, "--only", "pets-s-cnn", "pets-collage-*"])
    assert "training" not in capsys.readouterr().out
    assert OnnxModel(out / "pets-collage-3x3.onnx").info.k == 3
    with pytest.raises(SystemExit):
        zoo.main([*arguments, "--minutes", "0"])
    assert "--minutes must be above 0" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="minutes are for the models of one data set"):
        zoo.main(
            [*arguments, "--data", str(own), str(write_folders(tmp_path / "pets-2", {"train": 20})), "--minutes", "1"]
        )


def test_a_collage_cnn_that_could_not_be_calibrated_is_not_taken_for_done(tmp_path: Path) -> None:
    own, spec = write_folders(tmp_path / "pets", {"train": 20}), SPECS["collage-resnet"]
    checkpoint.save(tmp_path / "pets-collage-3x3.pt", spec, trained(spec), recipe=RECIPE, log=LOG)
    entry = zoo.Entry(own, "collage-3x3", STEP, str(tmp_path / "pets"), tmp_path / "pets-collage-3x3.onnx")
    with pytest.raises(SystemExit, match=r"pets-s-cnn\.onnx"):
        zoo.publish(entry, tmp_path / "pets-s-cnn.onnx")
    assert not entry.onnx.exists()


def test_a_run_is_not_finished_where_images_were_added(tmp_path: Path) -> None:
    own, run = write_folders(tmp_path / "pets", {"train": 20, "test": 1}), tmp_path / "pets-s-cnn.pt"
    arguments = ["--data", str(own), "--model", "resnet32", "--size", "16", "--epochs", "1", "--batch", "8"]
    arguments += ["--out", str(run)]
    train.main(arguments)
    entry = zoo.Entry(own, S_CNN, STEP, str(tmp_path / "pets"), tmp_path / "pets-s-cnn.onnx")
    assert entry.finished
    shutil.copy(own / "train" / "cat" / "003.jpg", own / "train" / "cat" / "new.jpg")
    assert not entry.finished
    with pytest.raises(SystemExit, match=r"the data set changed since the run in .*pets-s-cnn\.pt began"):
        train.main(arguments)
    content = torch.load(run, weights_only=True)
    del content["images"]
    torch.save(content, run)
    assert entry.finished, "an older checkpoint does not tell"


def test_a_pattern_that_fits_no_model_is_refused(tmp_path: Path) -> None:
    own = write_folders(tmp_path / "pets", {"train": 1})
    with pytest.raises(SystemExit, match="no data set found"):
        zoo.main(["--data", str(own), "--only", "cifar10-*"])


def test_a_folder_without_images_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "pets" / "train" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"pets/train holds no images: expected .*/pets/train/<class>/\*\.jpg"):
        zoo.family_of("pets", tmp_path / "pets")


def test_the_shipped_models_of_imagenette_answer_in_words() -> None:
    files = sorted(zoo.ZOO.glob("imagenette-224-*.onnx"))
    assert len(files) >= 5
    for file in files:
        labels = OnnxModel(file).info.labels
        assert (labels[0], labels[7], labels[9]) == ("tench", "gas pump", "parachute")
