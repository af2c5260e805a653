import io

import numpy as np
import pytest
from PIL import Image

from encoder.image import ImageError, decode, shrink

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_formats(kind: str) -> None:
    grey = Image.new("RGB", (50, 30), (200, 100, 50))
    pixels = decode(encoded(grey, kind), 16)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.astype(int), np.full((16, 16, 3), (200, 100, 50)), atol=4)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_colour_modes(mode: str) -> None:
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    image = Image.new("RGB", (20, 20), "white").convert(mode)
    assert decode(encoded(image, kind), 8).min() >= 250


def test_sixteen_bit_greys_are_scaled() -> None:
    image = Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))
    assert (decode(encoded(image), 8) == 128).all()


def test_same_size_images_are_not_touched() -> None:
    square = RGB[:40, :40]
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(square)), 40), square)


def test_the_longer_side_is_cropped_around_the_centre() -> None:
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 255
    assert (decode(encoded(Image.fromarray(image)), 20) == 255).all()


def test_exif_orientation_is_applied() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # rotated by 180 degrees
    pixels = decode(encoded(Image.fromarray(image), "PNG", exif=exif.tobytes()), 16)
    assert not pixels[:8].any()
    assert (pixels[8:] == 255).all()


def test_one_pixel() -> None:
    assert (decode(encoded(Image.new("RGB", (1, 1), "red")), 8) == (255, 0, 0)).all()


def test_animated_webp_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert (decode(data, 8) == (255, 0, 0)).all()


def bomb() -> bytes:
    """A PNG header that promises 30,000 x 30,000 pixels."""
    data = bytearray(encoded(Image.new("L", (1, 1))))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello, this is text", "not a JPEG, PNG, WebP or BMP"),
        (encoded(Image.fromarray(RGB), "JPEG")[:-200], "damaged"),
        (encoded(Image.fromarray(RGB))[:300], "damaged"),
        (encoded(Image.fromarray(RGB), "GIF"), "not a JPEG, PNG, WebP or BMP"),
        (bomb(), "pixels"),
    ],
    ids=["empty", "text", "truncated-jpeg", "truncated-png", "gif", "bomb"],
)
def test_bad_images_are_refused_with_advice(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        decode(data, 32)
    assert "send" in str(caught.value)


def test_pixel_limit_is_the_callers() -> None:
    with pytest.raises(ImageError, match="60 x 40 pixels, more than the 1,000"):
        decode(encoded(Image.fromarray(RGB)), 32, max_pixels=1000)


def test_shrink_returns_what_already_fits() -> None:
    assert shrink(RGB, 60, 40) is RGB
    assert shrink(RGB, 10, 20).shape == (20, 10, 3)
