"""``collage predict`` takes images as a person would name them."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from collage.cli import main
from collage.sources import content, sources
from tests.bench.fakes import FakePredictService, serving


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path == "/coat.png"
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(b"\x02c" if found else b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    """The address of a web server with one image."""
    server = HTTPServer(("127.0.0.1", 0), _Site)
    serving_thread = threading.Thread(target=server.serve_forever, daemon=True)
    serving_thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    serving_thread.join()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a/c.JPG", "a/.hidden.png", ".git/d.png", "notes.txt", "a/e.webp", "f.jpeg", "g.bmp"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"\x01")
    return tmp_path / "photos"


def test_a_folder_stands_for_the_images_in_it_and_below(folder: Path) -> None:
    found = [Path(name).relative_to(folder).as_posix() for name in sources([str(folder)])]
    assert found == ["a/c.JPG", "a/e.webp", "b.png", "f.jpeg", "g.bmp"]
    assert sources(["-", "http://host/x", "absent.png"]) == ["-", "http://host/x", "absent.png"]


async def test_files_folders_addresses_and_standard_input_are_answered_in_order(
    folder: Path, site: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\x02c")))
    async with serving(FakePredictService()) as server:
        given = (f"{site}/coat.png", str(folder / "a"), "-", "--json", "--address", f"127.0.0.1:{server.port}")
        code = await asyncio.to_thread(main, ("predict", *given))
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert [(answer["file"].rpartition("/")[2], answer["classes"][0]["label"]) for answer in answers] == [
        ("coat.png", "Coat"),
        ("c.JPG", "Bag"),
        ("e.webp", "Bag"),
        ("-", "Coat"),
    ]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("{site}/absent.png", "the server answers 404 Not Found"),
        ("http://127.0.0.1:1/x.png", "it cannot be fetched: [Errno 111] Connection refused"),
        ("http://[x/", "it cannot be fetched: Invalid IPv6 URL"),
        ("{empty}", "there is no JPEG, PNG, WebP or BMP file in this folder"),
        ("absent.png", "No such file or directory"),
    ],
)
async def test_what_cannot_be_had_is_told_in_one_line(
    name: str, told: str, site: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = name.format(site=site, empty=tmp_path)
    assert await asyncio.to_thread(main, ("predict", source, "--address", "127.0.0.1:1")) == 1
    assert capsys.readouterr().err == f"collage: {source}: {told}\n"


def test_no_more_is_read_than_can_be_sent(site: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"12345")))
    assert content("-", 3, 1.0) == b"1234"
    assert content(f"{site}/coat.png", 0, 1.0) == b"\x02"
    assert content(str(folder / "b.png"), 5, 1.0) == b"\x01"
