"""Image files, also such as no encoder writes."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
PHOTO = Image.fromarray(RGB[:5, :8]).resize((64, 48), Image.Resampling.BICUBIC)
"""Smooth, without two pixels alike, and turned any way it is another one."""


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def segment(code: int, payload: bytes) -> bytes:
    """One of a JPEG file."""
    return b"\xff" + bytes([code]) + (2 + len(payload)).to_bytes(2, "big") + payload


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """With these before all others."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def png_chunk(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + name + payload + zlib.crc32(name + payload).to_bytes(4, "big")


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """With these after its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def png_file(
    header: tuple[int, int, int, int], rows: bytes, interlaced: bool = False, palette: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG file of these width, height, depth and colour type, with these rows, filter bytes included."""
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, interlaced)),
            png_chunk(b"PLTE", palette) if palette else b"",
            png_chunk(b"IDAT", zlib.compress(rows) + after),
            png_chunk(b"IEND", b""),
        )
    )


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP file."""
    body = b"".join(
        name + struct.pack("<I", len(payload)) + payload + bytes(len(payload) % 2) for name, payload in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webp_parts(webp: bytes) -> list[tuple[bytes, bytes]]:
    """Its chunks."""
    parts, at = [], 12
    while at < len(webp):
        length = int.from_bytes(webp[at + 4 : at + 8], "little")
        parts.append((webp[at : at + 4], webp[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return parts


def rle_bmp(width: int, height: int, body: bytes) -> bytes:
    """A BMP file of 8 bits per pixel, compressed by run lengths."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    palette = b"".join(bytes((level, 255 - level, level, 0)) for level in range(256))
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + info + palette + body


def exif(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """An EXIF block of entries: tag, type, count, and four bytes of value."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    body = b"".join(struct.pack(order + "HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return start + struct.pack(order + "IH", 8, len(entries)) + body + bytes(4)


def turned(orientation: int, order: str = "<") -> tuple[int, int, int, bytes]:
    """The entry of EXIF that says how an image is to be turned."""
    return 0x0112, 3, 1, struct.pack(order + "HH", orientation, 0)


def xmp(orientation: int) -> bytes:
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def scans_repeated(count: int, side: int = 32, colour: bool = False) -> bytes:
    """A progressive JPEG of ``side`` x ``side`` pixels with ``count`` scans: its last one comes again and again."""
    jpeg = encoded(Image.new("RGB" if colour else "L", (side, side), 100), "JPEG", progressive=True)
    last, end = jpeg.rfind(b"\xff\xda"), len(jpeg) - 2
    return jpeg[:end] + jpeg[last:end] * (count - jpeg.count(b"\xff\xda")) + jpeg[end:]
