"""From encoded bytes to the s-cnn's input, and from there to a collage cell."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile as OpenedImage

from encoder.files import ImageError as ImageError
from encoder.files import ImageFile, complete, read

MAX_PIXELS = 50_000_000
BYTES_PER_PIXEL = 17
"""Most memory that decoding takes."""

Pixels = NDArray[np.uint8]
"""An RGB image, uint8 ``[height, width, 3]``."""

Image.MAX_IMAGE_PIXELS = None  # ``decode`` has the one limit

_OPEN: dict[str, Callable[[io.BytesIO], OpenedImage]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What to do with an image, by its orientation in EXIF."""


_BLOCK_BYTES = 8 << 10
"""How much of a file decoders take at a time where a byte may become a thousand; elsewhere it is Pillow's 64 KB."""


class GivenUp(Exception):
    """Nobody waits for the image any more."""


class SlowImage(Exception):
    """Decoding takes longer than the caller wanted to spend here: ``finish`` decodes it, elsewhere."""

    def __init__(self, finish: Callable[[], Pixels]) -> None:
        super().__init__()
        self.finish = finish


class Waiter:
    """Somebody who waits for an image as long as a ``with`` block runs: by then, decoding it ends."""

    __slots__ = ("_gone",)

    def __init__(self) -> None:
        self._gone = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._gone = True

    def gone(self) -> bool:
        """Whether the block has ended."""
        return self._gone


def decode(
    data: bytes,
    size: int,
    max_pixels: int = MAX_PIXELS,
    given_up: Callable[[], bool] = lambda: False,
    at_once_s: float = math.inf,
) -> Pixels:
    """Decode an image file to the s-cnn's input: RGB, uint8 ``[size, size, 3]``.

    Any size and colour mode is taken: the image is turned upright, 16-bit greys are scaled to 8 bits, transparency
    is dropped, the longer side is cropped to a centred square, and that is resized by Lanczos. Of an animation, the
    first frame is taken. Metadata is not looked at, except for the orientation.

    Raises ``ImageError`` for anything that is not a complete JPEG, PNG, WebP or BMP of at most ``max_pixels``,
    MemoryError if there is not enough memory for it now, ``GivenUp`` soon after ``given_up`` is true, and ``SlowImage``
    instead of spending more than about ``at_once_s``.
    """
    if not data:
        raise ImageError("the image is empty: send the bytes of a JPEG, PNG, WebP or BMP file")
    try:
        file = read(data)
    except ImageError:
        raise
    except ValueError as error:
        raise _damaged(error) from None
    if file is None:
        raise ImageError("not a JPEG, PNG, WebP or BMP image: send the bytes of such a file")
    width, height = file.size
    if width * height > max_pixels:
        raise ImageError(
            f"the image has {width} x {height} pixels, more than the {max_pixels:,} allowed: send a smaller one"
        )
    if file.seconds > at_once_s:
        raise SlowImage(partial(decode, data, size, max_pixels, given_up))  # holds no copy while it waits
    return _decode(file, size, given_up)


def _decode(file: ImageFile, size: int, given_up: Callable[[], bool]) -> Pixels:
    try:
        image: Image.Image = _load(file, size, given_up)
        if file.orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[file.orientation])
        return fit(image, size)
    except (GivenUp, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise many types on damaged files
        raise _damaged(error) from None


def _damaged(error: Exception) -> ImageError:
    return ImageError(f"the image is damaged ({error}): send a complete JPEG, PNG, WebP or BMP file")


def _load(file: ImageFile, size: int, given_up: Callable[[], bool]) -> OpenedImage:
    """The pixels as they are stored, of a JPEG in at least twice the ``size`` if it has as much."""
    source = io.BytesIO(file.data)
    try:
        image = _OPEN[file.format](source)
        if image.size != file.size:
            raise ValueError("it has two sizes")
        if file.format == "JPEG":
            image.draft("RGB", (2 * size, 2 * size))
        if file.format == "PNG" or "progressive" in image.info:
            image.decodermaxblock = _BLOCK_BYTES
        if len(file.data) > image.decodermaxblock:
            image.fp = _Source(source, given_up)  # type: ignore[assignment]
        image.load()
    except Exception:
        np.empty(BYTES_PER_PIXEL * file.size[0] * file.size[1], np.uint8)  # decoders tell no MemoryError, this does
        raise
    whole = not file.deflated or not _looks_cut(image) or complete(file, given_up)
    if given_up():
        raise GivenUp
    if not whole:
        raise ValueError("pixels are missing")
    return image


def _looks_cut(image: OpenedImage) -> bool:
    """Whether the pixels that a PNG file has last are black, as they are where they are missing."""
    box = image.getbbox(alpha_only=False)
    return box is None or box[3] < image.height or "interlace" in image.info


class _Source:
    """A file that can be read as long as somebody wants it."""

    def __init__(self, source: io.BytesIO, given_up: Callable[[], bool]) -> None:
        self.seek, self.tell, self.close = source.seek, source.tell, source.close
        self._read, self._given_up = source.read, given_up

    def read(self, size: int = -1) -> bytes:
        if self._given_up():
            raise GivenUp
        return self._read(size)


def fit(image: Image.Image, size: int) -> Pixels:
    """The s-cnn's input from any upright image: uint8 RGB ``[size, size, 3]``; training and serving both call this."""
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
