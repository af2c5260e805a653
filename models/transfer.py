"""What a new model takes over from trained ones: their weights, and the record of where these came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import checkpoint
from models.checkpoint import ModelSpec
from models.collage_cnn import resized
from models.lineage import Lineage, joined, of_checkpoint, of_description
from models.restore import EXPORTED, anchor, described, restore


def stored(path: Path, device: str = "cpu") -> tuple[ModelSpec, nn.Module]:
    """The model of a checkpoint, or of an exported file, in evaluation mode on a device."""
    spec, model = restore(path) if path.suffix == EXPORTED else checkpoint.load(path)[:2]
    return spec, model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def lineage_of(path: Path) -> Lineage:
    """The training runs behind a checkpoint, or an exported file, as far as it records them."""
    if path.suffix == EXPORTED:
        return of_description(path.stem, described(path).extra)
    return of_checkpoint(path.stem, checkpoint.read(path))


def origin(parents: Sequence[Path], teachers: Sequence[Path]) -> dict[str, Any]:
    """The record of where a new run's model comes from, as ``models.lineage.of_checkpoint`` reads it."""
    return {
        "earlier": [asdict(stage) for stage in joined(map(lineage_of, parents))],
        "parents": [path.stem for path in parents],
        "teachers": [path.stem for path in teachers],
    }


def start(model: nn.Module, sources: Sequence[Path], sample: Callable[[], Tensor]) -> int:
    """Take over what fits of others, see ``warm_start``; returns how many tensors that are.

    An exported file has its batch norm folded away: ``sample`` makes normalised inputs from which the model gets new
    statistics, see ``models.restore.anchor``.
    """
    taken = warm_start(model, *sources)
    if any(source.suffix == EXPORTED for source in sources):
        anchor(model, sample())
    return taken


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
    # Of the last layer, whose weights mean something else in a model with other classes.
    answers = [name for name, value in own.items() if value.dim()][-2:]
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
