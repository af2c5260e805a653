"""The sample images that ship, groups of them, and what models of given worth make of images."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.samples import SAMPLES, MeasuredModels, Sample, TypicalModels, load_samples, random_groups, slug


def test_random_groups_use_every_sample_before_any_again() -> None:
    samples = [Sample(str(i), "bag", b"") for i in range(10)]
    groups = random_groups(samples, members=4, groups=5, seed=3)
    assert [len(group) for group in groups] == [4] * 5
    order = [sample.name for group in groups for sample in group]
    assert sorted(order[:10]) == sorted(order[10:]) == sorted(str(i) for i in range(10))
    assert order[:10] != order[10:]
    assert groups == random_groups(samples, members=4, groups=5, seed=3)
    assert groups != random_groups(samples, members=4, groups=5, seed=4)


def test_slugs() -> None:
    assert [slug(label) for label in ("T-shirt/top", "Ankle boot", "Bag")] == ["t-shirt-top", "ankle-boot", "bag"]


def test_100_sample_images_of_every_class_ship_with_their_licence() -> None:
    samples = load_samples()
    counts = {label: sum(sample.label == label for sample in samples) for label in {s.label for s in samples}}
    assert len(counts) == 10
    assert set(counts.values()) == {100}
    assert all(a.name < b.name for a, b in pairwise(samples))
    image = Image.open(io.BytesIO(samples[0].data))
    assert (image.format, image.mode, image.size) == ("PNG", "L", (28, 28))
    assert "Copyright (c) 2017 Zalando SE" in (SAMPLES / "LICENSE").read_text()


def test_labels_are_slugs_whatever_their_folders_are_called(tmp_path: Path) -> None:
    for folder in ("T-shirt top", "bag"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.png").write_bytes(b"png")
    assert load_samples(tmp_path) == [
        Sample("T-shirt top/0", "t-shirt-top", b"png"),
        Sample("bag/0", "bag", b"png"),
    ]


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        load_samples(tmp_path)


def test_images_are_as_good_as_the_model_says() -> None:
    model = TypicalModels()
    images = model.draw(200_000, seed=0)
    sure = images.confidence == 1
    assert sure.mean() == pytest.approx(0.6, abs=0.005)
    assert np.isnan(images.confidence).mean() == pytest.approx(0.003, abs=0.001)
    assert images.coded_right[sure].mean() == pytest.approx(0.989, abs=0.002)
    assert images.coded_right.mean() == pytest.approx(0.9, abs=0.006)
    assert not images.coded_right[np.isnan(images.confidence)].any(), "an empty cell is not right"
    assert images.s_cnn_right.mean() == pytest.approx(0.93, abs=0.003)


def test_measured_models_answer_as_often_and_as_surely_as_measured() -> None:
    steps = np.array([[0.3, 5, 10, 15, 10], [0.9, 50, 2, 5, 1], [np.nan, 0, 0, 1, 1]])
    models = MeasuredModels(steps, accept=0.5, factor=0.7)
    drawn = models.draw(40_000, seed=1)
    low = drawn.confidence < 0.5
    assert low.mean() == pytest.approx(0.4, abs=0.01)
    assert drawn.coded_right[low].mean() == pytest.approx(15 / 40, abs=0.02)
    assert drawn.s_cnn_right[low].mean() == pytest.approx(20 / 40, abs=0.02)
    assert (drawn.coded_right & ~drawn.s_cnn_right)[low].mean() == pytest.approx(10 / 40, abs=0.02)
    empty = np.isnan(drawn.confidence)
    assert empty.mean() == pytest.approx(0.02, abs=0.003)
    assert not drawn.coded_right[empty].any()
    np.testing.assert_array_equal(drawn.confidence, models.draw(40_000, seed=1).confidence)
    assert (drawn.confidence != models.draw(40_000, seed=2).confidence).any()
