from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from models.data import Dataset
from models.layers import default_precision
from models.lessons import Teachers, teach
from models.steps import Recipe
from models.tasks import task_of
from models.train import describe
from models.trainer import Trainer
from tests.models.runs import trainer


def test_a_teacher_is_part_of_the_target(data: Dataset) -> None:
    teacher = np.zeros((2, len(data.train), 10), np.float32)
    teacher[0, :, 3] = teacher[1, :, 4] = 1
    spec = describe(data, "resnet32", 16, 1, {})
    recipe = Recipe(batch=24, distil=0.25, smoothing=0.0, shift=0, flip=True)
    taught = Trainer(spec, data, recipe, "cpu", "fp32", Teachers(teacher)).lessons
    targets = taught.targets(np.array([5, 6]), np.array([False, True]), np.empty((2, 4), np.float32)).numpy()
    expected = 0.75 * np.eye(10)[data.train.labels[[5, 6]]] + 0.25 * np.eye(10)[[3, 4]]
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    smooth = Trainer(spec, data, Recipe(batch=24, smoothing=0.2), "cpu", "fp32").lessons
    targets = smooth.targets(np.array([5, 6]), np.array([False, True]), np.empty((2, 4), np.float32)).numpy()
    np.testing.assert_allclose(targets, 0.8 * np.eye(10)[data.train.labels[[5, 6]]] + 0.02, atol=1e-6)


def test_images_become_means_with_others_if_wanted(data: Dataset) -> None:
    spec, index = describe(data, "resnet32", 16, 1, {}), np.arange(24)
    for share in (0.0, 1.0):
        recipe = Recipe(batch=24, smoothing=0.0, shift=0, flip=False, mixup=share)
        images, targets = Trainer(spec, data, recipe, "cpu", "fp32").lessons.draw(index, np.random.default_rng(0))
        assert bool((targets == 0.5).any()) == bool(share)
        assert np.array_equal(images.numpy(), data.train.images[index]) != bool(share)


def test_live_teachers_are_asked_about_what_is_seen(data: Dataset) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (8, 16, 16, 3), dtype=torch.uint8)
    single, collages = trainer(data, "resnet32"), trainer(data, "collage-resnet")
    live = [(each.spec, each.model.eval()) for each in (single, collages)]
    taught = Trainer(single.spec, data, Recipe(batch=24, distil=0.25), "cpu", "fp32", Teachers(live=live))
    answers = [
        task_of(spec).outputs(partial(spec.ask, model, bfloat16=False), images).softmax(-1) for spec, model in live
    ]
    assert not torch.allclose(answers[0], answers[1])
    targets = torch.eye(10)[:8]
    expected = 0.75 * targets + 0.125 * (answers[0] + answers[1])
    torch.testing.assert_close(taught.lessons.taught(images, targets), expected)
    torch.testing.assert_close(single.lessons.taught(images, targets), targets)
    taught.run_epoch()


@pytest.mark.parametrize("changes", [{"batch": 23}, {"window": 8}])
def test_live_teachers_must_be_able_to_look(data: Dataset, changes: dict[str, int]) -> None:
    collages, student = trainer(data, "collage-resnet"), describe(data, "resnet32", 16, 1, {})
    with pytest.raises(ValueError, match="live teacher"):
        Trainer(student, data, Recipe(**changes), "cpu", "fp32", Teachers(live=[(collages.spec, collages.model)]))  # type: ignore[arg-type]


def test_a_teachers_answers_are_kept_until_it_learns_more(tmp_path: Path, folder: Path, data: Dataset) -> None:
    source = trainer(data, "resnet32")
    source.run_epoch()
    source.save(tmp_path / "teacher.pt")
    kept = tmp_path / "kept.npy"
    answers = teach(tmp_path / "teacher.pt", folder, "cpu", data, kept)
    assert answers.shape == (2, len(data.train), 10)
    np.testing.assert_allclose(answers.sum(-1), 1, rtol=1e-3)
    images = torch.from_numpy(data.train.images)
    for given, shown in zip(answers, (images, images.flip(2)), strict=True):
        wanted = source.spec.ask(source.model.eval(), shown, default_precision("cpu") == "bf16").softmax(-1)
        np.testing.assert_allclose(given, wanted.numpy(), atol=1e-5)
    np.save(kept, answers + 1)
    np.testing.assert_array_equal(
        teach(tmp_path / "teacher.pt", folder, "cpu", data, kept), answers + 1
    )  # not worked out again
    os.utime(tmp_path / "teacher.pt", (time.time() + 9, time.time() + 9))
    np.testing.assert_array_equal(
        teach(tmp_path / "teacher.pt", folder, "cpu", data, kept), answers
    )  # it has learned since


def test_a_teacher_must_know_the_same_classes_in_the_same_order(tmp_path: Path, folder: Path, data: Dataset) -> None:
    source, kept = trainer(data, "resnet32"), tmp_path / "kept.npy"
    source.save(tmp_path / "teacher.pt")
    teach(tmp_path / "teacher.pt", folder, "cpu", data, kept)
    turned = replace(data, labels=data.labels[::-1])
    with pytest.raises(ValueError, match="the classes of a teacher are T-shirt"):
        teach(tmp_path / "teacher.pt", folder, "cpu", turned, kept)  # whose answers are known
    student = describe(turned, "resnet32", 16, 1, {})
    with pytest.raises(ValueError, match="the classes of a teacher are T-shirt"):
        Trainer(student, turned, Recipe(batch=24), "cpu", "fp32", Teachers(live=[(source.spec, source.model)]))


def test_a_collage_cnn_can_be_a_teacher(tmp_path: Path, folder: Path, data: Dataset) -> None:
    source = trainer(data, "collage-resnet")
    source.run_epoch()
    source.save(tmp_path / "collage.pt")
    answers = teach(tmp_path / "collage.pt", folder, "cpu", data, tmp_path / "kept.npy")
    mirrored = replace(data.train, images=data.train.images[:, :, ::-1].copy())
    for given, split in zip(answers, (data.train, mirrored), strict=True):
        np.testing.assert_allclose(given.sum(-1), 1, rtol=1e-3)
        assert (given.argmax(-1) == split.labels).mean() == pytest.approx(source.score(split))  # the same collages
