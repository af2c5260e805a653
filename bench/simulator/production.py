"""A time of production as a frontend recorded it (``--events-file``), for the simulator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.offer import Regime, Seconds, TypicalModels
from bench.simulator.stations import Setup
from frontend.policy.events import PRIMARY, Answered, Arrived, CodedWorkers, Decoded, Event
from frontend.recorder import read

FEWEST = 20


@dataclass(frozen=True)
class Production:
    """Arrivals in seconds from the first one, how long first copies took, and the cluster that served them."""

    arrivals: Seconds
    regime: Regime
    setup: Setup
    models: TypicalModels


def recorded(path: Path) -> Production:
    """Read a file of events; raises ValueError if it is none, or has too few requests to go by.

    First copies that were cancelled, or had not answered when the record ends, took longer than was seen: each counts
    as one of those that were seen to take longer (redistribution to the right, Efron 1967).
    """
    header, batches = read(path)
    events = [event for batch in batches for event in batch]
    arrived = {event.request: event.at for event in events if isinstance(event, Arrived)}
    finished, censored = _first_copies(events, arrived)
    if len(arrived) < FEWEST or len(finished) < FEWEST:
        raise ValueError(f"{path} has {len(arrived)} arrivals and {len(finished)} own answers: {FEWEST} are needed")
    arrivals = np.sort(np.array(list(arrived.values())))
    confidences = [value for event in events if isinstance(event, Decoded) for value in event.confidences.values()]
    coded = [event for event in events if isinstance(event, CodedWorkers)]
    models = TypicalModels()
    if coded and confidences:
        sure = float(np.mean(np.array(confidences) >= coded[-1].accept))
        models = replace(models, sure=min(sure, 1 - models.empty))
    redundant = int(header["coded_workers"]) * (coded[-1].shape.inputs if coded else 1)
    setup = Setup(int(header["workers"]), redundant, code=coded[-1].shape if coded else None)
    latencies = np.array(finished + _longer(finished, censored))
    return Production(arrivals - arrivals[0], Regime(path.name, latencies=latencies), setup, models)


def _first_copies(events: list[Event], arrived: dict[int, float]) -> tuple[list[float], list[float]]:
    """Seconds that first copies took, and those for which others were seen to be on their way."""
    finished = {
        event.request: event.at - arrived[event.request]
        for event in events
        if isinstance(event, Answered) and event.attempt == PRIMARY and event.request in arrived
    }
    end = max((event.at for event in events), default=0.0)
    others = {event.request: event.at for event in events if isinstance(event, Answered) and event.attempt != PRIMARY}
    censored = [others.get(request, end) - at for request, at in arrived.items() if request not in finished]
    return list(finished.values()), censored


def _longer(finished: list[float], censored: list[float]) -> list[float]:
    """For each censored time one that was seen to be longer, spread evenly over these; itself if none was."""
    known = np.sort(finished)
    spread = np.random.default_rng(0).random(len(censored))
    places = np.searchsorted(known, censored, side="right")
    found = []
    for seconds, first, share in zip(censored, places, spread, strict=True):
        left = len(known) - first
        found.append(float(known[first + int(share * left)]) if left else seconds)
    return found
