"""Workers of another make over real gRPC in this process: calls, cancellation, health, failures, whole clusters."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
from PIL import Image

from collage.model_info import ModelInfo
from collage.security import ClientSecurity
from collage.serving import Server
from collage.v1 import predict_pb2, predict_pb2_grpc
from frontend.__main__ import running
from frontend.config import FrontendSettings
from frontend.workers import Ending, OpenInferenceTransport, Reply, WorkerFailure
from inference import open_inference_pb2 as oip
from tests.frontend import fakes
from tests.frontend.fakes import classify, image
from tests.frontend.fleet_workers import (
    COLLAGE,
    S_CNN,
    OtherMake,
    closing,
    collage_metadata,
    detections,
    listening,
    s_cnn_metadata,
    tensor,
)
from tests.frontend.grpc_workers import LOCAL, worker

BOUND_S = 10.0


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def transport(
    servicer: OtherMake, security: ClientSecurity | None = None
) -> AsyncIterator[OpenInferenceTransport]:
    """A transport to a server, which knows its model."""
    async with listening(servicer) as port:
        link = OpenInferenceTransport(
            f"127.0.0.1:{port}", ModelInfo.from_content(S_CNN), 1 << 20, security or ClientSecurity()
        )
        async with closing(link):
            await link.ping()
            yield link


def asked(link: OpenInferenceTransport, id: str = "", timeout_s: float = BOUND_S) -> tuple[Any, asyncio.Future[Ending]]:
    ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
    return link.run(image(3), id, 0, timeout_s, ended.set_result), ended


async def test_a_call_is_answered_in_time() -> None:
    servicer = OtherMake(s_cnn_metadata(), seconds={"slow": 0.05})
    async with transport(servicer) as link:
        _, ended = asked(link, "slow")
        reply = await ended
        assert isinstance(reply, Reply)
        np.testing.assert_array_equal(reply.outputs[0], classify(image(3))[0])
        assert reply.queue_s == 0
        assert 0.04 < reply.inference_s < BOUND_S
        assert [request.id for request in servicer.requests] == ["slow"]


async def test_a_cancelled_call_is_stopped_on_the_server_and_told_once() -> None:
    servicer = OtherMake(s_cnn_metadata(), seconds={"slow": 60.0})
    async with transport(servicer) as link:
        call, ended = asked(link, "slow")
        await eventually(lambda: servicer.running)
        call.cancel()
        assert ended.result() is None
        call.cancel()
        await eventually(lambda: not servicer.running)
        async with asyncio.timeout(BOUND_S):
            await link.settle()
        await eventually(lambda: call.running.cancelled())


async def test_a_call_that_is_answered_was_not_cancelled_on_the_server() -> None:
    cancelled: list[str] = []

    class Watching(OtherMake):
        async def ModelInfer(self, request: oip.ModelInferRequest, context: Any) -> oip.ModelInferResponse:
            context.add_done_callback(lambda done: cancelled.append(request.id) if done.cancelled() else None)
            return await super().ModelInfer(request, context)

    servicer = Watching(s_cnn_metadata())
    async with transport(servicer) as link:
        for number in range(20):
            assert isinstance(await asked(link, str(number))[1], Reply)
    assert cancelled == []


@pytest.mark.parametrize("timeout_s", [0.0, 0.05])
async def test_a_call_ends_with_its_time(timeout_s: float) -> None:
    async with transport(OtherMake(s_cnn_metadata(), seconds={"slow": 60.0})) as link:
        failure = await asked(link, "slow", timeout_s)[1]
        assert isinstance(failure, WorkerFailure)
        assert (failure.code, failure.unreachable) == ("DEADLINE_EXCEEDED", False)


async def test_a_failure_has_the_servers_code_and_text() -> None:
    class Failing(OtherMake):
        async def ModelInfer(self, request: Any, context: Any) -> Any:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Exceeds maximum queue size")

    async with transport(Failing(s_cnn_metadata())) as link:
        failure = await asked(link)[1]
        assert isinstance(failure, WorkerFailure)
        assert (failure.code, str(failure)) == ("RESOURCE_EXHAUSTED", "Exceeds maximum queue size")


async def test_an_answer_whose_call_fails_after_all_is_a_failure() -> None:
    servicer = OtherMake(s_cnn_metadata())

    async def answer_and_fail(request: oip.ModelInferRequest, context: Any) -> AsyncIterator[oip.ModelInferResponse]:
        yield servicer.answer(request)
        await context.abort(grpc.StatusCode.INTERNAL, "the answer was not whole")

    server = grpc.aio.server()
    handlers = {
        "ModelMetadata": grpc.unary_unary_rpc_method_handler(
            servicer.ModelMetadata, oip.ModelMetadataRequest.FromString, oip.ModelMetadataResponse.SerializeToString
        ),
        "ModelInfer": grpc.unary_stream_rpc_method_handler(
            answer_and_fail, oip.ModelInferRequest.FromString, oip.ModelInferResponse.SerializeToString
        ),
    }
    service = "inference.GRPCInferenceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    link = OpenInferenceTransport(f"127.0.0.1:{port}", ModelInfo.from_content(S_CNN), 1 << 20)
    async with closing(link):
        await link.ping()
        failure = await asked(link)[1]
        assert isinstance(failure, WorkerFailure)
        assert (failure.code, str(failure)) == ("INTERNAL", "the answer was not whole")
    await server.stop(None)


async def test_calls_to_nobody_are_unreachable() -> None:
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(listening(servicer := OtherMake(s_cnn_metadata(), seconds={"slow": 60})))
        link = OpenInferenceTransport(f"127.0.0.1:{port}", ModelInfo.from_content(S_CNN), 1 << 20)
        async with closing(link):
            await link.ping()
            _, ended = asked(link, "slow")
            await eventually(lambda: servicer.running)
            await stack.aclose()  # the server is gone
            for waiting in (ended, asked(link)[1]):
                failure = await waiting
                assert isinstance(failure, WorkerFailure)
                assert failure.code in ("UNAVAILABLE", "CANCELLED"), failure.code
            with pytest.raises(WorkerFailure) as caught:
                await link.settle()
            assert caught.value.unreachable


async def test_calls_fail_when_the_connection_is_closed() -> None:
    async with transport(servicer := OtherMake(s_cnn_metadata(), seconds={"slow": 60.0})) as link:
        call, ended = asked(link, "slow")
        await eventually(lambda: servicer.running)
        await link.close()
        failure = ended.result()
        assert isinstance(failure, WorkerFailure)
        assert failure.unreachable
        assert call.running.done()


async def test_an_answer_that_is_too_large_is_not_read() -> None:
    class Flooding(OtherMake):
        def answer(self, request: oip.ModelInferRequest) -> oip.ModelInferResponse:
            response = super().answer(request)
            response.parameters["pad"].string_param = "x" * 40_000
            return response

    async with transport(Flooding(s_cnn_metadata())) as link:
        failure = await asked(link)[1]
        assert isinstance(failure, WorkerFailure)
        assert failure.code == "GARBAGE"
        assert "bytes at once" in str(failure)


async def test_calls_carry_the_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n")
    servicer = OtherMake(s_cnn_metadata())
    async with transport(servicer, ClientSecurity(token_file=file)) as link:
        await asked(link)[1]
        assert servicer.told == [("authorization", "Bearer secret")]


@pytest.mark.parametrize("what", ["server_ready", "model_ready", "version"])
async def test_a_worker_is_watched_until_it_is_not_ready(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.workers.open_inference.HEALTH_EVERY_S", 0.01)
    servicer = OtherMake(s_cnn_metadata())
    async with transport(servicer) as link:
        told: list[bool] = []
        watching = asyncio.create_task(link.watch(told.append))
        await eventually(lambda: len(told) > 2)
        if what == "version":
            servicer.metadata = s_cnn_metadata(versions=["2"])
        else:
            setattr(servicer, what, False)
        async with asyncio.timeout(BOUND_S):
            await watching
        assert (set(told[:-1]), told[-1]) == ({True}, False)
        if what == "version":
            assert (await link.ping()).version == "2"


async def test_an_unknown_model_and_another_shape_are_named() -> None:
    servicer = OtherMake(s_cnn_metadata())
    async with listening(servicer) as port:
        for said, problem in (
            ({"name": "other"}, "unknown model: 'other'"),
            ({"size": 9}, "its input is 'pixels'"),
        ):
            link = OpenInferenceTransport(f"127.0.0.1:{port}", ModelInfo.from_content({**S_CNN, **said}), 1 << 20)
            async with closing(link):
                with pytest.raises((WorkerFailure, ValueError), match=problem):
                    await link.ping()


async def test_what_had_to_be_assumed_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    metadata = s_cnn_metadata(tensor("x", "FP32", -1, 3, fakes.SIZE, fakes.SIZE))
    async with transport(OtherMake(metadata)) as link:
        await link.ping()
    assert caplog.text.count("s: the input is float and there is no mean and std") == 1


# Whole clusters


@asynccontextmanager
async def fleet(
    tmp_path: Path, s_cnn: list[OtherMake], coded: str, **settings: Any
) -> AsyncIterator[tuple[predict_pb2_grpc.PredictServiceStub, Server]]:
    """A frontend in front of servers of another make; ``coded`` are workers of the collage-cnn."""
    (tmp_path / "s.json").write_text(json.dumps(S_CNN))
    (tmp_path / "c.json").write_text(json.dumps(COLLAGE))
    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(listening(each)) for each in s_cnn]
        server = await stack.enter_async_context(
            running(
                FrontendSettings(
                    **{
                        **LOCAL,
                        "policy": "collage",
                        "s_cnn_workers": ",".join(f"127.0.0.1:{port}" for port in ports),
                        "s_cnn_description": tmp_path / "s.json",
                        "coded_workers": coded,
                        **settings,
                    }
                )
            )
        )
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{server.port}"))
        for role, count in (("s_cnn", len(s_cnn)), ("coded", 1)):
            labels = {"role": role, "state": "ready"}
            await eventually(lambda: server.registry.get_sample_value("collage_workers", labels) == count)  # noqa: B023
        yield predict_pb2_grpc.PredictServiceStub(channel), server


def request(label: int, id: str) -> predict_pb2.PredictRequest:
    buffer = io.BytesIO()
    Image.fromarray(image(label)).save(buffer, "PNG")
    return predict_pb2.PredictRequest(image=buffer.getvalue(), request_id=id)


@pytest.mark.parametrize("own", [False, True], ids=["all of another make", "a collage worker of ours"])
async def test_a_straggler_of_a_fleet_is_answered_from_the_collage(tmp_path: Path, own: bool) -> None:
    slow = {"r0": 2.0, "r1": 2.0, "r2": 60.0, "r3": 2.0}  # the group fills before the first answer
    workers = [OtherMake(s_cnn_metadata(), seconds=slow) for _ in range(2)]
    async with AsyncExitStack() as stack:
        settings: dict[str, Any] = {"deadline_s": 2.5, "group_wait_s": 2.0}
        if own:
            port = (await stack.enter_async_context(worker(fakes.COLLAGE))).port
        else:
            port = await stack.enter_async_context(listening(OtherMake(collage_metadata(), detections)))
            settings["coded_descriptions"] = str(tmp_path / "c.json")
        stub, server = await stack.enter_async_context(fleet(tmp_path, workers, f"127.0.0.1:{port}", **settings))
        answers = await asyncio.gather(*(stub.Predict(request(i, f"r{i}"), timeout=30) for i in range(4)))
        assert [answer.classes[0].index for answer in answers] == [0, 1, 2, 3]
        straggler = answers[2].provenance
        assert (straggler.source, straggler.degraded, straggler.model_name) == (predict_pb2.SOURCE_COLLAGE, True, "c")
        alone = await stub.Predict(request(5, "alone"), timeout=30)
        assert alone.classes[0].index == 5
        await eventually(lambda: not any(each.running for each in workers))  # the loser was cancelled on the wire
        failures = {"attempt": "s_cnn", "code": "GARBAGE"}
        assert server.registry.get_sample_value("collage_worker_failures_total", failures) == 0


async def test_a_worker_that_fails_is_left_out_and_nothing_is_lost(tmp_path: Path) -> None:
    class Broken(OtherMake):
        async def ModelInfer(self, request: oip.ModelInferRequest, context: Any) -> Any:
            self.requests.append(request)
            await context.abort(grpc.StatusCode.INTERNAL, "out of memory")

    workers = [Broken(s_cnn_metadata()), *(OtherMake(s_cnn_metadata()) for _ in range(3))]
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(listening(OtherMake(collage_metadata(), detections)))
        coded = {"coded_descriptions": str(tmp_path / "c.json"), "policy": "adaptive", "extra_load": 2.0}
        stub, server = await stack.enter_async_context(fleet(tmp_path, workers, f"127.0.0.1:{port}", **coded))
        for number in range(40):
            answer = await stub.Predict(request(number % 10, f"r{number}"), timeout=30)
            assert answer.classes[0].index == number % 10
        assert 3 <= len(workers[0].requests) <= 6
        assert server.registry.get_sample_value("collage_ejections_total", {"role": "s_cnn"}) == 1


def test_a_description_that_cannot_be_used_ends_the_start_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text('{"name": "s"}')
    words = ["--s-cnn-workers", "127.0.0.1:9", "--s-cnn-description", str(file), "--port", "0", "--metrics-port", "0"]
    ended = subprocess.run(
        [sys.executable, "-m", "frontend", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith(f"frontend: the description {file} cannot be used: a model description is")


def test_every_list_of_coded_workers_is_described_or_none() -> None:
    with pytest.raises(ValueError, match="--coded-descriptions names 1 files for 2 lists of --coded-workers"):
        FrontendSettings(s_cnn_workers="a:1", coded_workers="b:1 c:1", coded_descriptions="b.json")
