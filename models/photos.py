"""Photos without labels, as a classifier sees them: what a collage-cnn of any s-cnn is distilled from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.data import (
    HELD_OUT,
    IMAGE_SUFFIXES,
    UNKNOWN,
    Dataset,
    Split,
    apart,
    cut,
    digest,
    held_out,
    in_words,
    names_of,
    numbers_of,
    read_split,
)
from models.measure import OnnxModel, softmax

MOST = 20_000
"""Photos that are used of a folder that has more: a random part of them, which needs 2 GB of memory."""
FEWEST = 20
_AT_ONCE = 8


def files(folder: Path) -> list[Path]:
    """The photos in a folder and all folders below it, sorted; of a data set with a test part, none of that.

    Names that begin with a dot are passed over. Raises ValueError where there are too few, or no folder.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    root = folder / "train" if (folder / "train").is_dir() else folder
    found = _below(root, HELD_OUT if root == folder else ())
    if len(found) < FEWEST:
        raise ValueError(f"{root} holds {len(found)} photos (JPEG, PNG, WebP or BMP): at least {FEWEST} are needed")
    if len(found) > MOST:
        chosen = np.sort(np.random.default_rng(0).permutation(len(found))[:MOST])
        found = [found[i] for i in chosen]
    return found


def test_part(folder: Path, labels: Sequence[str], size: int) -> Split:
    """The photos in ``folder/test/<class>``, or ``val``, for a model that knows these classes and perhaps more.

    Raises ValueError where there are none, and for a class that it does not know.
    """
    root = held_out(folder)
    found = _below(root) if root else []
    if not found:
        raise ValueError(f"expected {folder}/test/<class>: images that nothing was trained on")
    classes = in_words([file.parent.name for file in found])
    return read_split(list(zip(found, numbers_of(classes, labels, root), strict=True)), size)


def _below(root: Path, without: Sequence[str] = ()) -> list[Path]:
    """The photos in a folder and below, sorted, without those in the folders of these names right below it."""
    found = []
    for file in sorted(root.rglob("*")):
        parts = file.relative_to(root).parts
        hidden = any(part.startswith(".") for part in parts)
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file() and not hidden and parts[0] not in without:
            found.append(file)
    return found


def load(folder: Path, labels: Sequence[str], size: int, train_size: int | None = None) -> Dataset:
    """The photos in a folder as training and validation images, and no test images.

    A photo whose folder is called as one of ``labels`` has that label, others are ``UNKNOWN``.
    Raises ValueError for a folder with too few photos, and with its path for a file that cannot be read.
    """
    train, held = cut(read_split(_labelled(folder, labels), train_size or size), size, seed=0)
    nothing = np.zeros(0, np.int64)
    return Dataset(folder.resolve().name, tuple(labels), train, held, train.take(nothing))


def validation(folder: Path, labels: Sequence[str], size: int) -> Split:
    """What ``load(folder, labels, size).validation`` would be, without reading the training photos."""
    labelled = _labelled(folder, labels)
    return read_split([labelled[i] for i in apart(len(labelled), seed=0)[1]], size)


def _labelled(folder: Path, labels: Sequence[str]) -> list[tuple[Path, int]]:
    """The photos in a folder and their labels: ``UNKNOWN`` where their folder is called as none of ``labels``."""
    if in_words(labels) != tuple(labels):
        raise ValueError("some labels of the s-cnn are WordNet numbers of Imagenette: give words in its sidecar")
    numbers = {name: number for number, name in enumerate(labels)}
    found = files(folder)
    known = [numbers.get(name, UNKNOWN) for name in in_words([file.parent.name for file in found])]
    return list(zip(found, known, strict=True))


def training_ids(folder: Path) -> tuple[str, ...]:
    """What ``load(folder, ...).train.ids`` would be, without reading an image."""
    names = names_of(files(folder))
    return tuple(names[i] for i in apart(len(names), seed=0)[0])


def validation_count(folder: Path) -> int:
    """How many validation images ``load`` has, without reading an image."""
    return len(apart(len(files(folder)), seed=0)[1])


def answered(data: Dataset, s_cnn: OnnxModel, folder: Path, kept: Path) -> tuple[Dataset, NDArray[np.float32]]:
    """The photos with the s-cnn's own answers as labels, and what it answers to the training photos.

    The answers are class probabilities, float32 ``[images, classes]``, to the photos at the s-cnn's own size. They are
    stored in the folder ``kept`` as they come, so that a second call goes on where the first one was interrupted.
    """
    parts = data.train, data.validation
    names = [name for part in parts for name in part.ids]
    path = kept / f"answers-{s_cnn.info.version}-{digest(names)[:8]}.npy"
    shape = len(names), len(s_cnn.info.labels)
    if not path.exists():
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, np.full(shape, np.nan, np.float32))
        partial.replace(path)
    answers = np.load(path, mmap_mode="r+")
    missing = np.flatnonzero(np.isnan(answers[:, 0]))
    if len(missing):
        own = load(folder, s_cnn.info.labels, s_cnn.info.size)
        trained, held = own.train.images, own.validation.images
        for start in range(0, len(missing), _AT_ONCE):
            rows = missing[start : start + _AT_ONCE]
            pixels = [trained[row] if row < len(trained) else held[row - len(trained)] for row in rows]
            answers[rows] = softmax(s_cnn(np.stack(pixels))[0])
            if start % (64 * _AT_ONCE) == 0:
                answers.flush()
                print(f"  asking {s_cnn.info.name}: {start + len(rows)} of {len(missing)} photos", flush=True)
        answers.flush()
    known = np.array(answers)
    labels = known.argmax(1)
    count = len(data.train)
    train, validation = (
        Split(part.images, own, part.ids) for part, own in zip(parts, np.split(labels, [count]), strict=True)
    )
    return Dataset(data.name, data.labels, train, validation, data.test), known[:count]
