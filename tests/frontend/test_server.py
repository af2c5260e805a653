"""The frontend's service over real gRPC in this process: answers, streams, bad input, deadlines."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image

from collage.model_info import ModelInfo
from collage.tensors import to_tensor
from collage.v1 import predict_pb2
from tests.encoder.test_image import bomb
from tests.frontend.fakes import COLLAGE, LABELS, S_CNN, SIZE, image
from tests.frontend.grpc_workers import Slowness, cluster, worker

PredictRequest = predict_pb2.PredictRequest


def encoded(label: int, kind: str = "PNG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image(label)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


async def test_an_image_and_a_tensor_get_the_same_answer() -> None:
    async with cluster() as (stub, _, _):
        by_image = await stub.Predict(PredictRequest(image=encoded(3), top_k=2, request_id="mine"), timeout=5)
        by_tensor = await stub.Predict(PredictRequest(tensor=to_tensor(image(3)), top_k=2), timeout=5)
        assert [c.label for c in by_image.classes] == [c.label for c in by_tensor.classes]
        best = by_image.classes[0]
        assert (best.label, best.index, len(by_image.classes)) == ("d", 3, 2)
        assert best.probability == pytest.approx(np.exp(5) / (np.exp(5) + 9), rel=1e-4)
        origin = by_image.provenance
        assert (origin.source, origin.degraded) == (predict_pb2.SOURCE_S_CNN, False)
        assert (origin.model_name, origin.model_version, origin.request_id) == ("s", "1", "mine")
        assert not origin.HasField("coded_confidence")
        assert 0 < origin.total_s < 5
        assert by_tensor.provenance.request_id != ""


async def test_top_k_defaults_to_one_and_ends_with_all() -> None:
    async with cluster(s_cnn=1) as (stub, _, _):
        assert len((await stub.Predict(PredictRequest(image=encoded(1)), timeout=5)).classes) == 1
        everything = (await stub.Predict(PredictRequest(image=encoded(1), top_k=99), timeout=5)).classes
        assert sorted(c.label for c in everything) == sorted(LABELS)
        assert sum(c.probability for c in everything) == pytest.approx(1, rel=1e-4)


async def test_a_straggler_in_a_group_is_answered_from_the_collage() -> None:
    slow = Slowness(r0=0.2, r1=0.2, r2=8.0, r3=0.2)  # the group fills before the first answer
    async with cluster(slowness=slow, deadline_s=0.3, group_wait_s=0.2) as (stub, _, _):
        answers = await asyncio.gather(
            *(stub.Predict(PredictRequest(image=encoded(i), request_id=f"r{i}"), timeout=5) for i in range(4))
        )
        assert [answer.classes[0].index for answer in answers] == [0, 1, 2, 3]
        origin = answers[2].provenance
        assert (origin.source, origin.degraded) == (predict_pb2.SOURCE_COLLAGE, True)
        assert origin.coded_confidence == pytest.approx(0.9)
        assert origin.model_name == "c"
        assert origin.group_id != ""
        assert origin.HasField("cell")
        async with asyncio.timeout(5):  # the loser was cancelled on the wire
            while slow.running:
                await asyncio.sleep(0.01)


async def test_a_stream_answers_in_completion_order_and_survives_bad_requests() -> None:
    async with cluster(slowness=Slowness(slow=0.5), policy="none") as (stub, _, _):

        async def requests() -> AsyncIterator[predict_pb2.PredictStreamRequest]:
            for id, data in (("slow", encoded(1)), ("bad", b"text"), ("quick", encoded(2))):
                request = PredictRequest(image=data, request_id=id)
                yield predict_pb2.PredictStreamRequest(request=request)
            yield predict_pb2.PredictStreamRequest(request=PredictRequest(image=encoded(4)))

        responses = [response async for response in stub.PredictStream(requests(), timeout=5)]
        assert sorted(response.request_id for response in responses) == ["", "bad", "quick", "slow"]
        assert responses[-1].request_id == "slow"
        by_id = {response.request_id: response for response in responses}
        assert by_id["quick"].response.classes[0].index == 2
        assert by_id["slow"].response.classes[0].index == 1
        assert by_id["bad"].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert "not a JPEG" in by_id["bad"].error.message
        assert "request_id" in by_id[""].error.message


async def test_a_stream_of_a_draining_frontend_ends_when_what_it_has_is_answered() -> None:
    slow = Slowness(slow=0.5)
    async with cluster(slowness=slow, policy="none", drain_s=15.0) as (stub, server, _):
        call = stub.PredictStream()
        await call.write(predict_pb2.PredictStreamRequest(request=PredictRequest(image=encoded(1), request_id="slow")))
        async with asyncio.timeout(5):
            while not slow.running:
                await asyncio.sleep(0.01)
        stopping = asyncio.create_task(server.stop())
        await server.draining.wait()
        await call.write(predict_pb2.PredictStreamRequest(request=PredictRequest(image=encoded(2), request_id="new")))
        refused, answered = await call.read(), await call.read()
        assert (refused.request_id, refused.error.code) == ("new", grpc.StatusCode.UNAVAILABLE.value[0])
        assert (answered.request_id, answered.response.classes[0].index) == ("slow", 1)
        with pytest.raises(grpc.aio.AioRpcError, match="shutting down"):
            await call.read()
        assert await call.code() is grpc.StatusCode.UNAVAILABLE, "there may be requests that were not read"
        async with asyncio.timeout(5):
            await stopping


async def test_a_stream_whose_caller_is_done_ends_well_though_the_frontend_drains() -> None:
    slow = Slowness(slow=0.5)
    async with cluster(slowness=slow, policy="none", drain_s=15.0) as (stub, server, _):
        call = stub.PredictStream()
        await call.write(predict_pb2.PredictStreamRequest(request=PredictRequest(image=encoded(1), request_id="slow")))
        await call.done_writing()
        async with asyncio.timeout(5):
            while not slow.running:
                await asyncio.sleep(0.01)
        stopping = asyncio.create_task(server.stop())
        assert [response.request_id async for response in call] == ["slow"]
        assert await call.code() is grpc.StatusCode.OK
        await stopping


async def test_a_stream_that_is_idle_does_not_hold_up_the_end() -> None:
    async with cluster(policy="none", drain_s=60.0) as (stub, server, _):
        call = stub.PredictStream()
        await call.write(predict_pb2.PredictStreamRequest(request=PredictRequest(image=encoded(1), request_id="a")))
        assert (await call.read()).response.classes[0].index == 1
        async with asyncio.timeout(5):
            await server.stop()


async def test_old_connections_end_and_lose_nothing() -> None:
    slow = Slowness(slow=1.5)
    async with cluster(slowness=slow, policy="none", max_connection_age_s=0.5) as (stub, _, channel):
        streaming = stub.PredictStream()
        await streaming.write(
            predict_pb2.PredictStreamRequest(request=PredictRequest(image=encoded(1), request_id="slow"))
        )
        waiting = asyncio.ensure_future(stub.Predict(PredictRequest(image=encoded(2), request_id="slow"), timeout=5))
        states = set()
        for _ in range(30):
            states.add(channel.get_state())
            await stub.Predict(PredictRequest(image=encoded(1)), timeout=5)
            await asyncio.sleep(0.05)
        assert states != {grpc.ChannelConnectivity.READY}, "it was one connection all the time"
        assert (await waiting).classes[0].index == 2
        assert (await streaming.read()).response.classes[0].index == 1
        with pytest.raises(grpc.aio.AioRpcError, match="send on another one what was not answered"):
            await streaming.read()
        assert await streaming.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_request_in_a_stream_has_its_own_time() -> None:
    async with cluster(slowness=Slowness(late=5.0), policy="none") as (stub, _, _):

        async def requests() -> AsyncIterator[predict_pb2.PredictStreamRequest]:
            request = PredictRequest(image=encoded(1), request_id="late")
            yield predict_pb2.PredictStreamRequest(request=request, timeout_s=0.2)

        (response,) = [response async for response in stub.PredictStream(requests(), timeout=5)]
        assert response.error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


def sixteen_bit() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((9, 9), 40 * 257, np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def gif() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("P", (8, 8), colour) for colour in (1, 2)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


BAD = {
    "truncated JPEG": (PredictRequest(image=encoded(1, "JPEG")[:-60]), "send a complete"),
    "empty": (PredictRequest(), "send the bytes"),
    "empty bytes": (PredictRequest(image=b""), "send the bytes"),
    "text": (PredictRequest(image=b"hello world, " * 99), "send the bytes"),
    "decompression bomb": (PredictRequest(image=bomb()), "send a smaller"),
    "animated GIF": (PredictRequest(image=gif()), "not a JPEG, PNG, WebP or BMP"),
    "wrong tensor shape": (
        PredictRequest(tensor=to_tensor(np.zeros((4, 4, 3), np.uint8))),
        rf"shape \[{SIZE}, {SIZE}, 3\], got uint8 of shape \[4, 4, 3\]",
    ),
    "wrong tensor type": (PredictRequest(tensor=to_tensor(np.zeros((SIZE, SIZE, 3), np.float32))), "uint8"),
    "long id": (PredictRequest(image=encoded(1), request_id="x" * 200), "shorter"),
}
short = to_tensor(image(1))
short.data = short.data[:-1]
BAD["short tensor"] = PredictRequest(tensor=short), "192 bytes, got 191"


async def test_bad_requests_are_refused_with_advice_and_the_process_lives() -> None:
    async with cluster(s_cnn=1) as (stub, _, _):
        for name, (request, advice) in BAD.items():
            with pytest.raises(grpc.aio.AioRpcError, match=advice) as caught:
                await stub.Predict(request, timeout=5)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, name
            assert "Traceback" not in (caught.value.details() or "")
        with pytest.raises(grpc.aio.AioRpcError, match="larger than max") as caught:
            await stub.Predict(PredictRequest(image=bytes(64 << 20)), timeout=20)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for odd in (sixteen_bit(), encoded(1, "JPEG", "CMYK"), encoded(1, "BMP"), encoded(1, "WEBP", "RGBA")):
            assert (await stub.Predict(PredictRequest(image=odd), timeout=5)).classes[0].index == 1
        one_pixel = io.BytesIO()
        Image.new("RGB", (1, 1), (60, 60, 60)).save(one_pixel, "PNG")
        assert (await stub.Predict(PredictRequest(image=one_pixel.getvalue()), timeout=5)).classes[0].index == 2


async def test_the_callers_deadline_is_kept() -> None:
    async with cluster(s_cnn=1, slowness=Slowness(late=5.0), policy="none") as (stub, _, _):
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Predict(PredictRequest(image=encoded(1), request_id="late"), timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert loop.time() - started < 2


async def test_the_servers_own_limit_applies_without_a_deadline() -> None:
    async with cluster(s_cnn=1, slowness=Slowness(late=5.0), policy="none", timeout_s=0.3) as (stub, _, _):
        with pytest.raises(grpc.aio.AioRpcError, match="in time") as caught:
            await stub.Predict(PredictRequest(image=encoded(1), request_id="late"))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_full_frontend_refuses_at_once() -> None:
    async with cluster(s_cnn=1, slowness=Slowness(a=1.0), policy="none", max_in_flight=1) as (stub, _, _):
        first = stub.Predict(PredictRequest(image=encoded(1), request_id="a"), timeout=5)
        await asyncio.sleep(0.2)
        with pytest.raises(grpc.aio.AioRpcError, match="try again later") as caught:
            await stub.Predict(PredictRequest(image=encoded(1)), timeout=5)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await first).classes[0].index == 1


async def test_without_workers_the_frontend_is_not_serving() -> None:
    async with cluster(s_cnn=0) as (stub, _, channel):
        health = health_pb2_grpc.HealthStub(channel)
        status = (await health.Check(health_pb2.HealthCheckRequest(), timeout=5)).status
        assert status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError, match="no s-cnn worker is ready") as caught:
            await stub.Predict(PredictRequest(image=encoded(1)), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_health_and_reflection() -> None:
    async with cluster(s_cnn=1) as (_, _, channel):
        health = health_pb2_grpc.HealthStub(channel)
        watched = health.Watch(health_pb2.HealthCheckRequest(service="collage.v1.PredictService"), timeout=5)
        async for update in watched:
            if update.status == health_pb2.HealthCheckResponse.SERVING:
                break
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)

        async def ask() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            yield reflection_pb2.ServerReflectionRequest(list_services="")

        async for response in stub.ServerReflectionInfo(ask(), timeout=5):
            names = {service.name for service in response.list_services_response.service}
        assert {"collage.v1.PredictService", "grpc.health.v1.Health"} <= names


async def test_a_collage_model_with_other_labels_is_refused() -> None:
    stranger = ModelInfo.collage("x", ("cat", "dog"), 2 * SIZE, 2, version="1")
    async with cluster(collage=stranger, slowness=Slowness(r1=0.6), deadline_s=0.2) as (stub, server, _):
        answers = await asyncio.gather(
            *(stub.Predict(PredictRequest(image=encoded(i), request_id=f"r{i}"), timeout=5) for i in range(4))
        )
        assert answers[1].provenance.source == predict_pb2.SOURCE_REPLICA
        assert server.registry.get_sample_value("collage_workers", {"role": "coded", "state": "ready"}) == 0


async def test_workers_found_by_dns_come_and_go() -> None:
    async with worker(S_CNN) as first:
        port = first.port
        async with cluster(s_cnn=0, s_cnn_workers=f"dns:///localhost:{port}", resolve_every_s=0.1) as (
            stub,
            _,
            channel,
        ):
            health = health_pb2_grpc.HealthStub(channel)

            async def until(status: int) -> None:
                async with asyncio.timeout(10):
                    async for update in health.Watch(health_pb2.HealthCheckRequest()):
                        if update.status == status:
                            return

            await until(health_pb2.HealthCheckResponse.SERVING)
            assert (await stub.Predict(PredictRequest(image=encoded(1)), timeout=5)).classes[0].index == 1
            await first.stop()
            await until(health_pb2.HealthCheckResponse.NOT_SERVING)
            async with worker(S_CNN, port=port):
                await until(health_pb2.HealthCheckResponse.SERVING)
                assert (await stub.Predict(PredictRequest(image=encoded(2)), timeout=5)).classes[0].index == 2


def test_the_fakes_agree() -> None:
    assert (COLLAGE.labels, COLLAGE.size) == (S_CNN.labels, COLLAGE.k * S_CNN.size)


async def test_a_request_id_that_is_unanswered_yet_is_refused_alone() -> None:
    async with cluster(slowness=Slowness(twice=0.3), policy="none") as (stub, _, _):
        first = predict_pb2.PredictStreamRequest(request=PredictRequest(request_id="twice", tensor=to_tensor(image(3))))
        second = predict_pb2.PredictStreamRequest(
            request=PredictRequest(request_id="twice", tensor=to_tensor(image(4)))
        )
        call = stub.PredictStream(iter([first, second, first]), timeout=10)
        answers = [message async for message in call]
    assert [message.error.code for message in answers[:2]] == [grpc.StatusCode.ALREADY_EXISTS.value[0]] * 2
    assert [message.response.classes[0].label for message in answers[2:]] == ["d"]


async def test_no_message_ends_a_stream_and_none_is_repeated_at_length() -> None:
    async with cluster(policy="none") as (_, _, channel):
        call: Any = channel.stream_stream(
            "/collage.v1.PredictService/PredictStream", None, predict_pb2.PredictStreamResponse.FromString
        )(timeout=20)
        endless = PredictRequest(request_id="x" * 10_000_000, tensor=to_tensor(image(3)))
        good = PredictRequest(request_id="good", tensor=to_tensor(image(3)))
        await call.write(b"\xff\xff")
        for request in (endless, good):
            await call.write(predict_pb2.PredictStreamRequest(request=request).SerializeToString())
        await call.done_writing()
        garbage, long, answer = [response async for response in call]
    assert (garbage.request_id, garbage.error.message) == ("", "the message is no PredictStreamRequest: send one")
    assert long.request_id == "x" * 128
    assert long.error.message == "request_id is longer than 128 bytes: send a shorter one"
    assert garbage.error.code == long.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert (answer.request_id, answer.response.classes[0].label) == ("good", "d")
