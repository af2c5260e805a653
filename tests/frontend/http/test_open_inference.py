"""The Open Inference Protocol by HTTP: a stock client in its own process, and what only hand-written requests do."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frontend.http.open_inference import LENGTH, MAX_JSON_BYTES, plain
from inference import open_inference_pb2 as oip
from tests.frontend.fakes import LABELS, SIZE, image
from tests.frontend.grpc_workers import cluster
from tests.frontend.http.web import Reply, ask, http_port, refused
from tests.frontend.test_inference import BEST
from tests.frontend.test_server import encoded

PROBE = Path(__file__).with_name("triton_http_probe.py")
PIXELS = [image(label).tolist() for label in (3, 5)]
INFER = "/v2/models/s/infer"


async def probe(port: int, requests: list[dict[str, Any]]) -> Any:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, PROBE, f"127.0.0.1:{port}"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=PROBE.parent,
    )
    async with asyncio.timeout(60):
        printed, _ = await process.communicate(json.dumps(requests).encode())
    assert process.returncode == 0
    return json.loads(printed)


async def test_a_stock_client_learns_of_the_model_and_gets_answers_in_every_form() -> None:
    forms = [[True, True], [True, False], [False, True], [False, False]]
    requests: list[dict[str, Any]] = [
        {"model": "s", "data": PIXELS, "datatype": kind, "binary": form} for kind in ("UINT8", "FP32") for form in forms
    ]
    file = encoded(7).hex()
    requests += [
        {"model": "s", "data": [file], "datatype": "BYTES", "binary": [True, True], "classes": 2, "request_id": "x"},
        {"model": "s", "data": [file], "datatype": "BYTES", "binary": [True, False], "classes": 2},
        {"model": "s", "data": PIXELS, "datatype": "UINT8", "binary": [True, True], "default": True},
        {"model": "other", "data": PIXELS, "datatype": "UINT8", "binary": [True, True]},
    ]
    async with cluster(http_port=0) as (_, server, _):
        told = await probe(http_port(server), requests)
    answers, described = told["answers"], told["described"]
    for answer in (*answers[:8], answers[10]):
        assert [int(np.argmax(row)) for row in answer["values"]] == [3, 5]
        assert answer["values"][0][3] == pytest.approx(BEST, rel=1e-4)
        assert answer["parameters"]["source"] == "S_CNN,S_CNN"
    for answer in answers[8:10]:
        assert answer["values"][0][0].split(":")[1:] == ["7", LABELS[7]]
        assert len(answer["values"][0]) == 2
    assert answers[8]["id"] == "x"
    assert (answers[8]["model"], answers[11]["status"]) == (["s", "1"], "404")
    assert "ask for 's'" in answers[11]["message"]
    assert (described["live"], described["ready"], described["model_ready"]) == (True, True, [True, True])
    assert described["model"] == {"name": "s", "version": "1", "state": "READY", "reason": ""}
    assert described["metadata"]["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, SIZE, SIZE, 3]}]
    assert described["config"]["input"][0]["dims"] == [SIZE, SIZE, 3]
    assert described["statistics"][0]["inference_stats"]["success"]["count"] == 11
    assert described["server"]["name"] == "collage"


async def infer(server: Any, request: Any, binary: bytes = b"", **headers: str) -> Reply:
    content = json.dumps(request).encode()
    fields = {LENGTH: str(len(content))} if binary else {}
    return await ask(server, "POST", INFER, content + binary, **{**fields, **headers})


def tensor(**fields: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "shape": [1, SIZE, SIZE, 3], "datatype": "UINT8", **fields}]}


async def test_numbers_may_be_nested_or_flat_and_files_base64() -> None:
    flat = np.array(PIXELS[0]).ravel().tolist()
    text = base64.b64encode(encoded(5)).decode()
    file = tensor(shape=[1], datatype="BYTES", data=[text], parameters={"content_type": "base64"})
    async with cluster(http_port=0) as (_, server, _):
        for request, label in ((tensor(data=[PIXELS[0]]), 3), (tensor(data=flat), 3), (file, 5)):
            told = await infer(server, request)
            assert told.status == 200
            (output,) = told.json["outputs"]
            assert (output["datatype"], output["shape"]) == ("FP32", [1, 10])
            assert int(np.argmax(output["data"])) == label


@pytest.mark.parametrize(
    ("request_", "binary", "status", "word"),
    [
        ({}, b"", 400, "inputs: Field required"),
        (tensor(), b"", 400, "neither data nor binary_data_size"),
        (tensor(data=[1, [2]]), b"", 400, "nested unevenly"),
        (tensor(data=["a"]), b"", 400, "no UINT8 numbers"),
        (tensor(data=[True]), b"", 400, "no UINT8 numbers"),
        (tensor(data=[1.5]), b"", 400, "no UINT8 numbers"),
        (tensor(data=[256]), b"", 400, "from 256 to 256"),
        (tensor(data=[1, 2]), b"", 400, "the shape of 'image' asks for"),
        (tensor(data=[1], parameters={"binary_data_size": 1}), b"x", 400, "both data and binary_data_size"),
        (tensor(parameters={"binary_data_size": 2}), b"x", 400, "up to the 1 that follow"),
        (tensor(parameters={"binary_data_size": True}), b"x", 400, "is no number of bytes"),
        (tensor(parameters={"binary_data_size": 1}), b"xy", 400, "1 bytes follow the last tensor"),
        (tensor(shape=[2**70], data=[1]), b"", 400, "beyond 64 bits"),
        (tensor(data=[1], parameters={"big": 2**70}), b"", 400, "more than 64 bits"),
        (tensor(datatype="BYTES", shape=[1], data=["x"]), b"", 400, "content_type: base64"),
        (tensor(datatype="BYTES", shape=[1], data=["?"], parameters={"content_type": "base64"}), b"", 400, "no base64"),
        (tensor(datatype="FP16", data=[1]), b"", 400, "'image' is FP16"),
        (tensor(parameters={"shared_memory_region": "x"}), b"", 400, "shared memory is not supported"),
        ({"id": 129 * "x", **tensor(data=[[[[0, 0, 0]] * SIZE] * SIZE])}, b"", 400, "send a shorter one"),
    ],
)
async def test_a_bad_request_is_refused_with_what_to_do(request_: Any, binary: bytes, status: int, word: str) -> None:
    async with cluster(http_port=0) as (_, server, _):
        told = await infer(server, request_, binary)
    assert (told.status, word in told.json["error"]) == (status, True), told.json


async def test_the_json_is_bounded_in_length_and_depth() -> None:
    async with cluster(http_port=0) as (_, server, _):
        long = await ask(server, "POST", INFER, b"[" + b"0," * (MAX_JSON_BYTES // 2) + b"0]")
        assert (long.status, "binary_data_size" in long.json["error"]) == (413, True)
        deep = await ask(server, "POST", INFER, b'{"inputs":' + b"[" * 100_000)
        assert deep.status == 400
        bad = await ask(server, "POST", INFER, b"{}", **{LENGTH: "3"})
        assert (bad.status, "up to those of the body, 2" in bad.json["error"]) == (400, True)
        assert refused(server, "message") == 3


def test_a_message_becomes_json_with_all_its_fields_and_whole_numbers() -> None:
    response = oip.ModelStatisticsResponse(model_stats=[oip.ModelStatistics(name="s", inference_count=2**40)])
    response.model_stats[0].inference_stats.success.count = 3
    (told,) = plain(response)["model_stats"]
    assert (told["name"], told["inference_count"], told["execution_count"]) == ("s", 2**40, 0)
    assert told["inference_stats"]["success"] == {"count": 3, "ns": 0}
