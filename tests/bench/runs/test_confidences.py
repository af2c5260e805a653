"""How sure and how right models were on validation images, step by step."""

from __future__ import annotations

import numpy as np
import pytest

from bench.offer import measured_models
from bench.runs.confidences import STEPS, main, steps
from bench.samples import KINDS
from models.measure import ImageAnswer


def answers() -> tuple[list[ImageAnswer], dict[str, ImageAnswer]]:
    """100 images of label 1 and rising confidence; the collage-cnn is right from .5 on, the s-cnn but for every fifth.

    The last three cells are empty.
    """
    coded = [ImageAnswer(str(i), 1, 1 if i >= 50 else 0, i / 100) for i in range(100)]
    coded += [ImageAnswer(str(i), 1, None, 0.0) for i in (3, 4, 5)]
    return coded, {str(i): ImageAnswer(str(i), 1, 0 if i % 5 == 0 else 1, 0.9) for i in range(100)}


def test_steps_count_every_answer_once_and_part_at_the_threshold() -> None:
    coded, s_cnn = answers()
    rows = list(steps(coded, s_cnn, accept=0.503))
    assert sum(row[kind] for row in rows for kind in KINDS) == 103  # type: ignore[misc]
    assert [row["confidence"] for row in rows].count(None) == 1
    assert STEPS < len(rows) <= STEPS + 2
    sure = [row for row in rows if row["confidence"] is not None and float(row["confidence"]) >= 0.503]
    assert sum(int(row[kind] or 0) for row in sure for kind in KINDS) == 49
    totals = {kind: sum(int(row[kind] or 0) for row in rows) for kind in KINDS}
    assert totals == {"both_right": 40, "coded_right": 10, "s_cnn_right": 40 + 2, "both_wrong": 10 + 1}
    (empty,) = (row for row in rows if row["confidence"] is None)
    assert (empty["both_right"], empty["coded_right"]) == (0, 0)


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_the_shipped_models_are_measured_for_every_grid(k: int) -> None:
    models = measured_models(k)
    drawn = models.draw(20_000, seed=0)
    assert 0.5 < models.factor < 1
    assert 0.85 < drawn.coded_right.mean() <= drawn.s_cnn_right.mean() + 0.01
    sure = drawn.confidence >= models.accept
    assert sure.mean() > 0.9
    highest = drawn.confidence >= np.quantile(drawn.confidence, 0.5)
    assert drawn.coded_right[highest].mean() > drawn.coded_right[~highest].mean() + 0.05


def test_larger_grids_are_less_accurate() -> None:
    accuracy = [measured_models(k).draw(50_000, 0).coded_right.mean() for k in (2, 3, 4, 5)]
    assert accuracy == sorted(accuracy, reverse=True)
    with pytest.raises(ValueError, match="no models for a grid of 7 x 7"):
        measured_models(7)


def test_a_folder_without_data_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", "/absent"]) == 2
    assert "python -m bench confidences:" in capsys.readouterr().err
