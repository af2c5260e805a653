"""Traces, from a caller's context to the workers' spans, at a collector that speaks OTLP over HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collage.errors import DeadlineExceeded
from collage.traces import Traces
from collage.v1 import model_pb2
from tests.frontend.fakes import S_CNN, image
from tests.frontend.grpc_workers import Slowness, cluster
from tests.frontend.http.web import ask
from tests.frontend.test_server import PredictRequest, encoded
from worker.server import ModelServicer

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """Its endpoint, and the spans that it gets."""
    spans: list[Any] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def told(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def events(span: Any) -> list[str]:
    return [event.name for event in span.events]


async def test_a_request_is_a_span_whose_parent_is_the_caller_by_grpc_and_by_http() -> None:
    with collector() as (endpoint, spans):
        async with cluster(policy="none", http_port=0, traces=endpoint) as (stub, server, _):
            metadata = (("traceparent", PARENT),)
            await stub.Predict(PredictRequest(image=encoded(3), request_id="g"), timeout=5, metadata=metadata)
            assert (await ask(server, "PUT", "/v1/predict/h", encoded(3), traceparent=PARENT)).status == 200
            assert (await ask(server, "PUT", "/v1/predict/alone", encoded(3))).status == 200
            assert (await ask(server, "PUT", "/v1/predict/bad", b"x", traceparent=PARENT)).status == 400
    by_id = {told(span).get("request_id", "bad"): span for span in spans}
    assert by_id.keys() == {"g", "h", "alone", "bad"}
    for id, span in by_id.items():
        assert span.name == "collage.predict"
        assert (span.trace_id.hex() == PARENT.split("-")[1]) == (id != "alone")
        assert (span.parent_span_id.hex() == PARENT.split("-")[2]) == (id != "alone")
        assert span.end_time_unix_nano > span.start_time_unix_nano
    assert events(by_id["g"]) == ["prepared", "admitted", "sent", "answered"]
    assert told(by_id["g"]) == {"request_id": "g", "source": "S_CNN", "degraded": False}
    assert by_id["bad"].status.message.startswith("INVALID_ARGUMENT: ")


async def test_a_coded_answer_shows_its_group_its_attempts_and_its_decoding() -> None:
    slow = Slowness(r0=0.2, r1=0.2, r2=8.0, r3=0.2)
    with collector() as (endpoint, spans):
        async with cluster(slowness=slow, deadline_s=0.3, group_wait_s=0.2, traces=endpoint) as (stub, _, _):
            requests = (PredictRequest(image=encoded(i), request_id=f"r{i}") for i in range(4))
            await asyncio.gather(*(stub.Predict(request, timeout=5) for request in requests))
    by_id = {told(span)["request_id"]: span for span in spans}
    span = by_id["r2"]
    for id, context in slow.contexts.items():  # of a collage: that of its first member
        of = by_id[id.partition(":")[2] or id]
        assert context.startswith(f"00-{of.trace_id.hex()}-{of.span_id.hex()}-")
    assert any(":" in id for id in slow.contexts)
    happened = events(span)
    for name in ("sent", "joined a group", "redundant answer", "decoded", "straggles", "cancelled"):
        assert name in happened
    assert happened.index("joined a group") < happened.index("decoded")
    attributes = told(span)
    assert (attributes["source"], attributes["degraded"]) == ("COLLAGE", True)
    assert attributes["group_id"] != ""
    assert "place" in attributes
    # A replica too, where the machine is slow: each is sent to one worker.
    assert all(told(event)["worker"].startswith("127.0.0.1:") for event in span.events if event.name == "sent")


class _Engine:
    """Runs nothing: keeps what it was asked."""

    def __init__(self, failure: Exception | None) -> None:
        self.failure = failure

    def image(self, tensor: Any) -> Any:
        return image(1)

    async def infer(self, *_: Any) -> Any:
        if self.failure:
            raise self.failure
        return type("Done", (), {"outputs": (), "queue_s": 0.0, "inference_s": 0.0})


@pytest.mark.parametrize("failure", [None, DeadlineExceeded("too late")])
async def test_a_worker_s_call_is_a_span_below_its_request_s(failure: Exception | None) -> None:
    with collector() as (endpoint, spans):
        traces = Traces("worker", endpoint)
        engine: Any = _Engine(failure)
        servicer = ModelServicer(engine, S_CNN, asyncio.Event(), traces)
        for context in (PARENT, ""):
            try:
                await servicer._run(model_pb2.RunRequest(request_id="r", attempt=1, traceparent=context), 1.0)
            except DeadlineExceeded:
                assert failure
        await asyncio.to_thread(traces.close)
    (span,) = spans
    assert (span.name, span.parent_span_id.hex(), told(span)) == (
        "collage.run",
        PARENT.split("-")[2],
        {"request_id": "r", "attempt": 1},
    )
    assert span.status.message == ("DEADLINE_EXCEEDED: too late" if failure else "")


async def test_without_traces_workers_are_told_nothing() -> None:
    slow = Slowness()
    async with cluster(slowness=slow, policy="none") as (stub, server, _):
        await stub.Predict(PredictRequest(image=encoded(3), request_id="r"), timeout=5)
        assert server.traces is None
    assert slow.contexts == {"r": ""}
