"""What calibration and evaluation figures are made of: which images, whose answers, and of which size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from collage.figures import Row
from models import calibrate, evaluate
from models.data import Dataset, Split, load
from models.evaluate import accuracy, completed, timed
from models.measure import ImageAnswer, OnnxModel, classify, classify_collages
from tests.onnx_models import save_collage_cnn, save_s_cnn

LABELS = ("0-red", "1-green", "2-blue")
SIDE = 24


@dataclass(frozen=True)
class World:
    """Pictures of noisy colours, an s-cnn that takes green for blue and blue for green, a collage-cnn that does not."""

    folder: Path
    s_cnn: Path
    collage: Path
    data: Dataset


def picture(colour: int, rng: np.random.Generator) -> Image.Image:
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[..., colour] = rng.integers(90, 256, (SIDE, SIDE))
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Validation images are what they are called; training images are all green, test images all blue."""
    tmp_path = tmp_path_factory.mktemp("world")
    folder, rng = tmp_path / "colours", np.random.default_rng(0)
    for part, counts in (("train", (200, 60, 40)), ("test", (9, 9, 12))):
        for label, count in zip(LABELS, counts, strict=True):
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                picture(1 if part == "train" else 2, rng).save(folder / part / label / f"{number:03d}.png")
    for name in load(folder, 8).validation.ids:
        picture(LABELS.index(name.split("/")[1]), rng).save(folder / name)
    s_cnn = save_s_cnn(tmp_path / "colours-s-cnn.onnx", size=8, labels=LABELS)
    model = onnx.load(s_cnn)
    for tensor in model.graph.initializer:
        if tensor.name == "channels":
            tensor.CopyFrom(numpy_helper.from_array(np.array([0, 2, 1]), "channels"))
    onnx.save(model, s_cnn)
    collage = save_collage_cnn(tmp_path / "colours-collage-2x2.onnx", k=2, cell=6, labels=LABELS)
    return World(folder, s_cnn, collage, load(folder, 8))


def test_calibration_is_by_validation_images_and_agreement_with_the_s_cnn(world: World, tmp_path: Path) -> None:
    file = tmp_path / "collage.onnx"
    file.write_bytes(world.collage.read_bytes())
    calibrate.main(["--data", str(world.folder), "--s-cnn", str(world.s_cnn), "--collage", str(file)])
    info = OnnxModel(file).info
    labels = world.data.validation.labels
    red = (labels == 0).mean()
    assert 0.5 < red < 0.9
    # The s-cnn is right about red, as a part of the truth; the collage-cnn, which is always right, agrees there.
    assert info.extra["calibration"] == {
        "coverage": 1.0,
        "agreement": pytest.approx(red, abs=1e-4),
        "target": pytest.approx(red, abs=1e-4),
    }
    # All cells are accepted, from the least sure one on: in cells that are made of the s-cnn's input.
    collage = OnnxModel(world.collage)
    least = {
        size: min(
            one.confidence
            for seed in range(3)
            for one in classify_collages(collage, load(world.folder, size).validation, seed)
        )
        for size in (8, 12, SIDE)
    }
    assert info.accept_threshold == pytest.approx(least[8], abs=1.01e-4)
    assert min(abs(least[8] - least[size]) for size in (12, SIDE)) > 5e-4, "a difference that this test can see"


def test_other_images_or_the_truth_would_calibrate_otherwise(world: World) -> None:
    s_cnn, collage = OnnxModel(world.s_cnn), OnnxModel(world.collage)
    validation = world.data.validation
    found = calibrate.calibrate(list(classify(s_cnn, validation)), collage, validation)
    for part in (world.data.train, world.data.test):
        other = calibrate.calibrate(list(classify(s_cnn, part)), collage, part)
        assert abs(other.target - found.target) > 0.1
        assert abs(other.agreement - found.agreement) > 0.1


class CountingModel(OnnxModel):
    """Counts the inputs that it is given."""

    count = 0

    def __call__(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        self.count += len(pixels)
        return super().__call__(pixels)


def test_calibration_is_by_three_placements_of_every_image(world: World) -> None:
    s_cnn, collage = OnnxModel(world.s_cnn), CountingModel(world.collage)
    calibrate.calibrate(list(classify(s_cnn, world.data.validation)), collage, world.data.validation)
    assert collage.count == 3 * -(-len(world.data.validation) // 4)


def answers(*given: tuple[str, int, int | None, float]) -> list[ImageAnswer]:
    return [ImageAnswer(image, label, guess, confidence, seed=0) for image, label, guess, confidence in given]


def test_accepted_answers_are_compared_with_the_s_cnn_and_with_the_truth(world: World, tmp_path: Path) -> None:
    file = save_collage_cnn(tmp_path / "collage.onnx", accept_threshold=0.5)
    given = answers(
        ("right as the s-cnn", 1, 1, 0.9),
        ("right, the s-cnn is not", 1, 1, 0.8),
        ("wrong as the s-cnn", 1, 2, 0.5),
        ("wrong, the s-cnn is not", 1, 2, 0.7),
        ("wrong, the s-cnn is otherwise", 1, 2, 0.7),
        ("unsure", 1, 1, 0.49),
        ("empty", 1, None, 0.0),
        ("empty too", 1, None, 0.0),
    )
    s_cnn = [1, 0, 2, 1, 0, 1, 1, 1]
    reference = {answer.image: guess for answer, guess in zip(given, s_cnn, strict=True)}
    row = accuracy(OnnxModel(file), given, reference)
    assert (row["answered_share"], row["empty_share"], row["coverage"]) == (6 / 8, 2 / 8, 5 / 8)
    assert (row["covered_agreement"], row["covered_top1"], row["top1"]) == (2 / 5, 2 / 5, 3 / 8)
    reference["wrong as the s-cnn"] = 0
    assert accuracy(OnnxModel(file), given, reference)["covered_agreement"] == 1 / 5


def test_a_row_compares_with_the_s_cnn_of_its_data_set(world: World, tmp_path: Path) -> None:
    sure = save_collage_cnn(tmp_path / "sure.onnx", k=2, cell=6, labels=LABELS, accept_threshold=0.1)
    models = {"s-cnn": OnnxModel(world.s_cnn), "collage-2x2": OnnxModel(sure), "unsure": OnnxModel(world.collage)}
    rows, _ = evaluate.evaluate("colours", models, lambda size: load(world.folder, size).validation, 2, 1)
    row, unsure = (next(row for row in rows if row["role"] == role) for role in ("collage-2x2", "unsure"))
    red = (world.data.validation.labels == 0).mean()
    assert (row["answered_share"], row["coverage"], row["covered_top1"]) == (1, 1, 1)
    assert row["covered_agreement"] == pytest.approx(red, abs=0.02)
    assert (unsure["answered_share"], unsure["coverage"], unsure["covered_agreement"]) == (1, 0, None)


class Splits:
    """Images of the sizes that are asked for; remembers these."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []

    def __call__(self, size: int) -> Split:
        self.asked.append(size)
        return load(self.folder, size).validation


def test_cells_are_made_of_the_s_cnns_input(world: World, tmp_path: Path) -> None:
    models = {
        "s-cnn": OnnxModel(world.s_cnn),
        "s-cnn-small": OnnxModel(save_s_cnn(tmp_path / "small.onnx", size=6)),
        "collage-2x2": OnnxModel(world.collage),
        "rival-lowres": OnnxModel(save_s_cnn(tmp_path / "rival.onnx", size=4)),
    }
    splits = Splits(world.folder)
    given = evaluate.answer(models, splits, seeds=1)
    assert splits.asked == [8, 6, 8, 8]
    expected = list(classify_collages(models["collage-2x2"], world.data.validation, 0))
    assert given["collage-2x2"] == expected
    assert len(given["rival-lowres"]) == len(world.data.validation)


def test_nine_images_are_timed_as_nine_and_one_as_one(world: World, tmp_path: Path) -> None:
    threes = OnnxModel(save_collage_cnn(tmp_path / "threes.onnx", k=3, cell=4))
    models = {"s-cnn": OnnxModel(world.s_cnn), "collage-2x2": OnnxModel(world.collage), "collage-3x3": threes}
    calls = timed(models, world.data.validation)
    for turn in (0, 1, 31):
        assert calls["s-cnn", "latency_s"](turn)[0].shape == (1, 3)
        assert calls["s-cnn", "nine_s"](turn)[0].shape == (9, 3)
        assert calls["collage-3x3", "latency_s"](turn)[0].shape == (1, 9, 4), "nine images in one collage"
        assert calls["collage-2x2", "latency_s"](turn)[0].shape == (1, 4, 4)
        assert len(set(calls["collage-2x2", "latency_s"](turn)[1][0].tolist())) == 4, "four different images"
    assert ("collage-2x2", "nine_s") not in calls
    one, nine = calls["s-cnn", "latency_s"], calls["s-cnn", "nine_s"]
    different = {tuple(one(turn)[0][0].tolist()) for turn in range(9)}
    assert len(different) == 9, "turn by turn another image"
    assert {tuple(row) for row in nine(0)[0].tolist()} == different, "nine different images"
    seconds = evaluate.latency(models, world.data.validation, repeats=2)
    assert seconds["collage-3x3"]["nine_s"] == seconds["collage-3x3"]["latency_s"]
    assert "nine_s" not in seconds["collage-2x2"]


def test_encoding_and_decoding_are_timed_on_whole_groups(world: World) -> None:
    models = {"s-cnn": OnnxModel(world.s_cnn), "collage-2x2": OnnxModel(world.collage)}
    calls = timed(models, world.data.validation)
    (collage,) = calls["collage-2x2", "encode_s"](0)
    group = [world.data.validation.images[cell] for cell in range(4)]
    np.testing.assert_array_equal(collage, models["collage-2x2"].code.encode(group)[0])
    assert set(calls["collage-2x2", "decode_s"](0)) == {0, 1, 2, 3}
    (papers,) = calls["code", "encode_s"](0)
    assert papers.shape == (416, 416, 3)
    assert set(calls["code", "decode_s"](0)) == set(range(9))


def test_rows_of_other_models_are_kept_with_what_made_them() -> None:
    old = {"command": "measure", "commit": "old", "machine": "Abacus"}
    earlier: list[Row] = [
        {"dataset": "pets", "model": "pets-s-cnn", "top1": 0.5, **old},
        {"dataset": "pets", "model": "pets-collage-2x2", "top1": 0.25, **old},
        {"dataset": "birds", "model": "birds-s-cnn", "top1": 0.75, **old, "command": "other"},
    ]
    measured: Row = {"dataset": "pets", "model": "pets-s-cnn", "top1": 0.625}
    assert completed([measured], earlier) == [measured, *earlier[1:]]
