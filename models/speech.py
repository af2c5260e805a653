"""Arabic speech commands: the release's lists of clips, and the spectrograms of these as images."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collage.speech import read_wav, spectrogram

PARTS = ("train", "val", "test")
"""Names of the release's lists; no speaker is in two of them."""
FILES = (*(f"{part}.csv" for part in PARTS), "dataset/zero/00000001_NO_01.wav")
"""Files by which to know the release."""


def read(path: Path, part: str, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """One part of the release as spectrograms: uint8 ``[N, size, size, 3]``, labels int64 ``[N]`` and files.

    Raises ValueError with its path for a clip that cannot be read.
    """
    numbers = {word: number for number, word in enumerate(words(path))}
    rows = _rows(path, part)
    images = np.empty((len(rows), size, size, 3), np.uint8)
    for image, (file, _) in zip(images, rows, strict=True):
        image[:] = spectrogram(read_wav(path / file), size)
    return images, np.array([numbers[word] for _, word in rows], np.int64), tuple(file for file, _ in rows)


def words(path: Path) -> tuple[str, ...]:
    """The words of the release, in alphabetical order."""
    return tuple(sorted({word for _, word in _rows(path, PARTS[0])}))


def _rows(path: Path, part: str) -> list[tuple[str, str]]:
    """File and word of every clip of a part."""
    with (path / f"{part}.csv").open(newline="", encoding="utf-8") as lines:
        return [(row["file"], row["class"]) for row in csv.DictReader(lines)]
