"""The client library against a fake frontend on a real port."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from collage.client import Box, ClassProbability, Client, ClientError, Prediction
from collage.errors import ResourceExhausted, boundary
from collage.tensors import to_tensor
from collage.v1 import predict_pb2
from tests.bench.fakes import FakePredictService, serving

NOBODY = "127.0.0.1:1"


async def test_predict_tells_all_that_the_wire_tells() -> None:
    async with serving(FakePredictService()) as server, Client(f"127.0.0.1:{server.port}") as client:
        answer = await client.predict(b"\x01c", top_k=2, request_id="mine")
    assert answer.classes == (ClassProbability("Bag", 1, 0.75), ClassProbability("T-shirt/top", 0, pytest.approx(0.15)))
    assert (answer.label, answer.source, answer.degraded) == ("Bag", "COLLAGE", True)
    assert (answer.coded_confidence, answer.group_id, answer.cell) == (0.625, "group-1", 4)
    assert (answer.model_name, answer.model_version, answer.request_id) == ("fake", "0123456789ab", "mine")
    assert (answer.queue_s, answer.inference_s, answer.total_s) == (0.25, 0.5, 0.75)
    assert 0 < answer.latency_s < 60


async def test_pixels_travel_as_a_tensor_and_uncoded_answers_have_no_cell() -> None:
    service = FakePredictService()
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}") as client:
        answer = await client.predict(np.full((8, 8, 3), 2, np.uint8))
    assert list(service.requests[0].tensor.shape) == [8, 8, 3]
    assert (answer.label, answer.source, answer.degraded) == ("Coat", "S_CNN", False)
    assert answer.coded_confidence is None
    assert answer.cell is None


async def test_failures_carry_the_status_and_its_text() -> None:
    async with serving(FakePredictService()) as server, Client(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(ClientError, match=r"^INVALID_ARGUMENT: the image is empty: send") as invalid:
            await client.predict(b"")
        assert invalid.value.code is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(ClientError, match="in time") as late:
            await client.predict(b"\x00slow", timeout_s=0.05)
        assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await client.health() == "SERVING"
        assert await client.model() is None
        with pytest.raises(ClientError) as unknown:
            await client.health("no.such.Service")
        assert unknown.value.code is grpc.StatusCode.NOT_FOUND
    async with Client(NOBODY) as client:
        with pytest.raises(ClientError, match=f"nothing answers at {NOBODY}"):
            await client.predict(b"\x00")


class Busy(FakePredictService):
    """Refuses the first requests, and says when to come again."""

    def __init__(self, refusals: int, retry_after_s: float) -> None:
        super().__init__()
        self.refusals, self.retry_after_s = refusals, retry_after_s
        self.came: list[float] = []

    @boundary
    async def Predict(self, request: predict_pb2.PredictRequest, context: Any) -> predict_pb2.PredictResponse:
        self.came.append(asyncio.get_running_loop().time())
        if len(self.came) <= self.refusals:
            raise ResourceExhausted("the queue is full", self.retry_after_s)
        return await self._answer(request)


async def test_a_refused_request_comes_again_when_the_server_says_so() -> None:
    service = Busy(refusals=2, retry_after_s=0.3)
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}") as client:
        assert (await client.predict(b"\x01")).label == "Bag"
    first, second, third = service.came
    assert second - first >= 0.29
    assert third - second >= 0.29


class Leaving(FakePredictService):
    """Ends every stream after the first message, without an answer."""

    @boundary
    async def PredictStream(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        await anext(aiter(request_iterator))


async def test_a_stream_that_the_server_ends_breaks_and_takes_no_more_images() -> None:
    taken: list[str] = []

    async def endless() -> AsyncIterator[tuple[str, bytes]]:
        for number in itertools.count():
            taken.append(f"r{number}")
            yield f"r{number}", b"\x01"
            await asyncio.sleep(0.01)

    async def collect(client: Client, images: Any) -> None:
        async for _ in client.predict_stream(images):
            await asyncio.sleep(0.01)

    async with serving(Leaving()) as server, Client(f"127.0.0.1:{server.port}") as client:
        for images in ([("only", b"\x01")], endless()):
            with pytest.raises(ClientError, match="ended the stream") as caught:
                await collect(client, images)
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        before = len(taken)
        await asyncio.sleep(0.1)
        assert len(taken) == before


@pytest.mark.parametrize(("attempts", "came"), [(3, 3), (1, 1)])
async def test_retries_end(attempts: int, came: int) -> None:
    service = Busy(refusals=100, retry_after_s=0.02)
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}", attempts=attempts) as client:
        with pytest.raises(ClientError, match="RESOURCE_EXHAUSTED: the queue is full"):
            await client.predict(b"\x01")
    assert len(service.came) == came


async def test_what_the_caller_has_to_mend_is_sent_once() -> None:
    service = FakePredictService()
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(ClientError, match="the image is empty"):
            await client.predict(b"")
    assert len(service.requests) == 1


async def test_every_image_of_a_stream_has_its_own_time_limit() -> None:
    service = FakePredictService()
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}") as client:
        for timeout_s in (2.5, None):
            assert [id async for id, _ in client.predict_stream([("a", b"\x00")], timeout_s=timeout_s)] == ["a"]
    assert service.limits_s == [2.5, 0]


async def test_retries_never_outlive_the_callers_time() -> None:
    service = Busy(refusals=100, retry_after_s=30.0)
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(ClientError):
            await client.predict(b"\x01", timeout_s=0.2)
    assert len(service.came) == 1


async def test_a_stream_yields_in_completion_order_and_survives_bad_images() -> None:
    images = [("late", b"\x02slow"), ("bad", b""), ("good", b"\x01")]
    async with serving(FakePredictService()) as server, Client(f"127.0.0.1:{server.port}") as client:
        results = [pair async for pair in client.predict_stream(images)]
    assert [request_id for request_id, _ in results] == ["bad", "good", "late"]
    assert isinstance(results[0][1], ClientError)
    assert results[0][1].code is grpc.StatusCode.INVALID_ARGUMENT
    labels = [result.label for _, result in results[1:] if isinstance(result, Prediction)]
    assert labels == ["Bag", "Coat"]


async def test_a_stream_takes_images_as_they_come_and_raises_what_their_source_raises() -> None:
    async def camera() -> AsyncIterator[tuple[str, bytes]]:
        yield "first", b"\x01"
        raise OSError("the camera is gone")

    async with serving(FakePredictService()) as server, Client(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(OSError, match="the camera is gone"):
            async for _ in client.predict_stream(camera()):
                pass
    async with Client(NOBODY) as client:
        with pytest.raises(ClientError, match="UNAVAILABLE"):
            async for _ in client.predict_stream([("a", b"\x00")]):
                pass


def test_a_client_that_was_not_entered_says_how() -> None:
    async def stream(client: Client) -> None:
        async for _ in client.predict_stream([("a", b"\x01")]):
            pass

    async def calls() -> None:
        client = Client("host:1")
        async with client:
            pass
        for one in (Client("host:1"), client):  # never entered, and left
            for call in (one.predict(b"\x01"), stream(one), one.health(), one.model()):
                with pytest.raises(
                    ClientError, match=r"use it within `async with Client\('host:1'\) as client:`"
                ) as no:
                    await call
                assert no.value.code is grpc.StatusCode.FAILED_PRECONDITION

    asyncio.run(calls())


PIXELS = np.full((8, 8, 3), 2, np.uint8)
WRONG = {
    "a path as text": ("shoe.png", r"an image is not a text: for the file 'shoe.png' send Path\('shoe.png'\)"),
    "a path that leads nowhere": (Path("absent/shoe.png"), "cannot read absent/shoe.png: No such file or directory"),
    "floats from 0 to 1": (PIXELS / 255.0, r"uint8, from 0 to 255, got float64: .* send \(255 \* pixels\)"),
    "float32": (PIXELS.astype(np.float32), "got float32"),
    "too large": (PIXELS.astype(np.int64) + 254, "pixels are from 0 to 255, these are from 256 to 256"),
    "negative": (PIXELS.astype(np.int16) - 5, "these are from -3 to -3"),
    "nothing": (None, "an image is the bytes or the Path of a JPEG, .* uint8 .* got NoneType"),
    "a list": ([[[1, 2, 3]]], "got list"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_is_no_image_is_refused_in_plain_words(wrong: str) -> None:
    image, message = WRONG[wrong]
    service = FakePredictService()
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(ClientError, match=message) as caught:
            await client.predict(image)  # type: ignore[arg-type]
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert service.requests == []


@pytest.mark.parametrize("wrong", [{"top_k": -1}, {"top_k": 1.5}, {"top_k": "2"}, {"request_id": 7}])
async def test_arguments_of_a_wrong_type_are_client_errors(wrong: dict[str, Any]) -> None:
    async with Client(NOBODY) as client:
        with pytest.raises(ClientError, match="top_k is a whole number and request_id a text"):
            await client.predict(b"\x01", **wrong)


async def test_paths_and_other_kinds_of_bytes_and_of_whole_numbers_are_right(tmp_path: Path) -> None:
    (tmp_path / "coat.png").write_bytes(b"\x01c")
    service = FakePredictService()
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}") as client:
        for image in (tmp_path / "coat.png", bytearray(b"\x01c"), memoryview(b"\x01c"), memoryview(b"\x01?c?")[::2]):
            assert (await client.predict(image)).source == "COLLAGE"
        for pixels in (PIXELS.astype(np.int64), PIXELS[:, ::-1], np.asfortranarray(PIXELS)):
            assert (await client.predict(pixels)).label == "Coat"
    assert {request.image for request in service.requests[:4]} == {b"\x01c"}
    assert all(request.tensor == to_tensor(PIXELS) for request in service.requests[4:])


async def test_in_a_stream_a_wrong_image_fails_at_once_and_alone() -> None:
    seen = asyncio.Event()

    async def one_by_one() -> AsyncIterator[tuple[str, Any]]:
        yield "path", "shoe.png"
        await seen.wait()  # nothing was sent yet: only its own error can come
        yield "good", b"\x01"
        yield "float", PIXELS / 255.0

    found: dict[str, Prediction | ClientError] = {}
    async with serving(FakePredictService()) as server, Client(f"127.0.0.1:{server.port}") as client:
        async for request_id, result in client.predict_stream(one_by_one()):
            found[request_id] = result
            seen.set()
    assert next(iter(found)) == "path"
    assert {key for key, result in found.items() if isinstance(result, ClientError)} == {"path", "float"}
    assert isinstance(found["good"], Prediction)


async def test_a_stream_that_nobody_reads_on_takes_no_more_images() -> None:
    taken: list[str] = []

    async def endless() -> AsyncIterator[tuple[str, bytes]]:
        for number in itertools.count():
            taken.append(f"r{number}")
            yield f"r{number}", b"\x01"
            await asyncio.sleep(0)

    async with serving(FakePredictService()) as server, Client(f"127.0.0.1:{server.port}") as client:
        stream = client.predict_stream(endless())
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0.05)
        before = len(taken)
        await asyncio.sleep(0.1)
        assert len(taken) == before
        assert (await client.predict(b"\x01")).label == "Bag"


class Waiting(FakePredictService):
    """Answers the first image of a stream, and waits for nothing until its caller has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.left = asyncio.Event()

    async def PredictStream(
        self, request_iterator: AsyncIterator[predict_pb2.PredictStreamRequest], context: Any
    ) -> AsyncIterator[predict_pb2.PredictStreamResponse]:
        try:
            yield await self._stream_answer((await anext(request_iterator)).request)
            await asyncio.Event().wait()
        finally:
            self.left.set()


async def test_a_stream_that_nobody_reads_on_ends_at_the_server() -> None:
    service = Waiting()
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}") as client:
        stream = client.predict_stream([("a", b"\x01"), ("b", b"\x01")])
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for(service.left.wait(), 20)


class Located(FakePredictService):
    """Answers with a box, and with the model's output if asked for it."""

    @boundary
    async def Predict(self, request: predict_pb2.PredictRequest, context: Any) -> predict_pb2.PredictResponse:
        edges = (0.0, 0.25, 0.5, 1.0)
        output = to_tensor(np.array(edges, np.float32)) if request.with_output else None
        box = predict_pb2.Box(**dict(zip(("left", "top", "right", "bottom"), edges, strict=True)))
        return predict_pb2.PredictResponse(box=box, output=output)


async def test_boxes_and_outputs_are_told() -> None:
    async with serving(Located()) as server, Client(f"127.0.0.1:{server.port}") as client:
        answer, whole = await client.predict(b"\x01"), await client.predict(b"\x01", with_output=True)
    assert answer.box == whole.box == Box(0.0, 0.25, 0.5, 1.0)
    assert (answer.label, answer.classes) == ("", ())
    assert answer.output is None
    assert whole.output == (0.0, 0.25, 0.5, 1.0)
