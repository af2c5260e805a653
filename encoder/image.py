"""From encoded bytes to the s-cnn's input, and from there to a collage cell."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 50_000_000

Pixels = NDArray[np.uint8]
"""An RGB image, uint8 ``[height, width, 3]``."""


class ImageError(ValueError):
    """The bytes are not an image that can be classified; the message says what to send instead."""


def decode(data: bytes, size: int, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode an image file to the s-cnn's input: RGB, uint8 ``[size, size, 3]``.

    Any size and colour mode is taken: the image is turned upright, 16-bit greys are scaled to 8 bits, transparency
    is dropped, the longer side is cropped to a centred square, and that is resized by Lanczos.

    Raises ``ImageError`` for anything that is not a complete JPEG, PNG, WebP or BMP of at most ``max_pixels``.
    """
    if not data:
        raise ImageError("the image is empty: send the bytes of a JPEG, PNG, WebP or BMP file")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError(
                f"the image has {width} x {height} pixels, more than the {max_pixels:,} allowed: send a smaller one"
            )
        if image.format == "JPEG":
            image.draft("RGB", (2 * size, 2 * size))
        return fit(image, size)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"the image has more than {max_pixels:,} pixels: send a smaller one") from None
    except UnidentifiedImageError:
        raise ImageError("not a JPEG, PNG, WebP or BMP image: send the bytes of such a file") from None
    except Exception as error:  # Pillow's plugins raise many types on damaged files
        raise ImageError(f"the image is damaged ({error}): send a complete JPEG, PNG, WebP or BMP file") from None


def fit(image: Image.Image, size: int) -> Pixels:
    """The s-cnn's input from any opened image: uint8 RGB ``[size, size, 3]``; training and serving both call this.

    The image itself is turned upright, as a copy of a large one would cost much memory.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # 16-bit greys; Pillow's own conversion would clip them
        grey = np.array(image, np.float32)
        grey /= 257
        image = Image.fromarray(grey.clip(0, 255, out=grey).astype(np.uint8))
    if image.mode != "RGB":
        image = image.convert("RGB")
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    return np.asarray(image)


def shrink(pixels: Pixels, width: int, height: int, by: Image.Resampling = Image.Resampling.LANCZOS) -> Pixels:
    """Resize to ``[height, width, 3]``; the same array when it already has that size."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), by))
