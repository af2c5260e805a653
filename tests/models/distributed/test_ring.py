"""Sums over a ring: right values, the same bits everywhere, no more bytes than needed, and neighbours that are gone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.distributed.addition import SEGMENT, total
from models.distributed.links import MemoryLink
from models.distributed.ring import PIECES, RankLost, Ring
from tests.models.distributed.rings import together

SIZES = (1, 2, 3, 4, 8)


def _values(rank: int, count: int) -> Tensor:
    return torch.arange(count) % 97 * (rank + 1.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 5, SEGMENT - 1, 2 * SEGMENT + 3])
def test_every_rank_gets_the_sum(size: int, count: int) -> None:
    sums = together(size, lambda ring: total(_values(ring.rank, count), ring))
    wanted = torch.arange(count) % 97 * float(size * (size + 1) // 2)
    for found in sums:
        assert torch.equal(found, wanted)


def test_every_rank_gets_the_same_bits_of_a_sum_that_is_rounded() -> None:
    vectors = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.float16):
        first, *others = together(4, lambda ring, dtype=dtype: total(vectors[ring.rank], ring, dtype))
        torch.testing.assert_close(first, vectors.sum(0), rtol=5e-3, atol=5e-3)
        assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("size", SIZES)
def test_a_rank_sends_its_share_of_a_vector_whatever_their_number(size: int) -> None:
    def sent(ring: Ring) -> int:
        total(torch.ones(840), ring)
        return ring.sent

    assert together(size, sent) == [2 * (size - 1) * 840 // size * 4] * size


def test_a_segment_is_encoded_while_the_one_before_is_under_way() -> None:
    order: list[str] = []

    class Watched(MemoryLink):
        def send(self, data: Tensor, tag: int):  # type: ignore[no-untyped-def]
            order.append(f"send {tag}")
            return super().send(data, tag)

    (link,) = Watched.ring(1)
    link.size, link._in = 2, link._out  # a rank that hears itself

    def made(number: int) -> Tensor:
        order.append(f"encode {number}")
        return torch.ones(4)

    list(Ring(link).add([lambda: made(0), lambda: made(1)]))
    assert order[:4] == ["encode 0", "send 0", "encode 1", "send 1"]


def test_the_largest_values_and_everyones_and_those_of_rank_0() -> None:
    values = torch.tensor([[1.0, 9.0], [5.0, 2.0], [3.0, 3.0]])
    for largest in together(3, lambda ring: ring.maximum(values[ring.rank])):
        assert largest.tolist() == [5, 9]
    for everyone in together(3, lambda ring: ring.gather(values[ring.rank])):
        assert torch.stack(everyone).equal(values)
    for count in (1, PIECES, 100):
        said = torch.arange(float(count))
        for heard in together(3, lambda ring, said=said: ring.broadcast(said if not ring.rank else -said)):
            assert heard.equal(torch.arange(float(count)))


def test_what_arrives_is_what_was_sent_whatever_becomes_of_it() -> None:
    (link,) = MemoryLink.ring(1)
    link._in = link._out
    data, into = torch.ones(3), torch.zeros(3)
    link.send(data, 0).wait()
    data.zero_()
    link.receive(into, 0).wait()
    assert into.equal(torch.ones(3))


def test_a_neighbour_that_is_silent_is_named() -> None:
    links = MemoryLink.ring(3, timeout_s=0.01)
    with pytest.raises(RankLost, match=r"rank 1 did not answer within 0\.01 s"):
        total(torch.ones(3), Ring(links[2]))
