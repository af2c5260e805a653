"""A wrong version of the code, and the tests that should notice it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_FRONTEND = "tests/frontend/test_"
_POLICY = [
    *(f"{_FRONTEND}policy{part}.py" for part in ("", "_codes", "_groups", "_limits")),
    *(f"{_FRONTEND}{name}.py" for name in ("groups", "policy_adaptive", "policy_table", "policy_properties")),
]
_SHELL = [f"{_FRONTEND}{name}.py" for name in ("dispatch", "coding", "new_code")]
TESTS = {
    "frontend/policy/quantile.py": [f"{_FRONTEND}quantile.py", *_POLICY],
    "frontend/policy/groups.py": [f"{_FRONTEND}groups.py", *_POLICY],
    "frontend/policy/balance.py": [f"{_FRONTEND}balance.py"],
    "frontend/policy/ejection.py": [f"{_FRONTEND}balance.py"],
    "frontend/policy/elect.py": [f"{_FRONTEND}elect.py"],
    "frontend/policy/admission.py": [f"{_FRONTEND}admission.py", f"{_FRONTEND}dispatch.py"],
    "frontend/policy/": _POLICY,
    "frontend/coding.py": [f"{_FRONTEND}coding.py", f"{_FRONTEND}dispatch.py", f"{_FRONTEND}new_code.py"],
    "frontend/recorder.py": [f"{_FRONTEND}recorder.py", f"{_FRONTEND}dispatch.py"],
    "frontend/": _SHELL,
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
