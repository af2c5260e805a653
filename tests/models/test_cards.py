from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from collage.figures import Row
from models import cards
from models.description import describe
from models.steps import S_CNN, Family, Recipe, Step
from models.zoo import ZOO
from tests.onnx_models import save_collage_cnn, save_parity, save_s_cnn

LABELS = ("cat", "dog")
EXTRA: dict[str, Any] = {
    "architecture": "collage-resnet",
    "dataset": "pets",
    "recipe": {"epochs": 4.0, "seed": 0},
    "epochs": 4,
    "training_s": 5400.0,
    "validation_accuracy": 0.5,
    "storage": "int8",
    "accuracy_change": 0.0,
    "calibration": {"coverage": 0.25, "agreement": 0.95, "target": 0.9},
}
ROW: Row = {
    "top1": 0.5,
    "images": 10,
    "answered_share": 0.875,
    "coverage": 0.25,
    "covered_agreement": 0.75,
    "covered_top1": 0.625,
    "latency_s": 0.01,
    "latency_ratio": 1.0,
    "size_bytes": 1,
}
STEPS = {
    "pretrained": Step("resnet32", recipe=Recipe(epochs=20)),
    S_CNN: Step("resnet32", recipe=Recipe(epochs=10), parents=("pretrained",)),
    "collage-3x3": Step("collage-resnet", k=3, recipe=Recipe(epochs=4), teacher=S_CNN),
}
FAMILY = Family(("pets",), "pets", "free", (), STEPS)


def infos(**extra: Any) -> dict[str, Any]:
    single = {**EXTRA, "architecture": "resnet32", "recipe": {"epochs": 10.0}, "epochs": 10, "training_s": 600.0}
    return {
        S_CNN: describe("pets-s-cnn", "s-cnn", LABELS, 16, 1, single),
        "collage-3x3": describe("pets-collage-3x3", "collage-cnn", LABELS, 48, 3, {**EXTRA, **extra}),
    }


def shown(family: Family | None = FAMILY, row: Row = ROW, **extra: Any) -> str:
    told = infos(**extra)
    runs = cards.lineages(told, family)
    return cards.card(told["collage-3x3"], row, family, runs["collage-3x3"], runs[S_CNN])


def test_epochs_of_both_models_stand_side_by_side() -> None:
    text = shown()
    assert "- Training: 4 epochs in 1 run; its s-cnn: 30 epochs in 2 runs. 1.5 hours in all.\n" in text
    assert "  1. `collage-3x3`: collage-resnet, 4 epochs, from random weights, taught by `s-cnn`\n" in text


def test_durations_that_are_not_recorded_are_said_to_be_so() -> None:
    told = infos()
    runs = cards.lineages(told, FAMILY)[S_CNN]
    text = cards.card(told[S_CNN], {**ROW, "images": 10}, FAMILY, runs, runs)
    assert (
        "- Training: 30 epochs in 2 runs. 10.0 minutes in 1 of the runs; the duration of the other 1 is not recorded.\n"
        "  1. `pretrained`: resnet32, 20 epochs, from random weights\n"
        "  2. `s-cnn`: resnet32, 10 epochs, from `pretrained`\n"
    ) in text
    assert "its s-cnn" not in text
    assert cards.line(told[S_CNN], ROW, runs, runs).split(" | ")[2:8] == ["", "", "2", "30", "", "not recorded"]


def test_a_file_tells_its_own_lineage_before_its_recipe_does() -> None:
    stages = [
        {"name": f"run-{n}", "architecture": "vgg", "epochs": 7, "training_s": 3600.0, "parents": [], "teachers": []}
        for n in (1, 2)
    ]
    assert "- Training: 14 epochs in 2 runs; its s-cnn: 30 epochs in 2 runs. 2.0 hours in all.\n" in shown(
        lineage=stages
    )


def test_a_file_that_no_known_step_made_tells_its_last_run_alone() -> None:
    for text in (shown(family=None), shown(recipe={"epochs": 3.0}, epochs=3)):
        assert "`pets-collage-3x3`: collage-resnet, " in text
        assert "epochs, from weights that are not recorded\n" in text


def test_cells_answered_and_cells_accepted_are_two_figures() -> None:
    text = shown()
    assert (
        "Cells answered: 87.50 %. Cells accepted at the calibrated threshold: 25.00 %; of these answers 75.00 % are "
        "the s-cnn's, 62.50 % are right."
    ) in text
    told = infos()
    runs = cards.lineages(told, FAMILY)
    fields = cards.line(told["collage-3x3"], ROW, runs["collage-3x3"], runs[S_CNN]).split(" | ")
    columns = dict(zip(cards.COLUMNS, fields, strict=True))
    assert (columns["cells answered"], columns["cells accepted"]) == ("87.50 %", "25.00 %")
    assert (columns["epochs"], columns["epochs of its s-cnn"], columns["hours"]) == ("4", "30", "1.5")


def test_the_card_of_a_model_that_is_never_sure_leaves_out_how_often_it_is_right() -> None:
    row: Row = {**ROW, "coverage": 0.0, "covered_agreement": None, "covered_top1": None}
    assert "threshold: 0.00 %; of these answers - are the s-cnn's, - are right." in shown(row=row)


def test_every_measurement_names_its_own_command_and_commit(tmp_path: Path) -> None:
    extra = {**EXTRA, "dataset": "pets"}
    save_s_cnn(tmp_path / "pets-s-cnn.onnx", name="pets-s-cnn", extra=extra)
    save_collage_cnn(tmp_path / "pets-collage-2x2.onnx", name="pets-collage-2x2", extra=extra)
    versions = {path.stem: cards.describe(path).version for path in tmp_path.glob("*.onnx")}
    rows: list[dict[str, Any]] = [{**ROW, "model": name, "version": version} for name, version in versions.items()]
    for row in rows:
        row |= {"command": "measure again", "commit": "abc"} if "collage" in row["model"] else {}
    rows.append({**ROW, "model": "pets-collage-9x9", "version": "of no file here"})
    content = {"command": "measure", "commit": "012", "machine": {"cpu": "some", "cores": 2}, "rows": rows}
    (tmp_path / "figures.json").write_text(json.dumps(content))
    text = cards.write(tmp_path, tmp_path / "figures.json").read_text()
    assert text.endswith(
        "## Measurements\n\n"
        "- `measure` at commit 012, on some, 2 cores: pets-s-cnn.\n"
        "- `measure again` at commit abc, on some, 2 cores: pets-collage-2x2.\n"
    )
    assert "- Accuracy: 50.00 % ± 30.99 top-1 on 10 test images (95 % interval over images), " in text


def test_parity_models_have_a_table_of_their_own(tmp_path: Path) -> None:
    save_parity(tmp_path / "pets-parity-addition-2.onnx", extra={**EXTRA, "dataset": "pets"})
    measured: Row = {
        "dataset": "pets", "base": "pets-s-cnn", "model": "linear-parity", "code": "addition", "k": 2, "lost": 1,
        "images": 100,
        "version": cards.describe(tmp_path / "pets-parity-addition-2.onnx").version, "metric": "top1",
        "a_available": 0.9, "cost_ratio": 0.5, "command": "lose one", "commit": "012", "machine": "some",
    }  # fmt: skip
    others: list[Row] = [{"lost": 2}, {"metric": "top5"}, {"version": "another"}]
    rows = [{**measured, "a_degraded": share} for share in (0.7, 0.9)]
    rows += [{**measured, "a_degraded": 0.1, **other} for other in others]
    for name, its in (("figures", []), ("codes", rows)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"rows": its}))
    text = cards.write(tmp_path, tmp_path / "figures.json", tmp_path / "codes.json").read_text()
    assert (
        "| [linear-parity](#linear-parity) | addition, 2 | 80.00 % | 90.00 % | 0.50 | 1 | 4 | 1.5 | 0.0 MB |\n" in text
    )
    assert "is lost: 80.00 % ± 7.84 top-1 on 100 test images, means of 2 placements" in text
    assert text.endswith("- `lose one` at commit 012, on some: linear-parity.\n")


def test_the_shipped_cards_are_those_of_the_shipped_files(tmp_path: Path) -> None:
    for path in ZOO.glob("*.onnx*"):  # sidecars as well
        (tmp_path / path.name).symlink_to(path)
    figures = ZOO.parent.parent / "docs/results/evaluate.json"
    shown = cards.write(tmp_path, figures, figures.with_name("codes.json")).read_text()
    assert shown == (ZOO / "README.md").read_text()
    assert all(f"## {path.stem}\n" in shown for path in ZOO.glob("*.onnx"))
