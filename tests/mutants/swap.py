"""Replaces the code of functions that are in use by that of another version of their file."""

from __future__ import annotations

import gc
from types import CodeType, FunctionType


def swap(file: str, source: str, changed: str) -> None:
    """Every function of a file does what the changed source says, from now on and wherever it was imported.

    Raises ValueError for a change that is in no function: of a constant, a default, or a class's own lines.
    """
    pairs = functions(file, source, changed)
    found = 0
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__.co_filename == file and each.__code__ in pairs:
            each.__code__ = pairs[each.__code__]
            found += 1
    if not found:
        raise ValueError(f"no function of {file} is in use")


def functions(file: str, source: str, changed: str) -> dict[CodeType, CodeType]:
    """The code of every function of a source, and of the changed one; raises ValueError as ``swap`` does."""
    pairs: dict[CodeType, CodeType] = {}
    _pair(compile(source, file, "exec"), compile(changed, file, "exec"), pairs)
    return pairs


def _pair(old: CodeType, new: CodeType, pairs: dict[CodeType, CodeType]) -> None:
    """Add the functions below a module or a class, whose own code must not differ."""
    if (old.co_code, _plain(old), old.co_names) != (new.co_code, _plain(new), new.co_names):
        raise ValueError(f"the change is in no function, but in {old.co_qualname}")
    for before, after in zip(_inner(old), _inner(new), strict=True):
        if before.co_flags & 1:  # a function has fast locals, a class's body has none
            pairs[before] = after
        else:
            _pair(before, after, pairs)


def _inner(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]


def _plain(code: CodeType) -> list[object]:
    return [each for each in code.co_consts if not isinstance(each, CodeType)]
