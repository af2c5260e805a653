"""What decoding may take: pixels, scans, parts, time of a caller who has gone, memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from encoder.files import MAX_RLE_PIXELS, MAX_SCANS
from encoder.image import GivenUp, ImageError, SlowImage, Waiter, decode
from tests.encoder.pictures import RGB, encoded, png_chunk, rle_bmp, scans_repeated, segment

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8))


@pytest.mark.parametrize("colour", [False, True])
def test_scans_are_counted_before_decoding(colour: bool) -> None:
    assert (decode(scans_repeated(MAX_SCANS, colour=colour), 8) == 100).all() or colour
    for scans in (MAX_SCANS + 1, 4000):
        with pytest.raises(ImageError, match=f"{scans:,} scans, more than the 32 allowed: save it"):
            decode(scans_repeated(scans, colour=colour), 8)


def test_scans_are_counted_in_a_jpeg_that_is_not_progressive() -> None:
    grey = encoded(Image.new("L", (16, 16), 100), "JPEG")
    frame, scan = grey.index(b"\xff\xc0"), grey.index(b"\xff\xda")
    length = int.from_bytes(grey[frame + 2 : frame + 4], "big")
    two = segment(0xC0, grey[frame + 4 : frame + 9] + b"\3\1\x11\0\2\x11\0\3\x11\0")
    head = grey[:frame] + two + grey[frame + 2 + length : scan]
    scans = [segment(0xDA, bytes((1, id, 0, 0, 63, 0))) + grey[scan + 10 : -2] for id in (1, 2, 3)]
    assert decode(head + b"".join(scans) + b"\xff\xd9", 8).shape == (8, 8, 3)
    with pytest.raises(ImageError, match="more than the 32 allowed"):
        decode(head + b"".join(scans * 11) + b"\xff\xd9", 8)


def test_scans_cannot_hide_behind_an_end_within_a_segment() -> None:
    data = scans_repeated(2000)
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff\xda", first + 2)
    with pytest.raises(ImageError, match="its end is missing"):  # all that a decoder would see ends there
        decode(data[:second] + segment(0xFE, b"\xff\xd9") + data[second:], 8)


def test_a_compressed_bmp_may_have_a_million_pixels() -> None:
    empty = b"\0\1"
    with pytest.raises(ImageError, match="damaged"):
        decode(rle_bmp(1000, 1000, empty), 8)
    for data in (rle_bmp(1001, 1000, empty), rle_bmp(1001, -1000, empty), rle_bmp(9, 9, bytes(2 * MAX_RLE_PIXELS))):
        with pytest.raises(ImageError, match="a compressed BMP file may have 1,000,000 pixels: send a PNG"):
            decode(data, 8)
    assert decode(encoded(Image.new("RGB", (1001, 1000)), "BMP"), 8).shape == (8, 8, 3)


def repeated(width: int, height: int) -> bytes:
    """A grey JPEG of any size, without having it in memory: all of its blocks are the same six bits."""
    data = encoded(Image.new("L", (8, 8), 128), "JPEG")
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    blocks = -(-width // 8) * -(-height // 8)
    return data[: frame + 5] + size + data[frame + 9 : scan + 10] + b"\x28\xa2\x8a" * -(-blocks // 4) + b"\xff\xd9"


def test_the_pixel_limit_rules_also_above_that_of_pillow() -> None:
    data = repeated(13_400, 13_400)  # Pillow's is 178,956,970
    assert (decode(data, 8, max_pixels=180_000_000) == 128).all()
    with pytest.raises(ImageError, match="13400 x 13400 pixels, more than the 50,000,000 allowed"):
        decode(data, 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_the_pixel_limit_is_met_exactly(kind: str) -> None:
    data = encoded(Image.fromarray(RGB), kind)
    assert decode(data, 8, max_pixels=2400).shape == (8, 8, 3)
    with pytest.raises(ImageError, match="60 x 40 pixels, more than the 2,399 allowed"):
        decode(data, 8, max_pixels=2399)


@pytest.mark.parametrize(
    ("data", "block"),
    [
        (encoded(NOISE, "JPEG", quality=98), 65536),
        (encoded(NOISE, "JPEG", quality=98, progressive=True), 8192),
        (encoded(NOISE), 8192),
        (encoded(NOISE, "BMP"), 65536),
        (encoded(NOISE.convert("P"), "BMP"), 65536),
    ],
    ids=["JPEG", "progressive", "PNG", "BMP", "palette"],
)
def test_decoding_ends_within_a_block_when_nobody_waits_any_more(data: bytes, block: int) -> None:
    assert len(data) > 2 * block
    asked = 0

    def gone() -> bool:
        nonlocal asked
        asked += 1
        return asked > 1

    with pytest.raises(GivenUp):
        decode(data, 400, given_up=gone)
    assert asked == 2
    patient = 0

    def never() -> bool:
        nonlocal patient
        patient += 1
        return False

    np.testing.assert_array_equal(decode(data, 400, given_up=never), decode(data, 400))
    assert len(data) / block <= patient <= len(data) / block + 6


def test_whoever_has_gone_gets_no_pixels() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "BMP"):
        with Waiter() as waiter:
            assert decode(encoded(NOISE.resize((9, 9)), kind), 8, given_up=waiter.gone).shape == (8, 8, 3)
        with pytest.raises(GivenUp):
            decode(encoded(NOISE.resize((9, 9)), kind), 8, given_up=waiter.gone)


def test_counting_the_rows_of_a_black_png_ends_too() -> None:
    asked = 0

    def gone() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    data = encoded(Image.new("RGB", (1000, 3000)))
    assert len(data) < 2 * 8192
    with pytest.raises(GivenUp):
        decode(data, 8, given_up=gone)
    assert asked == 5


SCRIPT = """
import resource, sys
from encoder.image import decode
data = sys.stdin.buffer.read()
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (90 << 20), resource.RLIM_INFINITY))
try:
    decode(data, 2000)
except MemoryError:
    print("MemoryError")
"""


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "16-bit", "WEBP", "BMP"])
def test_too_little_memory_is_no_damage(kind: str) -> None:
    image = Image.new("RGB", (4000, 4000), (1, 2, 3))
    make: dict[str, Callable[[], bytes]] = {
        "progressive": lambda: encoded(image, "JPEG", progressive=True),
        "16-bit": lambda: encoded(Image.fromarray(np.full((4000, 4000), 999, np.uint16)), compress_level=1),
    }
    data = make.get(kind, lambda: encoded(image, kind))()
    done = subprocess.run([sys.executable, "-c", SCRIPT], input=data, capture_output=True, timeout=60, check=True)
    assert done.stdout == b"MemoryError\n", done.stderr[-300:]


@pytest.mark.parametrize(
    ("data", "ordinary"),
    [
        (repeated(4000, 3000), True),
        (repeated(5000, 4000), False),
        (scans_repeated(10, 1000), True),
        (scans_repeated(32, 1100), True),
        (scans_repeated(32, 1200), False),
        (encoded(Image.new("RGB", (1500, 1500))), True),
        (encoded(Image.new("RGB", (2000, 2000))), False),
        (encoded(Image.new("1", (5000, 1000))), True),
        (encoded(Image.new("RGB", (1500, 1500)), "WEBP", lossless=True), True),
        (encoded(Image.new("RGB", (2000, 2000)), "WEBP", lossless=True), False),
        (encoded(Image.new("RGB", (2000, 2000)), "BMP"), True),
        (rle_bmp(800, 800, (b"\xff\1" * 3 + b"\x23\1\0\0") * 800), False),
    ],
    ids=range(12),
)
def test_large_images_are_put_off(data: bytes, ordinary: bool) -> None:
    """Where a tenth of a second is left for one."""
    if ordinary:
        assert decode(data, 8, at_once_s=0.1).shape == (8, 8, 3)
        return
    with Waiter() as waiter:
        with pytest.raises(SlowImage) as caught:
            decode(data, 8, given_up=waiter.gone, at_once_s=0.1)
        np.testing.assert_array_equal(caught.value.finish(), decode(data, 8))
    with pytest.raises(GivenUp):
        caught.value.finish()


def test_deflate_blocks_of_nothing_are_read_in_passing() -> None:
    header = png_chunk(b"IHDR", b"\0\0\3\xe8\0\0\3\xe8\x08\2\0\0\0")
    nothing = png_chunk(b"IDAT", b"\x78\x01" + b"\0\0\0\xff\xff" * 20_000)
    with pytest.raises(ImageError, match="damaged"):
        decode(b"\x89PNG\r\n\x1a\n" + header + nothing + png_chunk(b"IEND", b""), 8)
