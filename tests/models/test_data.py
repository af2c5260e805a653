from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from collage.speech import read_wav, spectrogram
from encoder.image import ImageError, decode
from models.data import (
    CIFAR10_LABELS,
    FASHION_MNIST_LABELS,
    Dataset,
    Split,
    cut,
    digest,
    find,
    load,
    placements,
    training_files,
    training_ids,
    validation_count,
)
from models.recipes import OWN_SMALL
from models.zoo import family_of
from tests.models.datasets import write_cifar, write_cifar100, write_folders, write_idx, write_speech, write_tiny

PARTS = ("train", "validation", "test")


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def assert_disjoint(data: Dataset) -> None:
    for one, other in itertools.combinations([getattr(data, part) for part in PARTS], 2):
        assert not set(one.ids) & set(other.ids)
        assert not {image.tobytes() for image in one.images} & {image.tobytes() for image in other.images}
    for part in PARTS:
        split: Split = getattr(data, part)
        assert len(split) == len(split.images) == len(set(split.ids)) > 0
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64


def assert_same(one: Dataset, other: Dataset) -> None:
    assert one.labels == other.labels
    for part in PARTS:
        first, second = getattr(one, part), getattr(other, part)
        assert first.ids == second.ids
        np.testing.assert_array_equal(first.images, second.images)
        np.testing.assert_array_equal(first.labels, second.labels)


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_folders_are_read_as_a_server_would(tmp_path: Path, held_out: str) -> None:
    path = write_folders(tmp_path / "pets", {"train": 20, held_out: 6})
    data = load(path, 16)
    assert (data.name, data.labels) == ("pets", ("cat", "dog"))
    assert [len(getattr(data, part)) for part in PARTS] == [36, 4, 12]
    assert_disjoint(data)
    assert_same(data, load(path, 16))
    for part in PARTS:
        split = getattr(data, part)
        for image, label, name in zip(split.images, split.labels, split.ids, strict=True):
            np.testing.assert_array_equal(image, decode((path / name).read_bytes(), 16))
            assert name.startswith(f"{held_out if part == 'test' else 'train'}/{data.labels[label]}/")


def test_imagenettes_folders_are_told_in_words(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name, value in (("n03425413", 10), ("n03888257", 200), ("zebra", 90)):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (value,) * 3).save(tmp_path / part / name / "a.png")
    found = load(tmp_path, 8)
    assert found.labels == ("gas pump", "parachute", "zebra")
    assert found.test.images[:, 0, 0, 0].tolist() == [10, 200, 90]
    assert found.test.ids[0] == "val/n03425413/a.png"


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    path = write_folders(tmp_path / "pets", {"train": 20, "test": 2})
    plain, ids = load(path, 16), training_ids(path)
    for part in ("train", "test"):
        (path / part / "cat" / "._000.jpg").write_bytes(b"not an image")
        (path / part / ".ipynb_checkpoints").mkdir()
    assert_same(load(path, 16), plain)
    assert training_ids(path) == ids
    assert family_of("pets", path) == OWN_SMALL


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    path = write_folders(tmp_path / "pets", {"train": 3})
    damaged = path / "train" / "dog" / "001.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.raises(ImageError, match=f"{damaged}: the image is damaged"):
        load(path, 16)


def test_folders_without_a_test_part_get_one_cut(tmp_path: Path) -> None:
    path = write_folders(tmp_path / "pets", {"train": 20})
    data = load(path, 16)
    assert data.name == "pets"
    assert [len(getattr(data, part)) for part in PARTS] == [33, 3, 4]
    assert_disjoint(data)
    assert_same(data, load(path, 16))


@pytest.mark.parametrize("parts", [{"train": 20}, {"train": 20, "val": 2}])
def test_training_ids_are_known_without_reading_images(tmp_path: Path, parts: dict[str, int]) -> None:
    path = write_folders(tmp_path / "pets", parts)
    ids = load(path, 16).train.ids
    assert training_ids(path) == ids
    assert digest(ids) == digest(list(ids)) != digest(ids[1:])


@pytest.mark.parametrize("size", [28, 32])
def test_idx_files(tmp_path: Path, size: int) -> None:
    path = write_idx(tmp_path, train=60, test=20)
    data = load(path, size)
    assert (data.name, data.labels) == ("fashion-mnist", FASHION_MNIST_LABELS)
    assert [len(getattr(data, part)) for part in PARTS] == [54, 6, 20]
    assert_disjoint(data)
    assert_same(data, load(path, size))
    assert data.test.ids[3] == "t10k/00003"
    assert training_ids(path) is None
    np.testing.assert_array_equal(data.test.labels, np.arange(20) % 10)
    if size == 28:  # nothing resized: the brightest rows are where they were written
        for image, label in zip(data.train.images, data.train.labels, strict=True):
            assert image[2 * label : 2 * label + 8].min() >= 180 > image[(2 * label + 8) % 28].max()
            np.testing.assert_array_equal(image, decode(png(image[..., 0].copy()), size))
    else:
        originals = load(path, 28)
        for original, image in zip(originals.train.images, data.train.images, strict=True):
            np.testing.assert_array_equal(image, decode(png(original[..., 0].copy()), size))


def test_cifar_batches(tmp_path: Path) -> None:
    written = write_cifar(tmp_path, per_batch=10)
    data = load(tmp_path, 24)
    assert (data.name, data.labels) == ("cifar10", CIFAR10_LABELS)
    assert [len(getattr(data, part)) for part in PARTS] == [45, 5, 10]
    assert_disjoint(data)
    assert_same(data, load(tmp_path, 24))
    for part in PARTS:
        split = getattr(data, part)
        for image, label, name in zip(split.images, split.labels, split.ids, strict=True):
            batch, file = name.split("/")
            number = int(file.removeprefix("image_s_").removesuffix(".png"))
            assert label == number % 10
            np.testing.assert_array_equal(image, decode(png(written[batch][number]), 24))


def test_cifar100_with_its_fine_labels(tmp_path: Path) -> None:
    written = write_cifar100(tmp_path / "cifar-100-python", train=40, test=8)
    path = tmp_path / "cifar-100-python"
    data = load(path, 24)
    assert (data.name, data.labels) == ("cifar100", ("apple", "aquarium_fish", "baby", "bear"))
    assert [len(getattr(data, part)) for part in PARTS] == [36, 4, 8]
    assert_disjoint(data)
    assert_same(data, load(path, 24))
    assert training_ids(path) is None
    assert find(tmp_path) == {"cifar100": path}
    for part in PARTS:
        split = getattr(data, part)
        for image, label, name in zip(split.images, split.labels, split.ids, strict=True):
            file, _, number = name.removesuffix(".png").replace("/image_s_", "/").partition("/")
            assert file == ("test" if part == "test" else "train")
            assert label == int(number) % 4
            np.testing.assert_array_equal(image, decode(png(written[file][int(number)]), 24))


def test_png_folders_of_cifar_are_read_as_folders(tmp_path: Path) -> None:
    path = write_folders(tmp_path / "cifar10-png", {"train": 10, "test": 2}, CIFAR10_LABELS)
    (path / "README.md").write_text("about")
    data = load(path, 32)
    assert (data.name, data.labels) == ("cifar10-png", CIFAR10_LABELS)
    assert [len(getattr(data, part)) for part in PARTS] == [90, 10, 20]


def test_own_folders_are_not_taken_for_a_release(tmp_path: Path) -> None:
    path = write_folders(tmp_path / "pets", {"train": 20, "test": 2})
    for name in ("meta", "wnids.txt", "words.txt"):
        (path / name).write_text("mine")
    data = load(path, 16)
    assert (data.name, data.labels) == ("pets", ("cat", "dog"))


def test_tiny_imagenet(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny-imagenet-3", per_class=10, held_out=9)
    data = load(path, 64)
    assert (data.name, data.labels) == ("tiny-imagenet-3", ("goldfish", "tabby", "desk")), "by WordNet number"
    assert [len(getattr(data, part)) for part in PARTS] == [27, 3, 9]
    assert_disjoint(data)
    assert_same(data, load(path, 64))
    assert training_ids(path) is None
    assert len(training_files(path)) == 30
    assert family_of("tiny-imagenet-3", path) == OWN_SMALL
    for part in ("train", "validation"):
        split = getattr(data, part)
        for image, label, name in zip(split.images, split.labels, split.ids, strict=True):
            assert name.startswith(f"n0{label + 1}/images/n0{label + 1}_")
            np.testing.assert_array_equal(image, decode((path / "train" / name).read_bytes(), 64))
    assert data.test.ids == tuple(f"val/images/val_{i}.JPEG" for i in range(9))
    assert data.test.labels.tolist() == [2, 0, 1] * 3, "val_annotations.txt names n03, n01, n02 in turn"
    np.testing.assert_array_equal(data.test.images[4], decode((path / data.test.ids[4]).read_bytes(), 64))


def test_a_name_with_a_number_is_so_many_classes_of_tiny_imagenet(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny-imagenet-3", per_class=10, held_out=9)
    link = tmp_path / "tiny-imagenet-2"
    link.symlink_to(path)
    data = load(link, 32)
    assert (data.name, data.labels) == ("tiny-imagenet-2", ("goldfish", "tabby"))
    assert [len(getattr(data, part)) for part in PARTS] == [18, 2, 6]
    assert data.test.labels.tolist() == [0, 1] * 3
    assert not any(name.startswith("n03") for name in data.train.ids)
    assert find(tmp_path) == {"tiny-imagenet-2": link, "tiny-imagenet-3": path}
    other = path.rename(tmp_path / "photos")
    assert load(other, 32).labels == ("goldfish", "tabby", "desk"), "no number: all of them"


def test_speech_commands_keep_the_speakers_of_their_parts_apart(tmp_path: Path) -> None:
    path = write_speech(tmp_path / "anything", ("zoom in", "zero", "one"))
    data = load(path, 32, train_size=40)
    assert (data.name, data.labels) == ("arabic-speech-commands", ("one", "zero", "zoom in"))
    assert [len(getattr(data, part)) for part in PARTS] == [12, 6, 6]
    assert_disjoint(data)
    assert_same(data, load(path, 32, train_size=40))
    assert find(tmp_path) == {"arabic-speech-commands": path}
    assert (training_ids(path), validation_count(path)) == (None, None)
    speakers = [{name.split("/")[-1][:8] for name in getattr(data, part).ids} for part in PARTS]
    assert speakers == [{"00000001", "00000002"}, {"00000003"}, {"00000004"}]
    for part, size in zip(PARTS, (40, 32, 32), strict=True):
        split = getattr(data, part)
        for image, label, name in zip(split.images, split.labels, split.ids, strict=True):
            assert name.split("/")[1] == data.labels[label]
            np.testing.assert_array_equal(image, spectrogram(read_wav(path / name), size))


def test_a_folder_without_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no data set: expected IDX files"):
        load(tmp_path, 16)


def test_placements_show_every_image_once_and_fill_up_the_last_group() -> None:
    split = Split(np.zeros((20, 1, 1, 3), np.uint8), np.zeros(20, np.int64), tuple(map(str, range(20))))
    groups = list(placements(split, 9, seed=1))
    assert [len(group) for group in groups] == [9, 9, 9]
    order = np.concatenate(groups)
    assert sorted(order[:20]) == list(range(20))
    np.testing.assert_array_equal(order, np.concatenate(list(placements(split, 9, seed=1))))
    other = np.concatenate(list(placements(split, 9, seed=2)))
    assert order[:20].tolist() != other[:20].tolist() != list(range(20))


def test_validation_images_are_random_and_bounded_and_of_the_served_size(tmp_path: Path) -> None:
    path = write_folders(tmp_path / "pets", {"train": 40, "test": 2})
    ids = [f"{name}/{number:03d}.jpg" for name in ("cat", "dog") for number in range(40)]
    data = load(path, 16, train_size=24)
    chosen = [ids.index(name.removeprefix("train/")) for name in data.validation.ids]
    assert len(chosen) == 8
    assert chosen == sorted(chosen)
    assert max(chosen) - min(chosen) > 40, "of all classes"
    assert (data.train.images.shape[1], data.validation.images.shape[1], data.test.images.shape[1]) == (24, 16, 16)
    many = Split(np.zeros((60_000, 1, 1, 3), np.uint8), np.zeros(60_000, np.int64), ("",) * 60_000)
    rest, part = cut(many, 1, seed=0)
    assert (len(rest), len(part)) == (55_000, 5_000)
