"""Look at a protobuf message before it is parsed: what has few bytes on the wire may take a hundred times as many."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from collage.errors import InvalidArgument

MAX_PARTS = 10_000
"""Fields that a message may have, those of the messages in it included: 1,024 images take two of them each at most."""
MAX_SHAPE_BYTES = 1024
"""Longest list of a tensor's dimensions, in bytes."""
_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5
_WIDTHS = {_FIXED_64: 8, _FIXED_32: 4}


def check(raw: bytes, message: Descriptor) -> None:
    """Raise InvalidArgument for more fields than any good message has. Says nothing of bytes that are no message."""
    try:
        _count(raw, 0, len(raw), message, MAX_PARTS)
    except IndexError:  # it ends within a field, or is no message: parsing will say so
        return


def _count(raw: bytes, at: int, end: int, message: Descriptor, left: int) -> int:
    """How many more fields the message may have after those between two places of ``raw``."""
    nested, shape = _fields(message)
    while at < end:
        left -= 1
        if left < 0:
            raise InvalidArgument(
                f"the message has more than {MAX_PARTS} fields: send pixels as raw bytes, or fewer rows"
            )
        tag, at = _varint(raw, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(raw, at)
        elif kind == _LENGTH:
            size, at = _varint(raw, at)
            if inside := nested.get(tag >> 3):
                left = _count(raw, at, min(at + size, end), inside, left)
            elif tag >> 3 == shape and size > MAX_SHAPE_BYTES:
                raise InvalidArgument(f"a shape has {size} bytes: a tensor has few dimensions")
            at += size
        else:
            at += _WIDTHS.get(kind, 0)  # groups have fields, which count as any other
    return left


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError("no number has so many bytes")


@functools.cache
def _fields(message: Descriptor) -> tuple[Mapping[int, Descriptor], int]:
    """The messages in a message by the numbers of their fields, and the number of its shape; -1 if it has none."""
    nested = {field.number: field.message_type for field in message.fields if field.message_type is not None}
    return nested, next((field.number for field in message.fields if field.name == "shape"), -1)


@functools.cache
def limit(message: Descriptor, small: int) -> int | None:
    """``small`` for a message that has room for no image: no field of bytes, not in any message in it either."""
    kinds = {field.type for field in message.fields}
    inside = _fields(message)[0].values()
    large = FieldDescriptor.TYPE_BYTES in kinds or any(limit(part, small) is None for part in inside)
    return None if large else small
