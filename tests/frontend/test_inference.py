"""The Open Inference Protocol on the frontend: a stock client in its own process, workers in this one."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from collage.serving import Server, ServerSettings
from collage.v1 import predict_pb2, predict_pb2_grpc
from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc as oip_grpc
from inference.service import InferenceServicer, RowAnswer
from inference.tensors import ImageRows
from tests.frontend.fakes import LABELS, S_CNN, SIZE, image
from tests.frontend.grpc_workers import LOCAL, Slowness, cluster
from tests.triton import png, triton

BEST = float(np.exp(5) / (np.exp(5) + 9))


def rows(*labels: int) -> list[Any]:
    return [image(label).tolist() for label in labels]


def tensor(*labels: int) -> oip.ModelInferRequest:
    """A raw request from this process."""
    pixels = np.stack([image(label) for label in labels])
    shape = oip.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=pixels.shape)
    return oip.ModelInferRequest(model_name="s", inputs=[shape], raw_input_contents=[pixels.tobytes()])


def best(answer: Any) -> list[int]:
    return [int(np.argmax(row)) for row in answer["values"]]


async def test_a_stock_client_learns_everything_about_the_model() -> None:
    async with cluster(max_message_bytes=10_000) as (_, server, _):
        told = await triton("describe", server.port)
    assert (told["live"], told["ready"], told["model_ready"]) == (True, True, True)
    assert told["server"]["name"] == "collage"
    assert {"classification", "model_configuration", "statistics"} <= set(told["server"]["extensions"])
    assert told["models"] == [{"name": "s", "version": "1", "state": "READY"}]
    assert told["metadata"]["versions"] == ["1"]
    image_shape, side = ["-1", str(SIZE), str(SIZE), "3"], str(SIZE)
    assert told["metadata"]["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": image_shape}]
    outputs = [{"name": "probabilities", "datatype": "FP32", "shape": ["-1", str(len(LABELS))]}]
    assert told["metadata"]["outputs"] == outputs
    assert told["config"]["max_batch_size"] == (10_000 - 1024) // (3 * SIZE**2), "as many as a message has room for"
    assert told["config"]["input"] == [
        {"name": "image", "data_type": "TYPE_UINT8", "format": "FORMAT_NHWC", "dims": [side, side, "3"]}
    ]
    assert told["statistics"][0]["name"] == "s"


async def test_a_stock_client_gets_answers_to_every_form_of_input() -> None:
    many = [row % len(LABELS) for row in range(32)]
    floats = (np.stack([image(5), image(6)]) + 0.3).tolist()
    async with cluster() as (_, server, _):
        answers = await triton(
            "infer",
            server.port,
            [
                {"model": "s", "data": rows(3), "request_id": "mine"},
                {"model": "s", "data": rows(1, 2), "typed": True},
                {"model": "s", "data": floats, "datatype": "FP32", "model_version": "1"},
                {"model": "s", "data": floats, "datatype": "FP32", "typed": True},
                {"model": "s", "data": [png(image(4)), png(image(7))], "datatype": "BYTES"},
                {"model": "s", "data": [png(image(9))], "datatype": "BYTES", "typed": True},
                {"model": "s", "data": rows(*many), "request_id": "batch"},
                {"model": "s", "data": rows(3, 8), "classes": 2},
                {"model": "s", "data": rows(2), "priority": 1, "parameters": {"unknown": "ignored"}},
            ],
        )
        statistics = (await triton("describe", server.port))["statistics"]
    expected: list[list[int]] = [[3], [1, 2], [5, 6], [5, 6], [4, 7], [9], many]
    assert [best(answer) for answer in answers[:7]] == expected
    assert answers[0]["model"] == ["s", "1"]
    assert answers[0]["id"] == "mine"
    assert answers[0]["values"][0][3] == pytest.approx(BEST, rel=1e-4)
    assert sum(answers[0]["values"][0]) == pytest.approx(1, rel=1e-4)
    assert answers[0]["parameters"] == {"source": "S_CNN", "degraded": False, "coded_confidence": ""}
    assert answers[6]["parameters"]["source"].count(",") == 31
    assert answers[7]["datatype"] == "BYTES"
    (first, _), (second, _) = answers[7]["values"]
    assert (first, second) == (f"{BEST:f}:3:d", f"{BEST:f}:8:i")
    assert best(answers[8]) == [2]
    (counts,) = statistics
    assert (counts["inference_count"], counts["execution_count"]) == ("45", "45")
    assert counts["inference_stats"]["success"]["count"] == "9"
    assert counts["inference_stats"]["queue"]["count"] == "45"
    assert "fail" not in counts["inference_stats"]


async def test_a_stock_client_is_protected_and_can_see_it() -> None:
    """The slow row of a batch of four is answered from the batch's own collage."""
    slow = Slowness(**{f"batch-{row}": 8.0 if row == 2 else 0.2 for row in range(4)})
    async with cluster(slowness=slow, deadline_s=0.3, group_wait_s=0.2) as (_, server, _):
        (answer,) = await triton(
            "infer", server.port, [{"model": "s", "data": rows(0, 1, 2, 3), "request_id": "batch"}]
        )
        assert best(answer) == [0, 1, 2, 3]
        assert answer["parameters"] == {
            "source": "S_CNN,S_CNN,COLLAGE,S_CNN",
            "degraded": True,
            "coded_confidence": ",,0.9000,",
        }
        async with asyncio.timeout(5):  # the loser was cancelled on the wire
            while slow.running:
                await asyncio.sleep(0.01)


async def test_a_stock_client_is_told_what_it_did_wrong() -> None:
    files = [png(image(1)), b"not an image".hex(), png(image(1))]
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"model": "other", "data": rows(1)}, "NOT_FOUND", "no model 'other' here: ask for 's'"),
        ({"model": "s", "data": rows(1), "model_version": "2"}, "NOT_FOUND", "no version '2' of 's' here: it is '1'"),
        ({"model": "s", "data": rows(1), "shape": [1, 3, SIZE, SIZE]}, "INVALID_ARGUMENT", "channels last"),
        ({"model": "s", "data": rows(1), "shape": [2, SIZE, SIZE, 3]}, "INVALID_ARGUMENT", "asks for 384 bytes"),
        ({"model": "s", "data": rows(1), "raw": ["00"]}, "INVALID_ARGUMENT", "192 bytes of raw contents, got 1"),
        ({"model": "s", "data": rows(1), "typed": True, "raw": ["00"]}, "INVALID_ARGUMENT", "send one of them"),
        ({"model": "s", "data": [[[1.0]]], "datatype": "FP32"}, "INVALID_ARGUMENT", "must have shape"),
        (
            {"model": "s", "data": (image(1) / 255)[np.newaxis].tolist(), "datatype": "FP32"},
            "INVALID_ARGUMENT",
            "from 0 to 255, not from 0 to 1",
        ),
        ({"model": "s", "data": rows(1), "name": "input"}, "INVALID_ARGUMENT", "one input, 'image': got 'input'"),
        ({"model": "s", "data": rows(1), "outputs": ["x"]}, "INVALID_ARGUMENT", "one output, 'probabilities'"),
        ({"model": "s", "data": files, "datatype": "BYTES"}, "INVALID_ARGUMENT", "row 1: not a JPEG, PNG"),
        ({"model": "s", "data": rows(*1025 * [1])}, "INVALID_ARGUMENT", "1 to 1024 rows, this one has 1025"),
        ({"model": "s", "data": rows(1), "request_id": 200 * "x"}, "INVALID_ARGUMENT", "longer than 128 bytes"),
    ]
    async with cluster() as (_, server, _):
        answers = await triton("infer", server.port, [case for case, _, _ in cases])
        refused = await triton("stream", server.port, {"model": "s"})
        statistics = (await triton("describe", server.port))["statistics"]
        assert server.registry.get_sample_value("collage_in_flight") == 0
    for (case, status, message), answer in zip(cases, answers, strict=True):
        assert answer["status"] == f"StatusCode.{status}", case
        assert message in answer["message"]
        assert "Traceback" not in answer["message"]
    assert refused[0]["status"] == "StatusCode.UNIMPLEMENTED"
    assert "call ModelInfer" in refused[0]["message"]
    assert statistics[0]["inference_stats"]["fail"]["count"] == str(len(cases) - 2)  # unknown models are not counted


async def test_a_message_over_the_limit_is_refused() -> None:
    async with cluster(max_message_bytes=4096) as (_, _, channel):
        stub = oip_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="larger than max") as caught:
            await stub.ModelInfer(tensor(*32 * [1]), timeout=5)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len((await stub.ModelInfer(tensor(1, 2), timeout=5)).raw_output_contents[0]) == 2 * 4 * len(LABELS)


async def test_without_workers_nothing_is_ready() -> None:
    async with cluster(s_cnn=0) as (_, _, channel):
        stub = oip_grpc.GRPCInferenceServiceStub(channel)
        assert (await stub.ServerLive(oip.ServerLiveRequest())).live
        assert not (await stub.ServerReady(oip.ServerReadyRequest())).ready
        assert not (await stub.ModelReady(oip.ModelReadyRequest(name="s"))).ready
        assert not (await stub.RepositoryIndex(oip.RepositoryIndexRequest())).models
        for call in (stub.ModelMetadata(oip.ModelMetadataRequest(name="s")), stub.ModelInfer(tensor(1), timeout=5)):
            with pytest.raises(grpc.aio.AioRpcError, match="no s-cnn worker is ready") as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("given", ["gRPC deadline", "parameter"])
async def test_all_rows_share_the_callers_time(given: str) -> None:
    slow = Slowness(**{"b-0": 30.0, "b-1": 30.0})
    async with cluster(slowness=slow, policy="none") as (_, server, channel):
        request = tensor(1, 2, 3)
        request.id = "b"
        if given == "parameter":
            request.parameters["timeout"].int64_param = 300_000
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(
                request, timeout=0.3 if given == "gRPC deadline" else 20
            )
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert loop.time() - started < 10
        async with asyncio.timeout(5):  # no row goes on
            while slow.running or server.registry.get_sample_value("collage_in_flight"):
                await asyncio.sleep(0.01)


async def test_rows_count_against_admission_and_a_caller_has_a_share() -> None:
    slow = Slowness(**{f"a-{row}": 30.0 for row in range(4)})
    async with cluster(slowness=slow, policy="none", max_in_flight=5, caller_share=0.8) as (_, server, channel):
        stub = oip_grpc.GRPCInferenceServiceStub(channel)
        first = tensor(1, 2, 3, 4, 5, 6)
        first.id = "a"
        holding = stub.ModelInfer(first, timeout=20)
        async with asyncio.timeout(5):
            while len(slow.running) < 4:
                await asyncio.sleep(0.01)
        assert server.registry.get_sample_value("collage_in_flight") == 4, "the other rows wait for their turn"
        with pytest.raises(grpc.aio.AioRpcError, match="row 0: this connection has 4 requests in flight") as caught:
            await stub.ModelInfer(tensor(1, 2), timeout=5)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert server.registry.get_sample_value("collage_refused_total", {"reason": "share"}) == 2, "both rows"
        own_pool = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", own_pool) as other:
            request = predict_pb2.PredictRequest(image=bytes.fromhex(png(image(6))))
            alone = await predict_pb2_grpc.PredictServiceStub(other).Predict(request, timeout=5)
        assert alone.classes[0].index == 6
        holding.cancel()
        async with asyncio.timeout(5):
            while slow.running or server.registry.get_sample_value("collage_in_flight"):
                await asyncio.sleep(0.01)


async def test_a_batch_of_any_size_is_fed_at_the_pace_of_the_workers() -> None:
    labels = [row % len(LABELS) for row in range(300)]
    async with cluster(policy="none", max_in_flight=24, max_bytes_in_flight=100_000) as (_, server, channel):
        request = tensor(*labels)
        wanted = request.outputs.add(name="probabilities")
        wanted.parameters["classification"].int64_param = 1
        answer = await oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
        found = answer.raw_output_contents[0]
        assert [int(row.split(b":")[1]) for row in found.split(f"{BEST:f}".encode())[1:]] == labels
        assert server.registry.get_sample_value("collage_requests_total", {"code": "OK"}) == 300


async def test_a_batch_that_cannot_be_in_time_says_so() -> None:
    slow = Slowness(**{f"b-{row}": 0.15 for row in range(200)})
    async with cluster(slowness=slow, policy="none", max_in_flight=4) as (_, server, channel):
        request = tensor(*200 * [1])
        request.id = "b"
        with pytest.raises(grpc.aio.AioRpcError, match=r"row \d+") as caught:
            await oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(5):
            while server.registry.get_sample_value("collage_in_flight"):
                await asyncio.sleep(0.01)


async def test_labels_and_version_are_of_the_model_that_answered() -> None:
    old = dataclasses.replace(S_CNN, version="7")
    new = dataclasses.replace(S_CNN, version="8", labels=tuple(reversed(LABELS)))
    said = np.eye(len(LABELS), dtype=np.float32)[2]

    class Switching(InferenceServicer):
        """A new model comes into use while a request is served."""

        answered = (new, new)
        model = old

        async def run_rows(
            self, images: ImageRows, ids: Sequence[str], timeout_s: float | None, caller: str
        ) -> list[RowAnswer]:
            return [RowAnswer(said, model, "S_CNN", False, None, 0.0, 0.0) for model in self.answered]

    class NoDeadline:
        def time_remaining(self) -> None:
            return None

        def peer(self) -> str:
            return "ipv4:127.0.0.1:1"

        async def abort(self, code: grpc.StatusCode, text: str, trailing: object) -> None:
            raise LookupError(code, text)

    server = Server(ServerSettings(**LOCAL), CollectorRegistry(), [])
    servicer, request = Switching(server), tensor(1, 2)
    wanted = request.outputs.add(name="probabilities")
    wanted.parameters["classification"].int64_param = 1
    answer = await servicer.ModelInfer(request, NoDeadline())
    assert answer.model_version == "8"
    assert answer.raw_output_contents[0][4:].startswith(b"1.000000:2:h")
    servicer.answered = (new, old)
    with pytest.raises(LookupError, match="a new model came into use"):
        await servicer.ModelInfer(request, NoDeadline())
