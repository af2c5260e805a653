"""Which worker gets the next call. Pure: no I/O, no clock.

A ``Choice`` chooses among the workers that may be used; ``Judge`` leaves slow and failing ones out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from frontend.policy.choices import Choice, FewestCalls
from frontend.policy.ejection import Ejection, Judge, Standing
from frontend.policy.shelves import Peer, Shelves


class Balancer:
    """Keeps count of calls and chooses workers, in constant time for any number of them."""

    def __init__(self, ejection: Ejection | None = None, seed: int | None = None, choice: Choice | None = None) -> None:
        """``choice`` is by ``FewestCalls`` if not given."""
        self.changed: Callable[[str, str], None] = lambda name, reason: None
        """Called with a worker that is ejected and the reason, and with one that is well again and an empty reason."""
        self._choice: Choice = choice or FewestCalls()
        self._workers: dict[str, Peer] = {}
        self.judge = Judge(ejection, self._workers, self._moved)
        self._shelves = Shelves(seed)
        self._probing: dict[str, Peer] = {}  # those on probation that are eligible

    @property
    def ejected(self) -> int:
        """How many workers are left out now."""
        return self.judge.ejected

    def outstanding(self, name: str) -> int:
        """How many calls a worker has, as far as is known."""
        worker = self._workers.get(name)
        return worker.outstanding if worker else 0

    # Workers

    def set_ready(self, name: str, ready: bool) -> None:
        """A worker may be used, or may not."""
        worker = self._workers.setdefault(name, Peer(name))
        self.judge.ready += ready - worker.ready
        worker.ready = ready
        self._reshelve(worker)

    def remove(self, name: str) -> None:
        """Forget a worker."""
        if worker := self._workers.pop(name, None):
            self._unshelve(worker)
            self.judge.ready -= worker.ready
            self.judge.forget(worker)

    def pick(self, at: float, avoid: Collection[str] = ()) -> str | None:
        """A worker for a call made now, or None if none can be used that is not in ``avoid``.

        First copies (nothing to avoid) are offered to those on probation first: by their latency they would hardly ever
        be chosen. Where all that are ready are left out, because others were lost since, one of them is better than
        none.
        """
        self.judge.release(at)
        if self._probing and not avoid:
            return next(iter(self._probing))
        if chosen := self._choice.choose(self._shelves, at, avoid):
            return chosen.name
        last = None if avoid else self._last_resort
        return last.name if last else None

    @property
    def _last_resort(self) -> Peer | None:
        ready = (worker for worker in self._workers.values() if worker.ready)
        return min(ready, key=lambda worker: worker.outstanding, default=None)

    @property
    def shortest_queue(self) -> int:
        """How many calls the worker has that would be picked; 0 if there is none."""
        if shelf := next(self._shelves.rising()):
            return shelf[0].outstanding
        last = self._last_resort
        return last.outstanding if last else 0

    # Calls

    def started(self, name: str) -> None:
        """A call was made."""
        if worker := self._workers.get(name):
            self._count(worker, worker.outstanding + 1)

    def released(self, name: str, count: int = 1) -> None:
        """A worker is done with calls, or known to have dropped them."""
        if worker := self._workers.get(name):
            self._count(worker, max(0, worker.outstanding - count))

    def succeeded(self, name: str, at: float, latency: float) -> None:
        """A call was answered after ``latency`` seconds."""
        if worker := self._workers.get(name):
            self.judge.succeeded(worker, at, latency)
            self._choice.ended(worker, at, latency)

    def cancelled(self, name: str, at: float, elapsed: float) -> None:
        """A call was cancelled after ``elapsed`` seconds; if that was slow already it counts, else nobody knows."""
        if worker := self._workers.get(name):
            self.judge.cancelled(worker, at, elapsed, worker.outstanding)
            self._choice.ended(worker, at, elapsed)

    def failed(self, name: str, at: float) -> None:
        """A call failed."""
        if worker := self._workers.get(name):
            self.judge.failed(worker, at)

    def _moved(self, name: str, reason: str | None) -> None:
        self._reshelve(self._workers[name])
        if reason is not None:
            self.changed(name, reason)

    # Shelves

    def _reshelve(self, worker: Peer) -> None:
        self._unshelve(worker)
        self._shelve(worker)

    def _count(self, worker: Peer, outstanding: int) -> None:
        if worker.position >= 0 and worker.standing is Standing.WELL:  # as nearly always: it stays eligible
            self._shelves.move(worker, outstanding)
            return
        self._unshelve(worker)
        worker.outstanding = outstanding
        self._shelve(worker)

    def _shelve(self, worker: Peer) -> None:
        if worker.eligible:
            self._shelves.put(worker)
            if worker.standing is Standing.PROBATION:
                self._probing[worker.name] = worker

    def _unshelve(self, worker: Peer) -> None:
        if worker.position < 0:
            return
        self._shelves.take(worker)
        if self._probing:
            self._probing.pop(worker.name, None)
