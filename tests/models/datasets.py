"""Tiny data sets on disk, in every layout that models.data reads. No two images are alike."""

from __future__ import annotations

import csv
import gzip
import pickle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.clips import save_wav, tone


def write_folders(path: Path, parts: dict[str, int], classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """``<part>/<class>/*.jpg``: as many images of every class as ``parts`` says, in several shapes and modes."""
    rng = np.random.default_rng(0)
    for part, count in parts.items():
        for name in classes:
            folder = path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = rng.integers(20, 60, 2)
                image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
                image.convert("L" if number % 5 == 0 else "RGB").save(folder / f"{number:03d}.jpg")
            (folder / "notes.txt").write_text("not an image")
    return path


def write_idx(path: Path, train: int, test: int) -> Path:
    """Fashion-MNIST's four gzipped files; class c's images are brightest in rows 2 c to 2 c + 7."""
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for part, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (count, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 8] += 180
        _gzip(
            path / f"{part}-images-idx3-ubyte.gz", np.array([2051, count, 28, 28], ">i4").tobytes() + images.tobytes()
        )
        _gzip(path / f"{part}-labels-idx1-ubyte.gz", np.array([2049, count], ">i4").tobytes() + labels.tobytes())
    return path


def write_cifar(path: Path, per_batch: int) -> dict[str, NDArray[np.uint8]]:
    """CIFAR-10's six batches; returns their images, uint8 ``[N, 32, 32, 3]`` by batch."""
    rng = np.random.default_rng(2)
    written = {}
    for batch in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        images = rng.integers(0, 256, (per_batch, 32, 32, 3), np.uint8)
        content = {
            b"data": images.transpose(0, 3, 1, 2).reshape(per_batch, -1),
            b"labels": [number % 10 for number in range(per_batch)],
            b"filenames": [f"image_s_{number:06d}.png".encode() for number in range(per_batch)],
        }
        (path / batch).write_bytes(pickle.dumps(content))
        written[batch] = images
    return written


def write_cifar100(path: Path, train: int, test: int) -> dict[str, NDArray[np.uint8]]:
    """CIFAR-100's two files and their labels, of 4 classes; returns their images, uint8 ``[N, 32, 32, 3]`` by file."""
    rng = np.random.default_rng(3)
    path.mkdir(parents=True, exist_ok=True)
    names = [b"apple", b"aquarium_fish", b"baby", b"bear"]
    (path / "meta").write_bytes(pickle.dumps({b"fine_label_names": names, b"coarse_label_names": [b"any"]}))
    written = {}
    for part, count in (("train", train), ("test", test)):
        images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        content = {
            b"data": images.transpose(0, 3, 1, 2).reshape(count, -1),
            b"fine_labels": [number % 4 for number in range(count)],
            b"coarse_labels": [0] * count,
            b"filenames": [f"image_s_{number:06d}.png".encode() for number in range(count)],
        }
        (path / part).write_bytes(pickle.dumps(content))
        written[part] = images
    return written


TINY_CLASSES = {"n03": "desk", "n01": "goldfish", "n02": "tabby"}


def write_tiny(path: Path, per_class: int, held_out: int) -> Path:
    """A Tiny-ImageNet folder of 3 classes, with boxes, and with the test images that have no labels.

    Every image is bright where its object is.
    """
    rng = np.random.default_rng(4)

    def picture(file: Path) -> str:
        file.parent.mkdir(parents=True, exist_ok=True)
        left, top = rng.integers(0, 32, 2)
        right, bottom = rng.integers(left + 16, 64), rng.integers(top + 16, 64)
        pixels = rng.integers(0, 128, (64, 64, 3), np.uint8)
        pixels[top : bottom + 1, left : right + 1] += 128
        Image.fromarray(pixels).save(file, "JPEG")
        return f"{left}\t{top}\t{right}\t{bottom}\n"

    for number in TINY_CLASSES:
        folder = path / "train" / number
        names = [f"{number}_{i}.JPEG" for i in range(per_class)]
        boxes = "".join(f"{name}\t{picture(folder / 'images' / name)}" for name in names)
        (folder / f"{number}_boxes.txt").write_text(boxes)
    lines = []
    for i in range(held_out):
        box = picture(path / "val" / "images" / f"val_{i}.JPEG")
        lines.append(f"val_{i}.JPEG\t{list(TINY_CLASSES)[i % 3]}\t{box}")
    picture(path / "test" / "images" / "test_0.JPEG")
    (path / "val" / "val_annotations.txt").write_text("".join(lines))
    (path / "wnids.txt").write_text("\n".join(TINY_CLASSES) + "\n")
    words = {**TINY_CLASSES, "n01": "goldfish, Carassius auratus", "n00": "entity"}
    (path / "words.txt").write_text("".join(f"{number}\t{names}\n" for number, names in words.items()))
    return path


def _gzip(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, 1))


def write_speech(path: Path, words: tuple[str, ...], repeats: int = 2) -> Path:
    """Arabic speech commands: noisy tones in place of words, so many times by speakers 1 and 2, 3, and 4."""
    rng = np.random.default_rng(4)
    for part, speakers in (("train", (1, 2)), ("val", (3,)), ("test", (4,))):
        rows = []
        for number, word in enumerate(words):
            (path / "dataset" / word).mkdir(parents=True, exist_ok=True)
            for speaker in speakers:
                for repeat in range(1, repeats + 1):
                    file = f"dataset/{word}/{speaker:08d}_NO_{repeat:02d}.wav"
                    sound = 0.5 * tone(500.0 * (number + 1)) + 0.01 * rng.standard_normal(16_000).astype(np.float32)
                    save_wav(path / file, sound)
                    rows.append((file, word))
        with (path / f"{part}.csv").open("w", newline="") as out:
            csv.writer(out).writerows([("file", "class"), *rows])
    return path
