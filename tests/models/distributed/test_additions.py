"""Compressed sums: exact where they can be, nothing lost for ever where they keep the rest, and few bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.distributed import ADDITIONS, Cycle, GradiVeQ, Levels, PowerSGD, TopK
from models.distributed.flat import Part
from models.distributed.quantise import _packed, _unpacked
from tests.models.distributed.rings import Run, together

PARTS = (Part(0, (8, 4, 3, 3)), Part(288, (8,)), Part(296, (8, 8, 3, 3)), Part(872, (10, 8)), Part(952, (10,)))
"""Two convolutions of one stage, a vector, a matrix, a vector: 962 elements."""
CYCLE = Cycle(slice=96, most=4, look=3, steps=8, lag=2)
"""Slices of 96: three of the first convolution and six of the second; nothing is left over."""


def _random(steps: int, ranks: int, seed: int = 0) -> Tensor:
    return torch.randn(steps, ranks, 962, generator=torch.Generator().manual_seed(seed))


def _alike(steps: int, ranks: int, directions: int = 4) -> Tensor:
    """Gradients whose slices are a mean and a mixture of few directions."""
    gradients = _random(steps, ranks)
    random = torch.Generator().manual_seed(1)
    basis, mean = torch.randn(directions - 1, 96, generator=random), torch.randn(96, generator=random)
    for first, count in ((0, 3), (296, 6)):
        mixture = torch.randn(steps, ranks, count, directions - 1, generator=random) @ basis + mean
        gradients[:, :, first : first + 96 * count] = mixture.reshape(steps, ranks, -1)
    return gradients


KEEPING = replace(CYCLE, feedback=True)
CASES = {
    **ADDITIONS,
    "gradiveq": lambda parts: GradiVeQ(parts, KEEPING),
    "gradiveq-8": lambda parts: GradiVeQ(parts, KEEPING, Levels(8)),
    "gradiveq-4": lambda parts: GradiVeQ(parts, KEEPING, Levels(4)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_sent_now_is_sent_later(name: str) -> None:
    gradients = _random(6, 2)
    run = Run(CASES[name], PARTS, gradients)
    kept = [getattr(addition, "_kept", torch.zeros(0)) for addition in run.additions]
    left = torch.stack([each if each.numel() else torch.zeros(962) for each in kept]).mean(0)
    torch.testing.assert_close(run.means.sum(0) + left, gradients.mean(1).sum(0), rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize(("name", "bytes_sent"), [("none", 962 * 4), ("fp16", 962 * 2)])
def test_whole_gradients(name: str, bytes_sent: int) -> None:
    gradients = _random(2, 2)
    run = Run(ADDITIONS[name], PARTS, gradients)
    torch.testing.assert_close(run.means, gradients.mean(1), rtol=2e-3, atol=2e-3)
    assert run.sent == [[bytes_sent] * 2] * 2


def test_gradiveq_loses_nothing_of_slices_that_are_mixtures_of_few_directions() -> None:
    gradients = _alike(12, 4)
    run = Run(lambda parts: GradiVeQ(parts, CYCLE), PARTS, gradients)
    torch.testing.assert_close(run.means, gradients.mean(1), rtol=1e-4, atol=1e-4)
    assert run.additions[0].explained == [pytest.approx(1, abs=1e-4)]


def test_gradiveq_sends_coefficients_the_rest_and_the_directions_of_a_new_cycle() -> None:
    run = Run(lambda parts: GradiVeQ(parts, CYCLE), PARTS, _random(14, 2))
    whole, rest, coefficients, number = 962 * 4, (962 - 864) * 4, 9 * 4 * 4, 4
    compressed, directions = rest + coefficients, 96 * (4 + 1) * 4 + number
    looks = [whole] * 3
    assert run.sent[0] == [*looks, compressed + directions, *[compressed] * 9, compressed + directions]
    assert run.sent[1] == [*looks, *[compressed] * 11], "the last rank passes no directions on"


def test_gradiveq_takes_as_few_directions_as_hold_the_variance() -> None:
    few = Cycle(slice=96, most=8, variance=0.999, look=3, steps=8, lag=2)
    run = Run(lambda parts: GradiVeQ(parts, few), PARTS, _alike(4, 2, directions=3))
    assert run.sent[1][-1] == (962 - 864 + 9 * 2) * 4, "two directions beside the mean"


def test_directions_are_of_the_slices_since_the_last_time() -> None:
    (group,) = GradiVeQ(PARTS, CYCLE).groups
    for place, size in ((3, 100.0), (7, 1.0)):
        slices = torch.zeros(9, 96)
        slices[:, place] = torch.linspace(-size, size, 9)
        group.look(slices)
        basis = group.basis(CYCLE)
        assert basis.u.shape == (96, 1)
        assert basis.u[:, 0].abs().argmax() == place
        assert basis.explained == pytest.approx(1)


def test_without_feedback_gradiveq_forgets_what_lies_outside() -> None:
    gradients = _random(6, 2)
    run = Run(lambda parts: GradiVeQ(parts, CYCLE), PARTS, gradients)
    assert not any(addition._kept.any() for addition in run.additions)
    later = [run.means[step, :288] - gradients.mean(1)[step, :288] for step in (3, 4, 5)]
    assert min(error.norm() for error in later) > 5
    outside = (288, 296), (872, 962)
    for first, last in outside:
        torch.testing.assert_close(run.means[:, first:last], gradients.mean(1)[:, first:last])


def test_slices_are_shared_by_the_convolutions_of_a_stage_and_the_rest_travels_whole() -> None:
    addition = GradiVeQ((*PARTS, Part(962, (16, 8, 3, 3))), Cycle(slice=100))
    assert [(group.count, group.width) for group in addition.groups] == [(2 + 5, 100), (11, 100)]
    covered = torch.cat([group.places for group in addition.groups])
    assert len(covered.unique()) == len(covered) == 1800
    assert len(addition._rest) == 962 + 1152 - 1800


@pytest.mark.parametrize(("bits", "size"), [(8, 4), (4, 7), (4, 2), (8, 8)])
def test_numbers_of_few_bits_hold_the_sum_of_all_ranks(bits: int, size: int) -> None:
    codes = torch.randn(size, 5, 3, generator=torch.Generator().manual_seed(0))
    codes[:, 0, :] = 4  # all ranks have the largest at one place
    codes *= torch.tensor([0.01, 1, 100])

    def work(ring) -> Tensor:  # type: ignore[no-untyped-def]
        coder = Levels(bits).coder([codes[ring.rank]], ring)
        (summed,) = ring.add([lambda: coder.encode(codes[ring.rank], 0)], Levels(bits).plus)
        return coder.decode(summed, 0)

    level = codes.abs().amax((0, 1)) / ((2 ** (bits - 1) - 1) // size)
    for found in together(size, work):
        assert ((found - codes.sum(0)).abs() <= 1.001 * size * level / 2).all()
        torch.testing.assert_close(found[0], codes[:, 0].sum(0))


def test_four_bits_do_not_hold_the_sum_of_eight_ranks() -> None:
    with pytest.raises(ValueError, match="4 bits cannot hold the sum of 8 ranks: take 8"):
        together(8, lambda ring: Levels(4).coder([torch.ones(2, 2)], ring))


def test_two_numbers_share_a_byte() -> None:
    numbers = torch.tensor([-8, 7, 0, -1, 3], dtype=torch.int8)
    assert len(_packed(numbers)) == 3
    assert _unpacked(_packed(numbers)).tolist() == [-8, 7, 0, -1, 3, 0]


def test_random_rounding_is_right_on_average_and_within_the_levels() -> None:
    torch.manual_seed(0)
    codes = torch.linspace(-1, 1, 41).repeat(200, 1).T.contiguous()
    (decoded,) = together(1, lambda ring: _coded(codes, ring))
    step = 1 / 127
    assert (decoded - codes).abs().max() <= step + 1e-6
    assert ((decoded - codes).mean(1).abs() < step / 8).all()


def _coded(codes: Tensor, ring) -> Tensor:  # type: ignore[no-untyped-def]
    coder = Levels(8, random=True).coder([codes], ring)
    return coder.decode(coder.encode(codes, 0), 0)


@pytest.mark.parametrize(("bits", "size"), [(8, 1), (4, 0.5)])
def test_gradiveq_sends_numbers_of_few_bits_and_their_scales(bits: int, size: float) -> None:
    run = Run(lambda parts: GradiVeQ(parts, CYCLE, Levels(bits)), PARTS, _random(6, 2))
    assert run.sent[1][-1] == (962 - 864) * 4 + 9 * 4 * size + 4 * 4


def test_powersgd_finds_matrices_of_its_rank_and_sends_both_factors() -> None:
    gradients = torch.zeros(8, 2, 962)
    random = torch.Generator().manual_seed(0)
    for first, rows, columns in ((0, 8, 36), (296, 8, 72), (872, 10, 8)):
        matrix = torch.randn(rows, 1, generator=random) @ torch.randn(1, columns, generator=random)
        gradients[:, :, first : first + rows * columns] = matrix.reshape(-1)
    gradients[:, 1] *= 3
    run = Run(lambda parts: PowerSGD(parts, 1), PARTS, gradients)
    torch.testing.assert_close(run.means[-1], gradients.mean(1)[-1], rtol=1e-3, atol=1e-3)
    factors, vectors = (8 + 36) + (8 + 72) + (10 + 8), 8 + 10
    assert run.sent == [[(factors + vectors) * 4] * 8] * 2


def test_powersgd_sends_matrices_whole_that_factors_would_not_make_smaller() -> None:
    parts = (Part(0, (3, 3)), Part(9, (2,)))
    gradients = torch.randn(1, 2, 11, generator=torch.Generator().manual_seed(0))
    run = Run(lambda parts: PowerSGD(parts, 2), parts, gradients)
    torch.testing.assert_close(run.means, gradients.mean(1))


def test_topk_sends_the_largest_elements_of_every_rank() -> None:
    gradients = torch.zeros(2, 2, 962)
    gradients[0, 0, 7], gradients[0, 1, 900], gradients[0, 1, 5] = 10, -6, 1
    run = Run(lambda parts: TopK(1 / 962), PARTS, gradients)
    assert run.means[0].nonzero().reshape(-1).tolist() == [7, 900]
    assert (run.means[0][7], run.means[0][900]) == (5, -3)
    assert run.means[1].nonzero().reshape(-1).tolist() == [5], "what was kept comes with the next gradient"
    assert run.sent == [[8, 8]] * 2
