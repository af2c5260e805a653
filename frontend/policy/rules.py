"""Which policies there are: the means that each may use, and their limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

_MEANS: Mapping[str, Mapping[str, object]] = {
    "none": {},
    "ejection": {"eject": True},
    "replicate": {"replica": True},
    "hedge": {"replica": True, "tracked": True},
    "collage-only": {"coded": True},
    "first-come": {"coded": True, "early": True},
    "collage": {"coded": True, "replica": True},
    "adaptive": {
        **{"coded": True, "replica": True, "tracked": True, "early": True, "eject": True},
        **{"await_coded": True, "late_coded": True, "defer": True},
        **{"accept": None, "patience": 1.1, "stretch": 1.6, "group_wait": math.inf},
    },
}
POLICIES = tuple(_MEANS)


@dataclass(frozen=True)
class Rules:
    """Which means a policy may use, and their limits. Times in seconds."""

    coded: bool = False
    """Requests join groups, and stragglers are answered from the code."""
    replica: bool = False
    """Stragglers that the code does not answer are sent to another worker."""
    tracked: bool = False
    """The deadline is a running quantile instead of a fixed time."""
    early: bool = False
    """A sure coded answer is given as soon as it is there, before the deadline."""
    await_coded: bool = False
    """No replica while the coded answer is on its way and not late, unless a replica would be back sooner; then two."""
    late_coded: bool = False
    """A group whose redundant outputs are late before its deadline makes stragglers of its members at once."""
    defer: bool = False
    """Where the budget is too small to code every group, help goes to requests that are still unanswered after a while.

    A token has a price then, see ``Deferral``.
    """
    eject: bool = False
    """Workers that stay slow are left out (the pool's business)."""
    deadline: float = 0.25
    """Seconds after its arrival at which a request without an answer is a straggler; if ``tracked``, at first."""
    quantile: float = 0.95
    """If ``tracked``: share of first copies that answer by the deadline."""
    shortest: float = 0.001
    """If ``tracked``: bound of the deadline."""
    longest: float = 60.0
    """If ``tracked``: bound of the deadline."""
    stretch: float = math.inf
    """If ``tracked``: bound of the deadline, in medians of what first copies take."""
    group_wait: float = 0.05
    """Longest that an open group waits for members; never so long that it cannot help its first one in time."""
    accept: float | None = 0.0
    """A coded answer below this confidence is unsure; None: as the model says."""
    patience: float = math.inf
    """Deadlines after which a straggler gets an unsure coded answer; it also does when its time runs out."""
    extra_load: float = 0.25
    """Budget: redundant executions for each ordinary request, coded ones and replicas together."""
    accuracy: float | None = None
    """Budget: errors of coded answers, beyond the base model's own, for each ordinary request; None: no bound."""
    attempts: int = 3
    """Most often that one request is sent, in all."""
    margin: float = 0.02
    """Kept of the caller's time for the answer's way back; a quarter of that time, if that is less."""
    audit: float = 0.0
    """Share of coded answers whose late base model is let finish, to compare."""

    def time_to_answer(self, remaining: float) -> float:
        """How long after its admission a request must end whose caller waits for ``remaining`` seconds."""
        return remaining - min(self.margin, max(0.0, remaining) / 4)

    @classmethod
    def named(cls, policy: str, **limits: float | None) -> Rules:
        """The rules of one of ``POLICIES``.

        none; ejection (of slow workers, nothing else); replicate (at a fixed deadline); hedge (at a running quantile);
        collage-only (coded answers, no replica); first-come (the same for whoever is decoded before its own answer
        comes, late or not, as ParM does it); collage (coded answers, then a replica, the paper's); adaptive (all of it,
        within the budget). The names are those of the first code; every policy serves every code.
        """
        return cls(**{**_MEANS[policy], **limits})  # type: ignore[arg-type]
