"""What of an image file is decoded: its pixels. Text, profiles, thumbnails and further frames are left out.

Decoders read metadata that nobody needs, fail where it is wrong, and are kept busy by metadata made for that. So they
are handed only what pixels need. Of the rest, the orientation alone is read, as far as that is possible.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

MAX_PARTS = 20_000
"""Most segments or chunks of one file. PNG files have the most, usually one for every 8 KB."""
MAX_SCANS = 32
"""Most scans of a JPEG file. Encoders write 10 for a colour image, 18 for CMYK; each passes over all pixels."""
MAX_RLE_PIXELS = 1_000_000
"""Most pixels of a compressed BMP file, which Pillow decodes in Python."""


class ImageError(ValueError):
    """The bytes are not an image that can be classified; the message says what to send instead."""


class ImageFile(NamedTuple):
    """An image file without its metadata."""

    format: str
    """As Pillow names it."""
    size: tuple[int, int]
    """Width and height in pixels, as stored."""
    data: bytes
    nanoseconds: float
    """About how long decoding takes on one core: measured, for a small output, within a factor of two."""
    orientation: int = 1
    """How the image is to be turned, 1 to 8 as in EXIF; 1 leaves it as it is."""
    deflated: tuple[memoryview, ...] = ()
    """The compressed pixels of a PNG file."""
    inflated: int = 0
    """How many bytes these must become."""


def read(data: bytes) -> ImageFile | None:
    """The part of a JPEG, PNG, WebP or BMP file that a decoder needs; None for any other bytes.

    Raises ImageError for more work than such an image needs, and other ValueErrors for a damaged file.
    """
    for start, reader in _READERS.items():
        if data.startswith(start):
            try:
                file = reader(data)
            except (struct.error, IndexError):
                raise ValueError("it ends too early") from None
            if file and min(file.size) < 1:
                raise ValueError("it has no pixels")
            return file
    return None


def complete(file: ImageFile, given_up: Callable[[], bool]) -> bool:
    """Whether the compressed pixels of a PNG file are all there; False as well once they are given up."""
    inflate, missing = zlib.decompressobj(), file.inflated
    for part in file.deflated:
        rest: bytes | memoryview = part
        while rest and missing > 0 and not given_up():
            missing -= len(inflate.decompress(rest, _BLOCK))
            rest = inflate.unconsumed_tail
    return missing <= 0


_BLOCK = 1 << 20


# JPEG

_EOI, _PADDING = b"\xff\xd9", b"\xff\x00" * 9
_SOS, _APP0, _APP1, _APP14 = 0xDA, 0xE0, 0xE1, 0xEE
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BASELINE, _PROGRESSIVE = frozenset({0xC0, 0xC1}), frozenset({0xC2, 0xCA})
_ALL = (1 << 64) - 1
"""One bit for each coefficient of a block."""
_ALONE = frozenset({0x00, 0x01, 0xFF, *range(0xD0, 0xD8)})
"""Codes that begin no segment."""
_MISPLACED = frozenset({*range(0x02, 0xC0), 0xD8, 0xD9})
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def _jpeg(data: bytes) -> ImageFile:
    whole, kept, exif, xmp, frame, first, end = memoryview(data), [], b"", b"", b"", 0, 2
    for code, start, end in _segments(data):
        if first < 0:
            first = start
        if code in _SOF:
            if frame:
                raise ValueError("it has two frames")
            frame = data[start:end]
        elif code >= _APP0:
            payload = data[start + 4 : end]
            if code == _APP1:
                exif = exif or (payload if payload.startswith(_EXIF) else b"")
                xmp = xmp or (payload if payload.startswith(_XMP) else b"")
            if not _tells_colours(code, payload):
                kept.append(whole[first:start])
                first = -1  # where the next one begins
    height, width = struct.unpack_from(">HH", frame, 5)
    begin = first if first >= 0 else end
    end, close, scans = _scans(data, end, frame[1], frame[10::3])
    pixels, count = b"".join((*kept, whole[begin:end], close)), width * height
    nanoseconds = 2 * count + 10 * len(pixels) if scans == 1 else (2 + scans) * count + 25 * len(pixels)
    return ImageFile("JPEG", (width, height), pixels, nanoseconds, _orientation(exif, xmp))


def _tells_colours(code: int, payload: bytes) -> bool:
    """Whether a segment from APP0 on says how colours are stored, and is long enough to be read."""
    jfif = code == _APP0 and payload.startswith(b"JFIF\0") and len(payload) >= 14
    return jfif or (code == _APP14 and payload.startswith(b"Adobe") and len(payload) >= 12)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Code, start and end of each segment of a JPEG file before its first scan."""
    at = 2
    for _ in range(MAX_PARTS):
        start = data.find(b"\xff", at)
        if start < 0:
            break
        at, code = start + 1, data[start + 1]
        if code == _SOS:
            return
        if code in _ALONE:
            continue
        at = start + 2 + (data[start + 2] << 8 | data[start + 3])
        if code in _MISPLACED or at > len(data):
            break
        yield code, start, at
    else:
        raise ImageError(f"the image has more than {MAX_PARTS:,} segments: save it without metadata")
    raise ValueError("it ends before its pixels")


def _scans(data: bytes, start: int, kind: int, components: bytes) -> tuple[int, bytes, int]:
    """Where the scans after ``start`` end, what has to follow, and how many there are.

    There must be scans that bring each of the ``components`` to its full precision. The last one may be incomplete.
    """
    start = data.index(b"\xff\xda", start)
    if kind in _BASELINE and data[start + 4] == len(components):
        end = data.rfind(_EOI, start)  # found sooner than from the start; the same, unless another file follows
        if end < 0:
            raise ValueError("its end is missing")
        # At an end marker, the decoder would make up the pixels that are missing. Without one it asks for more. It
        # looks a few bytes ahead: these are no code.
        return end, _PADDING, 1
    end = data.find(_EOI, start)
    scans = data.count(b"\xff\xda", start, max(end, start))
    if scans > MAX_SCANS:
        raise ImageError(
            f"the image has {scans:,} scans, more than the {MAX_SCANS} allowed: save it as a baseline JPEG"
        )
    missing = dict.fromkeys(components, _ALL)
    while 0 <= start < end:
        after = start + 5 + 2 * data[start + 4]
        first, last, bits = data[after], min(63, data[after + 1]), data[after + 2]
        if kind not in _PROGRESSIVE:
            first, last, bits = 0, 63, 0
        if not bits & 15:  # none is left for a later scan
            for component in data[start + 5 : after : 2]:
                missing[component] = missing.get(component, 0) & ~(_ALL >> 63 - last >> first << first)
        start = data.find(b"\xff\xda", start + 2)
    if end < 0 or any(missing.values()):
        raise ValueError("its end is missing")
    return end, _EOI, scans


# PNG

_INDEXED = 3
_CHANNELS = {0: 1, 2: 3, _INDEXED: 1, 4: 2, 6: 4}
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass, and the steps to the next ones."""


def _png(data: bytes) -> ImageFile:
    header, palette, exif, xmp = b"", b"", b"", b""
    pixels: list[memoryview] = []
    for name, start, end in _chunks(data, 8):
        if name == b"eXIf":
            exif = exif or data[start:end]
        elif name == b"iTXt" and data.startswith(b"XML:com.adobe.xmp\0", start):
            xmp = xmp or data[start:end]
        elif name in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            payload = memoryview(data)[start:end]
            if zlib.crc32(payload, zlib.crc32(name)) != _number(">I", data, end):
                raise ValueError(f"the checksum of an {name.decode()} chunk is wrong")
            if name == b"IEND":
                break
            if name == b"IDAT":
                pixels.append(payload)
            elif name == b"IHDR":
                header = header or bytes(payload)
            else:
                palette = palette or data[start - 8 : end + 4]
    else:
        raise ValueError("its end is missing")
    width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if colours == _INDEXED and not palette:
        raise ValueError("its palette is missing")
    deflated = sum(map(len, pixels))
    parts: list[bytes | memoryview] = [
        data[:8],
        struct.pack(">I4s13sI", 13, b"IHDR", header, zlib.crc32(header, zlib.crc32(b"IHDR"))),
        palette if colours == _INDEXED else b"",
        struct.pack(">I4s", deflated, b"IDAT"),
        *pixels,
        bytes(4),  # instead of a checksum, which Pillow does not look at
        struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND")),
    ]
    inflated = 0
    for column, row, across, down in _ADAM7 if interlaced else _WHOLE:
        columns, rows = -((column - width) // across), -((row - height) // down)
        if columns > 0 and rows > 0:
            inflated += rows * (1 + (columns * depth * _CHANNELS.get(colours, 1) + 7) // 8)
    # More deflated than inflated bytes: there are blocks of nothing, which take long.
    nanoseconds = 15 * width * height + 6 * inflated + 12 * deflated + 100 * max(0, deflated - inflated)
    turn = _orientation(exif, xmp)
    return ImageFile("PNG", (width, height), b"".join(parts), nanoseconds, turn, tuple(pixels), inflated)


def _chunks(data: bytes, at: int, form: str = ">I4s", after: int = 4) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk of a PNG or WebP file."""
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return
        first, second = struct.unpack_from(form, data, at)
        name, length = (second, first) if after else (first, second)
        start, end = at + 8, at + 8 + length
        if end > len(data):
            raise ValueError("it ends within a chunk")
        yield name, start, end
        at = end + (after or length % 2)
    raise ImageError(f"the image has more than {MAX_PARTS:,} chunks: save it again")


# WebP

_ALPHA, _ANIMATION, _METADATA = 0x10, 0x02, 0x0C
_FRAMES = (b"VP8 ", b"VP8L", b"ANMF")


def _webp(data: bytes) -> ImageFile | None:
    if data[8:12] != b"WEBP":
        return None
    kept, exif, xmp, size, done, more = [b"WEBP"], b"", b"", (0, 0), False, False
    length = 8 + _number("<I", data, 4)
    if length > len(data):
        raise ValueError("its end is missing")
    for name, start, end in _chunks(data[:length], 12, "<4sI", 0):
        chunk = data[start - 8 : end] + bytes((end - start) % 2)
        if name == b"EXIF":
            exif = exif or data[start:end]
        elif name == b"XMP ":
            xmp = xmp or data[start:end]
        elif name == b"VP8X":
            flags, *sides = struct.unpack_from("<BxxxHBHB", data, start)
            size = 1 + sides[0] + (sides[1] << 16), 1 + sides[2] + (sides[3] << 16)
            more = bool(flags & _METADATA)
            kept.append(chunk[:8] + bytes([flags & (_ALPHA | _ANIMATION)]) + chunk[9:])
        elif not done and name in (b"ANIM", b"ALPH", *_FRAMES):
            kept.append(chunk)
            done = name in _FRAMES
            if name == b"VP8 " and size == (0, 0):
                size = _number("<H", data, start + 6) & 0x3FFF, _number("<H", data, start + 8) & 0x3FFF
            elif name == b"VP8L" and size == (0, 0):
                both = _number("<I", data, start + 1)
                size = 1 + (both & 0x3FFF), 1 + (both >> 14 & 0x3FFF)
        if done and not more:
            break
    body = b"".join(kept)
    pixels, nanoseconds = b"RIFF" + struct.pack("<I", len(body)) + body, 35 * size[0] * size[1] + 20 * len(body)
    return ImageFile("WEBP", size, pixels, nanoseconds, _orientation(exif, xmp))


# BMP


def _bmp(data: bytes) -> ImageFile:
    core = _number("<I", data, 14) == 12
    width, height = struct.unpack_from("<HH" if core else "<ii", data, 18)
    size = width, abs(height)
    compressed = not core and _number("<I", data, 30) in (1, 2)
    if compressed and max(width * abs(height), len(data) // 2) > MAX_RLE_PIXELS:
        raise ImageError(f"a compressed BMP file may have {MAX_RLE_PIXELS:,} pixels: send a PNG file instead")
    return ImageFile("BMP", size, data, (200 if compressed else 20) * size[0] * size[1] + 100 * compressed * len(data))


# Orientation

_TAG = 0x0112
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_IN_XMP = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")


def _orientation(exif: bytes, xmp: bytes) -> int:
    """The orientation in EXIF or else in XMP data, 1 to 8; 1 if it cannot be read."""
    if not exif and not xmp:
        return 1
    exif = exif.removeprefix(_EXIF)
    with suppress(struct.error, KeyError):
        order = _BYTE_ORDERS[exif[:4]]
        at = _number(order + "I", exif, 4)
        for entry in range(at + 2, at + 2 + 12 * _number(order + "H", exif, at), 12):
            tag, kind, count = struct.unpack_from(order + "HHI", exif, entry)
            if tag == _TAG:
                value = _number(order + _INTEGERS[kind], exif, entry + 8)
                return value if count == 1 and 1 <= value <= 8 else 1
    found = _IN_XMP.match(xmp, xmp.find(b"tiff:Orientation"))
    return int(found[1]) if found else 1


def _number(form: str, data: bytes, at: int) -> int:
    number: int = struct.unpack_from(form, data, at)[0]
    return number


_READERS: dict[bytes, Callable[[bytes], ImageFile | None]] = {
    b"\xff\xd8\xff": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"RIFF": _webp,
    b"BM": _bmp,
}
