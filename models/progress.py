"""How far a build is, for a person at a terminal: model 2 of 5, and the time that all of them have left."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from models.steps import AnyStep, Step


def cost(step: AnyStep) -> float:
    """About what a run takes, in a unit that is the same for all: pixels that it sees of every training image."""
    epochs = step.recipe.epochs or 1.0
    side = step.image_size if isinstance(step, Step) else step.size
    return epochs * side**2


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
    def share(self) -> float:
        """How much of all runs is done, from 0 to 1, by their costs."""
        task = self._bar.tasks[0]
        return task.completed / task.total if task.total else 1.0

    def advance(self, share: float) -> None:
        """The share of the present run that is done, from 0 to 1."""
        self._bar.update(self._task, completed=self._done + share * self._costs[self._name])
