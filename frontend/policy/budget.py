"""The budget that all redundant requests share. Pure: no I/O, no clock."""

from __future__ import annotations

from encoder.code import GroupShape

_NEARLY_ALL = 0.95


class Budget:
    """Tokens for redundant executions: each ordinary request earns ``rate`` of one, up to a burst of ``most``.

    A replica costs one token, a group one for each of its redundant inputs.
    """

    def __init__(self, rate: float, most: float = 10.0) -> None:
        self.rate, self.most = rate, most
        self.tokens = 1.0 if rate > 0 else 0.0

    def scarce(self, shape: GroupShape | None) -> bool:
        """Whether the budget pays the redundant inputs of fewer than 95 % of groups of this shape, if of any."""
        return shape is None or self.rate * shape.members < _NEARLY_ALL * shape.inputs

    def earn(self) -> None:
        """Count an ordinary request."""
        self.tokens = min(self.most, self.tokens + self.rate)

    def allows(self, tokens: int = 1, leaving: float = 0.0) -> bool:
        """Whether the budget has these tokens, and ``leaving`` beside them."""
        return self.tokens >= tokens + leaving - 1e-9

    def spend(self, tokens: int = 1, *, leaving: float = 0.0, force: bool = False) -> bool:
        """Take tokens if ``allows`` says so; with ``force`` go into debt rather than refuse.

        The debt is bounded by ``most``: after an outage redundancy must be back within a few requests.
        """
        if not self.allows(tokens, leaving) and not force:
            return False
        self.tokens = max(self.tokens - tokens, -self.most)
        return True

    def give_back(self) -> None:
        """Return a token that was taken for what was never sent; at the deepest debt none was taken."""
        if self.tokens > -self.most:
            self.tokens = min(self.most, self.tokens + 1.0)
