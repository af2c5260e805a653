"""The synchronous client: the methods, arguments and errors of the other, without an event loop."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from collage.client import Client, ClientError, Prediction, SyncClient
from collage.sync import AHEAD
from tests.bench.fakes import FakePredictService, serving
from tests.test_client import NOBODY, WRONG, Busy, Leaving, Waiting

Use = Callable[[SyncClient], Any]


async def using(service: FakePredictService, use: Use, **arguments: Any) -> Any:
    """Result of ``use`` with a client of a server with ``service``, in a thread as in a program without asyncio."""

    def run(port: int) -> Any:
        with SyncClient(f"127.0.0.1:{port}", **arguments) as client:
            return use(client)

    async with serving(service) as server:
        return await asyncio.to_thread(run, server.port)


def test_methods_and_arguments_are_those_of_the_asyncio_client() -> None:
    def signatures(kind: type) -> dict[str, list[tuple[str, Any, Any]]]:
        return {
            name: [(item.name, item.kind, item.default) for item in inspect.signature(method).parameters.values()]
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") or name == "__init__"
        }

    assert signatures(SyncClient) == signatures(Client)


async def test_predict_health_and_model() -> None:
    service = FakePredictService()
    answer, pixels, health, model = await using(
        service,
        lambda client: (
            client.predict(b"\x01c", top_k=2, request_id="mine"),
            client.predict(np.full((8, 8, 3), 2, np.uint8)),
            client.health(),
            client.model(),
        ),
    )
    assert [found.label for found in answer.classes] == ["Bag", "T-shirt/top"]
    assert (answer.source, answer.coded_confidence, answer.cell, answer.request_id) == ("COLLAGE", 0.625, 4, "mine")
    assert 0 < answer.latency_s < 60
    assert (pixels.label, pixels.cell) == ("Coat", None)
    assert (health, model) == ("SERVING", None)


async def test_failures_carry_the_status_and_its_text() -> None:
    def use(client: SyncClient) -> None:
        with pytest.raises(ClientError, match=r"^INVALID_ARGUMENT: the image is empty: send"):
            client.predict(b"")
        with pytest.raises(ClientError, match="in time") as late:
            client.predict(b"\x00slow", timeout_s=0.05)
        assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(ClientError) as unknown:
            client.health("no.such.Service")
        assert unknown.value.code is grpc.StatusCode.NOT_FOUND

    await using(FakePredictService(), use)


def test_without_a_server_every_call_says_so() -> None:
    with SyncClient(NOBODY) as client:
        for call in (lambda: client.predict(b"\x01"), client.health, client.model):
            with pytest.raises(ClientError, match=f"nothing answers at {NOBODY}"):
                call()
        with pytest.raises(ClientError, match="UNAVAILABLE"):
            list(client.predict_stream([("a", b"\x01")]))


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_image_is_refused_in_plain_words(wrong: str) -> None:
    image, message = WRONG[wrong]
    with SyncClient(NOBODY) as client, pytest.raises(ClientError, match=message):
        client.predict(image)  # type: ignore[arg-type]


def test_a_client_that_was_not_entered_says_how() -> None:
    client = SyncClient("host:1")
    with client:
        pass
    for one in (SyncClient("host:1"), client):  # never entered, and left
        stream = one.predict_stream([("a", b"\x01")])
        for call in (lambda: one.predict(b"\x01"), lambda: next(stream), one.health, one.model):  # noqa: B023
            with pytest.raises(ClientError, match=r"use it within `with SyncClient\('host:1'\) as client:`"):
                call()


async def test_a_refused_request_comes_again_when_the_server_says_so() -> None:
    service = Busy(refusals=1, retry_after_s=0.3)
    assert (await using(service, lambda client: client.predict(b"\x01"))).label == "Bag"
    first, second = service.came
    assert second - first >= 0.29


async def test_a_stream_yields_in_completion_order_and_survives_bad_images() -> None:
    images: list[tuple[str, Any]] = [("late", b"\x02slow"), ("bad", b""), ("path", "x.png"), ("good", b"\x01")]
    results = dict(await using(FakePredictService(), lambda client: list(client.predict_stream(images))))
    assert sorted(results) == ["bad", "good", "late", "path"]
    order = [key for key in results if key != "path"]
    assert order == ["bad", "good", "late"]
    assert {key for key, result in results.items() if isinstance(result, ClientError)} == {"bad", "path"}
    assert isinstance(results["late"], Prediction)
    assert results["late"].label == "Coat"


async def test_every_image_of_a_stream_has_its_own_time_limit() -> None:
    service = FakePredictService()

    def ask(port: int) -> list[str]:
        with SyncClient(f"127.0.0.1:{port}") as client:
            return [id for id, _ in client.predict_stream([("a", b"\x00")], timeout_s=2.5)]

    async with serving(service) as server:
        assert await asyncio.to_thread(ask, server.port) == ["a"]
    assert service.limits_s == [2.5]


async def test_in_a_stream_a_wrong_image_fails_at_once() -> None:
    seen = threading.Event()

    def one_by_one() -> Iterator[tuple[str, Any]]:
        yield "path", Path("shoe.png")
        assert seen.wait(20)  # nothing was sent yet: only its own error can come
        yield "good", b"\x01"

    def use(client: SyncClient) -> list[str]:
        order = []
        for request_id, _ in client.predict_stream(one_by_one()):
            order.append(request_id)
            seen.set()
        return order

    assert await using(FakePredictService(), use) == ["path", "good"]


async def test_a_stream_raises_what_its_source_raises_and_what_ended_it() -> None:
    def camera() -> Iterator[tuple[str, bytes]]:
        yield "first", b"\x01"
        raise OSError("the camera is gone")

    def broken(client: SyncClient) -> None:
        with pytest.raises(OSError, match="the camera is gone"):
            list(client.predict_stream(camera()))
        assert client.predict(b"\x01").label == "Bag"

    def left(client: SyncClient) -> None:
        with pytest.raises(ClientError, match="ended the stream"):
            list(client.predict_stream([("only", b"\x01")]))

    await using(FakePredictService(), broken)
    await using(Leaving(), left)


async def test_a_stream_takes_few_images_ahead_and_none_once_it_is_closed() -> None:
    taken: list[int] = []

    def endless() -> Iterator[tuple[str, bytes]]:
        while True:
            taken.append(len(taken))
            yield f"r{len(taken)}", b"\x01"

    def use(client: SyncClient) -> None:
        stream = client.predict_stream(endless())
        next(stream)
        full = threading.Event()
        while len(taken) < AHEAD and not full.wait(0.01):
            pass
        full.wait(0.1)
        assert len(taken) <= AHEAD + 2
        stream.close()  # type: ignore[attr-defined]
        full.wait(0.1)
        before = len(taken)
        full.wait(0.1)
        assert len(taken) == before
        assert client.predict(b"\x01").label == "Bag"

    await using(FakePredictService(), use)


async def test_a_stream_that_nobody_reads_on_ends_at_the_server() -> None:
    service, closed = Waiting(), threading.Event()

    def use(port: int) -> None:
        with SyncClient(f"127.0.0.1:{port}") as client:
            stream = client.predict_stream([("a", b"\x01"), ("b", b"\x01")])
            next(stream)
            stream.close()  # type: ignore[attr-defined]
            closed.wait(20)

    async with serving(service) as server:
        using_it = asyncio.create_task(asyncio.to_thread(use, server.port))
        try:
            await asyncio.wait_for(service.left.wait(), 20)
        finally:
            closed.set()
            await using_it


async def test_threads_share_a_client() -> None:
    def use(client: SyncClient) -> list[Prediction]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda number: client.predict(bytes([number % 3])), range(60)))

    answers = await using(FakePredictService(), use)
    assert [answer.classes[0].index for answer in answers] == [number % 3 for number in range(60)]
