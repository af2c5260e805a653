"""Images on the frontend's threads, on a virtual clock: given up with their callers, large ones in a line apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from collage.errors import DeadlineExceeded, ResourceExhausted
from collage.v1 import predict_pb2
from encoder.image import GivenUp, SlowImage
from frontend.inference import FrontendInference
from frontend.server import PredictServicer
from inference.tensors import ImageRows
from tests.encoder.pictures import encoded
from tests.executors import Full, Held, Later, Patient
from tests.frontend.dispatch_rig import DispatchRig, rig
from tests.frontend.fakes import InlineExecutor, image, s_cnn_after

pytestmark = pytest.mark.looptime

PICTURE = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)))


class Caller:
    """The part of gRPC's context that a servicer asks."""

    def time_remaining(self) -> float:
        return 1.0

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def abort(self, code: grpc.StatusCode, text: str, trailing: object) -> None:
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        raise DeadlineExceeded(text)


def predict(cluster: DispatchRig, data: bytes = PICTURE) -> Any:
    servicer = PredictServicer(cluster.dispatcher, 5.0, 10**7, asyncio.Event())
    return servicer.Predict(predict_pb2.PredictRequest(image=data), Caller())


def infer(cluster: DispatchRig, data: bytes = PICTURE) -> Any:
    servicer = FrontendInference(None, cluster.dispatcher, 5.0, 10**7)  # type: ignore[arg-type]
    return servicer.run_rows(ImageRows(8, encoded=[data], count=1), ["id"], 1.0, "caller")


@pytest.mark.parametrize("ask", [predict, infer])
async def test_an_image_is_given_up_when_its_callers_time_is_over(ask: Callable[[DispatchRig], Any]) -> None:
    held = Held()
    async with rig("none", [s_cnn_after(0.1)], executor=held, max_bytes=10**6) as cluster:
        with pytest.raises(DeadlineExceeded):
            await ask(cluster)
        (work,) = held.work
        with pytest.raises(GivenUp):
            work()


@pytest.mark.parametrize("ask", [predict, infer])
async def test_an_image_is_given_up_when_its_caller_hangs_up(ask: Callable[[DispatchRig], Any]) -> None:
    held = Held()
    async with rig("none", [s_cnn_after(0.1)], executor=held, max_bytes=10**6) as cluster:
        task = asyncio.create_task(ask(cluster))
        while not held.work:
            await asyncio.sleep(0)
        np.testing.assert_array_equal(held.work[0]().shape, (8, 8, 3))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(GivenUp):
            held.work[0]()


async def test_too_little_memory_means_try_again_later() -> None:
    async with rig("none", [s_cnn_after(0.1)], executor=Full()) as cluster:
        with pytest.raises(ResourceExhausted, match="not enough memory for this image now: try again later") as caught:
            await cluster.ask(1)
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s > 0
        assert cluster.metric("collage_requests_total", code="RESOURCE_EXHAUSTED") == 1
        assert cluster.metric("collage_in_flight") == 0


def large(size: int) -> Any:
    raise SlowImage(lambda: image(3))


async def test_ordinary_images_do_not_wait_for_large_ones() -> None:
    """Large ones are decoded one at a time, and others know nothing of them."""

    def held() -> Any:
        raise Later

    def slow(size: int) -> Any:
        raise SlowImage(held)

    executor = Patient()
    async with rig("none", [s_cnn_after(0.1)], executor=executor) as cluster:
        waiting = [asyncio.create_task(cluster.dispatcher.predict(slow, "", 5.0)) for _ in range(3)]
        for label in range(4):
            outcome = await cluster.ask(label, timeout_s=0.5)
            assert (int(outcome.answer.argmax()), outcome.total_s) == (label, pytest.approx(0.1))
        assert len(executor.running) == 1
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in errors] == [DeadlineExceeded] * 3
        late = asyncio.create_task(cluster.dispatcher.predict(large, "", 5.0))
        both = await asyncio.gather(*(cluster.ask(label, timeout_s=0.5) for label in range(2)))
        assert [outcome.total_s for outcome in both] == [pytest.approx(0.1)] * 2, "not by what the large ones took"
        assert cluster.metric("collage_refused_total", reason="deadline") == 0
        assert not late.done(), "the thread of the first one is not free, though nobody waits for it"
        executor.running[0].set_result(image(1))
        assert int((await late).answer.argmax()) == 3
        assert len(executor.running) == 1


async def test_a_large_image_is_examined_and_then_decoded() -> None:
    executor = InlineExecutor()
    async with rig("none", [s_cnn_after(0.1)], executor=executor) as cluster:
        for _ in range(3):  # one after the other
            outcome = await cluster.dispatcher.predict(large, "", 5.0)
            assert int(outcome.answer.argmax()) == 3
        assert executor.submitted == 6
        assert cluster.metric("collage_in_flight") == 0


@pytest.mark.parametrize("ask", [predict, infer])
async def test_images_of_millions_of_pixels_are_large(ask: Callable[..., Any]) -> None:
    executor = InlineExecutor()
    async with rig("none", [s_cnn_after(0.1)], executor=executor, max_bytes=10**6) as cluster:
        await ask(cluster)
        assert executor.submitted == 1
        await ask(cluster, encoded(Image.new("L", (3000, 3000))))
        assert executor.submitted == 3
