import numpy as np
import pytest

from models.calibrate import find_threshold
from models.measure import risk_coverage


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
