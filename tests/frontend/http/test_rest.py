"""Images by HTTP: answers as by gRPC, refusals with the right status, and the same admission."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from grpc import StatusCode

from frontend.http.statuses import HTTP_STATUS, Refusal
from tests.certificates import Authority
from tests.frontend.grpc_workers import Slowness, cluster
from tests.frontend.http.web import ask, http_port, refused
from tests.frontend.test_server import PredictRequest, encoded


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_an_image_gets_the_answer_that_it_gets_by_grpc(method: str) -> None:
    async with cluster(http_port=0) as (stub, server, _):
        told = await ask(server, method, "/v1/predict?top_k=2&request_id=mine&with_output=true", encoded(3))
        by_grpc = await stub.Predict(PredictRequest(image=encoded(3), top_k=2), timeout=5)
    assert (told.status, told.headers["content-type"]) == (200, "application/json")
    answer = told.json
    assert [each["label"] for each in answer["classes"]] == [each.label for each in by_grpc.classes]
    assert answer["classes"][0] == {"label": "d", "index": 3, "probability": by_grpc.classes[0].probability}
    assert (answer["source"], answer["degraded"], answer["request_id"]) == ("S_CNN", False, "mine")
    assert (answer["model_name"], answer["model_version"], len(answer["output"])) == ("s", "1", 10)
    assert 0 < answer["total_s"] < 5
    assert "latency_s" not in answer, "which is the caller's own"


async def test_the_file_that_curl_names_in_the_path_names_the_request() -> None:
    async with cluster(http_port=0) as (_, server, _):
        assert (await ask(server, "PUT", "/v1/predict/kitten.jpg", encoded(1))).json["request_id"] == "kitten.jpg"


async def test_a_straggler_is_answered_from_the_collage() -> None:
    slow = Slowness(r0=0.2, r1=0.2, r2=8.0, r3=0.2)
    async with cluster(slowness=slow, deadline_s=0.3, group_wait_s=0.2, http_port=0) as (_, server, _):
        told = await asyncio.gather(*(ask(server, "PUT", f"/v1/predict/r{i}", encoded(i)) for i in range(4)))
    assert [each.json["classes"][0]["index"] for each in told] == [0, 1, 2, 3]
    coded = told[2].json
    assert (coded["source"], coded["degraded"], coded["coded_confidence"]) == ("COLLAGE", True, pytest.approx(0.9))
    assert coded["group_id"]
    assert isinstance(coded["cell"], int)


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "word"),
    [
        ("POST", "/v1/predict", b"text", {}, 400, "JPEG"),
        ("POST", "/v1/predict", b"", {}, 400, "JPEG"),
        ("POST", "/v1/predict?topk=1", b"", {}, 400, "known are top_k"),
        ("POST", "/v1/predict?timeout_s=0", b"", {}, 400, "timeout_s"),
        ("POST", "/v1/predict?request_id=" + 129 * "x", b"", {}, 400, "send a shorter one"),
        ("POST", "/v1/predict", b"x", {"Content_Type": "multipart/form-data; boundary=x"}, 415, "curl -T"),
        ("POST", "/v1/predict", b"x", {"Content_Encoding": "gzip"}, 415, "without Content-Encoding"),
        ("POST", "/v1/predict", 5001 * b"x", {}, 413, "more than 5000 bytes"),
        ("GET", "/v1/predict", None, {}, 405, "use POST or PUT"),
        ("GET", "/v1/nothing", None, {}, 404, "/docs"),
    ],
)
async def test_a_refusal_has_its_status_and_says_what_to_do_instead(
    method: str, path: str, body: bytes | None, headers: dict[str, str], status: int, word: str
) -> None:
    async with cluster(http_port=0, max_message_bytes=5000) as (_, server, _):
        told = await ask(server, method, path, body, **headers)
        assert (told.status, told.headers["content-type"]) == (status, "application/json")
        assert word in told.json["error"]
        assert refused(server, "message") == (status in (413, 415)), "counted if nobody looked at its image"
        assert (await ask(server, "POST", "/v1/predict", encoded(1))).status == 200


async def test_a_body_of_unknown_length_is_bounded_as_well() -> None:
    async with cluster(http_port=0, max_message_bytes=5000) as (_, server, _):
        told = await ask(server, "POST", "/v1/predict", iter([4000 * b"x", 4000 * b"x"]))
        assert told.status == 413
        assert (await ask(server, "POST", "/v1/predict", iter([encoded(1)]))).status == 200


async def test_time_that_runs_out_and_workers_that_are_missing() -> None:
    async with cluster(slowness=Slowness(late=5.0), policy="none", http_port=0) as (_, server, _):
        late = await ask(server, "POST", "/v1/predict?timeout_s=0.2&request_id=late", encoded(1))
        assert (late.status, late.json["code"]) == (504, "DEADLINE_EXCEEDED")
        assert (await ask(server, "GET", "/v2/health/ready")).json == {"ready": True}
    async with cluster(s_cnn=0, http_port=0) as (_, server, _):
        nobody = await ask(server, "POST", "/v1/predict", encoded(1))
        assert (nobody.status, nobody.json["code"]) == (503, "UNAVAILABLE")
        ready = await ask(server, "GET", "/v2/health/ready")
        assert (ready.status, ready.json) == (503, {"ready": False})
        assert (await ask(server, "GET", "/v2/health/live")).status == 200


async def test_admission_counts_requests_of_both_ports_together() -> None:
    slow = Slowness(one=20.0)
    async with cluster(slowness=slow, policy="none", http_port=0, max_in_flight=1, caller_share=1) as (stub, server, _):
        waiting = asyncio.ensure_future(stub.Predict(PredictRequest(image=encoded(1), request_id="one"), timeout=30))
        async with asyncio.timeout(5):
            while not slow.running:
                await asyncio.sleep(0.01)
        told = await ask(server, "POST", "/v1/predict", encoded(1))
        waiting.cancel()
        assert (told.status, told.json["code"], told.headers["retry-after"]) == (429, "RESOURCE_EXHAUSTED", "1")
        assert 0 < told.json["retry_after_s"] < 1
        assert "try again later" in told.json["error"]
        assert server.registry.get_sample_value("collage_requests_total", {"code": "RESOURCE_EXHAUSTED"}) == 1


async def test_a_caller_that_hangs_up_stops_its_request() -> None:
    slow = Slowness(gone=20.0)
    async with cluster(slowness=slow, policy="none", http_port=0) as (_, server, _):
        _, writer = await asyncio.open_connection("127.0.0.1", http_port(server))
        image = encoded(1)
        head = f"POST /v1/predict?request_id=gone HTTP/1.1\r\nHost: x\r\nContent-Length: {len(image)}\r\n\r\n"
        writer.write(head.encode() + image)
        async with asyncio.timeout(10):
            while not slow.running:
                await asyncio.sleep(0.01)
            writer.close()
            while slow.running:
                await asyncio.sleep(0.01)
        cancelled = server.registry.get_sample_value("collage_requests_total", {"code": "CANCELLED"})
        assert (cancelled, server.intake.calls) == (1, 0)


async def test_tokens_are_those_of_grpc_and_health_needs_none(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("secret\n")
    async with cluster(http_port=0, token_file=file) as (_, server, _):
        without = await ask(server, "POST", "/v1/predict", encoded(1))
        assert (without.status, without.headers["www-authenticate"]) == (401, "Bearer")
        assert "Bearer TOKEN" in without.json["error"]
        assert (await ask(server, "GET", "/v2/models/s", Authorization="Bearer wrong")).status == 401
        assert (await ask(server, "POST", "/v1/predict", encoded(1), Authorization="bearer secret")).status == 200
        assert (await ask(server, "GET", "/v2/health/live")).status == 200
        assert (await ask(server, "GET", "/v2/health/ready")).status == 200


async def test_certificates_are_those_of_grpc_and_read_again(ours: Authority, theirs: Authority) -> None:
    pair = ours.issue("server", "127.0.0.1")
    client = ours.issue("client", "me")
    settings = {"tls_cert": pair.cert, "tls_key": pair.key, "tls_client_ca": ours.ca}

    def trusting(authority: Authority, with_certificate: bool = True) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=authority.ca)
        if with_certificate:
            context.load_cert_chain(client.cert, client.key)
        return context

    async with cluster(http_port=0, **settings) as (_, server, _):
        assert (await ask(server, "GET", "/v2/health/live", tls=trusting(ours))).status == 200
        with pytest.raises((ssl.SSLError, OSError)):
            await ask(server, "GET", "/v2/health/live", tls=trusting(ours, with_certificate=False))
        with pytest.raises((ssl.SSLError, OSError)):
            await ask(server, "GET", "/v2/health/live")
        other = theirs.issue("server", "127.0.0.1")
        pair.key.write_bytes(other.key.read_bytes())
        pair.cert.write_bytes(other.cert.read_bytes())
        assert (await ask(server, "GET", "/v2/health/live", tls=trusting(theirs))).status == 200


def test_every_grpc_status_has_an_http_status() -> None:
    assert set(HTTP_STATUS) == set(StatusCode)
    assert {code.name for code, status in HTTP_STATUS.items() if status < 400} == {"OK"}
    assert Refusal.of(StatusCode.RESOURCE_EXHAUSTED, "full", 1.2).headers == {"Retry-After": "2"}
