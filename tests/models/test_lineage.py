from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from models import checkpoint, train
from models.export import export
from models.lineage import Stage, epochs, joined, of_checkpoint, of_description, planned, recorded
from models.steps import Recipe, Step
from models.transfer import lineage_of

NARROW: dict[str, Any] = {"size": 16, "options": {"widths": [8, 8, 8, 8], "stem": "small"}}
STEPS = {
    "teacher": Step("resnet32", recipe=Recipe(epochs=3)),
    "first": Step("collage-vgg", k=2, recipe=Recipe(epochs=5), teacher="teacher"),
    "second": Step(
        "collage-vgg", k=2, recipe=Recipe(epochs=2.5), parents=("first",), live_teachers=("teacher", "first")
    ),
    "mean": Step("collage-vgg", k=2, recipe=Recipe(epochs=0.05), parents=("second", "first")),
}


def test_typed_steps_tell_every_run_once_and_no_teachers() -> None:
    runs = planned(STEPS, "mean", {"mean": 7.0, "teacher": 100.0})
    assert runs == (
        Stage("first", "collage-vgg", 5, None, (), ("teacher",)),
        Stage("second", "collage-vgg", 2.5, None, ("first",), ("teacher", "first")),
        Stage("mean", "collage-vgg", 0.05, 7.0, ("second", "first"), ()),
    )
    assert epochs(runs) == 7.55
    assert recorded(runs) == (7.0, 2)


def test_a_parent_that_is_a_file_is_named() -> None:
    steps = {"parity": Step("resnet32", recipe=Recipe(epochs=3), parents=("s-cnn.onnx",), base="s-cnn.onnx")}
    assert planned(steps, "parity", {}) == (Stage("parity", "resnet32", 3, None, ("s-cnn.onnx",), ("s-cnn.onnx",)),)


def test_lineages_that_share_runs_are_joined() -> None:
    one, other = planned(STEPS, "first", {}), planned(STEPS, "second", {})
    assert joined([one, other, one]) == other


def test_a_run_that_was_interrupted_has_the_epochs_that_it_did() -> None:
    content = {"spec": {"architecture": "resnet32"}, "recipe": {"epochs": 2.5}, "log": [{"seconds": 1.5}] * 2}
    assert of_checkpoint("run", content)[0].epochs == 2
    content["log"] *= 2
    (stage,) = of_checkpoint("run", content)
    assert (stage.epochs, stage.training_s) == (2.5, 6.0)
    content["recipe"]["epochs"] = 0
    assert of_checkpoint("run", content)[0].epochs == 4, "a run against the clock plans none"
    assert (stage.parents, stage.teachers) == (None, None), "an older checkpoint does not tell"


def test_the_lineage_goes_from_run_to_run_and_into_the_exported_file(tmp_path: Path, folder: Path) -> None:
    def run(name: str, *parents: str, **others: object) -> None:
        step = Step("resnet18", **NARROW, recipe=Recipe(epochs=1, batch=24), parents=parents, **others)  # type: ignore[arg-type]
        train.run(step, folder, tmp_path / f"{name}.pt", lambda role: tmp_path / f"{role}.pt", "cpu", "fp32")

    run("first")
    run("left", "first", teacher="first")
    run("right", "first", live_teachers=("left",))
    run("mean", "left", "right")
    runs = lineage_of(tmp_path / "mean.pt")
    assert [(stage.name, stage.parents, stage.teachers) for stage in runs] == [
        ("first", (), ()),
        ("left", ("first",), ("first",)),
        ("right", ("first",), ("left",)),
        ("mean", ("left", "right"), ()),
    ]
    assert epochs(runs) == 4
    assert recorded(runs)[1] == 0
    info = export(tmp_path / "mean.pt", tmp_path / "mean.onnx")
    assert of_description("mean", info.extra) == runs == lineage_of(tmp_path / "mean.onnx")
    # A run goes on from an exported file: its lineage goes on too, also where the run is resumed.
    step = Step("resnet18", **NARROW, recipe=Recipe(epochs=2, batch=24), parents=("mean.onnx",))
    train.run(step, folder, tmp_path / "last.pt", lambda name: tmp_path / name, "cpu", "fp32")
    spec, model, content = checkpoint.load(tmp_path / "last.pt")
    others = {key: value for key, value in content.items() if key not in ("spec", "model")}
    checkpoint.save(tmp_path / "last.pt", spec, model, **{**others, "log": content["log"][:1]})
    train.run(step, folder, tmp_path / "last.pt", lambda name: tmp_path / name, "cpu", "fp32")
    assert len(checkpoint.read(tmp_path / "last.pt")["log"]) == 2
    assert lineage_of(tmp_path / "last.pt")[:-1] == runs


def test_a_checkpoint_or_file_of_before_tells_its_last_run_alone(tmp_path: Path, folder: Path) -> None:
    step = Step("resnet18", **NARROW, recipe=Recipe(epochs=1, batch=24))
    train.run(step, folder, tmp_path / "old.pt", device="cpu", precision="fp32")
    spec, model, content = checkpoint.load(tmp_path / "old.pt")
    older = {key: value for key, value in content.items() if key not in ("spec", "model", "lineage")}
    checkpoint.save(tmp_path / "old.pt", spec, model, **older)
    (stage,) = lineage_of(tmp_path / "old.pt")
    assert (stage.name, stage.epochs, stage.parents, stage.teachers) == ("old", 1, None, None)
    train.run(step, folder, tmp_path / "old.pt", device="cpu", precision="fp32")  # is taken as finished
    extra = export(tmp_path / "old.pt", tmp_path / "old.onnx").extra
    del extra["lineage"]
    assert of_description("old", extra) == (stage,)
    assert asdict(stage)["training_s"] == pytest.approx(extra["training_s"])
