"""How much memory a process has asked for."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

_FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _Mallinfo(ctypes.Structure):
    """What glibc's malloc.h calls struct mallinfo2."""

    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS.split()]


def _reader() -> Callable[[], int]:
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return lambda: 0
    ask.restype = _Mallinfo

    def read() -> int:
        now = ask()
        return int(now.uordblks + now.hblkhd)

    return read


in_use: Callable[[], int] = _reader()
"""Bytes that malloc has given out and not got back, in any thread: large blocks, gRPC's messages among them, and no
small Python objects. 0 where the C library is not glibc. Takes some microseconds."""
