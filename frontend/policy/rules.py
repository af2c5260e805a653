"""Which policies there are: the means each may use, their limits, and the budget they share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

_MEANS: Mapping[str, Mapping[str, object]] = {
    "none": {},
    "ejection": {"eject": True},
    "replicate": {"replica": True},
    "hedge": {"replica": True, "tracked": True},
    "collage-only": {"collage": True},
    "collage": {"collage": True, "replica": True},
    "adaptive": {
        **{"collage": True, "replica": True, "tracked": True, "early": True, "thrifty": True, "eject": True},
        **{"accept": None, "patience": 1.1, "stretch": 1.6, "group_wait": math.inf},
    },
}
POLICIES = tuple(_MEANS)
_NEARLY_ALL, _KEPT, _SAFE = 0.95, 0.7, 0.9


@dataclass(frozen=True)
class Rules:
    """Which means a policy may use, and their limits. Times in seconds.

    A request without an answer after ``deadline`` is a straggler; if ``tracked`` the deadline is the running
    ``quantile`` of what first copies take, from ``shortest`` to ``longest`` and at most ``stretch`` of their medians. A
    coded answer below ``accept`` (None: as the model says) is unsure: a straggler gets it only after ``patience``
    deadlines, or when its time runs out. If ``early``, a sure one is given as soon as it is there. If ``thrifty``, no
    replica is sent while the collage is in flight and not late itself, unless a replica would be sooner, and then two
    are; if it is late before the deadline, its members are stragglers at once; and if the budget is too small for a
    collage of every group, replicas come first, and the quantile is at least as high as leaves only so many stragglers
    as it can pay them for. An open group waits ``group_wait`` for members, at most as long as its collage can be back
    by the deadline. ``extra_load`` is the budget of redundant requests per ordinary one, ``attempts`` bounds how often
    one request is sent in all, ``margin`` is kept of the caller's time for the answer's way back (a quarter, if that is
    less), ``audit`` is the share of coded answers whose late s-cnn is let finish, to compare, and ``eject`` leaves out
    workers that stay slow (the pool's business).
    """

    collage: bool = False
    replica: bool = False
    tracked: bool = False
    early: bool = False
    thrifty: bool = False
    eject: bool = False
    deadline: float = 0.25
    quantile: float = 0.95
    shortest: float = 0.001
    longest: float = 60.0
    stretch: float = math.inf
    group_wait: float = 0.05
    accept: float | None = 0.0
    patience: float = math.inf
    extra_load: float = 0.25
    attempts: int = 3
    margin: float = 0.02
    audit: float = 0.0

    def time_to_answer(self, remaining: float) -> float:
        """How long after its admission a request must end whose caller waits for ``remaining`` seconds."""
        return remaining - min(self.margin, max(0.0, remaining) / 4)

    @classmethod
    def named(cls, policy: str, **limits: float | None) -> Rules:
        """The rules of one of ``POLICIES``.

        none; ejection (of slow workers, nothing else); replicate (at a fixed deadline); hedge (at a running quantile);
        collage-only (no replica); collage (then a replica, the paper's); adaptive (all of it, within the budget).
        """
        return cls(**{**_MEANS[policy], **limits})  # type: ignore[arg-type]


class Budget:
    """Tokens for redundant requests: each ordinary request earns ``rate`` of one, up to a burst of ``most``.

    Where it is ``scarce``, collages are to leave a ``reserve`` of tokens for replicas, and an ``affordable`` share of
    the requests can have one: not all that is earned, as stragglers come in bursts.
    """

    def __init__(self, rate: float, most: float = 10.0) -> None:
        self.rate, self.most = rate, most
        self.tokens = 1.0 if rate > 0 else 0.0
        self.reserve, self.affordable = _KEPT * most, _SAFE * rate

    def scarce(self, cells: int) -> bool:
        """Whether it is too small for a collage of nearly every group of so many: a few are better left without."""
        return self.rate * cells < _NEARLY_ALL

    def earn(self) -> None:
        """Count an ordinary request."""
        self.tokens = min(self.most, self.tokens + self.rate)

    def allows(self, leaving: float = 0.0) -> bool:
        """Whether there is a token, and so many more beside it."""
        return self.tokens >= 1.0 + leaving - 1e-9

    def spend(self, *, leaving: float = 0.0, force: bool = False) -> bool:
        """Take one token if it ``allows`` that; with ``force`` go into debt rather than refuse.

        The debt is bounded as well: after an outage redundancy must be back within a few requests.
        """
        if not self.allows(leaving) and not force:
            return False
        self.tokens = max(self.tokens - 1.0, -self.most)
        return True

    def give_back(self) -> None:
        """Return a token that was taken for what was never sent; nothing was taken of the deepest debt."""
        if self.tokens > -self.most:
            self.tokens = min(self.most, self.tokens + 1.0)
