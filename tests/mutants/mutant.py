"""A wrong version of the code, and the tests that should notice it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_FRONTEND = "tests/frontend/test_"
_PARTS = ("codes", "groups", "limits", "adaptive", "late", "table", "properties")
_POLICY = [
    *(f"{_FRONTEND}{name}.py" for name in ("groups", "policy")),
    *(f"{_FRONTEND}policy_{part}.py" for part in _PARTS),
]
_DISPATCH = [f"{_FRONTEND}dispatch{part}.py" for part in ("", "_limits", "_meanwhile")]
_CODING = [f"{_FRONTEND}{name}.py" for name in ("coding", "coding_limits", "new_code")]
TESTS = {
    "frontend/policy/quantile.py": [f"{_FRONTEND}quantile.py", *_POLICY],
    "frontend/policy/groups.py": [f"{_FRONTEND}groups.py", *_POLICY],
    "frontend/policy/balance.py": [f"{_FRONTEND}balance.py"],
    "frontend/policy/ejection.py": [f"{_FRONTEND}balance.py"],
    "frontend/policy/elect.py": [f"{_FRONTEND}elect.py"],
    "frontend/policy/admission.py": [f"{_FRONTEND}admission.py", f"{_FRONTEND}dispatch.py"],
    "frontend/policy/shares.py": [f"{_FRONTEND}shares.py", f"{_FRONTEND}dispatch_limits.py"],
    "frontend/policy/": _POLICY,
    "frontend/coding.py": [*_CODING, *_DISPATCH],
    "frontend/recorder.py": [f"{_FRONTEND}recorder.py", f"{_FRONTEND}dispatch.py"],
    "frontend/": [*_DISPATCH, *_CODING],
    "encoder/code.py": [f"{_FRONTEND}policy_codes.py"],
    "encoder/linear.py": ["tests/encoder/test_linear.py", f"{_FRONTEND}coding.py"],
    "encoder/collage.py": ["tests/encoder/test_collage.py"],
    "encoder/tasks.py": ["tests/encoder/test_tasks.py"],
    "encoder/codes.py": ["tests/encoder/test_codes.py"],
}
"""Tests by the file or folder that they are of, quick ones first."""


class Mutant(NamedTuple):
    """One passage of a file that is replaced; nothing in its place means that it is left out."""

    what: str
    file: str
    old: str
    new: str
    harmless: str = ""
    """Why no test can notice it; empty if one must."""

    @property
    def tests(self) -> Sequence[str]:
        """The test files that run with it, in this order."""
        return next(tests for place, tests in TESTS.items() if self.file.startswith(place))

    @property
    def how(self) -> str:
        """What is replaced, in one line."""
        return f"{_code(self.old)} becomes {_code(self.new)}" if self.new else f"{_code(self.old)} is left out"


def _code(text: str) -> str:
    one_line = " ".join(text.split()).replace("|", "\\|")
    return f"`{one_line}`"
