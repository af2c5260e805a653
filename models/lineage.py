"""Which training runs a model comes from, all in all: what its card and its file tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from models.steps import AnyStep


@dataclass(frozen=True)
class Stage:
    """One training run."""

    name: str
    """Of its checkpoint, or its role."""
    architecture: str
    epochs: float
    """Times that every training image was seen."""
    training_s: float | None
    """Seconds that it took; None if they are not recorded."""
    parents: tuple[str, ...] | None
    """Runs that it started from; of several, from their mean. None if that is not recorded."""
    teachers: tuple[str, ...] | None
    """Models whose answers it learnt; None if they are not recorded."""


Lineage = tuple[Stage, ...]
"""The runs whose weights went into a model, each once, its own last. Teachers' runs are not among them."""


def joined(lineages: Iterable[Lineage]) -> Lineage:
    """Several lineages as one; runs that they share count once."""
    return tuple(dict.fromkeys(stage for lineage in lineages for stage in lineage))


def planned(steps: Mapping[str, AnyStep], role: str, durations: Mapping[str, float]) -> Lineage:
    """The lineage that typed steps give to a role; ``durations`` are the seconds of the runs that are recorded.

    What a parent that is a file comes from is not told.
    """
    step = steps[role]
    own = Stage(role, step.model, step.recipe.epochs, durations.get(role), step.parents, step.teachers)
    return (*joined(planned(steps, parent, durations) for parent in step.parents if parent in steps), own)


def of_checkpoint(name: str, content: Mapping[str, Any]) -> Lineage:
    """The lineage of a checkpoint, as far as it is recorded; ``content`` is the file's."""
    log, origin = content["log"], content.get("lineage") or {}
    own = Stage(
        name,
        content["spec"]["architecture"],
        _epochs(content["recipe"], len(log)),
        round(sum(epoch["seconds"] for epoch in log), 1),
        *(tuple(origin[key]) if key in origin else None for key in ("parents", "teachers")),
    )
    return (*_read(origin.get("earlier", ())), own)


def of_description(name: str, extra: Mapping[str, Any]) -> Lineage:
    """The lineage that an exported file tells in its ``extra``; of an older one, its last run alone."""
    if "lineage" in extra:
        return _read(extra["lineage"])
    epochs = _epochs(extra["recipe"], extra["epochs"])
    return (Stage(name, extra["architecture"], epochs, extra["training_s"], None, None),)


def epochs(lineage: Lineage) -> float:
    """Epochs of all runs together."""
    return sum(stage.epochs for stage in lineage)


def recorded(lineage: Lineage) -> tuple[float, int]:
    """Seconds of the runs whose duration is recorded, and the number of the others."""
    known = [stage.training_s for stage in lineage if stage.training_s is not None]
    return sum(known), len(lineage) - len(known)


def _epochs(recipe: Mapping[str, Any], done: int) -> float:
    """A run's last epoch may be a part of one; an interrupted run has fewer than its recipe says.

    A run against the clock plans none, and one with a least number of steps may have more.
    """
    return float(done) if recipe.get("least_steps") else min(float(recipe.get("epochs") or done), float(done))


def _read(stages: Iterable[Mapping[str, Any]]) -> Lineage:
    def names(value: Iterable[str] | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(value)

    return tuple(
        Stage(**{**stage, "parents": names(stage["parents"]), "teachers": names(stage["teachers"])}) for stage in stages
    )
