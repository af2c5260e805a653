from pathlib import Path

import numpy as np
import pytest

from models.calibrate import Calibration, find_threshold, write_threshold
from models.measure import OnnxModel, risk_coverage
from tests.onnx_models import save_collage_cnn


def test_the_threshold_covers_as_much_as_it_may() -> None:
    confidences = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    agrees = np.array([True, True, False, True, False])
    found = find_threshold(confidences, agrees, target=0.75)
    assert (found.threshold, found.coverage, found.agreement) == (0.6, 0.8, 0.75)
    assert find_threshold(confidences, agrees, target=0.9).threshold == 0.8


def test_equal_confidences_are_accepted_together() -> None:
    found = find_threshold(np.array([0.9, 0.8, 0.8, 0.8]), np.array([True, True, False, False]), target=0.6)
    assert (found.threshold, found.coverage) == (0.9, 0.25)


def test_a_hopeless_model_is_never_sure() -> None:
    found = find_threshold(np.array([0.9, 0.8]), np.array([False, False]), target=0.9)
    assert (found.threshold, found.coverage) == (1.0, 0.0)


def test_a_threshold_is_written_into_a_new_file(tmp_path: Path) -> None:
    path, before = save_collage_cnn(tmp_path / "collage.onnx", extra={"dataset": "pets"}), tmp_path / "before"
    before.hardlink_to(path)
    content = before.read_bytes()
    write_threshold(path, Calibration(0.75, 0.9, 0.96, 0.95))
    info = OnnxModel(path).info
    assert info.accept_threshold == 0.75
    calibration = {"coverage": 0.9, "agreement": 0.96, "target": 0.95}
    assert info.extra == {"dataset": "pets", "calibration": calibration}
    assert before.read_bytes() == content, "others may be reading it"


@pytest.mark.parametrize(("found", "written"), [(0.99996, 0.9999), (0.12345, 0.1234), (1.0, 1.0)])
def test_a_written_threshold_accepts_what_was_found_to_reach_it(tmp_path: Path, found: float, written: float) -> None:
    path = save_collage_cnn(tmp_path / "collage.onnx")
    write_threshold(path, Calibration(found, 0.9, 0.96, 0.95))
    assert OnnxModel(path).info.accept_threshold == written


def test_the_curve_ends_with_everything() -> None:
    rng = np.random.default_rng(0)
    confidences = rng.random(1000).round(2)
    agrees = rng.random(1000) < confidences
    thresholds, coverage, agreement = risk_coverage(confidences, agrees)
    assert (np.diff(thresholds) < 0).all()
    assert coverage[-1] == 1
    assert agreement[-1] == pytest.approx(agrees.mean())
    for threshold, share, right in list(zip(thresholds, coverage, agreement, strict=True))[::10]:
        accepted = confidences >= threshold
        assert share == pytest.approx(accepted.mean())
        assert right == pytest.approx(agrees[accepted].mean())
