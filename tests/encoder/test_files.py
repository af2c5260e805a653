"""What decoding looks at: pixels and orientation. Whatever else a file has, right or wrong, changes nothing."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from encoder.files import MAX_PARTS, read
from encoder.image import ImageError, Pixels, decode, fit
from tests.encoder.pictures import (
    PHOTO,
    encoded,
    exif,
    png_chunk,
    riff,
    segment,
    turned,
    webp_parts,
    with_chunks,
    with_segments,
    xmp,
)

SAMPLES = Path(__file__).parents[2] / "samples"
JPEG, PNG, WEBP = (encoded(PHOTO, kind) for kind in ("JPEG", "PNG", "WEBP"))
ORIENTATIONS = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
BOMB = zlib.compress(bytes(2_000_000))
RIGHT = turned(6)
UNFITTING = (0x011A, 2, 1, b"\xff\xff\xff\xff")
"""A resolution that is a text, at an address outside of the file."""


def plain(data: bytes, size: int) -> Pixels:
    """What Pillow alone makes of a good file."""
    image: Image.Image = Image.open(io.BytesIO(data))
    image.draft("RGB", (2 * size, 2 * size))
    return fit(ImageOps.exif_transpose(image), size)


def with_exif(kind: str, block: bytes) -> bytes:
    match kind:
        case "JPEG":
            return with_segments(JPEG, segment(0xE1, b"Exif\0\0" + block))
        case "PNG":
            return with_chunks(PNG, png_chunk(b"eXIf", block))
        case _:
            return extended(0b1000, (b"EXIF", block))


def with_xmp(kind: str, packet: bytes) -> bytes:
    match kind:
        case "JPEG":
            return with_segments(JPEG, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet))
        case "PNG":
            return with_chunks(PNG, png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))
        case _:
            return extended(0b0100, (b"XMP ", packet))


def extended(flags: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP file with metadata after its pixels."""
    header = struct.pack("<B3xHBHB", flags, PHOTO.width - 1, 0, PHOTO.height - 1, 0)
    return riff((b"VP8X", header), *webp_parts(WEBP), *chunks)


def same(one: bytes, other: bytes) -> None:
    np.testing.assert_array_equal(decode(one, 32), decode(other, 32))


@pytest.mark.parametrize("size", [32, 224])
def test_pixels_of_the_samples_are_those_that_pillow_alone_decodes(size: int) -> None:
    files = [*sorted((SAMPLES / "photos").glob("*.jpg")), *sorted((SAMPLES / "fashion-mnist").glob("*/*.png"))[::25]]
    assert len(files) > 40
    for file in files:
        np.testing.assert_array_equal(decode(file.read_bytes(), size), plain(file.read_bytes(), size))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("size", [9, 48, 64, 90])
def test_pixels_of_every_mode_are_those_that_pillow_alone_decodes(kind: str, mode: str, size: int) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21)
    else:
        image = PHOTO.convert(mode)
    options: list[dict[str, object]] = [{}]
    if kind == "JPEG":
        options = [{}, {"progressive": True}, {"subsampling": 0, "quality": 100}, {"restart_marker_blocks": 1}]
    elif kind == "WEBP":
        options = [{}, {"lossless": True}]
    for each in options:
        try:
            data = encoded(image, kind, **each)
        except OSError:  # the format has no such mode
            continue
        np.testing.assert_array_equal(decode(data, size), plain(data, size))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_images_are_turned_upright(kind: str, order: str) -> None:
    stored = decode({"JPEG": JPEG, "PNG": PNG, "WEBP": WEBP}[kind], 32)
    for orientation in range(10):
        block = exif(turned(orientation, order), (0x0102, 3, 1, bytes(4)), order=order)
        upright = Image.fromarray(stored)
        if 2 <= orientation <= 8:
            upright = upright.transpose(ORIENTATIONS[orientation - 2])
        found = decode(with_exif(kind, block), 32).astype(int)
        assert np.abs(found - np.asarray(upright)).max() <= 3, orientation  # resized after it was turned
        if kind != "JPEG":  # whose segments begin so anyway
            same(with_exif(kind, b"Exif\0\0" + block), with_exif(kind, block))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_tag_that_does_not_fit_its_type_changes_nothing(kind: str) -> None:
    right = with_exif(kind, exif(RIGHT))
    for block in (exif(UNFITTING, RIGHT), exif(RIGHT, UNFITTING), exif(RIGHT, (0x8769, 4, 2**32 - 1, b"\xff" * 4))):
        same(with_exif(kind, block), right)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_that_cannot_be_read_leaves_the_image_as_it_is(kind: str) -> None:
    stored = {"JPEG": JPEG, "PNG": PNG, "WEBP": WEBP}[kind]
    blocks = {
        "nothing": b"",
        "text": b"hello",
        "cut": exif(RIGHT)[:14],
        "cut within its value": exif(RIGHT)[:19],
        "far away": b"II*\0\xff\xff\xff\xff",
        "text as its value": exif((0x0112, 2, 1, b"6\0\0\0")),
        "no such type": exif((0x0112, 99, 1, b"\6\0\0\0")),
        "several": exif((0x0112, 3, 2, struct.pack("<HH", 6, 6))),
        "negative": exif((0x0112, 9, 1, struct.pack("<i", -6))),
        "fewer tags than promised": exif(UNFITTING).replace(b"\x01\0", b"\xff\xff", 1),
    }
    for block in blocks.values():
        same(with_exif(kind, block), stored)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_xmp_says_how_images_are_turned_where_exif_does_not(kind: str) -> None:
    same(with_xmp(kind, xmp(6)), with_exif(kind, exif(RIGHT)))
    same(with_xmp(kind, b"<tiff:Orientation>6</tiff:Orientation>"), with_exif(kind, exif(RIGHT)))
    for packet in (b"", b"tiff:Orientation", b'tiff:Orientation="9"', bytes(range(128, 256)), 3000 * b"<a>"):
        same(with_xmp(kind, packet), {"JPEG": JPEG, "PNG": PNG, "WEBP": WEBP}[kind])
    if kind == "JPEG":
        both = with_segments(with_xmp(kind, xmp(6)), segment(0xE1, b"Exif\0\0" + exif(turned(1))))
        same(both, JPEG)


@pytest.mark.parametrize(
    "segments",
    [
        [segment(0xE2, b"ICC_PROFILE\0")],
        [segment(0xE2, b"ICC_PROFILE\0\1\2" + bytes(9))],
        [segment(0xE2, b"MPF\0hello")],
        [segment(0xE0, b"JFIF")],
        [segment(0xE0, b"JFIF\0\1")],
        [segment(0xEE, b"Adobe")],
        [segment(0xED, b"Photoshop 3.0\0" + b"8BIM")],
        [segment(0xE1, b"Exif\0\0")] * 3,
        [segment(0xE1, b"Exif\0\0")] * 15_000,  # each of which was once added to the others
        [segment(0xFE, bytes(65_000))] * 40,
        [segment(0xFE, b"\xff\xda\xff\xd9\xff\xc0")],
        [segment(0xFE, b""), b"junk", b"\xff" * 9],
        [segment(0xE1, b"Exif\0\0" + bytes(9) + encoded(PHOTO.resize((9, 9)), "JPEG", progressive=True))],
    ],
    ids=range(13),
)
def test_segments_that_are_no_pixels_change_nothing(segments: list[bytes]) -> None:
    for progressive in (False, True):
        file = encoded(PHOTO, "JPEG", progressive=progressive)
        same(with_segments(file, *segments), file)


@pytest.mark.parametrize(
    "chunks",
    [
        [png_chunk(b"zTXt", b"a\0\0" + BOMB)],
        [png_chunk(b"zTXt", b"a\0\0" + BOMB)] * 100,
        [png_chunk(b"zTXt", b"a\0\7")],
        [png_chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)],
        [png_chunk(b"iCCP", b"a\0\0" + BOMB)],
        [png_chunk(b"iCCP", b"a\0\1")],
        [png_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 2\nzz")],
        [png_chunk(b"tEXt", b"a\0b")[:-1] + b"?"],  # its checksum
        [png_chunk(name, b"") for name in (b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tRNS", b"acTL", b"fcTL", b"fdAT")],
        [png_chunk(b"acTL", bytes(8)), png_chunk(b"fcTL", b"\1" * 26)],
        [png_chunk(b"PLTE", b"\1\2")],  # which true colours do not use
        [png_chunk(b"\xff\xfe\xfd\xfc", b"")],
    ],
    ids=range(12),
)
def test_chunks_that_are_no_pixels_change_nothing(chunks: list[bytes]) -> None:
    same(with_chunks(PNG, *chunks), PNG)


def test_a_palette_is_kept_and_its_transparency_is_not_looked_at() -> None:
    file = encoded(PHOTO.convert("P"))
    same(with_chunks(file, png_chunk(b"tRNS", bytes(range(200)))), file)
    same(with_chunks(file, png_chunk(b"tRNS", b"\7")), file)
    assert len(np.unique(decode(file, 32).reshape(-1, 3), axis=0)) > 50


def test_pixels_may_be_in_many_chunks() -> None:
    at = PNG.index(b"IDAT")
    pixels = PNG[at + 4 : at + 4 + int.from_bytes(PNG[at - 4 : at], "big")]
    parts = [png_chunk(b"IDAT", pixels[i : i + 3]) for i in range(0, len(pixels), 3)]
    text = png_chunk(b"tEXt", b"between")
    same(PNG[:33] + text.join([b"", png_chunk(b"IDAT", b""), *parts, b""]) + png_chunk(b"IEND", b""), PNG)


@pytest.mark.parametrize(
    "data",
    [
        encoded(PHOTO, "WEBP", icc_profile=b"no profile"),
        extended(0b100000, (b"ICCP", b"no profile")),
        extended(0b1100, (b"EXIF", b"hello"), (b"XMP ", b"\xff")),
        extended(0b1100),  # which it promises
        extended(0, (b"JUNK", bytes(999)), (b"VP8 ", b"another image")),
        WEBP + b"trailing",
    ],
    ids=range(6),
)
def test_webp_chunks_that_are_no_pixels_change_nothing(data: bytes) -> None:
    same(data, WEBP)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "MPO"])
def test_of_several_images_the_first_is_taken(kind: str) -> None:
    frames = [PHOTO, PHOTO.rotate(180), PHOTO.rotate(90)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    same(data, JPEG if kind == "MPO" else PNG)
    found = read(data)
    assert found is not None
    assert len(found.data) < len(data) * 0.6 or kind == "MPO"


def test_what_follows_an_image_is_not_looked_at() -> None:
    for file in (JPEG, PNG, WEBP, encoded(PHOTO, "BMP"), encoded(PHOTO, "JPEG", progressive=True)):
        for trail in (bytes(999), b"trailing", 40 * b"\xff\xda\0\2\xff\xd9"):
            same(file + trail, file)


def test_files_of_too_many_parts_are_refused() -> None:
    for data in (
        with_segments(JPEG, *[segment(0xFE, b"")] * MAX_PARTS),
        with_segments(JPEG, b"\xff" * MAX_PARTS),
        with_chunks(PNG, *[png_chunk(b"tEXt", b"")] * MAX_PARTS),
        extended(0b1000, *[(b"JUNK", b"")] * MAX_PARTS),
    ):
        with pytest.raises(ImageError, match=r"has more than 20,000 (segments|chunks): save it"):
            decode(data, 32)
