from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from encoder.collage import CollageCode
from encoder.grid import Grid
from models.augment import tile
from models.data import Dataset
from models.steps import Recipe
from models.tasks.classification import ClassifyImages
from models.tasks.collage import ClassifyCollages
from models.tasks.task import Ask, TrainingBatch
from models.train import describe
from models.trainer import Trainer
from tests.models.runs import trainer

SIZES = {2: (32, 33), 3: (41, 96, 97, 98), 4: (64, 65, 66, 67), 5: (160, 163)}


@pytest.mark.parametrize(("k", "size"), [(k, size) for k, sizes in SIZES.items() for size in sizes])
@pytest.mark.parametrize("blank", [0.0, 0.4])
def test_training_collages_are_the_encoders(k: int, size: int, blank: float) -> None:
    """Of all grids, also where cells differ by a pixel, and with empty cells."""
    grid, rng = Grid(k, size), np.random.default_rng(0)
    side = max(grid.cell_size(cell)[0] for cell in range(grid.cells))
    images = rng.integers(1, 256, (3 * grid.cells, side, side, 3), np.uint8)
    targets = torch.zeros(len(images), 2)
    collages = ClassifyCollages(grid, blank).batch(torch.from_numpy(images), targets, rng).pixels.numpy()
    assert collages.shape == (3, size, size, 3)
    empty = 0
    for collage, members in zip(collages, images.reshape(3, grid.cells, side, side, 3), strict=True):
        cells = []
        for cell, image in enumerate(members):
            left, top, right, bottom = grid.box(cell)
            filled = collage[top:bottom, left:right].any()
            cells.append(image[: bottom - top, : right - left] if filled else None)
            empty += not filled
        np.testing.assert_array_equal(collage, CollageCode(grid).encode(cells)[0])
    assert 0 < empty < len(images) if blank else not empty
    assert tile(torch.from_numpy(images), grid).all(), "without empty cells every pixel is an image's"


def test_empty_cells_count_as_empty_in_the_loss() -> None:
    grid, rng = Grid(2, 16), np.random.default_rng(0)
    images, targets = torch.ones(8, 8, 8, 3, dtype=torch.uint8), torch.eye(4)[[0, 1, 2, 3] * 2]
    batch = ClassifyCollages(grid, 0.4).batch(images, targets, rng)
    filled = batch.pixels[:, ::8, ::8, 0] > 0
    assert 0 < filled.sum() < 8

    def loss(sure: Tensor, right: Tensor) -> float:
        raw = torch.zeros(2, 2, 2, 1, 5 + 4)
        raw[..., 4] = torch.where(sure, 9.0, -9.0)[..., None]
        raw[..., 5:] = 20 * torch.where(right[..., None], targets.view(2, 2, 2, 4), 0)[..., None, :]
        return float(batch.loss(raw))

    everywhere = torch.ones_like(filled)
    least = loss(filled, everywhere)
    assert loss(filled, filled) == pytest.approx(least), "of an empty cell no class is asked"
    assert loss(filled, ~filled) == pytest.approx(least + np.log(4), abs=1e-3)
    assert loss(everywhere, everywhere) > least + 0.1
    assert loss(~everywhere, everywhere) > least + 0.1


def test_an_s_cnns_batch_is_its_images() -> None:
    images, targets = torch.zeros(3, 4, 4, 3, dtype=torch.uint8), torch.eye(3)
    batch = ClassifyImages().batch(images, targets, np.random.default_rng(0))
    assert batch.pixels is images
    scores = torch.tensor([[5.0, 0, 0], [0, 5.0, 0], [5.0, 0, 0]])
    torch.testing.assert_close(batch.loss(scores), F.cross_entropy(scores, targets))
    assert ClassifyImages().score(lambda _: scores, images, torch.arange(3)).tolist() == [True, True, False]


def test_a_collages_score_is_of_each_image_at_its_own_cell() -> None:
    grid = Grid(2, 16)
    raw = torch.zeros(1, 2, 2, 1, 5 + 4)
    for cell, (row, column) in enumerate(itertools.product(range(2), repeat=2)):
        raw[0, row, column, 0, 5 + cell] = 1
    images = torch.arange(1, 5, dtype=torch.uint8)[:, None, None, None].expand(4, 8, 8, 3)
    task = ClassifyCollages(grid, 0.5)
    shown: list[Tensor] = []

    def ask(pixels: Tensor) -> Tensor:
        shown.append(pixels)
        return raw

    assert task.score(ask, images, torch.tensor([0, 1, 2, 0])).tolist() == [True, True, True, False]
    assert shown[0].shape == (1, 16, 16, 3)
    assert shown[0][0, ::8, ::8, 0].tolist() == [[1, 2], [3, 4]], "none left empty"


class ParityOfTwo:
    """A task of another kind: the mean of two images in, the mean of a base model's logits for them out."""

    members = 2

    def __init__(self, base: Ask) -> None:
        self.base = base

    def batch(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> TrainingBatch:
        wanted = self.base(images).view(len(images) // 2, 2, -1).mean(1)
        return TrainingBatch(self.mixed(images), lambda out: F.mse_loss(out.float(), wanted))

    def score(self, ask: Ask, images: Tensor, labels: Tensor) -> Tensor:
        """Top-1 of each image if its own answer is lost: twice the parity's less the sibling's."""
        siblings = self.base(images).view(len(images) // 2, 2, -1).flip(1)
        lost = 2 * ask(self.mixed(images))[:, None] - siblings
        return lost.flatten(0, 1).argmax(-1) == labels

    @staticmethod
    def mixed(images: Tensor) -> Tensor:
        return images.view(len(images) // 2, 2, *images.shape[1:]).float().mean(1).round().byte()


def test_the_loop_trains_a_task_that_it_does_not_know(data: Dataset) -> None:
    base = trainer(data, "resnet32", epochs=3)
    while not base.finished:
        base.run_epoch()
    task = ParityOfTwo(partial(base.spec.ask, base.model.eval(), bfloat16=False))
    spec = describe(data, "resnet32", 16, 1, {})
    run = Trainer(spec, data, Recipe(epochs=6, batch=24, muon_lr=0.02, sgd_lr=0.05), "cpu", "fp32", task=task)
    assert run.images_per_step == 24
    while not run.finished:
        run.run_epoch()
    assert run.log[-1]["loss"] < 0.7 * run.log[0]["loss"]
    assert 0 <= run.log[-1]["validation"] <= 1
