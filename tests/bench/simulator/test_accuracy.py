"""Budgets of accuracy in the simulator: what is counted, what is drawn, and that the loss keeps to the budget."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.samples import KINDS
from bench.simulator.accuracy import answers_of, collect, lost, main, simulated
from collage.figures import Row, read_figures
from collage.model_info import ErrorRate
from models.calibrate import write_sidecar
from tests.onnx_models import save_collage_cnn

TABLE = (ErrorRate(0.0, 0.5, 0.0, 0.5), ErrorRate(0.5, 0.0, 0.0, 0.0))
SURE, UNSURE = 0.75, 0.25


def line(model: str, image: int, confidence: float, right: bool) -> str:
    told = {"model": model, "image": str(image), "label": 1, "prediction": int(right), "confidence": confidence}
    return json.dumps(told) + "\n"


def evaluated(path: Path) -> Path:
    """100 images that the s-cnn has right: the collage-cnn is sure of 80 and right; of 20 it is not, half are right."""
    lines = [line("pets-s-cnn", image, 0.9, right=True) for image in range(100)]
    lines += [line("pets-collage-5x5", image, SURE, right=True) for image in range(80)]
    lines += [line("pets-collage-5x5", image, UNSURE, right=image % 2 == 0) for image in range(80, 100)]
    path.write_text("".join(lines))
    return path


def test_answers_are_counted_by_confidence_and_by_who_is_right(tmp_path: Path) -> None:
    with evaluated(tmp_path / "evaluate.jsonl").open() as lines:
        rows = list(collect(lines))
    assert {row["model"] for row in rows} == {"pets-collage-5x5"}
    assert len(rows) == 60
    counts = np.array([[row[kind] for kind in KINDS] for row in rows])
    assert counts.sum(0).tolist() == [90, 0, 10, 0]
    confidences = np.array([row["confidence"] for row in rows], float)
    assert (np.diff(confidences) >= 0).all()
    assert counts[confidences == UNSURE].sum() + counts[confidences == SURE].sum() == 100


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    write_sidecar(save_collage_cnn(tmp_path / "pets-collage-5x5.onnx", k=5, accept_threshold=0.125), TABLE)
    return tmp_path


COUNTED: list[Row] = [
    {"model": "pets-collage-5x5", "confidence": confidence, **dict(zip(KINDS, counts, strict=True))}
    for confidence, counts in ((UNSURE, (10, 0, 10, 0)), (SURE, (70, 5, 5, 0)))
]


def test_answers_are_drawn_as_they_were_counted(zoo: Path) -> None:
    answers = answers_of("pets-collage-5x5", COUNTED, zoo)
    assert (answers.accept, [step.errors for step in answers.errors]) == (0.125, [0.5, 0.0])
    drawn = answers.draw(20_000, 0)
    unsure = drawn.confidence == np.float32(UNSURE)
    assert unsure.mean() == pytest.approx(0.2, abs=0.02)
    assert drawn.coded_right[unsure].mean() == pytest.approx(0.5, abs=0.03)
    assert drawn.s_cnn_right[unsure].all()
    assert drawn.s_cnn_right[~unsure].mean() == pytest.approx(75 / 80, abs=0.01)
    assert lost(answers, drawn.confidence[:100]).tolist() == np.where(unsure[:100], 0.5, 0.0).tolist()


def test_a_model_without_a_table_or_without_answers_is_named(zoo: Path) -> None:
    with pytest.raises(ValueError, match="pets-collage-5x5 has no counted answers"):
        answers_of("pets-collage-5x5", [], zoo)
    save_collage_cnn(zoo / "pets-collage-4x4.onnx", k=4)
    with pytest.raises(ValueError, match="pets-collage-4x4 has no table of errors"):
        answers_of("pets-collage-4x4", [{**COUNTED[0], "model": "pets-collage-4x4"}], zoo)


def test_the_loss_keeps_to_the_budget_and_stragglers_pay_in_latency_last(zoo: Path) -> None:
    answers = answers_of("pets-collage-5x5", COUNTED, zoo)
    free, bound = (simulated("m", answers, "transient", budget, 0, 3000, warm_up=5) for budget in (None, 0.002))
    assert float(free["loss"] or 0) > 0.01
    assert float(bound["loss"] or 0) <= 0.002 + 2 / 3000, "half of a burst is there at the start"
    assert bound["loss"] == pytest.approx(bound["spent"])
    assert float(bound["coded_share"] or 0) < float(free["coded_share"] or 0)
    assert free["accuracy_available"] == bound["accuracy_available"]


def test_the_command_counts_and_simulates(zoo: Path) -> None:
    answers, curve = zoo / "coded-answers.json", zoo / "curve.json"
    model = ("--models", "pets-collage-5x5")
    assert main(["collect", str(evaluated(zoo / "evaluate.jsonl")), *model, "--out", str(answers)]) == 0
    few = ("--families", "constant", "--requests", "200", "--seeds", "1")
    assert main(["run", "--answers", str(answers), "--zoo", str(zoo), *model, *few, "--out", str(curve)]) == 0
    rows = read_figures(curve)
    assert [row["budget"] for row in rows] == [None, 0.005, 0.002, 0.001, 0.0005, 0.0]
    assert {(row["family"], row["requests"], row["workers"]) for row in rows} == {("constant", 200, 100)}
