from __future__ import annotations

import numpy as np
import torch

from encoder.linear import LinearCode, mean_weights
from models.augment import augment, cut_mix, mean_of_two
from models.data import Dataset
from models.train import describe


def test_augmented_images_are_shifted_and_mirrored_originals() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (40, 8, 8, 3), np.uint8)
    shown, flipped, _ = augment(torch.from_numpy(images), 8, np.random.default_rng(1), shift=2, crop=0, flip=True)
    moved = shown.numpy()
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    flips = 0
    for image, found, told in zip(padded, moved, flipped, strict=True):
        windows = [image[y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
        straight = any((window == found).all() for window in windows)
        mirrored = any((window[:, ::-1] == found).all() for window in windows)
        assert straight != mirrored == told
        flips += mirrored
    assert 8 < flips < 32
    np.testing.assert_array_equal(
        augment(torch.from_numpy(images), 8, rng, shift=0, crop=0, flip=False)[0].numpy(), images
    )


def test_windows_are_parts_of_the_image_at_its_own_scale() -> None:
    images = np.random.default_rng(0).integers(1, 256, (20, 8, 8, 3), np.uint8)
    seen = augment(torch.from_numpy(images), 6, np.random.default_rng(1), shift=0, crop=0, flip=False)[0].numpy()
    corners = set()
    for image, found in zip(images, seen, strict=True):
        ((y, x),) = [(y, x) for y in range(3) for x in range(3) if (image[y : y + 6, x : x + 6] == found).all()]
        corners.add((y, x))
    assert len(corners) > 5


def test_a_box_of_another_image_is_pasted_and_counts_by_its_area() -> None:
    """Images of one colour each, so that a pixel tells which image it is from."""
    batch = 300
    images = torch.arange(batch).to(torch.int16)[:, None, None, None].expand(-1, 10, 10, 3)
    mixed, targets = cut_mix(images, torch.eye(batch), 0.5, np.random.default_rng(0))
    other = mixed[..., 0] != images[..., 0]
    for own, found, pasted, target in zip(images, mixed, other, targets, strict=True):
        colours, counts = found[..., 0].unique(return_counts=True)
        assert len(colours) <= 2
        torch.testing.assert_close(target[colours.long()], counts / 100)
        assert (found[~pasted] == own[0, 0, 0]).all()
        assert pasted.sum() == pasted.any(0).sum() * pasted.any(1).sum(), "a box"
    touched = other.any(2).any(1)
    assert 0.3 < touched.float().mean() < 0.55
    assert other[touched].float().mean() > 0.2
    assert other.any(0).all(), "everywhere"
    assert cut_mix(images, targets, 0.0, np.random.default_rng(0)) == (images, targets)


def test_a_share_of_images_becomes_redundant_inputs_of_two() -> None:
    batch = 60
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 4, 4, 3), np.uint8)
    mixed, targets = mean_of_two(torch.from_numpy(pixels), torch.eye(batch), 0.5, np.random.default_rng(1))
    code, mixtures = LinearCode(mean_weights(2, 1)), 0
    for place, (found, target) in enumerate(zip(mixed.numpy(), targets, strict=True)):
        sources = target.nonzero()[:, 0].tolist()
        assert place in sources
        if len(sources) == 2:
            mixtures += 1
            assert target[sources].tolist() == [0.5, 0.5]
            np.testing.assert_array_equal(found, code.encode([pixels[source] for source in sources])[0])
        else:
            np.testing.assert_array_equal(found, pixels[place])
    assert 20 < mixtures < 40
    images = torch.from_numpy(pixels)
    assert mean_of_two(images, targets, 0.0, np.random.default_rng(0)) == (images, targets)


def test_a_square_of_every_image_is_cut_out() -> None:
    images = np.full((200, 12, 12, 3), 9, np.uint8)
    cut, *_ = augment(torch.from_numpy(images), 12, np.random.default_rng(0), shift=0, crop=0, flip=False, cutout=4)
    black = (cut.numpy() == 0).all(-1)
    assert (black.any((1, 2))).all()
    for rows, columns in zip(black.any(2), black.any(1), strict=True):
        assert 1 <= rows.sum() <= 4
        assert 1 <= columns.sum() <= 4
    np.testing.assert_array_equal(black.sum((1, 2)), black.any(2).sum(1) * black.any(1).sum(1))
    assert black.any(0).all(), "every place is cut out in some image"


def test_crops_show_parts_of_their_own_image() -> None:
    """Images of one colour each: a crop keeps the colour (its brightness varies) and has the size asked for."""
    images = np.zeros((30, 20, 20, 3), np.uint8)
    for number, image in enumerate(images):
        image[..., number % 3] = 150
    crops, *_ = augment(torch.from_numpy(images), 12, np.random.default_rng(0), shift=0, crop=0.35, flip=True)
    assert crops.shape == (30, 12, 12, 3)
    assert crops.dtype == torch.uint8
    brightest = crops.float().mean((1, 2)).argmax(-1).tolist()
    assert brightest == [number % 3 for number in range(30)]
    assert crops.float().amax((1, 2, 3)).std() > 5


def test_a_crop_is_mirrored_where_augment_says_so() -> None:
    images = np.zeros((40, 16, 16, 3), np.uint8)
    images[:, :, 8:] = 200  # bright on the right
    crops, flipped, _ = augment(torch.from_numpy(images), 16, np.random.default_rng(0), shift=0, crop=0.99, flip=True)
    left_is_brighter = (crops[:, :, :4].float().mean((1, 2, 3)) > crops[:, :, -4:].float().mean((1, 2, 3))).numpy()
    np.testing.assert_array_equal(left_is_brighter, flipped)
    assert 5 < flipped.sum() < 35


def test_normalised_training_images_have_mean_0_and_deviation_1(data: Dataset) -> None:
    spec = describe(data, "resnet32", 16, 1, {})
    x = spec.normalise(torch.from_numpy(data.train.images))
    assert x.shape == (len(data.train), 3, 16, 16)
    assert x.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-3)
