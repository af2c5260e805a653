import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from collage.model_files import sidecar
from collage.model_info import ErrorRate
from models.calibrate import Calibration, Compared, compare, error_rates, find_threshold, main, write_calibration
from models.data import load
from models.measure import ImageAnswer, OnnxModel, risk_coverage
from tests.onnx_models import COLOURS, save_collage_cnn, save_s_cnn, solid


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
    rates = (ErrorRate(0.0, 0.25, 0.125, 0.5), ErrorRate(0.5, 0.0, 0.125, 0.0))
    write_calibration(path, Calibration(0.75, 0.9, 0.96, 0.95, rates))
    info = OnnxModel(path).info
    assert info.accept_threshold == 0.75
    assert info.errors == rates
    calibration = {"coverage": 0.9, "agreement": 0.96, "target": 0.95}
    assert info.extra == {"dataset": "pets", "calibration": calibration}
    assert before.read_bytes() == content, "others may be reading it"


@pytest.mark.parametrize(("found", "written"), [(0.99996, 0.9999), (0.12345, 0.1234), (1.0, 1.0)])
def test_a_written_threshold_accepts_what_was_found_to_reach_it(tmp_path: Path, found: float, written: float) -> None:
    path = save_collage_cnn(tmp_path / "collage.onnx")
    write_calibration(path, Calibration(found, 0.9, 0.96, 0.95))
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


# What answers cost


def answers(*predictions: int | None, image: str = "{}", confidence: float = 0.5) -> list[ImageAnswer]:
    """Answers to images of class 1."""
    return [ImageAnswer(image.format(place), 1, each, confidence) for place, each in enumerate(predictions)]


def test_coded_answers_are_compared_with_the_s_cnns_of_the_same_images() -> None:
    own, coded = answers(1, 1, 0, 0, 0, 1), answers(1, 0, 1, 0, 2, None)
    found = compare(own, [*reversed(coded), coded[1]])
    assert found.images.tolist() == [4, 3, 2, 1, 0, 1], "an empty cell is no answer"
    assert found.lost.tolist() == [0, 0, -1, 1, 0, 1]
    assert found.differs.tolist() == [True, False, True, True, False, True]
    assert found.confidences.tolist() == [0.5] * 6


def compared(*groups: tuple[float, int, int, int]) -> Compared:
    """Of each confidence: how many answers there are, how many the s-cnn alone has right, the collage-cnn alone."""
    confidences = np.repeat([group[0] for group in groups], [group[1] for group in groups])
    lost = np.concatenate([[1] * a + [-1] * b + [0] * (count - a - b) for _, count, a, b in groups]).astype(np.int64)
    return Compared(confidences, np.arange(len(lost)), lost, lost != 0)


def test_errors_and_differences_are_told_by_confidence() -> None:
    low, high = error_rates(compared((0.25, 100, 50, 10), (0.75, 400, 8, 4)))
    assert (low.confidence, low.errors, low.differs) == (0.0, 0.4, 0.6)
    assert (high.confidence, high.errors, high.differs) == (0.75, 0.01, 0.03)
    assert low.standard_error == pytest.approx(np.sqrt(60 - 100 * 0.4**2 + 1) / 100, abs=1e-5)
    assert high.standard_error == pytest.approx(np.sqrt(12 - 400 * 0.01**2 + 1) / 400, abs=1e-5)


def test_answers_that_all_agree_may_still_differ_once() -> None:
    assert error_rates(compared((0.5, 200, 0, 0))) == (ErrorRate(0.0, 0.0, 0.005, 0.0),)


def test_surer_answers_never_cost_more() -> None:
    one, two = error_rates(compared((0.2, 100, 40, 0), (0.4, 100, 10, 0), (0.6, 100, 20, 0)))
    assert (one.confidence, one.errors) == (0.0, 0.4)
    assert (two.confidence, two.errors) == (0.4, 0.15)


def test_where_the_collage_cnn_is_the_better_one_its_answers_cost_nothing() -> None:
    rates = error_rates(compared((0.2, 100, 40, 0), (0.5, 100, 4, 8), (0.6, 100, 4, 12)))
    assert [(rate.confidence, rate.errors, rate.differs) for rate in rates] == [(0.0, 0.4, 0.4), (0.5, 0.0, 0.14)]


def test_the_table_has_a_few_steps_of_those_that_differ_most() -> None:
    rates = error_rates(compared(*((0.1 * step, 100, 60 - 10 * step, 0) for step in range(1, 6))), most=2)
    assert [(round(rate.confidence, 3), rate.errors) for rate in rates] == [(0.0, 0.45), (0.3, 0.2)]
    rng = np.random.default_rng(0)
    confidences = rng.random(20_000)
    wrong = rng.random(20_000) > confidences
    rates = error_rates(Compared(confidences, np.arange(20_000), wrong.astype(np.int64), wrong))
    assert len(rates) == 8
    for rate, following in pairwise(rates):
        middle = 1 - (rate.confidence + following.confidence) / 2
        assert rate.errors == pytest.approx(middle, abs=0.02)


def test_the_image_is_the_unit_of_the_standard_error() -> None:
    """Four placements of an image that is lost in all of them say no more than one."""
    once = compared((0.5, 100, 20, 0))
    often = Compared(*(np.repeat(values, 4) for values in vars(once).values()))
    (single,), (repeated,) = error_rates(once), error_rates(often)
    assert repeated.errors == single.errors
    assert repeated.standard_error == pytest.approx(single.standard_error, rel=0.04)


def test_no_answers_make_no_table() -> None:
    assert error_rates(compare(answers(1), answers(None))) == ()


# The command


def colours(path: Path) -> Path:
    for part, count in (("train", 20), ("test", 5)):
        for colour in COLOURS:
            folder = path / part / colour
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(solid(colour, 8)).save(folder / f"{number}.png")
    return path


def calibrated(tmp_path: Path, data: Path, *flags: str) -> Path:
    s_cnn = save_s_cnn(tmp_path / "one.onnx", size=8)
    collage = save_collage_cnn(tmp_path / "four.onnx", k=2, cell=8)
    main(["--data", str(data), "--s-cnn", str(s_cnn), "--collage", str(collage), *flags])
    return collage


def test_only_validation_images_are_used(tmp_path: Path) -> None:
    """All others turn into images of another class, which changes nothing; then one of these does."""
    data = colours(tmp_path / "colours")
    before = OnnxModel(calibrated(tmp_path, data)).info
    assert before.extra["calibration"]["target"] == 1
    assert before.errors == (ErrorRate(0.0, 0.0, round(1 / 18, 5), 0.0),), "6 images in 3 placements"
    kept = {str(data / name) for name in load(data, 8).validation.ids}
    others = [file for file in data.rglob("*.png") if str(file) not in kept]
    assert len(others) == 75 - 6
    for file in others:
        wrong = COLOURS[(COLOURS.index(file.parent.name) + 1) % 3]
        Image.fromarray(solid(wrong, 8)).save(file)
    assert OnnxModel(calibrated(tmp_path, data)).info == before
    Image.fromarray(solid("red", 8)).save(next(file for file in kept if "/blue/" in file))
    after = OnnxModel(calibrated(tmp_path, data)).info
    assert after.extra["calibration"]["target"] == pytest.approx(5 / 6, abs=1e-4)


def test_a_table_may_go_into_the_sidecar_and_leave_the_model_as_it_is(tmp_path: Path) -> None:
    data = colours(tmp_path / "colours")
    file = tmp_path / "four.onnx"
    sidecar(file).write_text(json.dumps({"labels": ["r", "g", "b"]}))
    calibrated(tmp_path, data, "--sidecar")
    described = OnnxModel(file).info
    assert (described.labels, described.accept_threshold) == (("r", "g", "b"), 1.0)
    assert described.errors == (ErrorRate(0.0, 0.0, round(1 / 18, 5), 0.0),)
    sidecar(file).unlink()
    assert OnnxModel(file).info.errors == ()
    assert "calibration" not in OnnxModel(file).info.extra
