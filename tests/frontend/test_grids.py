"""Which of several grids is used, where the operator runs collage workers of several."""

from __future__ import annotations

import asyncio

import pytest

from collage.model_info import CodeInfo, ModelInfo, ModelKind
from encoder.code import GroupShape, Source
from frontend.policy.budget import Budget
from frontend.policy.grids import preferred
from tests.frontend.dispatch_rig import DispatchRig, rig
from tests.frontend.fakes import LABELS, SIZE, FakeTransport, collage_after, s_cnn_after

pytestmark = pytest.mark.looptime

FOUR, NINE, MANY = (GroupShape.collage(k * k) for k in (2, 3, 5))
ALL = {FOUR: 10, NINE: 10, MANY: 10}
THREE = ModelInfo.collage("c3", LABELS, 3 * SIZE, 3, version="1")


@pytest.mark.parametrize(
    ("rate", "under_way", "best"),
    [
        (0.25, 20, FOUR),  # it pays for everybody in groups of four
        (0.12, 20, NINE),
        (0.04, 20, MANY),
        (0.03, 40, MANY),  # it pays for everybody in no group: those that reach farthest
        (0.03, 20, NINE),
        (0.03, 5, FOUR),
        (0.03, 1, FOUR),
    ],
)
def test_the_smallest_that_the_budget_pays_for_everybody_else_the_largest_that_is_filled(
    rate: float, under_way: float, best: GroupShape
) -> None:
    assert preferred(ALL, None, Budget(rate), under_way) == best


def test_a_shape_whose_workers_cannot_run_its_groups_is_left_out() -> None:
    assert preferred({FOUR: 2, NINE: 3}, None, Budget(0.25), 16) == NINE
    assert preferred({FOUR: 4, NINE: 3}, None, Budget(0.25), 16) == FOUR
    assert preferred({FOUR: 1}, None, Budget(0.25), 16) == FOUR


@pytest.mark.parametrize(("under_way", "best"), [(8.0, FOUR), (10.0, FOUR), (11.5, NINE)])
def test_the_shape_in_use_stays_while_it_is_nearly_as_good(under_way: float, best: GroupShape) -> None:
    assert preferred({FOUR: 10, NINE: 10}, FOUR, Budget(0.03), under_way) == best


@pytest.mark.parametrize(("under_way", "best"), [(7.0, FOUR), (8.0, NINE), (10.0, NINE)])
def test_nor_does_it_change_back_at_once(under_way: float, best: GroupShape) -> None:
    assert preferred({FOUR: 10, NINE: 10}, NINE, Budget(0.03), under_way) == best


def shape(cluster: DispatchRig) -> GroupShape | None:
    return cluster.dispatcher.policy.groups.shape


@pytest.mark.parametrize(("extra_load", "members"), [(0.25, 4), (0.12, 9)])
async def test_the_budget_chooses_among_the_workers(extra_load: float, members: int) -> None:
    others = {"c1": FakeTransport(THREE, collage_after(0.05))}
    async with rig(
        "adaptive", [s_cnn_after(0.1)], collage_after(0.05), more_collage=others, extra_load=extra_load
    ) as c:
        assert shape(c) is not None
        assert shape(c).members == members  # type: ignore[union-attr]
        assert c.coded.counts["refused"] == 1


async def test_under_more_load_larger_groups_are_used_and_under_less_smaller_ones() -> None:
    others = {"c1": FakeTransport(THREE, collage_after(0.05))}
    workers = [s_cnn_after(0.1)] * 32
    async with rig("adaptive", workers, collage_after(0.05), more_collage=others, extra_load=0.03) as cluster:
        assert shape(cluster) == FOUR
        for _ in range(60):
            await asyncio.gather(*(cluster.ask(label % 10) for label in range(32)))
        assert shape(cluster) == NINE
        for _ in range(400):
            await cluster.ask(1)
        assert shape(cluster) == FOUR


async def test_a_code_that_is_not_known_here_is_told_and_keeps_nobody_from_serving(
    caplog: pytest.LogCaptureFixture,
) -> None:
    code = CodeInfo("unheard-of", members=2, inputs=1, row=0, weights=(0.5, 0.5))
    parity = ModelInfo.make("p", ModelKind.PARITY, LABELS, SIZE, code=code, version="1")
    async with rig("adaptive", [s_cnn_after(0.1)], collage_after(0.05), collage_model=parity) as cluster:
        assert (await cluster.ask(1)).answered.source is Source.S_CNN
        assert shape(cluster) is None
        assert "no redundant worker can be used: there is no code 'unheard-of'" in caplog.text


async def test_one_grid_is_not_chosen_again_and_again() -> None:
    async with rig("adaptive", [s_cnn_after(0.1)], collage_after(0.05), extra_load=0.03) as cluster:
        assert cluster.dispatcher._coding._choosing is None
