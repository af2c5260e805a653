"""Every example runs, against a real cluster with tiny models, and prints what it promises."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image
from prometheus_client import CollectorRegistry

from bench.cluster.local import Cluster
from collage import speech
from collage.serving import Server, ServerSettings
from collage.speech import read_wav, spectrogram
from collage.v1 import predict_pb2_grpc
from tests import onnx_models
from tests.bench.fakes import FakePredictService
from tests.certificates import Authority
from tests.clips import save_wav, tone
from tests.documents import PAGES, programs

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
COLOURS = onnx_models.COLOURS
PNGS = tuple(f"{colour}.png" for colour in COLOURS)
SIZE = 8
LANGUAGES = {
    ".py": [sys.executable], ".sh": ["sh"], ".mjs": ["node"], ".java": ["java"], ".go": ["go", "run"]
}  # fmt: skip

on_the_cluster = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Four s-cnn workers and one 2 x 2 collage worker, in processes of their own."""
    folder = tmp_path_factory.mktemp("cluster")
    async with Cluster(
        onnx_models.save_s_cnn(folder / "s-cnn.onnx", size=SIZE, name="fashion-mnist-s-cnn"),
        onnx_models.save_collage_cnn(folder / "collage.onnx"),
        s_cnn_workers=4,
        frontend_flags=("--http-port", "0"),
        logs=folder / "logs",
    ) as running:
        yield running


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with one image of each colour."""
    for colour in COLOURS:
        Image.fromarray(onnx_models.solid(colour, SIZE)).save(tmp_path / f"{colour}.png")
    return tmp_path


async def run(example: str, *arguments: str, folder: Path, code: int = 0) -> str:
    """What an example prints, run in ``folder`` with this environment's programs."""
    command = LANGUAGES[Path(example).suffix]
    programs = f"{folder}:{Path(sys.prefix, 'bin')}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *command, EXAMPLES / example, *arguments,
        cwd=folder, env={**os.environ, "PATH": programs},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    printed, _ = await asyncio.wait_for(process.communicate(), 100)
    assert process.returncode == code, printed.decode()
    return printed.decode()


@on_the_cluster
async def test_sync_client(cluster: Cluster, images: Path) -> None:
    lines = (await run("sync_client.py", cluster.frontend.address, PNGS[0], folder=images)).splitlines()
    assert lines[0].startswith(f"{COLOURS[0]}: ")
    assert len(lines) == 1 + min(3, len(COLOURS))
    assert lines[-1].startswith("from ")
    (images / "text.png").write_text("no image")
    printed = await run("sync_client.py", cluster.frontend.address, "text.png", folder=images, code=1)
    assert printed.startswith("no answer: INVALID_ARGUMENT: ")


@on_the_cluster
async def test_async_client(cluster: Cluster, images: Path) -> None:
    printed = await run("async_client.py", cluster.frontend.address, *PNGS, folder=images)
    assert printed.splitlines() == [f"{colour}.png: {colour}" for colour in COLOURS]


@on_the_cluster
async def test_stream_folder(cluster: Cluster, images: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (images / "text.png").write_text("no image")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    printed = await run("stream_folder.py", cluster.frontend.address, str(images), folder=elsewhere)
    lines = dict(line.split(" ", 1) for line in printed.splitlines())
    assert {name: lines[name] for name in PNGS} == {f"{colour}.png": colour for colour in COLOURS}
    assert set(lines) == {*PNGS, "text.png"}


@on_the_cluster
async def test_coded_answers(cluster: Cluster, images: Path) -> None:
    first, second = (await run("coded_answers.py", cluster.frontend.address, PNGS[0], folder=images)).splitlines()
    assert first in {f"final {COLOURS[0]}", f"first guess {COLOURS[0]}"}
    assert second.startswith("source ")


@on_the_cluster
async def test_pixels(cluster: Cluster, images: Path) -> None:
    assert await run("pixels.py", cluster.frontend.address, str(SIZE), folder=images) == "red\n"


@on_the_cluster
async def test_stubs(cluster: Cluster, images: Path) -> None:
    label, source = (await run("stubs.py", cluster.frontend.address, PNGS[1], folder=images)).split()
    assert label == COLOURS[1]
    assert source.startswith("SOURCE_")


@on_the_cluster
async def test_open_inference(cluster: Cluster, images: Path) -> None:
    lines = (await run("open_inference.py", cluster.frontend.address, *PNGS, folder=images)).splitlines()
    for line, colour in zip(lines, COLOURS, strict=False):
        assert line.startswith(f"{colour}.png: {colour} (")
    assert len(lines) > len(COLOURS), "the parameters follow"


@on_the_cluster
async def test_command(cluster: Cluster, images: Path) -> None:
    here = images / "collage"
    here.write_text(f'#!/bin/sh\nexec {sys.executable} -m collage.cli "$@"\n')  # as an installation would put it there
    here.chmod(0o755)
    printed = await run("command.sh", cluster.frontend.address, *PNGS, folder=images)
    assert "SERVING" in printed
    assert "probability" in printed
    lines = printed.splitlines()[-len(COLOURS) :]
    assert [line.split()[0::2] for line in lines] == [[f"{colour}.png", colour] for colour in COLOURS]


@on_the_cluster
async def test_buf_curl(cluster: Cluster, images: Path) -> None:
    assert shutil.which("buf", path=Path(sys.prefix, "bin")), "buf-bin is missing from the environment"
    printed = await run("buf_curl.sh", cluster.frontend.address, PNGS[0], folder=images)
    assert f'"label": "{COLOURS[0]}"' in printed


@on_the_cluster
async def test_curl(cluster: Cluster, images: Path) -> None:
    address = f"127.0.0.1:{cluster.frontend.http_port}"
    answer = json.loads(await run("curl.sh", address, PNGS[0], folder=images))
    assert answer["classes"][0]["label"] == COLOURS[0]
    (images / "text.png").write_text("no image")
    assert '"error"' in await run("curl.sh", address, "text.png", folder=images, code=22)


@on_the_cluster
@pytest.mark.timeout(240)
@pytest.mark.parametrize("example", ["node_client.mjs", "JavaClient.java", "go_client.go"])
async def test_other_languages(cluster: Cluster, images: Path, example: str) -> None:
    program = LANGUAGES[Path(example).suffix][0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is missing: {example} is not run here")
    address = f"127.0.0.1:{cluster.frontend.http_port}"
    printed = await run(example, address, PNGS[0], folder=images)
    assert printed.startswith(COLOURS[0]) or json.loads(printed)["classes"][0]["label"] == COLOURS[0]
    (images / "text.png").write_text("no image")
    assert "JPEG" in await run(example, address, "text.png", folder=images, code=1)


BLOCKS = [(page, block) for page in PAGES for block in programs(page) if "Client(" in block]
RUNNER = """
import ast, asyncio, pathlib, sys
code = compile(pathlib.Path(sys.argv[1]).read_text(), sys.argv[1], "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
if (waiting := eval(code, {})) is not None:
    asyncio.run(waiting)
"""


@on_the_cluster
@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=[str(page.relative_to(ROOT)) for page, _ in BLOCKS])
async def test_python_in_the_documents(cluster: Cluster, images: Path, page: Path, block: str) -> None:
    (images / PNGS[0]).rename(images / "shoe.png")
    (images / "runner.py").write_text(RUNNER)
    called = re.sub(r"(127\.0\.0\.1|localhost):50051", cluster.frontend.address, block)
    (images / "block.py").write_text(called)
    assert called != block
    assert COLOURS[0] in await run(str(images / "runner.py"), "block.py", folder=images)


@pytest.mark.timeout(120)
async def test_speech(tmp_path: Path) -> None:
    file = save_wav(tmp_path / "zero.wav", tone(440))
    word = COLOURS[int(onnx_models.linear_outputs(spectrogram(read_wav(file))).argmax())]
    model = onnx_models.save_linear(tmp_path / "f.onnx", size=speech.SIZE)
    async with Cluster(model, (), s_cnn_workers=1, logs=tmp_path / "logs") as running:
        address = running.frontend.address
        assert await run("speech.py", address, file.name, folder=tmp_path) == f"zero.wav: {word}, from S_CNN\n"
        (tmp_path / "text.wav").write_text("no sound")
        assert "is no WAV file" in await run("speech.py", address, "text.wav", folder=tmp_path, code=1)


async def test_secure_client(images: Path) -> None:
    authority = Authority(images / "ca")
    pair = authority.issue("server")
    (images / "tokens").write_text("secret\n")
    settings = ServerSettings(
        host="127.0.0.1", port=0, metrics_port=0, drain_s=0,
        tls_cert=pair.cert, tls_key=pair.key, token_file=images / "tokens",
    )  # fmt: skip
    server = Server(settings, CollectorRegistry(), [""])
    predict_pb2_grpc.add_PredictServiceServicer_to_server(FakePredictService(), server.grpc)
    await server.start()
    try:
        (images / "shoe.png").write_bytes(b"\x01")
        arguments = (str(authority.ca), "tokens", "shoe.png")
        assert await run("secure_client.py", f"127.0.0.1:{server.port}", *arguments, folder=images) == "Bag\n"
    finally:
        await server.stop()


def test_every_example_is_listed_and_run() -> None:
    files = {file.name for file in EXAMPLES.iterdir() if file.suffix != ".md"}
    listed = (EXAMPLES / "README.md").read_text()
    assert [name for name in files if f"[{name}]({name})" not in listed] == []
    tests = Path(__file__).read_text()
    assert [name for name in files if f'"{name}"' not in tests] == []
