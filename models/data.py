"""Data sets as arrays: folders of images by class, Fashion-MNIST IDX files, the official CIFAR-10 release.

Every data set is split into train, validation and test; validation is cut from the training data with a fixed seed,
and no image is ever in two of them.
"""

from __future__ import annotations

import gzip
import hashlib
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoder.image import ImageError, decode, fit, shrink

FASHION_MNIST_LABELS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CIFAR10_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
IDX, BATCH = "train-images-idx3-ubyte.gz", "data_batch_1"
VALIDATION_SHARE, VALIDATION_MOST = 0.1, 5000


@dataclass(frozen=True)
class Split:
    """Images uint8 ``[N, size, size, 3]``, labels int64 ``[N]`` and N ids that name each image in its source."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> Split:
        """The images at these positions, in this order."""
        return Split(self.images[index], self.labels[index], tuple(self.ids[i] for i in index))


@dataclass(frozen=True)
class Dataset:
    """A labelled data set; ``labels`` names the classes in index order."""

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split


def name_of(path: Path) -> str | None:
    """The name of the data set that a folder holds, or None if it holds none that ``load`` can read."""
    if (path / IDX).exists():
        return "fashion-mnist"
    if (path / BATCH).exists():
        return "cifar10"
    return path.resolve().name if (path / "train").is_dir() else None


def find(*roots: Path) -> dict[str, Path]:
    """Data sets by name: each of ``roots`` that is one, and those in the folders directly below the others."""
    folders = [folder for root in roots for folder in ([root] if name_of(root) or not root.is_dir() else _listed(root))]
    return {name: folder for folder in reversed(folders) if (name := name_of(folder))}


def load(path: Path, size: int, train_size: int | None = None) -> Dataset:
    """Read the data set in ``path`` with every image at ``size`` pixels, training images at ``train_size`` if given.

    ``path`` holds ``train-images-idx3-ubyte.gz`` and its three siblings (Fashion-MNIST), ``data_batch_1`` ...
    ``test_batch`` (CIFAR-10, Python version), or ``train/<class>/*`` with ``test/<class>/*`` or ``val/<class>/*``;
    a folder with no test part gets one cut like the validation split. Names that begin with a dot are passed over.

    Raises FileNotFoundError where nothing of that is there, ImageError with its path for a file that cannot be read.
    """
    labels: tuple[str, ...]
    larger = train_size or size
    name = name_of(path)
    if name is None:
        raise FileNotFoundError(
            f"{path} holds no data set: expected IDX files, CIFAR-10 batches or train/<class>/ folders"
        )
    if (path / IDX).exists():
        labels = FASHION_MNIST_LABELS
        train, test = _idx(path, "train", larger), _idx(path, "t10k", size)
    elif (path / BATCH).exists():
        labels = CIFAR10_LABELS
        train = _cifar(path, [f"data_batch_{i}" for i in range(1, 6)], larger)
        test = _cifar(path, ["test_batch"], size)
    else:
        labels = _classes(path)
        train = _folder(path / "train", labels, larger)
        if held_out := _held_out(path):
            test = _folder(held_out, labels, size)
        else:
            train, test = _cut(train, size, seed=1)
    train, validation = _cut(train, size, seed=0)
    return Dataset(name, labels, train, validation, test)


def training_files(path: Path) -> list[Path]:
    """The images in ``path/train/<class>``, class by class; those of the validation split, and of a test part that is
    cut, are among them."""
    return _files(path / "train", _classes(path))


def training_ids(path: Path) -> tuple[str, ...] | None:
    """What ``load(path, ...).train.ids`` would be, without reading an image; None for a public data set, which nobody
    adds images to."""
    if (path / IDX).exists() or (path / BATCH).exists():
        return None
    ids = _ids(training_files(path))
    for seed in (0,) if _held_out(path) else (1, 0):
        ids = tuple(ids[i] for i in _apart(len(ids), seed)[0])
    return ids


def digest(ids: Sequence[str]) -> str:
    """What tells these images from others, in hex."""
    return hashlib.blake2b("\n".join(ids).encode(), digest_size=16).hexdigest()


def _listed(path: Path) -> list[Path]:
    """What a folder holds, without the hidden files and folders that systems and tools leave there."""
    return sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))


def _classes(path: Path) -> tuple[str, ...]:
    return tuple(entry.name for entry in _listed(path / "train") if entry.is_dir())


def _held_out(path: Path) -> Path | None:
    return next((path / part for part in ("test", "val") if (path / part).is_dir()), None)


def _apart(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions to keep, and random ones to cut off, both rising."""
    order = np.random.default_rng(seed).permutation(count)
    part = min(VALIDATION_MOST, int(count * VALIDATION_SHARE))
    return np.sort(order[part:]), np.sort(order[:part])


def _cut(split: Split, size: int, seed: int) -> tuple[Split, Split]:
    """Cut a random part off a split; returns (the rest, the part at ``size`` pixels)."""
    rest, chosen = _apart(len(split), seed)
    part = split.take(chosen)
    images = np.stack([shrink(image, size, size) for image in part.images]) if len(part) else part.images
    return split.take(rest), Split(images, part.labels, part.ids)


def _idx(path: Path, part: str, size: int) -> Split:
    images = gzip.decompress((path / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((path / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    _, count, height, width = np.frombuffer(images[:16], ">i4")
    grey = np.frombuffer(images, np.uint8, offset=16).reshape(count, height, width)
    rgb = np.stack([fit(Image.fromarray(image), size) for image in grey])
    ids = tuple(f"{part}/{i:05d}" for i in range(count))
    return Split(rgb, np.frombuffer(labels, np.uint8, offset=8).astype(np.int64), ids)


def _cifar(path: Path, batches: list[str], size: int) -> Split:
    images, labels, ids = [], [], []
    for batch in batches:
        content = pickle.loads((path / batch).read_bytes(), encoding="bytes")  # noqa: S301 - the release is a pickle
        rgb = content[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        images += [fit(Image.fromarray(np.ascontiguousarray(image)), size) for image in rgb]
        labels += content[b"labels"]
        ids += [f"{batch}/{name.decode()}" for name in content[b"filenames"]]
    return Split(np.stack(images), np.array(labels, np.int64), tuple(ids))


def _files(path: Path, labels: tuple[str, ...]) -> list[Path]:
    return [file for name in labels for file in _listed(path / name) if file.suffix.lower() in IMAGE_SUFFIXES]


def _ids(files: Sequence[Path]) -> tuple[str, ...]:
    return tuple("/".join(file.parts[-3:]) for file in files)


def _folder(path: Path, labels: tuple[str, ...], size: int) -> Split:
    files = _files(path, labels)
    images = np.empty((len(files), size, size, 3), np.uint8)
    for row, file in enumerate(files):
        try:
            images[row] = decode(file.read_bytes(), size)
        except ImageError as error:
            raise ImageError(f"{file}: {error}") from None
    numbers = {label: number for number, label in enumerate(labels)}
    return Split(images, np.array([numbers[file.parent.name] for file in files], np.int64), _ids(files))


def placements(split: Split, cells: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Random groups of ``cells`` image indices that cover the split once; the last group is filled up by repeats."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(split))
    short = -len(order) % cells
    order = np.concatenate((order, rng.choice(len(split), short)))
    yield from order.reshape(-1, cells)
