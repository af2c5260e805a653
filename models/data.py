"""Data sets as arrays: folders of images by class, Fashion-MNIST IDX files, the official CIFAR-10 and CIFAR-100
releases, Tiny-ImageNet with the classes of its images or with their boxes, Arabic speech commands.

Every data set is split into train, validation and test; validation is cut from the training data with a fixed seed,
unless the release has its own, and no image is ever in two of them.
"""

from __future__ import annotations

import gzip
import hashlib
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoder.image import ImageError, decode, fit, shrink
from models import boxes, speech, tiny_imagenet

FASHION_MNIST_LABELS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
IMAGENETTE_WORDS = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
"""Its folders are called by WordNet numbers."""
CIFAR10_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
FASHION_MNIST, CIFAR10, CIFAR100, TINY_IMAGENET = "fashion-mnist", "cifar10", "cifar100", "tiny-imagenet"
SPEECH = "arabic-speech-commands"
RELEASES = {
    FASHION_MNIST: ("train-images-idx3-ubyte.gz",),
    CIFAR10: ("data_batch_1",),
    CIFAR100: ("meta", "train", "test"),
    TINY_IMAGENET: ("wnids.txt", "words.txt", "val/val_annotations.txt"),
    SPEECH: speech.FILES,
}
"""Public data sets as released, and files by which to know them."""
BOXES = "boxes"
"""What the name of a Tiny-ImageNet folder says if not classes but boxes are to be learnt."""
VALIDATION_SHARE, VALIDATION_MOST = 0.1, 5000
HELD_OUT = ("test", "val")
"""Folders whose images nothing is trained on."""
UNKNOWN = -1
"""The label of a photo without one."""


@dataclass(frozen=True)
class Split:
    """Images uint8 ``[N, size, size, 3]``, labels int64 ``[N]`` and N ids that name each image in its source.

    Where objects are to be found, ``boxes`` float32 ``[N, 4]`` say where they are, see ``models.boxes``.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    boxes: NDArray[np.float32] | None = None

    @property
    def truth(self) -> NDArray[np.int64] | NDArray[np.float32]:
        """What a model should say of each image: its box if boxes are to be found, and else its label."""
        return self.labels if self.boxes is None else self.boxes

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> Split:
        """The images at these positions, in this order."""
        chosen = None if self.boxes is None else self.boxes[index]
        return Split(self.images[index], self.labels[index], tuple(self.ids[i] for i in index), chosen)


@dataclass(frozen=True)
class Dataset:
    """A labelled data set; ``labels`` names the classes in index order. There are none where boxes are to be found."""

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split


def in_words(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of classes, with words for the WordNet numbers of Imagenette."""
    return tuple(IMAGENETTE_WORDS.get(name, name) for name in classes)


def name_of(path: Path) -> str | None:
    """The name of the data set that a folder holds, or None if it holds none that ``load`` can read."""
    release = _release(path)
    if release == TINY_IMAGENET:
        return path.absolute().name
    if release:
        return release
    return path.resolve().name if (path / "train").is_dir() else None


def find(*roots: Path) -> dict[str, Path]:
    """Data sets by name: each of ``roots`` that is one, and those in the folders directly below the others."""
    folders = [folder for root in roots for folder in ([root] if name_of(root) or not root.is_dir() else _listed(root))]
    return {name: folder for folder in reversed(folders) if (name := name_of(folder))}


def load(path: Path, size: int, train_size: int | None = None) -> Dataset:
    """Read the data set in ``path`` with every image at ``size`` pixels, training images at ``train_size`` if given.

    ``path`` holds one of these:

    - ``train-images-idx3-ubyte.gz`` and its three siblings: Fashion-MNIST;
    - ``data_batch_1`` ... ``test_batch``: CIFAR-10, Python version; or ``meta``, ``train``, ``test``: CIFAR-100, with
      its 100 fine labels;
    - ``wnids.txt``, ``words.txt``, ``train``, ``val``: Tiny-ImageNet, with its validation images as test part. If the
      name of the folder, or of a link to it, ends in a number, that many classes are read, the first by WordNet number:
      ``tiny-imagenet-100`` is the first half of ``tiny-imagenet-200``. With ``boxes`` in its name, as in
      ``tiny-imagenet-boxes-100``, the objects' boxes are the targets;
    - ``train.csv``, ``val.csv``, ``test.csv``, ``dataset``: Arabic speech commands, as spectrograms. The three parts
      are those of the release, which have no speaker in common;
    - ``train/<class>/*`` with ``test/<class>/*`` or ``val/<class>/*``. A folder with no test part gets one cut like the
      validation split. Names that begin with a dot are passed over. The WordNet numbers of Imagenette's folders become
      words.

    Raises FileNotFoundError where nothing of that is there, ImageError with its path for a file that cannot be read.
    """
    labels: tuple[str, ...]
    larger = train_size or size
    name = name_of(path)
    if name is None:
        raise FileNotFoundError(
            f"{path} holds no data set: expected IDX files, CIFAR batches, Tiny-ImageNet or train/<class>/ folders"
        )
    release = _release(path)
    if release == SPEECH:
        labels = speech.words(path)
        train, validation, test = (
            Split(*speech.read(path, part, side)) for part, side in zip(speech.PARTS, (larger, size, size), strict=True)
        )
        return Dataset(name, labels, train, validation, test)
    if release == FASHION_MNIST:
        labels = FASHION_MNIST_LABELS
        train, test = _idx(path, "train", larger), _idx(path, "t10k", size)
    elif release == CIFAR10:
        labels = CIFAR10_LABELS
        train = _cifar(path, [f"data_batch_{i}" for i in range(1, 6)], larger)
        test = _cifar(path, ["test_batch"], size)
    elif release == CIFAR100:
        labels = tuple(name.decode() for name in _unpickled(path / "meta")[b"fine_label_names"])
        train, test = _cifar(path, ["train"], larger), _cifar(path, ["test"], size)
    elif release == TINY_IMAGENET:
        labels = tiny_imagenet.words(path)
        train, test = read_split(_tiny_train(path), larger), read_split(tiny_imagenet.held_out(path), size)
        if BOXES in name.split("-"):
            labels, known = (), boxes.of_tiny_imagenet(path, tiny_imagenet.classes(path))
            train, test = (
                replace(part, boxes=np.stack([known[id.rpartition("/")[2]] for id in part.ids]))
                for part in (train, test)
            )
    else:
        classes = _classes(path)
        labels = in_words(classes)
        train = _folder(path / "train", classes, larger)
        if held := held_out(path):
            test = _folder(held, classes, size)
        else:
            train, test = cut(train, size, seed=1)
    train, validation = cut(train, size, seed=0)
    return Dataset(name, labels, train, validation, test)


def training_files(path: Path) -> list[Path]:
    """The images in ``path/train/<class>``, class by class; those of the validation split, and of a test part that is
    cut, are among them."""
    if _release(path) == TINY_IMAGENET:
        return [file for file, _ in _tiny_train(path)]
    return _files(path / "train", _classes(path))


def training_ids(path: Path) -> tuple[str, ...] | None:
    """What ``load(path, ...).train.ids`` would be, without reading an image; None for a public data set, which nobody
    adds images to."""
    if _release(path):
        return None
    ids = names_of(training_files(path))
    for seed in (0,) if held_out(path) else (1, 0):
        ids = tuple(ids[i] for i in apart(len(ids), seed)[0])
    return ids


def validation_count(path: Path) -> int | None:
    """How many validation images ``load(path, ...)`` has, without reading an image; None for a public data set."""
    if _release(path):
        return None
    count = len(training_files(path))
    if not held_out(path):
        count = len(apart(count, seed=1)[0])
    return len(apart(count, seed=0)[1])


def relabelled(data: Dataset, labels: Sequence[str]) -> Dataset:
    """The data set with the classes of a model that knows these, and perhaps more; raises ValueError for others."""
    numbers = np.array(numbers_of(data.labels, labels, f"{data.name}'s"), np.int64)
    if data.labels == tuple(labels):
        return data
    parts = (Split(part.images, numbers[part.labels], part.ids) for part in (data.train, data.validation, data.test))
    return Dataset(data.name, tuple(labels), *parts)


def numbers_of(classes: Sequence[str], labels: Sequence[str], origin: object) -> list[int]:
    """Which of a model's labels each class is; raises ValueError, with its ``origin``, for a class not among them."""
    numbers = {name: number for number, name in enumerate(labels)}
    if unknown := [name for name in classes if name not in numbers]:
        raise ValueError(f"a model that knows {len(labels)} classes does not know {unknown[0]}, one of {origin}")
    return [numbers[name] for name in classes]


def digest(ids: Sequence[str]) -> str:
    """What tells these images from others, in hex."""
    return hashlib.blake2b("\n".join(ids).encode(), digest_size=16).hexdigest()


def _release(path: Path) -> str | None:
    return next((name for name, files in RELEASES.items() if all((path / file).is_file() for file in files)), None)


def _listed(path: Path) -> list[Path]:
    """What a folder holds, without the hidden files and folders that systems and tools leave there."""
    return sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))


def _classes(path: Path) -> tuple[str, ...]:
    return tuple(entry.name for entry in _listed(path / "train") if entry.is_dir())


def held_out(path: Path) -> Path | None:
    """The folder of the test part, if there is one."""
    return next((path / part for part in HELD_OUT if (path / part).is_dir()), None)


def apart(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions to keep, and random ones to cut off, both rising."""
    order = np.random.default_rng(seed).permutation(count)
    part = min(VALIDATION_MOST, int(count * VALIDATION_SHARE))
    return np.sort(order[part:]), np.sort(order[:part])


def cut(split: Split, size: int, seed: int) -> tuple[Split, Split]:
    """Cut a random part off a split; returns (the rest, the part at ``size`` pixels)."""
    rest, chosen = apart(len(split), seed)
    part = split.take(chosen)
    images = np.stack([shrink(image, size, size) for image in part.images]) if len(part) else part.images
    return split.take(rest), replace(part, images=images)


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
        content = _unpickled(path / batch)
        rgb = content[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        images += [fit(Image.fromarray(np.ascontiguousarray(image)), size) for image in rgb]
        labels += content.get(b"labels") or content[b"fine_labels"]
        ids += [f"{batch}/{name.decode()}" for name in content[b"filenames"]]
    return Split(np.stack(images), np.array(labels, np.int64), tuple(ids))


def _unpickled(path: Path) -> dict[bytes, Any]:
    content: dict[bytes, Any] = pickle.loads(path.read_bytes(), encoding="bytes")  # noqa: S301 - the release is pickles
    return content


def _images(folder: Path) -> list[Path]:
    return [file for file in _listed(folder) if file.suffix.lower() in IMAGE_SUFFIXES]


def _files(path: Path, labels: tuple[str, ...]) -> list[Path]:
    return [file for name in labels for file in _images(path / name)]


def _tiny_train(path: Path) -> list[tuple[Path, int]]:
    return [(file, label) for folder, label in tiny_imagenet.folders(path) for file in _images(folder)]


def names_of(files: Sequence[Path]) -> tuple[str, ...]:
    """What images are called: the last three parts of their paths."""
    return tuple("/".join(file.parts[-3:]) for file in files)


def _folder(path: Path, labels: tuple[str, ...], size: int) -> Split:
    numbers = {label: number for number, label in enumerate(labels)}
    return read_split([(file, numbers[file.parent.name]) for file in _files(path, labels)], size)


def read_split(labelled: Sequence[tuple[Path, int]], size: int) -> Split:
    """Images of files at ``size`` pixels, with their labels; raises ImageError with the path of a damaged one."""
    images = np.empty((len(labelled), size, size, 3), np.uint8)
    for row, (file, _) in enumerate(labelled):
        try:
            images[row] = decode(file.read_bytes(), size)
        except ImageError as error:
            raise ImageError(f"{file}: {error}") from None
    labels = np.array([label for _, label in labelled], np.int64)
    return Split(images, labels, names_of([file for file, _ in labelled]))


def placements(split: Split, cells: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Random groups of ``cells`` image indices that cover the split once; the last group is filled up by repeats."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(split))
    short = -len(order) % cells
    order = np.concatenate((order, rng.choice(len(split), short)))
    yield from order.reshape(-1, cells)
