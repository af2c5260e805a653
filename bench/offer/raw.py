"""A connection to a gRPC server that does what no client library does: stops within a message, or reads no answer."""

from __future__ import annotations

import asyncio
import re
import struct
from collections import Counter
from collections.abc import Sequence
from typing import Self

import grpc

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE = 1, 4
_FRAME_BYTES = 16_384
_STATUS = re.compile(rb"grpc-status.(\d+)", re.DOTALL)
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class RawConnection:
    """HTTP/2 by hand: ``async with RawConnection(port, window=0) as raw``.

    ``window`` is how many bytes of each stream's answers the server may send; with 0 it can deliver none, and the
    status of a call only if there is no answer before it.
    """

    def __init__(self, port: int, window: int = 65_535) -> None:
        self._port, self._window = port, window
        self._next = 1
        self._allowed = {0: 65_535}  # bytes that may be sent, by stream; 0 is the connection
        self._initial = 65_535
        self._more = asyncio.Event()
        self.statuses: dict[int, str] = {}
        """How calls ended, by stream: a gRPC status, or RST_STREAM."""
        self.closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(_PREFACE)
        settings = struct.pack(">HIHI", _HEADER_TABLE_SIZE, 0, _INITIAL_WINDOW_SIZE, self._window)
        self._frame(_SETTINGS, 0, 0, settings)
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.wait((self._reading,))
        self._writer.close()

    def counts(self) -> Counter[str]:
        """How many calls ended in which way."""
        return Counter(self.statuses.values())

    def open(self, method: str, metadata: Sequence[tuple[str, str]] = (), half_close: bool = False) -> int:
        """Begin a call of ``/package.Service/Method``; returns its stream."""
        stream, self._next = self._next, self._next + 2
        self._allowed[stream] = self._initial
        fields = [(":path", method), (":authority", "bench"), ("te", "trailers"), ("content-type", "application/grpc")]
        block = b"\x83\x86" + b"".join(_literal(name, value) for name, value in (*fields, *metadata))  # POST, http
        self._frame(_HEADERS, _END_HEADERS | (_END_STREAM if half_close else 0), stream, block)
        return stream

    async def send(self, stream: int, message: bytes, length: int | None = None) -> None:
        """Send a message, or its beginning if ``length`` says that it has more bytes. The call stays open.

        Waits while the server allows no more; returns early if the call or the connection ends.
        """
        left = memoryview(struct.pack(">BI", 0, len(message) if length is None else length) + message)
        while left and stream not in self.statuses and not self.closed.is_set():
            size = min(len(left), _FRAME_BYTES, self._allowed[0], self._allowed[stream])
            if size <= 0:
                self._more.clear()
                await self._more.wait()
                continue
            for window in (0, stream):
                self._allowed[window] -= size
            self._frame(_DATA, 0, stream, left[:size])
            left = left[size:]
            await self._writer.drain()

    def half_close(self, stream: int) -> None:
        """Say that nothing more comes."""
        self._frame(_DATA, _END_STREAM, stream, b"")

    async def ended(self, count: int, timeout_s: float) -> bool:
        """Wait until that many calls have ended."""
        try:
            async with asyncio.timeout(timeout_s):
                while len(self.statuses) < count and not self.closed.is_set():
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            return False
        return len(self.statuses) >= count

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes | memoryview) -> None:
        if not self._writer.is_closing():
            self._writer.write(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream))
            self._writer.write(payload)

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                size, (kind, flags, stream) = int.from_bytes(head[:3], "big"), struct.unpack(">BBI", head[3:])
                self._take(kind, flags, stream, await self._reader.readexactly(size))
                self._more.set()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.closed.set()
            self._more.set()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _WINDOW_UPDATE and stream in self._allowed:
            self._allowed[stream] += int.from_bytes(payload, "big")
        elif kind == _SETTINGS and not flags & _ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == _INITIAL_WINDOW_SIZE:
                    for known in self._allowed.keys() - {0}:
                        self._allowed[known] += value - self._initial
                    self._initial = value
            self._frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self._frame(_PING, _ACK, 0, payload)
        elif kind == _HEADERS and (found := _STATUS.search(payload)):
            self.statuses.setdefault(stream, _NAMES[int(found[1])])
        elif kind == _RST_STREAM:
            self.statuses.setdefault(stream, "RST_STREAM")
        elif kind == _DATA and payload and self._window:
            for window in (0, stream):
                self._frame(_WINDOW_UPDATE, 0, window, struct.pack(">I", len(payload)))


def _literal(name: str, value: str) -> bytes:
    """A header field as HPACK has it without tables."""
    return b"\x00" + b"".join(_length(len(text)) + text.encode() for text in (name, value))


def _length(size: int) -> bytes:
    """HPACK's integer with a prefix of 7 bits."""
    if size < 127:
        return bytes([size])
    rest, size = [127], size - 127
    while size >= 128:
        rest.append(size % 128 + 128)
        size //= 128
    return bytes([*rest, size])
