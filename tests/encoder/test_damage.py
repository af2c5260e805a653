"""Damaged files are refused, however they came to be damaged; nothing else than ImageError comes of any bytes."""

from __future__ import annotations

import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from encoder.files import read
from encoder.image import ImageError, decode
from tests.encoder.pictures import (
    PHOTO,
    RGB,
    encoded,
    exif,
    png_chunk,
    png_file,
    riff,
    rle_bmp,
    segment,
    turned,
    webp_parts,
    with_chunks,
    with_segments,
)

EOI = b"\xff\xd9"
RLE = rle_bmp(4, 2, b"\4\x10\0\0\4\x20\0\0\0\1")
FILES = {
    "JPEG": encoded(PHOTO, "JPEG"),
    "JPEG with restarts": encoded(PHOTO, "JPEG", restart_marker_blocks=1),
    "progressive JPEG": encoded(PHOTO, "JPEG", progressive=True),
    "grey JPEG": encoded(PHOTO.convert("L"), "JPEG"),
    "CMYK JPEG": encoded(PHOTO.convert("CMYK"), "JPEG"),
    "JPEG with EXIF": with_segments(encoded(PHOTO, "JPEG"), segment(0xE1, b"Exif\0\0" + exif(turned(6)))),
    "PNG": encoded(PHOTO),
    "grey PNG": encoded(PHOTO.convert("L")),
    "palette PNG": encoded(PHOTO.convert("P")),
    "16-bit PNG": encoded(Image.fromarray(RGB[..., 0].astype(np.uint16) * 257)),
    "PNG with EXIF": with_chunks(encoded(PHOTO), png_chunk(b"eXIf", exif(turned(6)))),
    "WebP": encoded(PHOTO, "WEBP"),
    "lossless WebP": encoded(PHOTO, "WEBP", lossless=True),
    "WebP with alpha": encoded(Image.fromarray(np.dstack((RGB, RGB[..., 0]))), "WEBP"),
    "animated WebP": encoded(PHOTO, "WEBP", save_all=True, append_images=[PHOTO.rotate(90)]),
    "BMP": encoded(PHOTO, "BMP"),
    "palette BMP": encoded(PHOTO.convert("P"), "BMP"),
    "compressed BMP": RLE,
}


def refused(data: bytes, size: int = 16) -> bool:
    try:
        decode(data, size)
    except ImageError as error:
        return len(str(error)) < 300 and re.search("send|save", str(error)) is not None
    return False


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_ends_early_is_refused_wherever_it_ends(name: str) -> None:
    data = FILES[name]
    assert not refused(data)
    needed = len(data) - 4 if name == "compressed BMP" else len(data)  # two marks of an end
    step = max(1, needed // 500)
    for end in [*range(1, needed - 40, step), *range(max(1, needed - 40), needed)]:
        assert refused(data[:end]), end


@pytest.mark.parametrize("name", [name for name in FILES if "JPEG" in name])
def test_a_jpeg_that_was_cut_and_closed_again_is_refused(name: str) -> None:
    data = FILES[name]
    last = data.rindex(b"\xff\xda")
    most = last if "progressive" in name else len(data) - 40
    for end in range(2, most, 7):
        assert refused(data[:end] + EOI), end
        assert refused(data[:end] + bytes(len(data) - end)), end


def test_a_progressive_jpeg_needs_its_first_and_its_last_scan() -> None:
    data = FILES["progressive JPEG"]
    starts = [match.start() for match in re.finditer(b"\xff\xda", data)]
    assert len(starts) == 10
    for start in starts:
        assert refused(data[:start] + EOI), start
    assert refused(data[: starts[0]] + data[starts[1] :]), "the first scan"
    assert not refused(data[: starts[-1] + 40] + EOI), "the last bit of some brightness"


def test_a_jpeg_in_one_scan_for_each_colour_needs_all_of_them() -> None:
    grey = encoded(PHOTO.convert("L"), "JPEG")
    frame, scan = grey.index(b"\xff\xc0"), grey.index(b"\xff\xda")
    length = int.from_bytes(grey[frame + 2 : frame + 4], "big")
    colours = segment(0xC0, grey[frame + 4 : frame + 9] + b"\3" + b"".join(bytes((id, 0x11, 0)) for id in (1, 2, 3)))
    pixels = grey[scan + 2 + 8 : -2]
    scans = [segment(0xDA, bytes((1, id, 0, 0, 63, 0))) + pixels for id in (1, 2, 3)]
    head = grey[:frame] + colours + grey[frame + 2 + length : scan]
    assert not refused(head + b"".join(scans) + EOI)
    for some in (scans[:2], scans[:1], scans[1:]):
        assert refused(head + b"".join(some) + EOI)


def rows(width: int, height: int, bits: int, value: int = 0xA5) -> list[bytes]:
    return [b"\0" + bytes([value]) * ((width * bits + 7) // 8)] * height


@pytest.mark.parametrize(
    ("depth", "colours", "channels"),
    [(1, 0, 1), (2, 0, 1), (8, 0, 1), (16, 0, 1), (8, 2, 3), (16, 2, 3), (1, 3, 1), (8, 3, 1), (8, 4, 2), (8, 6, 4)],
)
@pytest.mark.parametrize("value", [0xA5, 0])
def test_a_png_needs_every_row(depth: int, colours: int, channels: int, value: int) -> None:
    palette = bytes(range(256)) * 3 if colours == 3 and depth == 8 else bytes(6)
    palette = palette if colours == 3 else b""
    whole = rows(21, 13, depth * channels, value)
    for count in range(1, 16):
        data = png_file((21, 13, depth, colours), b"".join(whole[:1] * count), palette=palette)
        assert refused(data) == (count < 13), count
    short = png_file((21, 13, depth, colours), b"".join(whole[1:]), palette=palette, after=b"more of it" * 9)
    assert refused(short)


@pytest.mark.parametrize("size", [(1, 1), (5, 1), (1, 5), (2, 2), (9, 6), (33, 17)])
def test_an_interlaced_png_needs_every_row_of_every_pass(size: tuple[int, int]) -> None:
    width, height = size
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    lines = []
    for x, y, across, down in passes:
        columns, count = len(range(x, width, across)), len(range(y, height, down))
        lines += rows(columns, count, 24) if columns else []
    assert not refused(png_file((width, height, 8, 2), b"".join(lines), interlaced=True))
    for count in range(len(lines)):
        assert refused(png_file((width, height, 8, 2), b"".join(lines[:count]), interlaced=True)), count


def test_black_images_are_complete() -> None:
    black = Image.new("RGBA", (300, 20))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        assert not decode(encoded(black.convert("L" if mode == "I;16" else mode).convert(mode)), 16).any()


def test_a_png_whose_bits_were_flipped_is_refused() -> None:
    for name in ("PNG", "palette PNG", "grey PNG"):
        data = FILES[name]
        for at in range(8, len(data)):
            flipped = bytearray(data)
            flipped[at] ^= 1 << at % 8
            assert refused(bytes(flipped)), at


@pytest.mark.parametrize("name", ["WebP", "lossless WebP"])
def test_a_webp_whose_pixels_end_early_is_refused(name: str) -> None:
    ((kind, pixels),) = webp_parts(FILES[name])
    for end in range(2, len(pixels) - 8, 7):
        assert refused(riff((kind, pixels[:end]))), end


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xff",
        b"\xff\xd8\xff\xda\0\2\xff\xd9",
        with_segments(FILES["JPEG"], b"\xff\xd8"),
        with_segments(FILES["JPEG"], FILES["JPEG"][2:200]),
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IEND", b""),
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", b"") + png_chunk(b"IEND", b""),
        png_file((0, 9, 8, 2), b"\0"),
        png_file((9, 9, 7, 9), b"\0" * 99),
        png_file((9, 9, 8, 3), b"\0" * 99, palette=bytes(999)),
        b"RIFF\4\0\0\0WEBP",
        b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0",
        riff((b"VP8X", b"")),
        riff((b"VP8X", bytes(10))),
        riff((b"VP8 ", bytes(10)), (b"EXIF", b"")),
        b"BM",
        b"BM" + bytes(99),
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, -5, 5, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(99),
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 5, -(2**31), 1, 24, 0, 0, 0, 0, 0, 0) + bytes(99),
        zlib.compress(b"hello"),
    ],
    ids=range(21),
)
def test_files_that_are_hardly_images_are_refused(data: bytes) -> None:
    assert refused(data)


def test_refusals_name_no_insides() -> None:
    for data in (b"\xff\xd8\xff\xe0", FILES["PNG"][:50], FILES["WebP"][:40], FILES["JPEG"][:300]):
        with pytest.raises(ImageError) as caught:
            decode(data, 16)
        assert not re.search(r"0x|unpack|subsection|BytesIO|Pillow", str(caught.value)), caught.value


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A file with a few faults; often such that checksums and lengths fit."""
    data = bytearray(FILES[draw(st.sampled_from(sorted(FILES)))])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["bit", "byte", "header", "cut", "end", "swap", "big"])):
            case "bit":
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "byte":
                data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xD8, 0xD9, 0xDA, 0xFF]))
            case "header":
                data[at % 64 % len(data)] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 64))]
            case "end":
                del data[max(at, 1) :]
            case "swap":
                data[at : at + 8] = data[at : at + 8][::-1]
            case _:
                data[at : at + 4] = draw(st.sampled_from([b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]))
        data = data or bytearray(b"\0")
    if draw(st.booleans()):
        mend(data)
    return bytes(data)


def mend(data: bytearray) -> None:
    """Make the checksums of a PNG file, or the length of a WebP file, those of its contents."""
    if data.startswith(b"\x89PNG"):
        at = 8
        while at + 12 <= len(data):
            end = at + 8 + int.from_bytes(data[at : at + 4], "big")
            if end + 4 > len(data):
                break
            data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
            at = end + 4
    elif data.startswith(b"RIFF") and len(data) >= 8:
        data[4:8] = (len(data) - 8).to_bytes(4, "little")


@settings(max_examples=400, deadline=5000, suppress_health_check=list(HealthCheck))
@given(data=broken(), size=st.sampled_from([1, 8, 64]))
@example(data=b"BM" + bytes(16), size=8)
def test_of_any_bytes_come_pixels_or_a_refusal(data: bytes, size: int) -> None:
    try:
        pixels = decode(data, size, max_pixels=1_000_000)
    except ImageError:
        return
    assert pixels.shape == (size, size, 3)
    assert read(data) is not None


@settings(max_examples=200, deadline=5000)
@given(st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x20\0\0\0WEBP", b"BM", b""]), st.binary())
def test_of_any_bytes_after_a_signature_come_pixels_or_a_refusal(signature: bytes, data: bytes) -> None:
    refused(signature + data)
