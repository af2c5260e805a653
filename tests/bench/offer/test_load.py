"""Closed groups against a fake frontend, and the sample images that ship."""

import asyncio
from typing import Any

import numpy as np
import pytest

from bench.offer import Sample, closed_groups, open_loop
from collage.client import ClassProbability, Client, Prediction
from tests.bench.fakes import FakePredictService, serving

GROUP = [Sample("a", "t-shirt-top", b"\x00"), Sample("b", "bag", b"\x01c"), Sample("c", "bag", b"\x02")]


async def test_groups_are_sent_at_once_and_one_after_another() -> None:
    service = FakePredictService()
    finished = []
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}") as client:
        records = await closed_groups(client, [GROUP, GROUP], done=lambda: finished.append(len(service.requests)))
    assert finished == [3, 6]
    assert [record.request_id for record in records] == [f"g000{g}-{m}" for g in range(2) for m in range(3)]
    assert [(record.group, record.member) for record in records] == [(g, m) for g in range(2) for m in range(3)]
    first, second = records[:3], records[3:]
    assert max(r.started_s + r.latency_s for r in first) <= min(r.started_s for r in second)


async def test_records_say_what_was_answered_by_whom() -> None:
    async with serving(FakePredictService()) as server, Client(f"127.0.0.1:{server.port}") as client:
        shirt, bag, wrong = await closed_groups(client, [GROUP], prefix="w")
    assert (shirt.image, shirt.label, shirt.prediction, shirt.right) == ("a", "t-shirt-top", "t-shirt-top", True)
    assert (shirt.source, shirt.cell, shirt.coded_confidence) == ("S_CNN", None, None)
    assert (bag.source, bag.cell, bag.coded_confidence, bag.right) == ("COLLAGE", 4, 0.625, True)
    assert (wrong.label, wrong.prediction, wrong.right) == ("bag", "coat", False)
    assert (bag.request_id, bag.total_s, bag.queue_s, bag.inference_s) == ("w0000-1", 0.75, 0.25, 0.5)
    assert all(0 < record.latency_s < 60 for record in (shirt, bag, wrong))


async def test_failures_are_recorded_and_do_not_stop_the_run() -> None:
    bad = [Sample("empty", "bag", b""), Sample("slow", "bag", b"\x01slow")]
    async with serving(FakePredictService()) as server, Client(f"127.0.0.1:{server.port}") as client:
        empty, slow, *rest = await closed_groups(client, [bad, GROUP], timeout_s=0.3)
    assert empty.error is not None
    assert empty.error.startswith("INVALID_ARGUMENT: the image is empty")
    assert slow.error is not None
    assert slow.error.startswith("DEADLINE_EXCEEDED")
    assert (slow.source, slow.prediction, slow.right) == (None, None, False)
    assert 0.29 <= slow.latency_s < 30
    assert [record.right for record in rest] == [True, True, False]


async def test_an_open_loop_does_not_wait_and_counts_from_the_intended_start() -> None:
    service = FakePredictService()
    slow = Sample("slow", "bag", b"\x01slow")
    groups = [[slow, GROUP[0], GROUP[1]], [GROUP[2], GROUP[0], GROUP[1]]]
    times = np.array([0.0, 0.0, 0.01, 0.02, 0.02, 0.03])
    finished = []

    def done() -> None:
        finished.append(len(service.requests))
        if len(finished) == 5:
            service.released.set()  # all the others were answered while the first one was open

    async with serving(service) as server, Client(f"127.0.0.1:{server.port}") as client:
        records = await open_loop(client, groups, times, done=done)
    assert [record.request_id for record in records] == [f"g000{g}-{m}" for g in range(2) for m in range(3)]
    assert [record.started_s for record in records] == times.tolist()
    assert all(record.error is None for record in records)
    ends = [record.started_s + record.latency_s for record in records]
    assert max(ends) == ends[0]
    assert ends[0] >= times[-1]
    assert len(finished) == 6


async def test_an_open_loop_that_falls_behind_counts_the_delay_and_bounds_what_is_open() -> None:
    service = FakePredictService()
    slow = [Sample(str(i), "bag", b"\x01slow") for i in range(4)]
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}") as client:
        first, second, *rest = await open_loop(
            client, [slow], np.array([-0.25, 0.0, 0.0, 0.0]), most=2, timeout_s=0.3, prefix="w"
        )
    assert len(service.requests) == 2
    assert first.latency_s >= second.latency_s + 0.2  # it should have been sent before the start
    assert [record.error for record in rest] == ["not sent: too many are open"] * 2
    assert [record.latency_s for record in rest] == [0.3] * 2
    assert not any(record.right for record in rest)


async def test_as_many_times_as_samples_are_needed() -> None:
    async with serving(FakePredictService()) as server, Client(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(ValueError, match="3 samples need as many times"):
            await open_loop(client, [GROUP], np.array([0.0, 0.0]))


class SlowClient(Client):
    """Answers after two seconds of a virtual clock."""

    async def predict(self, image: Any, **_: Any) -> Prediction:  # type: ignore[override]
        await asyncio.sleep(2)
        return Prediction("r", (ClassProbability("Bag", 1, 1.0),), "S_CNN", False, None, "", None, "m", "1", 0, 2, 2, 2)


@pytest.mark.looptime
async def test_requests_that_have_ended_leave_room_for_others() -> None:
    times = np.array([0.0, 0.5, 1.0, 3.0, 4.0, 4.5, 10.0])
    records = await open_loop(SlowClient(), [[GROUP[1]] * 7], times, most=2)
    assert [record.error is None for record in records] == [True, True, False, True, True, False, True]
    assert records[0].latency_s == pytest.approx(2)
