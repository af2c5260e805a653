"""The page of ``make up`` in a real Chromium, and what guards its switches."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from collage.serving import Server
from encoder.code import Code
from encoder.collage import CollageCode
from encoder.grid import Grid
from encoder.heads import StackedCode
from encoder.linear import LinearCode
from frontend.coding import GroupRun
from frontend.config import FrontendSettings
from frontend.http.openapi import document
from frontend.http.playground import STRAGGLING, described_group
from frontend.jobs import Job
from frontend.policy.groups import Progress
from tests.browser import browser
from tests.frontend.fakes import S_CNN
from tests.frontend.grpc_workers import LOCAL, cluster
from tests.frontend.http.web import ask, http_port
from tests.frontend.test_server import encoded
from tests.needed import needs

pytestmark = pytest.mark.timeout(240)


@asynccontextmanager
async def playground(folder: Path, **settings: Any) -> AsyncIterator[tuple[Server, Path]]:
    """A cluster with the page, and the file of a switch that one of its workers could have."""
    for number, label in enumerate(("ant", "bee", "cow")):
        sample = folder / "samples" / label / "0.png"
        sample.parent.mkdir(parents=True)
        sample.write_bytes(encoded(number))
    switch, file = folder / "switch", folder / "playground.json"
    switch.write_text("off")
    told = {"samples": str(folder / "samples"), "switches": {"127.0.0.1:1": str(switch)}, "usual": "off"}
    file.write_text(json.dumps(told))
    async with cluster(http_port=0, playground=file, **settings) as (_, server, _):
        yield server, switch


async def put(server: Server, path: str, content: Any, **headers: str) -> tuple[int, Any]:
    fields = {"Content_Type": "application/json", **headers}
    told = await ask(server, "PUT", path, json.dumps(content), **fields)
    return told.status, told.json


@needs("chromium", "chromium")
async def test_a_person_sees_an_answer_its_collage_and_the_latencies(tmp_path: Path) -> None:
    async with playground(tmp_path) as (server, _), browser(tmp_path / "profile") as page:
        await page.open(f"http://127.0.0.1:{http_port(server)}/")
        await page.click("#samples button:nth-child(2)")
        told = await page.until("document.getElementById('told').innerText")
        assert "b" in told
        assert "answered by" in told
        said = "document.getElementById('said').innerText"
        while "framed" not in await page.until(f"/framed|Try again/.test({said}) && {said}"):
            # On a busy machine its own answer may come before its group is closed.
            await page.run("document.getElementById('said').textContent = ''")
            await page.click("#samples button:nth-child(2)")
        assert await page.run("!document.getElementById('collage').hidden")
        await page.click("#load")
        sources = await page.until(
            "((text) => text.includes('with the policy') && text.includes('without') && text)"
            "(document.getElementById('sources').innerText)"
        )
        assert "ms" in sources
        assert "extra load" in await page.run("document.getElementById('status').innerText")
        assert await page.run("document.querySelectorAll('#workers tr').length") == 4  # a head and three workers
        assert await page.until("document.querySelector('#chart canvas').width > 300")
        await page.open(f"http://127.0.0.1:{http_port(server)}/docs", "dark")
        assert "/v1/predict" in await page.until("document.querySelector('section') && document.body.innerText")
        assert page.complaints == [], "no error, and nothing that the page's security policy refused"


WITH_SWITCHES = """(() => {
  const real = window.fetch;
  window.pressed = [];
  window.fetch = async (address, options = {}) => {
    if (options.method === "PUT") {
      window.pressed.push(address + options.body);
      return new Response("{}");
    }
    const told = await real(address, options);
    if (!address.startsWith("/playground/live")) return told;
    const live = await told.json();
    for (const worker of live.workers) Object.assign(worker, { address: worker.address + "0", straggles: false });
    return new Response(JSON.stringify(live));
  };
})()"""
"""Gives every worker a switch, which writes down that it was pressed."""


@needs("chromium", "chromium")
async def test_one_switch_makes_all_base_workers_straggle(tmp_path: Path) -> None:
    async with playground(tmp_path) as (server, _), browser(tmp_path / "profile") as page:
        await page.open(f"http://127.0.0.1:{http_port(server)}/")
        await page.run(WITH_SWITCHES)
        assert await page.until("document.querySelectorAll('#workers input').length") == 3
        await page.click("#all")
        pressed = await page.until("window.pressed.length && window.pressed")
        assert len(set(pressed)) == 2, "both s-cnn workers, and not the collage worker"
        assert all(each.endswith('{"straggles":true}') for each in pressed)


async def test_pages_may_run_only_their_own_scripts(tmp_path: Path) -> None:
    async with playground(tmp_path) as (server, _):
        for path in ("/", "/docs", "/files/page.js", "/files/uPlot.iife.min.js"):
            told = await ask(server, "GET", path)
            policy = told.headers["content-security-policy"]
            assert (told.status, "default-src 'none'; script-src 'self';" in policy) == (200, True)
            assert "unsafe" not in policy
            assert told.headers["x-content-type-options"] == "nosniff"
            assert b"<script>" not in told.body
            assert b"style=" not in told.body or path.endswith("iife.min.js")
        assert (await ask(server, "GET", "/files/..%2Fport.py")).status == 404
        assert (await ask(server, "GET", "/files/page.html")).status == 404


async def test_a_switch_is_for_workers_of_this_cluster_and_for_this_page_alone(tmp_path: Path) -> None:
    path = "/playground/workers/127.0.0.1:1"
    async with playground(tmp_path) as (server, switch):
        assert await put(server, path, {"straggles": True}) == (200, {"straggles": True})
        assert switch.read_text() == STRAGGLING
        assert await put(server, path, {"straggles": False}) == (200, {"straggles": False})
        assert switch.read_text() == "off"
        for content in ({}, {"straggles": "yes"}, {"straggles": True, "file": "x"}, []):
            assert (await put(server, path, content))[0] == 400
        assert (await put(server, "/playground/workers/127.0.0.1:2", {"straggles": True}))[0] == 404
        assert (await put(server, path, {"straggles": True}, Content_Type="text/plain"))[0] == 415
        assert (await put(server, path, {"straggles": True}, Host="evil.example"))[0] == 403
        assert (await put(server, "/playground/load", {"per_s": 1}, Host="evil.example"))[0] == 403
        assert (await ask(server, "POST", "/playground/predict", encoded(1), Host="evil.example")).status == 403
        assert (await put(server, "/playground/load", {"per_s": 101}))[0] == 400
        assert switch.read_text() == "off"


async def test_a_group_shows_its_members_its_picture_and_its_boxes(tmp_path: Path) -> None:
    async with playground(tmp_path, policy="collage", deadline_s=5, group_wait_s=0.05) as (server, _):
        told = (await ask(server, "POST", "/playground/predict", encoded(2))).json
        assert told["classes"][0]["label"] == "c"
        missing = await ask(server, "GET", "/playground/groups/none")
        assert (missing.status, "send another photo" in missing.json["error"]) == (404, True)
        live = (await ask(server, "GET", "/playground/live")).json
        assert {one["side"] for one in live["answers"]} == {"with"}
        assert live["last"] == len(live["answers"])
        assert {(one["role"], one["kind"]) for one in live["workers"]} == {("s_cnn", "s-cnn"), ("coded", "collage-cnn")}
        assert (await ask(server, "GET", f"/playground/live?since={live['last']}")).json["answers"] == []
        assert (await ask(server, "GET", "/playground/samples")).json == ["ant", "bee", "cow"]
        assert (await ask(server, "GET", "/playground/samples/1")).body == encoded(1)
        assert (await ask(server, "GET", "/playground/samples/3")).status == 404


async def pictured(code: Code, images: Mapping[int, NDArray[np.uint8]]) -> dict[str, Any]:
    jobs = {}
    for place, image in images.items():
        jobs[place] = Job(place, f"r{place}", 0.0, 1.0, S_CNN, asyncio.get_running_loop().create_future())
        jobs[place].input = image
    told = described_group(GroupRun(code, jobs, Progress(code.shape), set(jobs)))
    assert (told["code"], told["boxes"], told["members"]) == (code.name, [], {place: f"r{place}" for place in jobs})
    return told


async def test_a_group_of_any_code_has_a_picture() -> None:
    dark, light = np.full((4, 4, 3), 20, np.uint8), np.full((4, 4, 3), 60, np.uint8)

    def shown(told: dict[str, Any]) -> NDArray[np.uint8]:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(told["image"]))))

    np.testing.assert_array_equal(shown(await pictured(LinearCode([[0.5, 0.5]]), {0: dark, 1: light})), dark + 20)
    np.testing.assert_array_equal(shown(await pictured(StackedCode(2), {1: light})), np.hstack([0 * dark, light]))
    collage = await pictured(CollageCode(Grid(2, 8)), {3: light})
    assert (shown(collage)[4:, 4:] == 60).all()
    assert (collage["k"], collage["size"]) == (2, 8)
    assert (await pictured(LinearCode([[0.5, 0.5]]), {0: dark}))["image"] is None


async def test_there_is_no_page_unless_it_is_asked_for() -> None:
    async with cluster(http_port=0) as (_, server, _):
        for path in ("/", "/playground/live", "/playground/samples"):
            assert (await ask(server, "GET", path)).status == 404


def test_the_page_is_for_one_machine() -> None:
    settings = {**LOCAL, "s_cnn_workers": "127.0.0.1:1", "playground": "x"}
    with pytest.raises(ValueError, match="it needs --http-port, and no --token-file"):
        FrontendSettings(**settings)
    with pytest.raises(ValueError, match="no --token-file"):
        FrontendSettings(**settings, http_port=0, token_file="t")  # noqa: S106 - a file


async def test_a_playground_file_that_is_none_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    with pytest.raises(OSError, match="--playground"):
        async with cluster(http_port=0, playground=tmp_path / "file"):
            pass


async def test_the_routes_are_described() -> None:
    described = document()
    assert described["paths"]["/v1/predict"]["put"]["responses"].keys() >= {"200", "400", "401", "413", "429", "503"}
    names = {one["name"] for one in described["paths"]["/v1/predict"]["post"]["parameters"]}
    assert names == {"top_k", "request_id", "with_output", "timeout_s"}
    async with cluster(http_port=0) as (_, server, _):
        assert (await ask(server, "GET", "/openapi.json")).json == described
        for path, item in described["paths"].items():
            for method in item.keys() - {"parameters"}:
                told = await ask(server, method.upper(), path.format(model="s", version="1"), b"")
                assert told.status not in (404, 405), path
