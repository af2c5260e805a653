"""Localisers and their parity models: boxes as targets, training, export, figures, and a served box."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.cluster.local import Cluster
from bench.runs.codes import main as measure
from collage.client import Client
from collage.figures import read_figures
from collage.model_info import ModelInfo
from encoder.linear import LinearCode, mean_weights
from encoder.tasks import TASKS
from models import boxes, checkpoint, coding, zoo
from models.augment import augment
from models.data import Dataset, load
from models.evaluate import main as evaluate
from models.export import accuracy, export
from models.measure import OnnxModel
from models.recipes.tiny_imagenet import TINY_IMAGENET_BOXES
from models.steps import S_CNN, Protection, Recipe, Step
from models.tasks.localisation import LocaliseObjects, overlap
from models.tasks.parity import ProtectGroups
from models.train import describe, run
from models.trainer import Trainer
from tests.models.datasets import write_tiny
from tests.models.exports import LOG, RECIPE, trained

NAME = "tiny-imagenet-boxes-3"
OPTIONS = {"widths": [8, 8, 8, 8], "stem": "small"}
BOX = TASKS["localisation"]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("data") / NAME, per_class=20, held_out=11)


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return load(folder, 64)


def random_boxes(count: int) -> np.ndarray:
    """Float32 ``[count, 4]``, within their images."""
    corners = RNG.random((count, 2, 2), np.float32)
    return np.concatenate((corners.min(1), corners.max(1)), 1)


def bright(image: np.ndarray) -> np.ndarray:
    """Where an image of ``write_tiny`` is bright: its object's box."""
    shine = image.astype(int).mean(2) > 127
    rows, columns = (np.flatnonzero(shine.mean(axis) > 0.12) for axis in (1, 0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / image.shape[0]


def test_every_image_has_its_objects_box(folder: Path, data: Dataset) -> None:
    assert (data.name, data.labels) == (NAME, ())
    assert [len(part) for part in (data.train, data.validation, data.test)] == [54, 6, 11]
    for part in (data.train, data.validation, data.test):
        assert part.boxes is part.truth
        assert part.truth.dtype == np.float32
        for image, box in zip(part.images, part.truth, strict=True):
            np.testing.assert_allclose(bright(image), box, atol=4 / 64)
    last = (folder / "val" / "val_annotations.txt").read_text().splitlines()[-1].split("\t")
    assert data.test.ids[-1].endswith(last[0])
    assert (64 * data.test.truth[-1] - [0, 0, 1, 1]).tolist() == [int(side) for side in last[2:]]
    chosen = data.train.take(np.array([3, 1]))
    np.testing.assert_array_equal(chosen.truth, data.train.truth[[3, 1]])


@pytest.mark.parametrize(("size", "shift", "crop"), [(64, 9, 0.0), (48, 0, 0.0), (64, 0, 0.4)])
def test_boxes_move_with_what_is_seen(data: Dataset, size: int, shift: int, crop: float) -> None:
    """A picture of the object alone varies as its image does, and its edges are where the moved box says."""
    truth = data.train.truth
    masks = np.zeros_like(data.train.images)
    for mask, (left, top, right, bottom) in zip(masks, (64 * truth).astype(int), strict=True):
        mask[top:bottom, left:right] = 200
    shown, flipped, windows = augment(
        torch.from_numpy(masks), size, np.random.default_rng(2), shift=shift, crop=crop, flip=True
    )
    assert 10 < flipped.sum() < 44
    found = boxes.seen(truth, windows, flipped)
    assert found.dtype == np.float32
    for image, box in zip(shown.numpy() > 90, found, strict=True):
        rows, columns = (np.flatnonzero(image[..., 0].any(axis)) for axis in (1, 0))
        edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / size
        np.testing.assert_allclose(edges, box, atol=1.01 / size if crop else 1e-6)


def test_the_best_constant_box_is_found() -> None:
    cluster = np.array([[0.25, 0.25, 0.75, 0.75]] * 5 + [[0.25, 0.25, 0.75, 1]], np.float32)
    assert boxes.constant(cluster) == (0.25, 0.25, 0.75, 0.75)
    wide = random_boxes(300)
    best = boxes.constant(wide)
    score = boxes.overlaps(wide, best).mean()
    for other in random_boxes(200):
        assert boxes.overlaps(wide, other).mean() <= score + 0.01
    expected = [BOX.score(box, np.array(best, np.float32)) for box in wide]
    np.testing.assert_allclose(boxes.overlaps(wide, best), expected, atol=1e-5)


def test_the_task_scores_boxes_as_a_caller_gets_them() -> None:
    out, truth = RNG.normal(0.5, 0.5, (200, 4)).astype(np.float32), random_boxes(200)
    scores = LocaliseObjects().score(lambda _: torch.from_numpy(out), torch.empty(0), torch.from_numpy(truth))
    expected = [BOX.score(one, other) for one, other in zip(out, truth, strict=True)]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_the_loss_leads_to_the_box() -> None:
    task, truth = LocaliseObjects(), torch.from_numpy(random_boxes(64))
    assert float(task.batch(torch.empty(64), truth, RNG).loss(truth)) == pytest.approx(0, abs=1e-6)
    apart = torch.tensor([[0.0, 0.0, 0.25, 0.25]]), torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    assert float(task.loss(*apart)) == pytest.approx(1 + 0.5 + 0.5 + 0.75 + 0.75)
    half = torch.tensor([[0.0, 0.0, 1.0, 0.5]]), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert float(task.loss(*half)) == pytest.approx(0.5 + 0.5)
    torch.testing.assert_close(task.moved(truth, truth + 1, 0.25), truth + 0.25)


def test_a_parity_model_of_boxes_is_scored_and_taught_by_them() -> None:
    truth = torch.from_numpy(random_boxes(6))
    own = truth + 0.01
    task = ProtectGroups(LinearCode(mean_weights(2, 1)), 0, lambda _: own, task=LocaliseObjects())
    images, mean = torch.zeros(6, 4, 4, 3, dtype=torch.uint8), own.view(3, 2, 4).mean(1)
    scores = task.score(lambda _: mean, images, truth)
    torch.testing.assert_close(scores, overlap(own.clamp(0, 1), truth))
    assert float(task.batch(images, truth, RNG).loss(mean)) == pytest.approx(0, abs=1e-6)
    full = ProtectGroups(task.code, 0, lambda _: own, 0.5, 0.25, task=LocaliseObjects())
    wanted = truth + 0.0025
    expected = 0.5 * LocaliseObjects().loss(own, wanted)
    torch.testing.assert_close(full.batch(images, truth, RNG).loss(mean), expected)


def test_boxes_are_learnt(data: Dataset) -> None:
    spec = describe(data, "resnet18", 64, 1, dict(OPTIONS))
    assert (spec.task, spec.outputs) == ("localisation", 4)
    trainer = Trainer(spec, data, Recipe(epochs=12, batch=18, shift=2, sgd_lr=0.02), "cpu", "fp32")
    before = trainer.score(data.train)
    while not trainer.finished:
        trainer.run_epoch()
    assert trainer.log[-1]["loss"] < 0.8 * trainer.log[0]["loss"]
    assert trainer.score(data.train) > max(before, float(boxes.overlaps(data.train.truth, [0, 0, 1, 1]).mean()))


@pytest.mark.parametrize("change", [{"mix": 0.5}, {"mixup": 0.5}])
def test_images_whose_boxes_are_to_be_found_are_not_mixed(data: Dataset, change: dict[str, float]) -> None:
    spec = describe(data, "resnet18", 64, 1, dict(OPTIONS))
    with pytest.raises(ValueError, match="mix nothing"):
        Trainer(spec, data, Recipe(batch=18, **change), "cpu", "fp32")  # type: ignore[arg-type]


def test_other_models_do_not_find_boxes(folder: Path, tmp_path: Path) -> None:
    for step in (
        Step("collage-tiny", size=32, k=3, recipe=Recipe(batch=18)),
        Step("learned-mlp", size=64, protects=Protection("learned", 2), base=str(tmp_path / "base.pt")),
    ):
        with pytest.raises(ValueError, match="boxes are for models of single images"):
            run(step, folder, tmp_path / "out.pt", device="cpu", threads=1)


def test_the_zoo_has_a_localiser_and_its_parity_models(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "tiny-imagenet-boxes-200"
    link.symlink_to(folder)
    made = list(zoo.entries([link], tmp_path, tmp_path, ["*"]))
    assert [entry.role for entry in made] == [S_CNN, "parity-addition-2", "parity-stacked-2"]
    assert all(entry.onnx.parent == tmp_path / "zoo" for entry in made), "none ships"
    step = TINY_IMAGENET_BOXES.steps["parity-stacked-2"]
    assert isinstance(step, Step)
    assert (step.parents, step.base, step.recipe.mix) == ((S_CNN,), S_CNN, 0)


@pytest.fixture(scope="module")
def base(folder: Path, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a localiser, as trained, with its exported file beside it."""
    file = tmp_path_factory.mktemp("models") / f"{NAME}-{S_CNN}.pt"
    spec = describe(data, "resnet18", 64, 1, dict(OPTIONS))
    checkpoint.save(file, spec, trained(spec), recipe=RECIPE, log=LOG)
    export(file, file.with_suffix(".onnx"), data=folder)
    return file


def protected(code: str, base: Path, folder: Path) -> ModelInfo:
    """Train and export its parity model for a code, beside it."""
    file = base.with_name(f"{NAME}-parity-{code}-2.pt")
    recipe = Recipe(epochs=1, batch=18, shift=0, adam_lr=0.001)
    step = Step("resnet18", size=64, options=OPTIONS, recipe=recipe, parents=(str(base),), base=str(base))
    run(replace(step, protects=Protection(code, 2)), folder, file, device="cpu", precision="fp32", threads=1)
    info = export(file, file.with_suffix(".onnx"), data=folder, base=base.with_suffix(".onnx"))
    assert info.extra["validation_accuracy"] == pytest.approx(checkpoint.read(file)["log"][-1]["validation"], abs=1e-4)
    assert len(list(base.parent.glob("*-outputs.npy"))) == 1, "images vary by their flip alone: outputs are stored"
    return info


@pytest.fixture(scope="module")
def addition(base: Path, folder: Path) -> ModelInfo:
    """A parity model for addition, which lies beside ``base``."""
    return protected(coding.ADDITION, base, folder)


@pytest.fixture(scope="module")
def stacked(base: Path, folder: Path) -> ModelInfo:
    """One for the stacked code, which lies beside ``base``."""
    return protected(coding.STACKED, base, folder)


def test_a_localiser_describes_itself(base: Path, data: Dataset) -> None:
    model = OnnxModel(base.with_suffix(".onnx"))
    info = model.info
    assert (info.task, info.labels, [spec.name for spec in info.outputs]) == ("localisation", (), ["box"])
    assert info.extra["validation_accuracy"] == accuracy(model, data.validation)


def test_what_stands_in_for_a_localiser_gives_boxes(addition: ModelInfo, stacked: ModelInfo) -> None:
    for info, shape in ((addition, (4,)), (stacked, (2, 4))):
        assert (info.task, info.labels) == ("localisation", ())
        assert [(spec.name, spec.shape) for spec in info.outputs] == [("box", shape)]


@pytest.mark.usefixtures("addition")
def test_a_base_that_does_not_ship_lies_beside_its_parity_model(folder: Path, base: Path, tmp_path: Path) -> None:
    role = "parity-addition-2"
    served = Path(shutil.copy(base.with_suffix(".onnx"), tmp_path))
    shutil.copy(base.with_name(f"{NAME}-{role}.pt"), tmp_path)
    step = TINY_IMAGENET_BOXES.steps[role]
    entry = zoo.Entry(folder, role, step, str(tmp_path / NAME), tmp_path / f"{NAME}-{role}.onnx")
    zoo.publish(entry, tmp_path / "shipped" / served.name)
    code = OnnxModel(entry.onnx).info.code
    assert code
    assert code.base == OnnxModel(served).info.version


@pytest.mark.usefixtures("addition", "stacked")
def test_codes_of_boxes_are_measured_beside_a_constant_box(
    folder: Path, data: Dataset, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(folder), "--models", str(base.parent), "--out", str(tmp_path), "--repeats", "1"]
    assert measure([*words, "--seeds", "2", "--only", "*-addition-2", "*-stacked-2"]) == 0
    printed = capsys.readouterr().out
    assert "addition, k = 2, r = 1: iou of 1 lost" in printed
    assert "constant box: iou" in printed
    rows = read_figures(tmp_path / "codes.json")
    assert {row["metric"] for row in rows} == {"iou"}
    assert [(row["code"], row["k"], row["r"], row["seed"]) for row in rows] == [
        ("constant box", 1, 0, 0),
        *((code, 2, 1, seed) for code in ("addition", "stacked") for seed in range(2)),
    ]
    constant = boxes.overlaps(data.test.truth, boxes.constant(data.train.truth)).mean()
    assert rows[0]["a_degraded"] == pytest.approx(constant)
    own = OnnxModel(base.with_suffix(".onnx"))
    assert [row["a_available"] for row in rows] == pytest.approx([accuracy(own, data.test)] * 5)
    assert (rows[0]["cost_ratio"], rows[0]["model"]) == (0, None)


def test_localisers_are_not_evaluated_as_classifiers(
    folder: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="nothing to evaluate"):
        evaluate(["--data", str(folder), "--models", str(base.parent), "--out", str(tmp_path)])
    assert f"{NAME} is left out: its s-cnn is a localiser" in capsys.readouterr().err


@pytest.mark.usefixtures("addition")
async def test_a_stragglers_box_is_decoded_by_subtraction(base: Path, data: Dataset, tmp_path: Path) -> None:
    """Of what a worker would have said that is frozen, the caller gets what the parity model's box leaves."""
    single, parity = base.with_suffix(".onnx"), base.with_name(f"{NAME}-parity-addition-2.onnx")
    pair = [data.test.images[0], data.test.images[1]]
    (own,), (both,) = (
        OnnxModel(single)(np.stack(pair)),
        OnnxModel(parity)(LinearCode(mean_weights(2, 1)).encode(pair)[0][None]),
    )
    decoded = [BOX.answer(2 * both[0] - own[1 - place]) for place in range(2)]
    flags = ("--policy", "collage-only", "--deadline-s", "0.3", "--extra-load", "1")
    cluster = Cluster(single, [parity], s_cnn_workers=2, frontend_flags=flags, logs=tmp_path / "logs")
    async with cluster, Client(cluster.frontend.address) as client:
        await asyncio.gather(*(client.predict(image, timeout_s=5) for image in pair))
        cluster.s_cnn[0].freeze()
        for _ in range(20):
            answers = await asyncio.gather(*(client.predict(image, timeout_s=5) for image in pair))
            lost = [place for place, answer in enumerate(answers) if answer.source == "PARITY"]
            if lost:
                break
        cluster.s_cnn[0].resume()
    assert len(lost) == 1
    for place, answer in enumerate(answers):
        assert answer.box is not None
        found = (answer.box.left, answer.box.top, answer.box.right, answer.box.bottom)
        assert found == pytest.approx(decoded[place] if place in lost else BOX.answer(own[place]), abs=1e-4)
        assert found[0] <= found[2]
        assert found[1] <= found[3]
