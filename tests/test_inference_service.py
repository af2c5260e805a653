"""The Open Inference Protocol's servicer over rows that a test answers, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from collage.errors import Unavailable
from collage.model_info import ModelInfo, ModelKind
from collage.serving import Server, ServerSettings
from inference import open_inference_pb2 as oip
from inference.service import InferenceServicer, RowAnswer
from inference.tensors import ImageRows
from tests.frontend.grpc_workers import LOCAL

MODEL = ModelInfo.make("m", ModelKind.S_CNN, ("a", "b"), 2, version="ff")


class AnsweredByTest(InferenceServicer):
    """Every row's answer has the times and the origin that the test sets."""

    model = MODEL

    def __init__(self) -> None:
        super().__init__(Server(ServerSettings(**LOCAL), CollectorRegistry(), []))
        self.asked: list[tuple[list[str], float | None]] = []
        self.degraded = [False]
        self.failure: Exception | None = None

    async def run_rows(
        self, images: ImageRows, ids: Sequence[str], timeout_s: float | None, caller: str
    ) -> list[RowAnswer]:
        self.asked.append((list(ids), timeout_s))
        if self.failure:
            raise self.failure
        said = np.array([0.25, 0.75], np.float32)
        return [RowAnswer(said, MODEL, "S_CNN", degraded, None, 0.25, 2.0) for degraded in self.degraded]


class Called:
    """The context of a call."""

    def __init__(self, remaining_s: float | None = None) -> None:
        self.remaining_s = remaining_s

    def time_remaining(self) -> float | None:
        return self.remaining_s

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def abort(self, code: grpc.StatusCode, text: str, trailing: object) -> None:
        raise LookupError(code.name, text)


def request(rows: int = 1, **fields: Any) -> oip.ModelInferRequest:
    tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[rows, 2, 2, 3])
    return oip.ModelInferRequest(model_name="m", inputs=[tensor], raw_input_contents=[bytes(12 * rows)], **fields)


@pytest.mark.parametrize(
    ("remaining_s", "parameter_us", "limit_s"),
    [(None, 0, None), (5.0, 0, 5.0), (None, 250_000, 0.25), (5.0, 250_000, 0.25), (0.125, 250_000, 0.125)],
)
async def test_the_shorter_of_both_time_limits_counts(
    remaining_s: float | None, parameter_us: int, limit_s: float | None
) -> None:
    servicer, asked = AnsweredByTest(), request()
    if parameter_us:
        asked.parameters["timeout"].int64_param = parameter_us
    await servicer.ModelInfer(asked, Called(remaining_s))
    assert servicer.asked == [([""], limit_s)]


async def test_rows_have_ids_of_their_own_and_one_degraded_row_makes_the_answer_so() -> None:
    servicer = AnsweredByTest()
    servicer.degraded = [False, True]
    answer = await servicer.ModelInfer(request(2, id="mine"), Called())
    assert servicer.asked[0][0] == ["mine-0", "mine-1"]
    assert answer.parameters["degraded"].bool_param
    servicer.degraded = [False, False]
    answer = await servicer.ModelInfer(request(2), Called())
    assert servicer.asked[1][0] == ["", ""]
    assert not answer.parameters["degraded"].bool_param
    with pytest.raises(LookupError, match="longer than 128 bytes"):
        await servicer.ModelInfer(request(id="x" * 129), Called())
    for wrong in ({"model_version": "254"}, {"model_version": "x"}):
        with pytest.raises(LookupError, match="NOT_FOUND"):
            await servicer.ModelInfer(request(**wrong), Called())
    await servicer.ModelInfer(request(model_version="255"), Called())


async def test_statistics_count_ends_and_add_up_times_in_nanoseconds() -> None:
    servicer = AnsweredByTest()
    servicer.degraded = [False] * 3
    await servicer.ModelInfer(request(3), Called())
    servicer.failure = Unavailable("no worker")
    with pytest.raises(LookupError, match="UNAVAILABLE"):
        await servicer.ModelInfer(request(), Called())
    told = await servicer.ModelStatistics(oip.ModelStatisticsRequest(), Called())
    (counts,) = told.model_stats
    spent = counts.inference_stats
    assert (spent.success.count, spent.fail.count, counts.inference_count) == (1, 1, 3)
    assert (spent.queue.count, spent.queue.ns) == (3, 750_000_000)
    assert (spent.compute_infer.count, spent.compute_infer.ns) == (3, 6_000_000_000)


async def test_it_is_ready_while_the_process_serves() -> None:
    servicer = AnsweredByTest()
    assert not (await servicer.ServerReady(oip.ServerReadyRequest(), Called())).ready
    assert not (await servicer.ModelReady(oip.ModelReadyRequest(name="m"), Called())).ready
    servicer._server.set_serving(True)
    assert (await servicer.ServerReady(oip.ServerReadyRequest(), Called())).ready
    assert (await servicer.ModelReady(oip.ModelReadyRequest(name="m"), Called())).ready
