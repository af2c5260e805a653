"""The training loop, step by step: what the model is shown, in which mode, at which rate, and what it is scored on."""

from __future__ import annotations

import itertools
from pathlib import Path
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
            run._schedule(run.done(step))
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


def test_a_run_ends_when_its_time_is_over_with_the_rates_at_nothing(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock by which every look takes a second; the model is validated while it stands still."""
    clock = itertools.count()
    monkeypatch.setattr("models.trainer.time.monotonic", lambda: float(next(clock)))
    run, task = observed(data, epochs=1000, minutes=10.5 / 60, warmup=0.0, sgd_lr=1.0)
    rates, shares = [], []
    run.model.register_forward_pre_hook(
        lambda model, _: rates.append(run.optimisers[0].param_groups[0]["lr"]) if model.training else None
    )
    run.told = shares.append
    while not run.finished:
        run.run_epoch()
    assert run.steps_per_epoch == 3
    assert [entry["seconds"] for entry in run.log] == [5, 5, 3], "a look for each step, and two around them"
    assert shares == pytest.approx([each / 10.5 for each in (1, 2, 3, 6, 7, 8, 10.5)])
    assert rates == pytest.approx([1 - each / 10.5 for each in (0, 1, 2, 5, 6, 7, 10)])
    assert len(task.images) == 7 * run.images_per_step


def test_a_run_of_which_the_time_is_over_takes_no_step(data: Dataset, tmp_path: Path) -> None:
    run, _ = observed(data, minutes=1)
    run.run_epoch()
    run.save(tmp_path / "run.pt")
    shorter, task = observed(data, minutes=1e-9)
    shorter.resume(tmp_path / "run.pt")
    assert shorter.finished
    longer, task = observed(data)
    longer.resume(tmp_path / "run.pt")
    assert not longer.finished
    longer.run_epoch()
    assert len(task.images) == len(data.train) // 24 * 24


def test_gradients_of_earlier_steps_do_not_add_up(data: Dataset) -> None:
    run, _ = observed(data, muon_lr=0.0, sgd_lr=0.0)
    gradients = []
    for _ in range(2):
        run.model.train()
        run._step(np.arange(24), np.random.default_rng(0), 0.0)
        gradients.append([weight.grad.clone() for weight in run.model.parameters() if weight.grad is not None])
    assert gradients[0]
    torch.testing.assert_close(gradients[0], gradients[1])
