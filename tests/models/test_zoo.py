from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from collage.figures import Row
from collage.model_info import ModelInfo
from models import cards, checkpoint, evaluate, train, zoo
from models.data import find
from models.measure import OnnxModel
from models.recipes import FAMILIES, OWN_PHOTOS, OWN_SMALL, S_CNN
from models.train import parser
from tests.models.datasets import write_folders, write_idx
from tests.models.test_export import LOG, RECIPE, SPECS, trained


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


@pytest.mark.parametrize("family", [*FAMILIES, OWN_SMALL, OWN_PHOTOS])
def test_every_recipe_is_a_command_that_models_train_takes(family: zoo.Family) -> None:
    assert S_CNN in family.recipes, "collage-cnns need it for calibration"
    assert set(family.ships) <= set(family.recipes)
    for recipe in family.recipes.values():
        arguments = ["--data", "d", "--out", "o", *recipe.format(run="runs/x").split()]
        assert parser().parse_args(arguments).model in recipe
    trained = [f"runs/x-{role}.pt" for role in family.recipes]
    for role, recipe in family.recipes.items():
        for word in recipe.format(run="runs/x").split():
            if word.endswith(".pt"):
                assert trained.index(word) < list(family.recipes).index(role), "needs a model that is trained later"


def test_own_images_get_an_s_cnn_and_a_collage_cnn_that_can_be_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(OWN_SMALL.recipes, S_CNN, "--model resnet32 --size 16 --epochs 1 --batch 8")
    monkeypatch.setitem(
        OWN_SMALL.recipes,
        "collage-3x3",
        "--model collage-resnet --size 16 --k 3 --widths 8 8 8 --epochs 1 --batch 9 --teacher {run}-s-cnn.pt",
    )
    own = write_folders(tmp_path / "pets", {"train": 20, "test": 5})
    out, runs = tmp_path / "models", tmp_path / "the owner's runs"
    arguments = ["--data", str(own), "--runs", str(runs), "--out", str(out), "--threads", "1"]
    zoo.main(arguments)
    s_cnn, collage = OnnxModel(out / "pets-s-cnn.onnx"), OnnxModel(out / "pets-collage-3x3.onnx")
    assert s_cnn.info.labels == collage.info.labels == ("cat", "dog")
    assert (collage.info.name, collage.info.k, collage.info.size) == ("pets-collage-3x3", 3, 48)
    assert len(list(out.iterdir())) == 2
    assert "calibration" in collage.info.extra
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
        assert f"{100 * rows[name]['top1']:.2f} % top-1 on 10 test images" in text


def test_the_card_of_a_model_that_is_never_sure_leaves_out_how_often_it_is_right() -> None:
    extra = {"architecture": "collage-resnet", "dataset": "pets", "recipe": {}, "epochs": 1, "training_s": 60.0}
    extra |= {"seed": 0, "validation_accuracy": 0.5, "storage": "int8", "accuracy_change": 0.0}
    extra |= {"calibration": {"coverage": 0.0, "agreement": 1.0, "target": 0.9}}
    info = ModelInfo.collage("pets-collage-3x3", ("cat", "dog"), 48, 3, extra=extra)
    row: Row = {"top1": 0.5, "images": 10, "accepted_share": 1.0, "coverage": 0.0, "latency_s": 0.01}
    row |= {"covered_agreement": None, "covered_top1": None, "latency_ratio": 1.0, "size_bytes": 1}
    assert "Test images: 0.00 % of the cells, - as the s-cnn, - right." in cards.card(info, row, None)


def test_a_collage_cnn_that_could_not_be_calibrated_is_not_taken_for_done(tmp_path: Path) -> None:
    own, spec = write_folders(tmp_path / "pets", {"train": 20}), SPECS["collage-resnet"]
    checkpoint.save(tmp_path / "run.pt", spec, trained(spec), recipe=RECIPE, log=LOG)
    entry = zoo.Entry(own, "collage-3x3", "", tmp_path / "run.pt", tmp_path / "pets-collage-3x3.onnx")
    with pytest.raises(FileNotFoundError, match=r"pets-s-cnn\.onnx"):
        zoo.publish(entry, tmp_path / "pets-s-cnn.onnx")
    assert not entry.onnx.exists()


def test_a_run_is_not_finished_where_images_were_added(tmp_path: Path) -> None:
    own, run = write_folders(tmp_path / "pets", {"train": 20, "test": 1}), tmp_path / "run.pt"
    arguments = ["--data", str(own), "--model", "resnet32", "--size", "16", "--epochs", "1", "--batch", "8"]
    arguments += ["--out", str(run)]
    train.main(arguments)
    entry = zoo.Entry(own, S_CNN, "", run, tmp_path / "pets-s-cnn.onnx")
    assert entry.finished
    shutil.copy(own / "train" / "cat" / "003.jpg", own / "train" / "cat" / "new.jpg")
    assert not entry.finished
    with pytest.raises(SystemExit, match=r"the data set changed since the run in .*run\.pt began"):
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
    with pytest.raises(SystemExit, match="holds no images"):
        zoo.family_of("pets", tmp_path / "pets")
