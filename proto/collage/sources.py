"""Where ``collage predict`` finds images: files, folders, web addresses, standard input."""

from __future__ import annotations

import errno
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path

from collage.inputs import beginning

STDIN = "-"
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_WEB = ("http://", "https://")


def sources(names: Sequence[str]) -> list[str]:
    """``names``, with folders replaced by the images in them and below, by name; one without images stays."""
    return [source for name in names for source in (_below(name) or [name])]


def _below(name: str) -> list[str]:
    return sorted(_images(name)) if name != STDIN and Path(name).is_dir() else []


def _images(folder: str) -> Iterator[str]:
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (str(Path(path, file)) for file in files if Path(file).suffix.lower() in SUFFIXES and file[0] != ".")


def content(source: str, most: int, timeout_s: float) -> bytes:
    """The bytes of an image, but no more than one byte more than ``most``; raises OSError.

    ``timeout_s`` is how long a web server may be silent.
    """
    if source == STDIN:
        return sys.stdin.buffer.read(most + 1) if sys.stdin else b""
    if source.startswith(_WEB):
        return _fetched(source, most, timeout_s)
    if Path(source).is_dir():
        raise OSError(errno.EISDIR, "there is no JPEG, PNG, WebP or BMP file in this folder")
    return beginning(Path(source), most)


def _fetched(address: str, most: int, timeout_s: float) -> bytes:
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "collage"})  # noqa: S310 - one of _WEB
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            return bytes(response.read(most + 1))
    except urllib.error.HTTPError as error:
        raise OSError(errno.EIO, f"the server answers {error.code} {error.reason}") from None
    except (urllib.error.URLError, HTTPException, ValueError) as error:
        raise OSError(errno.EIO, f"it cannot be fetched: {getattr(error, 'reason', error)}") from None
