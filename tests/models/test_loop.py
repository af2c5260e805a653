"""The training loop, step by step: what the model is shown, in which mode, at which rate, and what it is scored on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.data import Dataset
from models.steps import Recipe
from models.tasks.classification import ClassifyImages
from models.tasks.task import Ask, TrainingBatch
from models.train import describe
from models.trainer import Trainer


class Observed(ClassifyImages):
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.images: list[bytes] = []
        self.scored: list[int] = []

    def batch(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> TrainingBatch:
        self.images += [image.numpy().tobytes() for image in images]
        return super().batch(images, targets, rng)

    def score(self, ask: Ask, images: Tensor, labels: Tensor) -> Tensor:
        self.scored += labels.tolist()
        return super().score(ask, images, labels)


def observed(data: Dataset, **changes: Any) -> tuple[Trainer, Observed]:
    task, recipe = Observed(), Recipe(**{"epochs": 2, "batch": 24, "shift": 0, "flip": False, **changes})
    return Trainer(describe(data, "resnet32", 16, 1, {}), data, recipe, "cpu", "fp32", task=task), task


def test_every_epoch_shows_every_image_once_in_another_order(data: Dataset) -> None:
    run, task = observed(data)
    run.run_epoch()
    first, task.images = task.images, []
    run.run_epoch()
    assert sorted(first) == sorted(task.images) == sorted(image.tobytes() for image in data.train.images)
    assert first != task.images


def test_runs_are_validated_on_validation_images_with_the_model_at_rest(data: Dataset) -> None:
    run, task = observed(data)
    modes: list[tuple[bool, int]] = []

    def note(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        modes.append((model.training, inputs[0].shape[-1]))

    run.model.register_forward_pre_hook(note)
    run.run_epoch()
    run.run_epoch()
    assert sorted(task.scored) == sorted([*data.validation.labels.tolist()] * 2)
    steps = [*[(True, 16)] * run.steps_per_epoch, (False, 16)]
    assert modes == [*steps, *steps]


def test_the_first_part_of_a_run_sees_small_images(data: Dataset) -> None:
    run, _ = observed(data, small_size=8, small_share=0.5)
    sides: list[int] = []
    run.model.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[-1]))
    run.run_epoch()
    run.run_epoch()
    assert sides == [*[8] * run.steps_per_epoch, 16, *[16] * run.steps_per_epoch, 16]


def test_rates_rise_in_the_warm_up_and_fall_to_nothing(data: Dataset) -> None:
    def rates(**changes: Any) -> list[float]:
        run, _ = observed(data, epochs=8 / 3, sgd_lr=1.0, muon_lr=0.5, **changes)
        assert run.steps == 8
        found = []
        for step in range(run.steps):
            run._schedule(step)
            sgd, muon = (optimiser.param_groups[0]["lr"] for optimiser in run.optimisers)
            assert muon == sgd / 2
            found.append(sgd)
        return found

    assert rates(warmup=0.25) == pytest.approx([0.5, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert rates(warmup=0.25, decay=False) == pytest.approx([0.5, *[1.0] * 7])
    assert rates(warmup=0.0) == pytest.approx([(8 - step) / 8 for step in range(8)])


def test_the_last_epoch_may_be_a_part_of_one(data: Dataset) -> None:
    run, task = observed(data, epochs=4 / 3)
    while not run.finished:
        run.run_epoch()
    assert (len(run.log), len(task.images)) == (2, 4 * run.images_per_step)


def test_gradients_of_earlier_steps_do_not_add_up(data: Dataset) -> None:
    run, _ = observed(data, muon_lr=0.0, sgd_lr=0.0)
    gradients = []
    for _ in range(2):
        run.model.train()
        run._step(np.arange(24), np.random.default_rng(0), 0.0)
        gradients.append([weight.grad.clone() for weight in run.model.parameters() if weight.grad is not None])
    assert gradients[0]
    torch.testing.assert_close(gradients[0], gradients[1])
