"""The layout of a Tiny-ImageNet release: its classes, their words, and where its images lie. Needs no torch."""

from __future__ import annotations

from pathlib import Path


def classes(path: Path) -> list[str]:
    """The WordNet numbers of a folder's classes, as many of them as its name says."""
    numbers = sorted((path / "wnids.txt").read_text().split())
    wanted = path.absolute().name.rpartition("-")[2]
    return numbers[: int(wanted)] if wanted.isdigit() else numbers


def words(path: Path) -> tuple[str, ...]:
    """The names of the classes: the first of the words that WordNet has for each."""
    lines = (line.split("\t", 1) for line in (path / "words.txt").read_text().splitlines())
    known = {number: names.split(",")[0].strip() for number, names in lines}
    return tuple(known[number] for number in classes(path))


def folders(path: Path) -> list[tuple[Path, int]]:
    """The folders of training images, with their labels."""
    return [(path / "train" / number / "images", label) for label, number in enumerate(classes(path))]


def held_out(path: Path) -> list[tuple[Path, int]]:
    """The validation images, with their labels."""
    labels = {number: label for label, number in enumerate(classes(path))}
    lines = (line.split("\t") for line in (path / "val" / "val_annotations.txt").read_text().splitlines())
    return [(path / "val" / "images" / name, labels[number]) for name, number, *_ in lines if number in labels]
