"""How far a build is, for a person at a terminal: model 2 of 5, and the time that all of them have left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch.utils.flop_counter import FlopCounterMode

from models.checkpoint import ModelSpec, as_channels
from models.coding import described
from models.learned_code import CodeNetworks
from models.steps import AnyStep, Step


def cost(step: AnyStep, taught_by: Sequence[AnyStep] = ()) -> float:
    """About what a run takes: multiply-adds for each training image, of the network and of its live teachers.

    A backward pass takes as many as two forward passes.
    """
    asked = sum(multiplications(its, training=False) for its in taught_by)
    return (step.recipe.epochs or 1.0) * (3 * multiplications(step) + asked)


def multiplications(step: AnyStep, *, training: bool = True) -> float:
    """Multiply-adds of a forward pass for one image of ten classes, counted without computing it.

    Of a learned code they are those of its encoder.
    """
    code = described(step.protects) if isinstance(step, Step) and step.protects else None
    labels, grey = tuple(map(str, range(10))), (0.5, 0.5, 0.5)
    spec = ModelSpec(step.model, "", labels, step.input_size, step.k, grey, grey, dict(step.options), code)
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        model = spec.build().train(training)
        run = model.encoded if isinstance(model, CodeNetworks) else model
        run(as_channels(torch.zeros(2, *spec.input_shape)))  # batch norm takes no less
    return float(counted.get_total_flops()) / 4 / (code.members if code else step.k**2)


class Building:
    """A bar over all runs of a build; nothing is drawn where ``console`` is no terminal."""

    def __init__(self, costs: Mapping[str, float], console: Console | None = None) -> None:
        """``costs`` are those of the runs that are still to be done, by their names."""
        self._costs, self._done, self._number = dict(costs), 0.0, 0
        self.console = console or Console()
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal, transient=True)
        self._task = self._bar.add_task("", total=sum(costs.values()))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, name: str) -> str:
        """Turn to a run; returns its title."""
        self._done = sum(list(self._costs.values())[: self._number])
        self._number += 1
        self._name, title = name, f"model {self._number} of {len(self._costs)}, {name}"
        self._bar.update(self._task, description=title, completed=self._done, refresh=True)
        return title

    @property
    def part(self) -> float:
        """How much the present run is of it and all that follow, from 0 to 1, by their costs."""
        return self._costs[self._name] / (sum(self._costs.values()) - self._done)

    @property
    def share(self) -> float:
        """How much of all runs is done, from 0 to 1, by their costs."""
        task = self._bar.tasks[0]
        return task.completed / task.total if task.total else 1.0

    def advance(self, share: float) -> None:
        """The share of the present run that is done, from 0 to 1."""
        self._bar.update(self._task, completed=self._done + share * self._costs[self._name])
