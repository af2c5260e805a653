"""Figures of models by hand: which answers count, for which images, and what is timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder.collage import CollageCode
from encoder.grid import Grid
from models.calibrate import calibrate
from models.data import Split
from models.evaluate import accuracy, answer, differences, timed
from models.measure import ImageAnswer, OnnxModel, classify, coding, decode, inference, medians, top1
from models.tables import SECTION_5_3, report, table
from tests.onnx_models import COLOURS, save_collage_cnn, save_s_cnn, solid


class RecordingModel(OnnxModel):
    """Keeps what it is asked."""

    def __init__(self, source: Path) -> None:
        super().__init__(source)
        self.asked: list[NDArray[np.uint8]] = []

    def __call__(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        self.asked.append(pixels)
        return super().__call__(pixels)


def noise(count: int, size: int) -> Split:
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    return Split(images, np.arange(count) % 3, tuple(map(str, range(count))))


def answers(seed: int, *given: tuple[str, int, int | None, float]) -> list[ImageAnswer]:
    return [ImageAnswer(*each, seed=seed) for each in given]


PLACED = [
    *answers(0, ("a", 0, 0, 0.9), ("b", 0, 1, 0.8), ("c", 1, None, 0.0), ("d", 1, 1, 0.4)),
    *answers(1, ("a", 0, 0, 0.9), ("b", 0, 0, 0.6), ("c", 1, 1, 0.7), ("d", 1, 0, 0.3)),
]
S_CNN = {"a": 0, "b": 1, "c": 0, "d": 1}


@pytest.mark.parametrize(
    ("threshold", "coverage", "right", "agree"), [(0.5, 5 / 8, 4 / 5, 3 / 5), (0.0, 7 / 8, 5 / 7, 4 / 7)]
)
def test_accuracy_coverage_and_agreement_are_of_the_answers_they_are_told_of(
    tmp_path: Path, threshold: float, coverage: float, right: float, agree: float
) -> None:
    model = OnnxModel(save_collage_cnn(tmp_path / "collage.onnx", accept_threshold=threshold))
    row = accuracy(model, PLACED, S_CNN)
    assert row == {
        "answers": 8, "top1": 5 / 8, "top1_seed_0": 2 / 4, "top1_seed_1": 3 / 4, "top1_spread": 1 / 4,
        "empty_share": 1 / 8, "answered_share": 7 / 8, "agreement": 4 / 8, "accept_threshold": threshold,
        "coverage": coverage, "covered_top1": pytest.approx(right), "covered_agreement": pytest.approx(agree),
    }  # fmt: skip
    assert top1(PLACED[:3]) == 1 / 3, "an empty cell is wrong"


def test_every_seed_places_images_differently(tmp_path: Path) -> None:
    one = OnnxModel(save_s_cnn(tmp_path / "one.onnx", size=8))
    collage = RecordingModel(save_collage_cnn(tmp_path / "four.onnx", k=2, cell=4))
    assert (
        len(answer({"s-cnn": one, "collage-2x2": collage}, lambda size: noise(8, size), seeds=2)["collage-2x2"]) == 16
    )
    assert len({pixels.tobytes() for pixels in collage.asked}) == 4
    collage.asked.clear()
    calibrate(list(classify(one, noise(8, 8))), collage, noise(8, 8), seeds=3)
    assert len({pixels.tobytes() for pixels in collage.asked}) == 6


def test_a_collage_cnn_is_timed_with_other_images_every_turn_and_decodes_what_it_finds(tmp_path: Path) -> None:
    one = OnnxModel(save_s_cnn(tmp_path / "one.onnx", size=8))
    collage = RecordingModel(save_collage_cnn(tmp_path / "nine.onnx", k=3, cell=4, detection_threshold=0.0))
    split = noise(40, 8)
    calls = timed({"s-cnn": one, "collage-3x3": collage}, split)
    collage.asked.clear()
    calls["collage-3x3", "latency_s"](0)
    calls["collage-3x3", "latency_s"](1)
    for turn, pixels in enumerate(collage.asked):
        (wanted,) = collage.code.encode(list(split.images[turn : turn + 9]))
        np.testing.assert_array_equal(pixels, wanted[None])
    decoded = calls["collage-3x3", "decode_s"](0)
    assert {len(found.output) for found in decoded.values()} == {len(COLOURS)}


def test_answers_are_told_of_their_own_images(tmp_path: Path) -> None:
    model = OnnxModel(save_s_cnn(tmp_path / "one.onnx", size=8))
    colours = [number % 3 for number in (0, 1, 2, 2, 1, 0, 0)]
    images = np.stack([solid(COLOURS[colour], 8) for colour in colours])
    split = Split(images, np.array(colours), tuple("abcdefg"))
    found = list(classify(model, split, batch=3))
    assert [each.image for each in found] == list("abcdefg")
    assert [each.prediction for each in found] == [each.label for each in found] == colours
    assert found[0].confidence == pytest.approx(np.e / (np.e + 2)), "of scores 1, 0, 0"


def test_a_batch_starts_again_where_the_images_end(tmp_path: Path) -> None:
    one = RecordingModel(save_s_cnn(tmp_path / "one.onnx", size=8))
    images = noise(4, 8).images
    call = inference(one, images, 3)
    call(3)
    np.testing.assert_array_equal(one.asked[0], images[[3, 0, 1]])
    call(4)
    np.testing.assert_array_equal(one.asked[1], images[[0, 1, 2]])


def test_medians_take_turns_after_a_warm_up_and_are_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, took = [0.0], {"first": iter([50.0, 1.0, 2.0, 9.0]), "second": iter([50.0, 3.0, 8.0, 4.0])}
    told: list[tuple[str, int]] = []

    def call(name: str) -> Callable[[int], Any]:
        def work(turn: int) -> None:
            told.append((name, turn))
            clock[0] += next(took[name])

        return work

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    assert medians([call("first"), call("second")], 3) == [2.0, 4.0]
    assert told == [("first", 0), ("second", 0), *((name, turn) for turn in range(3) for name in ("first", "second"))]


def test_detections_are_decoded_from_the_models_own_threshold_on(tmp_path: Path) -> None:
    strict = OnnxModel(save_collage_cnn(tmp_path / "strict.onnx", detection_threshold=0.999))
    usual = OnnxModel(save_collage_cnn(tmp_path / "usual.onnx"))
    cells = [solid("red", 4) // 2] * 4  # detected with confidence one half
    for model, count in ((usual, 4), (strict, 0)):
        (collage,) = model.code.encode(cells)
        assert len(decode(model.code, model.detect(collage))) == count


def test_a_typical_decoding_has_two_detections_a_cell() -> None:
    encode, decoded = coding(CollageCode(Grid(3, 24)), list(noise(9, 8).images))
    assert len(decoded(0)) == 9  # type: ignore[arg-type]
    assert encode(0)[0].shape == (24, 24, 3)  # type: ignore[index]


def test_published_accuracies_differ_in_both_directions() -> None:
    published = [{"model": "m", "top1": 0.9}]
    assert differences([{"model": "m", "top1": 0.904}], published) == ["m: top-1 90.40 %, published 90.00 %"]
    assert differences([{"model": "m", "top1": 0.896}], published) == ["m: top-1 89.60 %, published 90.00 %"]
    assert differences([{"model": "m", "top1": 0.9029}, {"model": "code", "top1": None}], published) == []


def test_tables_are_in_percent_milliseconds_and_megabytes() -> None:
    row = {"model": "m", "k": 3, "size": 96, "storage": "int8", "size_bytes": 2_340_000, "latency_s": 0.01234}
    rows = [{**row, "latency_ratio": 1.5, "encode_s": 0.00052, "decode_s": 0.123, "role": "s-cnn", "kind": "s-cnn"}]
    assert table(rows, SECTION_5_3).splitlines()[-1] == "| m | 3 | 96 | int8 | 2.3 | 12.3 | 1.50 | 0.52 | 123 |"
    rival = {**rows[0], "model": "r", "role": "rival-x", "nine_s": 0.03, "top1": 0.9123}
    _, fig6, alone, nine = report("d", [*rows, rival]).split("## ")
    assert "| r |" not in fig6 + alone
    assert "| r | 3 | 96 |  | int8 | 2.3 | 30 |  |  | 91.23 |" in nine
