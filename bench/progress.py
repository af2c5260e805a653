"""A bar on standard error, for work that takes a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Task = TypeVar("Task")
Result = TypeVar("Result")


def watched(items: Iterable[Task], title: str, total: int | None = None) -> Iterable[Task]:
    """The items, with a bar that says how many of ``total`` were taken; of all, if they have a length."""
    return track(items, title, total, console=Console(stderr=True), transient=True)


def each(do: Callable[[Task], Result], tasks: Sequence[Task], title: str, processes: int = 1) -> Iterator[Result]:
    """The results of all tasks, in order, with a bar; done in ``processes`` side by side."""
    if processes == 1:
        yield from watched(map(do, tasks), title, len(tasks))
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from watched(pool.map(do, tasks), title, len(tasks))
