"""What a new model takes over from a trained one: its weights, or its answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from encoder.grid import Grid
from models import checkpoint
from models.augment import normalise, tiled
from models.checkpoint import ModelSpec
from models.collage_cnn import cell_scores, resized
from models.data import Dataset, load, placements
from models.layers import default_precision
from models.restore import EXPORTED, restore


def stored(path: Path, device: str = "cpu") -> tuple[ModelSpec, nn.Module]:
    """The model of a checkpoint, or of an exported file, in evaluation mode on a device."""
    spec, model = restore(path) if path.suffix == EXPORTED else checkpoint.load(path)[:2]
    return spec, model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.no_grad()
def scores(model: nn.Module, spec: ModelSpec, images: Tensor, bfloat16: bool) -> Tensor:
    """Class scores float32 ``[B, classes]`` of images uint8 ``[B, H, W, 3]``; a collage-cnn is shown collages of them,
    so B must be a multiple of its cells. The model is in evaluation mode, where the images are."""
    grid = Grid(spec.k, spec.size)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
        out: Tensor = model(normalise(tiled(images, spec, grid), spec)).float()
    if spec.kind == "collage-cnn":
        out = cell_scores(out, torch.from_numpy(grid.boxes.copy()).to(out.device)).reshape(len(images), -1)
    return out


def same_classes(teacher: ModelSpec, data: Dataset) -> None:
    """Raises ValueError where a teacher's classes are not the data set's, in the same order."""
    if teacher.labels != data.labels:
        raise ValueError(
            f"the classes of a teacher are {', '.join(teacher.labels)}, those of {data.name} {', '.join(data.labels)}"
        )


@torch.no_grad()
def teach(teacher: Path, folder: Path, device: str, data: Dataset, kept: Path) -> NDArray[np.float32]:
    """A trained model's answers to the training images of ``data``, as they are and flipped; a collage-cnn is shown
    random collages of them. They are read from ``folder`` at the teacher's own size.

    Returns float32 ``[2, images, classes]``, which are stored in ``kept`` for others that learn from the same teacher.
    Raises ValueError for a teacher of other classes, or of the same in another order.
    """
    spec, model = stored(teacher, device)
    same_classes(spec, data)
    count = len(data.train)
    answers = np.empty((2, count, len(spec.labels)), np.float32)
    if kept.exists() and kept.stat().st_mtime > teacher.stat().st_mtime:
        known: NDArray[np.float32] = np.load(kept)
        if known.shape == answers.shape:
            return known
    grid = Grid(spec.k, spec.size)
    train = load(folder, spec.image_size).train
    bfloat16 = default_precision(device) == "bf16"
    order = np.concatenate(list(placements(train, grid.cells, seed=0)))
    step = max(1, 250 // grid.cells) * grid.cells
    for start in range(0, count, step):
        index = order[start : start + step]
        images = torch.from_numpy(train.images[index]).to(device)
        for flipped, batch in enumerate((images, images.flip(2))):
            answers[flipped, index] = scores(model, spec, batch, bfloat16).softmax(-1).cpu().numpy()
    with checkpoint.written(kept) as partial, partial.open("wb") as file:
        np.save(file, answers)
    return answers


def _mean(sources: Sequence[Path]) -> dict[str, Tensor]:
    states = [stored(source)[1].state_dict() for source in sources]
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    exported = {source.suffix == EXPORTED for source in sources}  # these have their batch norm elsewhere
    if any(other != shapes[0] for other in shapes) or len(exported) > 1:
        raise ValueError(f"no mean of {', '.join(map(str, sources))}: they are not of one shape")
    return {name: torch.stack([state[name].float() for state in states]).mean(0) for name in states[0]}


@torch.no_grad()
def warm_start(model: nn.Module, *sources: Path) -> int:
    """Copy from a checkpoint, or an exported file, the tensors of the same names; returns how many.

    Of several checkpoints of one shape their mean is taken, which is as good as each where one was trained on from the
    other (Wortsman et al., "Model soups"); raises ValueError if they differ in shape.

    Filters and embeddings of another width and height are resized. A wider model computes what the narrower one did
    at first, if its own last layer starts at zero: the channels that it has more keep their first weights, and those
    it has from the other do not look at them (Chen et al., "Net2Net", for another way to the same).
    """
    own = model.state_dict()
    answers = list(own)[-2:]  # of the last layer: those of a model with other classes mean something else
    fitting = {}
    for name, value in _mean(sources).items():
        mine = own.get(name)
        if mine is None or value.dim() != mine.dim() or (name in answers and len(value) != len(mine)):
            continue
        wanted = mine.shape
        if value.dim() == 4 and value.shape[2:] != wanted[2:]:
            value = F.interpolate(value, wanted[2:], mode="bilinear", align_corners=False)
        elif value.dim() == 6:
            value = resized(value, wanted[-1])
        if value.shape == wanted:
            fitting[name] = value
        elif all(has <= room for has, room in zip(value.shape, wanted, strict=True)):
            fitting[name] = mine.clone()
            fitting[name][: len(value)] = 0
            fitting[name][tuple(map(slice, value.shape))] = value
    model.load_state_dict(fitting, strict=False)
    return len(fitting)
