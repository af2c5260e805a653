"""The last events of the policy, kept in memory and written to a file when somebody asks.

A file has one JSON object a line: first ``{"format": 1, "rules": {...}, "workers": ..., "coded_workers": ...}``, then
one for each event, ``{"batch": n, "event": "Arrived", "at": seconds, ...}`` with the fields of the event.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from encoder.code import GroupShape
from frontend.policy import Rules
from frontend.policy import events as e
from frontend.policy.accuracy import ErrorStep

logger = logging.getLogger("collage.frontend")

FORMAT = 1
KEPT = 100_000
"""Events in the ring, some 50 MB; a request makes three to six."""
_EVENTS = {event.__name__: event for event in e.Event.__args__}


class Recorder:
    """A ring of the last batches of events."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept, self._count, self._number = kept, 0, 0
        self._batches: deque[tuple[int, Sequence[e.Event]]] = deque()

    def __len__(self) -> int:
        """How many events are kept."""
        return self._count

    def add(self, events: Sequence[e.Event]) -> None:
        """Keep a batch as it was given to the policy, and let go of the oldest ones beyond the limit."""
        self._number += 1
        self._batches.append((self._number, events))
        self._count += len(events)
        while self._count > self._kept:
            self._count -= len(self._batches.popleft()[1])

    def batches(self) -> list[tuple[int, Sequence[e.Event]]]:
        """What is kept now, as numbered batches."""
        return list(self._batches)


@asynccontextmanager
async def recording(
    recorder: Recorder, path: Path, rules: Rules, workers: Callable[[], tuple[int, int]]
) -> AsyncIterator[None]:
    """Write what was recorded on SIGUSR1 and in the end; ``workers`` counts those of the base model and of the code."""
    loop, writing = asyncio.get_running_loop(), asyncio.Lock()
    tasks: set[asyncio.Task[None]] = set()

    async def save() -> None:
        async with writing:
            try:
                count = await asyncio.to_thread(write, path, recorder.batches(), rules, *workers())
                logger.info("wrote %d events to %s", count, path)
            except OSError as error:
                logger.error("events could not be written: %s", error)  # noqa: TRY400 - it says it all

    def asked() -> None:
        tasks.add(task := loop.create_task(save()))
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGUSR1, asked)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)
        await save()


def write(
    path: Path, batches: Sequence[tuple[int, Sequence[e.Event]]], rules: Rules, workers: int, coded_workers: int
) -> int:
    """Write batches of events, in place of what the file held; returns how many events that are."""
    partial = path.with_name(path.name + ".partial")
    header = {"format": FORMAT, "rules": asdict(rules), "workers": workers, "coded_workers": coded_workers}
    with partial.open("w") as file:
        file.write(json.dumps(_finite(header)) + "\n")
        for number, events in batches:
            for event in events:
                line = {"batch": number, "event": type(event).__name__, **event._asdict()}
                file.write(json.dumps(_finite(line), default=_plain) + "\n")
    partial.replace(path)
    return sum(len(events) for _, events in batches)


def read(path: Path) -> tuple[dict[str, Any], list[list[e.Event]]]:
    """The header of a file and its batches of events; raises ValueError with the line that is no such thing."""
    batches: dict[int, list[e.Event]] = {}
    header: dict[str, Any] = {}
    with path.open() as file:
        for number, line in enumerate(file, start=1):
            try:
                content = json.loads(line)
                if number == 1:
                    header = content
                    if header["format"] != FORMAT:
                        raise ValueError(f"its format is {header['format']}, expected {FORMAT}")
                    continue
                batches.setdefault(content.pop("batch"), []).append(_event(content))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}, line {number}, is no event: {error}") from None
    if not header:
        raise ValueError(f"{path} holds no events")
    return header, list(batches.values())


def _event(content: dict[str, Any]) -> e.Event:
    kind = _EVENTS[content.pop("event")]
    if "shape" in content:
        content["shape"] = GroupShape(**content["shape"])
    if "errors" in content:
        content["errors"] = tuple(ErrorStep(*step) for step in content["errors"])
    if "confidences" in content:
        content["confidences"] = {int(place): value for place, value in content["confidences"].items()}
    if "timer" in content:
        content["timer"] = e.Timer(content["timer"])
    event: e.Event = kind(**content)
    return event


def _plain(value: object) -> object:
    if isinstance(value, GroupShape):
        return asdict(value)
    if isinstance(value, e.Timer):
        return value.value
    raise TypeError(f"{type(value).__name__} in an event")


def _finite(content: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: None stands for it."""
    return dict(_pairs(content))


def _pairs(content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield key, _finite(value)
        else:
            yield key, None if isinstance(value, float) and not math.isfinite(value) else value
