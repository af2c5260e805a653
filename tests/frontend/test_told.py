"""What callers are told beside an answer, by both protocols: how long it waited and ran, which classes,
and when to come again."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from collage.tensors import to_tensor
from collage.v1 import predict_pb2
from frontend.dispatch import SHORTEST_RETRY_S
from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc as oip_grpc
from tests.frontend.fakes import image
from tests.frontend.grpc_workers import INFERENCE_S, QUEUE_S, Slowness, cluster


def request(label: int, id: str, **fields: Any) -> predict_pb2.PredictRequest:
    return predict_pb2.PredictRequest(tensor=to_tensor(image(label)), request_id=id, **fields)


async def test_times_are_those_that_the_worker_told() -> None:
    pixels = image(3)
    tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=(1, *pixels.shape))
    asked = oip.ModelInferRequest(model_name="s", inputs=[tensor], raw_input_contents=[pixels.tobytes()])
    async with cluster(policy="none") as (stub, _, channel):
        told = (await stub.Predict(request(3, "r"), timeout=20)).provenance
        protocol = oip_grpc.GRPCInferenceServiceStub(channel)
        await protocol.ModelInfer(asked, timeout=20)
        (statistics,) = (await protocol.ModelStatistics(oip.ModelStatisticsRequest(), timeout=20)).model_stats
    assert (told.queue_s, told.inference_s) == (pytest.approx(QUEUE_S), pytest.approx(INFERENCE_S))
    assert not told.degraded
    spent = statistics.inference_stats
    assert (spent.queue.ns, spent.compute_infer.ns) == (
        pytest.approx(1e9 * QUEUE_S, rel=1e-3), pytest.approx(1e9 * INFERENCE_S, rel=1e-3),
    )  # fmt: skip


async def test_classes_come_by_their_probability_as_many_as_asked_for() -> None:
    async with cluster(policy="none") as (stub, _, _):
        classes = (await stub.Predict(request(3, "r", top_k=4), timeout=20)).classes
    assert len(classes) == 4
    assert classes[0].index == 3
    probabilities = [each.probability for each in classes]
    assert probabilities == sorted(probabilities, reverse=True)


async def test_a_replica_is_told_as_one_and_is_exact() -> None:
    slow = Slowness(r1=50.0)  # its first attempt
    async with cluster(slowness=slow, policy="replicate", extra_load=1.0, deadline_s=0.2) as (stub, _, _):
        told = (await stub.Predict(request(1, "r1"), timeout=20)).provenance
    assert (told.source, told.degraded) == (predict_pb2.SOURCE_REPLICA, False)


async def test_a_refusal_carries_when_to_come_again() -> None:
    slowness = Slowness(slow=60.0)
    async with cluster(slowness=slowness, policy="none", max_in_flight=1) as (stub, _, _):
        slow = stub.Predict(predict_pb2.PredictRequest(request_id="slow", tensor=to_tensor(image(3))), timeout=60)
        async with asyncio.timeout(10):
            while not slowness.running:
                await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Predict(predict_pb2.PredictRequest(tensor=to_tensor(image(3))), timeout=5)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        # Nothing has been answered yet, so nobody knows how long that takes: the shortest time is named.
        assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == f"{1000 * SHORTEST_RETRY_S:.0f}"
        message = predict_pb2.PredictStreamRequest(request=request(3, "a"))
        (refused,) = [response async for response in stub.PredictStream(iter([message]), timeout=5)]
        assert refused.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert refused.error.retry_after_s == SHORTEST_RETRY_S
        slow.cancel()
