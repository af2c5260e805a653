"""What a model is taught: varied training images, and the class probabilities to learn of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models import boxes
from models.augment import augment, cut_mix, mean_of_two
from models.checkpoint import ModelSpec, written
from models.data import Dataset, digest, load, placements
from models.layers import default_precision
from models.steps import Recipe
from models.tasks import task_of
from models.transfer import stored


@dataclass(frozen=True)
class Teachers:
    """Models that are learnt from, besides the labels."""

    answers: NDArray[np.float32] | None = None
    """Answers given once, to the images as they are and flipped: ``[2, images, classes]``, as of ``teach``."""
    outputs: NDArray[np.float32] | None = None
    """A base model's raw outputs for the images as they are and flipped, ``[2, images, m]``, as of ``teach``."""
    live: Sequence[tuple[ModelSpec, nn.Module]] = ()
    """Models that are asked about every image as it is seen; in evaluation mode, where the images are."""


class Lessons:
    """Training images on a device, as they are seen at ``size`` pixels, with their targets."""

    def __init__(
        self,
        data: Dataset,
        recipe: Recipe,
        size: int,
        device: torch.device,
        bfloat16: bool = False,
        teachers: Teachers = Teachers(),
    ) -> None:
        self.data, self.recipe, self.size, self.device = data, recipe, size, device
        self.images, self.teachers = torch.from_numpy(data.train.images).to(device), teachers
        self.live = [(task_of(spec), partial(spec.ask, model, bfloat16=bfloat16)) for spec, model in teachers.live]

    def check(self, count: int) -> None:
        """Raises ValueError if a live teacher has other classes, or cannot look at ``count`` images of this size.

        Boxes are learnt from no teacher, and not of mixed images.
        """
        recipe = self.recipe
        if self.data.train.boxes is not None and (
            recipe.mix or recipe.mixup or self.live or self.teachers.answers is not None
        ):
            raise ValueError(f"the targets of {self.data.name} are boxes: mix nothing, and name no teacher")
        for spec, _ in self.teachers.live:
            same_classes(spec, self.data)
            if count % task_of(spec).members or spec.image_size != self.size:
                raise ValueError(
                    f"a live teacher of {spec.k} x {spec.k} images in {spec.size} pixels cannot look at "
                    f"{count} of {self.size} pixels"
                )

    def draw(self, index: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Images uint8 ``[B, size, size, 3]``, varied and mixed, and their targets, see ``targets``."""
        recipe = self.recipe
        images, flipped, windows = augment(
            self.images[torch.from_numpy(index).to(self.device)],
            self.size,
            rng,
            shift=recipe.shift,
            crop=recipe.crop,
            flip=recipe.flip,
            cutout=recipe.cutout,
        )
        targets = self.targets(index, flipped, windows).to(self.device)
        images, targets = cut_mix(images, targets, recipe.mix, rng)
        images, targets = mean_of_two(images, targets, recipe.mixup, rng)
        return images, self.taught(images, targets)

    def targets(self, index: NDArray[np.int64], flipped: NDArray[np.bool_], windows: NDArray[np.float32]) -> Tensor:
        """What to say of training images that are seen in this way, see ``models.augment.Varied``.

        Class probabilities float32 ``[B, classes]``: labels, smoothed, and stored answers. Or, if boxes are to be
        found, the objects' ``[B, 4]``. A base model's stored outputs follow in the same rows.
        """
        if (there := self.data.train.boxes) is not None:
            targets = boxes.seen(there[index], windows, flipped)
        else:
            classes, smoothing = len(self.data.labels), self.recipe.smoothing
            targets = np.full((len(index), classes), smoothing / classes, np.float32)
            targets[np.arange(len(index)), self.data.train.labels[index]] += 1 - smoothing
        if self.teachers.answers is not None:
            targets += self.recipe.distil * (self.teachers.answers[flipped.astype(int), index] - targets)
        if self.teachers.outputs is not None:
            targets = np.concatenate((targets, self.teachers.outputs[flipped.astype(int), index]), 1)
        return torch.from_numpy(targets)

    def taught(self, images: Tensor, targets: Tensor) -> Tensor:
        """The targets, moved towards the live teachers' mean answer to these very images, uint8 ``[B, H, W, 3]``.

        Student and teachers see the same variation (Beyer et al., "Knowledge distillation: A good teacher is patient
        and consistent").
        """
        if not self.live:
            return targets
        answers = [task.outputs(ask, images).softmax(-1) for task, ask in self.live]
        return targets + self.recipe.distil * (torch.stack(answers).mean(0) - targets)


def gather(
    teacher: Path | None, live: Sequence[Path], folder: Path, device: str, data: Dataset, kept: Path
) -> Teachers:
    """The teachers in these files; the answers of ``teacher``, see ``teach``, are stored in the folder ``kept``."""
    answers = None
    if teacher:
        images = digest(data.train.ids)[:8]  # others have other answers
        answers = teach(teacher, folder, device, data, kept / f"{teacher.stem}-{images}.npy")
    return Teachers(answers, live=[stored(path, device) for path in live])


def same_classes(teacher: ModelSpec, data: Dataset) -> None:
    """Raises ValueError where a teacher's classes are not the data set's, in the same order."""
    if teacher.labels != data.labels:
        raise ValueError(
            f"the classes of a teacher are {', '.join(teacher.labels)}, those of {data.name} {', '.join(data.labels)}"
        )


def teach(
    teacher: Path, folder: Path, device: str, data: Dataset, kept: Path, raw: bool = False
) -> NDArray[np.float32]:
    """A trained model's answers to the training images of ``data``, as they are and flipped; ``raw``: not softmaxed.

    A collage-cnn is shown random collages of them. The images are read from ``folder`` at the teacher's own size.

    Returns float32 ``[2, images, m]``, which are stored in ``kept`` for others that learn from the same teacher.
    Raises ValueError for a teacher of other classes, or of the same in another order.
    """
    spec, model = stored(teacher, device)
    same_classes(spec, data)
    count = len(data.train)
    answers = np.empty((2, count, spec.outputs), np.float32)
    if kept.exists() and kept.stat().st_mtime > teacher.stat().st_mtime:
        known: NDArray[np.float32] = np.load(kept)
        if known.shape == answers.shape:
            return known
    task, ask = task_of(spec), partial(spec.ask, model, bfloat16=default_precision(device) == "bf16")
    train = load(folder, spec.image_size).train
    order = np.concatenate(list(placements(train, task.members, seed=0)))
    step = max(1, 250 // task.members) * task.members
    for start in range(0, count, step):
        index = order[start : start + step]
        images = torch.from_numpy(train.images[index]).to(device)
        for flipped, batch in enumerate((images, images.flip(2))):
            scores = task.outputs(ask, batch)
            answers[flipped, index] = (scores if raw else scores.softmax(-1)).cpu().numpy()
    with written(kept) as path, path.open("wb") as file:
        np.save(file, answers)
    return answers
