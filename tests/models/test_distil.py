"""A collage-cnn for a classifier of any origin, from photos without labels."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from collage.model_files import sidecar
from models import calibrate, evaluate, photos, train, zoo
from models.data import UNKNOWN
from models.lineage import of_description
from models.measure import ImageAnswer, OnnxModel
from models.recipes import distilled
from models.recipes.own import SMALL_COLLAGE
from models.steps import Recipe, Step
from tests.models.datasets import write_folders
from tests.onnx_models import COLOURS, save_plain

SIDECAR: dict[str, Any] = {
    "name": "mine", "kind": "s-cnn", "labels": list(COLOURS), "size": 16, "mean": [0.5] * 3, "std": [0.25] * 3,
}  # fmt: skip


def coloured(folder: Path, counts: dict[str, int]) -> Path:
    """Photos that are mostly of one colour, in folders of any depth."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        for number in range(count):
            pixels = rng.integers(0, 120, (24, 30, 3), np.uint8)
            pixels[..., COLOURS.index(name.split("/")[-1])] += 100
            file = folder / name / f"{number:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return coloured(tmp_path / "photos", {"2024/red": 20, "2024/may/green": 20, "blue": 20})


@pytest.fixture
def s_cnn(tmp_path: Path) -> Path:
    return save_plain(tmp_path / "mine.onnx", size=16, sidecar=SIDECAR)


def brief(teacher: Path, **changes: Any) -> Step:
    """A step of seconds."""
    recipe = Recipe(**{"epochs": 1.0, "batch": 9, "distil": 1.0, **changes})
    options = {"widths": [8, 8, 8]}
    return Step("collage-resnet", 16, 3, options=options, recipe=recipe, teacher=str(teacher), unlabelled=True)


def test_photos_are_found_at_any_depth_and_never_those_of_a_test_part(own: Path) -> None:
    (own / ".trash").mkdir()
    (own / ".trash" / "x.png").write_bytes(b"")
    (own / "notes.txt").write_text("no photo")
    data = photos.load(own, COLOURS, 16)
    assert (len(data.train), len(data.validation), len(data.test)) == (54, 6, 0)
    assert data.train.ids == photos.training_ids(own)
    assert photos.validation_count(own) == 6
    held = photos.validation(own, COLOURS, 16)
    assert held.ids == data.validation.ids
    np.testing.assert_array_equal(held.images, data.validation.images)
    np.testing.assert_array_equal(held.labels, data.validation.labels)
    by_name = {name.split("/")[-2]: int(label) for name, label in zip(data.train.ids, data.train.labels, strict=True)}
    assert by_name == {"red": 0, "green": 1, "blue": 2}
    (own / "train").mkdir()
    (own / "blue").rename(own / "train" / "azure")
    data = photos.load(own, COLOURS, 16)
    assert {name.split("/")[-2] for name in data.train.ids} == {"azure"}
    assert set(data.train.labels) == {UNKNOWN}


def test_of_many_photos_a_random_part_is_used(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "MOST", 30)
    found = photos.files(own)
    assert len(found) == 30
    assert found == sorted(found)
    assert {file.parent.name for file in found} == set(COLOURS)
    assert found == photos.files(own)


def test_a_folder_with_hardly_any_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds 3 photos \(JPEG, PNG, WebP or BMP\): at least 20 are needed"):
        photos.load(coloured(tmp_path / "few", {"red": 3}), COLOURS, 16)


def test_labels_that_would_become_words_are_refused(own: Path) -> None:
    with pytest.raises(ValueError, match="give words in its sidecar"):
        photos.load(own, ("n01440764", "cat"), 16)


def test_the_s_cnns_answers_are_the_labels_and_are_asked_for_once(
    own: Path, s_cnn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = OnnxModel(s_cnn)
    data = photos.load(own, COLOURS, 8)
    found, answers = photos.answered(data, model, own, tmp_path)
    at_its_size = photos.load(own, COLOURS, 16).train.images
    (scores,) = model(at_its_size)
    np.testing.assert_allclose(answers, np.exp(scores) / np.exp(scores).sum(1, keepdims=True), rtol=1e-5)
    assert found.train.labels.tolist() == scores.argmax(1).tolist() == data.train.labels.tolist()
    assert found.validation.labels.tolist() == data.validation.labels.tolist()
    assert "asking mine: 8 of 60 photos" in capsys.readouterr().out
    (kept,) = tmp_path.glob("*.npy")
    stored = np.load(kept)
    stored[50:] = np.nan
    np.save(kept, stored)
    again, same = photos.answered(data, model, own, tmp_path)
    assert "asking mine: 8 of 10 photos" in capsys.readouterr().out, "only those that are missing"
    np.testing.assert_array_equal(same, answers)
    assert again.validation.labels.tolist() == found.validation.labels.tolist()


def test_a_collage_cnn_is_distilled_from_photos_alone(
    own: Path, s_cnn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = {"collage-3x3": brief(s_cnn.resolve(), epochs=8, muon_lr=0.1)}
    monkeypatch.setattr(zoo, "distilled", lambda size, name: replace(distilled(size, name), steps=steps))
    arguments = ["--data", str(own), "--s-cnn", str(s_cnn), "--runs", str(tmp_path / "runs"), "--threads", "1"]
    zoo.main(arguments)
    printed = capsys.readouterr().out
    model = OnnxModel(tmp_path / "mine-collage-3x3.onnx")
    assert (model.info.labels, model.info.k, model.info.size) == (COLOURS, 3, 48)
    assert model.info.extra["validation_accuracy"] > 0.9, "it agrees with the s-cnn on photos that it was not shown"
    (stage,) = of_description("", model.info.extra)
    assert (stage.teachers, stage.parents) == (("mine",), ())
    assert "mine-collage-3x3: sure of" in printed
    assert "WARNING: 6 validation images are few: these shares may be off by 40 points" in printed
    made = (tmp_path / "mine-collage-3x3.onnx").stat().st_mtime_ns
    zoo.main(arguments)
    assert "training" not in capsys.readouterr().out
    assert (tmp_path / "mine-collage-3x3.onnx").stat().st_mtime_ns == made, "nothing is done twice"
    held_out = coloured(tmp_path / "held-out" / "train", {"red": 3, "blue": 3}).parent
    coloured(held_out / "test", {"red": 9, "blue": 9})
    out = tmp_path / "out"
    words = ["--data", str(held_out), "--s-cnn", str(s_cnn), "--out", str(out), "--repeats", "1", "--seeds", "1"]
    evaluate.main(words)
    rows = {row["role"]: row for row in json.loads((out / "evaluate.json").read_text())["rows"]}
    assert (rows["s-cnn"]["images"], rows["s-cnn"]["top1"]) == (18, 1)
    assert rows["collage-3x3"]["agreement"] == rows["collage-3x3"]["top1"] > 0.8


def test_what_a_collage_will_cost_is_told_before_it_is_trained(s_cnn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = replace(brief(s_cnn), parents=(SMALL_COLLAGE,))
    like = OnnxModel(zoo.ZOO / SMALL_COLLAGE)
    assert step.input_size * 2 == like.info.size, "a quarter of the pixels"
    monkeypatch.setattr(zoo, "medians", lambda calls, repeats: [0.004, 0.02])
    assert zoo.expense(s_cnn, step) == "a collage will take about 1.2 times as long as an image in mine.onnx (4 ms)"
    monkeypatch.setattr(zoo, "medians", lambda calls, repeats: [0.001, 0.02])
    assert zoo.expense(s_cnn, step) == (
        "WARNING: a collage will take about 5.0 times as long as an image in mine.onnx (1 ms): 9 workers of the s-cnn "
        "take about 5 of the collage-cnn to protect every request, instead of one"
    )
    monkeypatch.undo()
    assert re.search(r"a collage will take about [\d.]+ times", zoo.expense(s_cnn, step, repeats=1))


def test_images_that_something_was_trained_on_are_not_evaluated(own: Path, s_cnn: Path) -> None:
    with pytest.raises(SystemExit, match=r"expected .*photos/test/<class>: images that nothing was trained on"):
        evaluate.main(["--data", str(own), "--s-cnn", str(s_cnn)])


def test_a_step_without_labels_can_be_given_by_flags(s_cnn: Path) -> None:
    step = brief(s_cnn, least_steps=7)
    words = ["--data", "d", "--out", "o", *train.flags(step)]
    assert train.step_of(train.parser().parse_args(words)) == step
    with pytest.raises(ValueError, match="give --teacher"):
        train.run(replace(step, teacher=""), Path("d"), Path("o"))


@pytest.mark.parametrize(("size", "model", "side"), [(224, "collage-resnet", 432), (128, "collage-resnet", 288),
                                                     (64, "collage-resnet", 144), (32, "collage-vgg", 96)])  # fmt: skip
def test_cells_are_no_larger_than_the_s_cnns_images(size: int, model: str, side: int) -> None:
    (step,) = distilled(size, "mine.onnx").steps.values()
    assert isinstance(step, Step)
    assert (step.model, step.input_size, step.unlabelled, step.recipe.distil) == (model, side, True, 1.0)
    assert step.recipe.least_steps > 0
    (parent,) = step.parents
    assert (zoo.ZOO / parent).is_file()


def test_the_target_without_labels_is_what_the_s_cnn_expects() -> None:
    answers = [ImageAnswer(str(i), label, 0, 0.5 + i / 10) for i, label in enumerate((0, 1, UNKNOWN, UNKNOWN))]
    assert calibrate.aim(answers) == 0.5
    assert calibrate.aim(answers[2:]) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--s-cnn", "nowhere.onnx"], "there is no model file nowhere.onnx"),
        (
            ["--data", "nowhere"],
            "there is no folder nowhere: name one of yours, or `make data` gets public data sets",
        ),
    ],
)
def test_a_mistake_is_one_line(own: Path, words: list[str], told: str) -> None:
    with pytest.raises(SystemExit) as caught:
        zoo.main(["--data", str(own), *words])
    assert str(caught.value) == told


def test_a_folder_that_cannot_be_used_is_told_before_a_plan(
    tmp_path: Path, s_cnn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, told in ((tmp_path / "photoz", "there is no folder "), (tmp_path, "holds 0 photos")):
        with pytest.raises(SystemExit, match=told):
            zoo.main(["--data", str(folder), "--s-cnn", str(s_cnn)])
    assert capsys.readouterr().out == ""


def test_what_is_no_classifier_is_refused(own: Path, s_cnn: Path) -> None:
    sidecar(s_cnn).write_text(json.dumps({**SIDECAR, "task": "localisation", "labels": []}))
    with pytest.raises(SystemExit, match="is no classifier of single images"):
        zoo.main(["--data", str(own), "--s-cnn", str(s_cnn)])
    sidecar(s_cnn).unlink()
    with pytest.raises(SystemExit, match="does not describe itself"):
        zoo.main(["--data", str(own), "--s-cnn", str(s_cnn)])


def test_one_broken_photo_is_named(own: Path, s_cnn: Path, tmp_path: Path) -> None:
    (own / "blue" / "007.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(SystemExit, match=r"blue/007\.png: "):
        zoo.main(["--data", str(own), "--s-cnn", str(s_cnn), "--runs", str(tmp_path / "runs")])


def test_a_test_part_of_few_classes_has_the_labels_of_a_model_that_knows_more(own: Path, s_cnn: Path) -> None:
    pets = write_folders(own / "pets", {"train": 4, "test": 2}, ("green", "yellow"))
    with pytest.raises(SystemExit, match=r"a model that knows 3 classes does not know yellow, one of pets's"):
        calibrate.main(["--data", str(pets), "--s-cnn", str(s_cnn), "--collage", str(s_cnn)])
