"""Where workers are said to be: lists, DNS names, files that change."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from collage.security import ClientSecurity
from frontend.__main__ import check_targets, main
from frontend.config import FrontendSettings
from frontend.workers import GrpcTransport, TargetError, discovery

BOUND_S = 10.0
OFTEN_S = 0.01


async def following(found: AsyncIterator[set[str]], *wanted: set[str]) -> None:
    """Wait until one of ``wanted`` is found."""
    async with asyncio.timeout(BOUND_S):
        async for addresses in found:
            if addresses in wanted:
                return


async def test_a_list_is_told_once() -> None:
    found = [addresses async for addresses in discovery.addresses(" a:1, b:2,,b:2 ", OFTEN_S)]
    assert found == [{"a:1", "b:2"}]


async def test_no_workers_at_all() -> None:
    assert [addresses async for addresses in discovery.addresses("", OFTEN_S)] == [set()]


async def test_a_file_is_read_again_and_again(tmp_path: Path) -> None:
    file = tmp_path / "workers"
    file.write_text("# the first rack\na:1\n\n[::1]:2  # v6\n")
    found = discovery.addresses(f"file://{file}", OFTEN_S)
    await following(found, {"a:1", "[::1]:2"})
    file.write_text("\ufeffa:1\r\nb:3\r\n", "utf-8")  # as some editors write it
    await following(found, {"a:1", "b:3"})


@pytest.mark.parametrize("broken", ["", "# nobody\n", "a:1\nnonsense\n", None])
async def test_a_list_that_is_lost_changes_nothing(
    tmp_path: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "workers"
    file.write_text("a:1")
    seen: list[set[str]] = []

    async def follow() -> None:
        async for addresses in discovery.addresses(f"file://{file}", OFTEN_S):
            seen.append(addresses)

    task = asyncio.create_task(follow())
    async with asyncio.timeout(BOUND_S):
        while not seen:
            await asyncio.sleep(OFTEN_S)
        if broken is None:
            file.unlink()
        else:
            file.write_text(broken)
        while "no list of workers from" not in caplog.text:
            await asyncio.sleep(OFTEN_S)
        file.write_text("b:2")
        while seen[-1] != {"b:2"}:
            await asyncio.sleep(OFTEN_S)
    task.cancel()
    assert all(addresses in ({"a:1"}, {"b:2"}) for addresses in seen)
    assert caplog.text.count("no list of workers from") == 1


V4, V6 = socket.AF_INET, socket.AF_INET6


async def test_a_name_is_resolved_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods come and go behind a headless Service; while none is ready its name does not resolve."""
    answers: list[list[str] | None] = [["10.0.0.1"], None, ["10.0.0.1", "10.0.0.2"]]

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        assert (host, port) == ("workers.example", 50051)
        now = answers.pop(0) if len(answers) > 1 else answers[0]
        if now is None:
            raise socket.gaierror("Name or service not known")
        return [(V4, 0, 0, "", (ip, port)) for ip in now]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = discovery.addresses("dns:///workers.example:50051", OFTEN_S)
    assert await anext(found) == {"10.0.0.1:50051"}
    assert await anext(found) == {"10.0.0.1:50051", "10.0.0.2:50051"}


@pytest.mark.parametrize(
    ("resolved", "wanted"),
    [
        ([(V6, "fd00::1"), (V4, "10.0.0.1")], {"10.0.0.1:5"}),
        ([(V4, "10.0.0.1"), (V6, "fd00::1"), (V4, "10.0.0.2"), (V6, "fd00::2")], {"10.0.0.1:5", "10.0.0.2:5"}),
        ([(V6, "fd00::1"), (V6, "fd00::2")], {"[fd00::1]:5", "[fd00::2]:5"}),
    ],
)
async def test_a_worker_with_addresses_of_both_families_is_one_worker(
    monkeypatch: pytest.MonkeyPatch, resolved: list[tuple[int, str]], wanted: set[str]
) -> None:
    entries = [(family, 0, 0, "", (ip, 5, 0, 0)[: 2 if family == V4 else 4]) for family, ip in resolved]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
    assert await anext(discovery.addresses("dns:///workers.example:5", OFTEN_S)) == wanted


@pytest.mark.parametrize("hangs", ["name", "file"])
def test_a_resolver_that_hangs_does_not_delay_the_exit(tmp_path: Path, hangs: str) -> None:
    target = "dns:///workers.example:5" if hangs == "name" else f"file://{tmp_path / 'pipe'}"
    os.mkfifo(tmp_path / "pipe")  # which nobody writes into
    program = (
        "import asyncio, socket, threading\n"
        "from frontend.workers import Pool, PoolSettings\n"
        "def hang(*_, **__): begun.set(); threading.Event().wait()\n"
        "begun = threading.Event()\n"
        "socket.getaddrinfo = hang\n"
        "async def main():\n"
        f"    pool = Pool('s_cnn', {target!r}, None, PoolSettings())\n"
        "    await pool.start()\n"
        f"    await asyncio.to_thread(begun.wait, {BOUND_S if hangs == 'name' else 0.2})\n"
        "    await pool.close()\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_name_of_one_worker_is_resolved_as_often_as_lists_are() -> None:
    class Recorded(ClientSecurity):
        """Keeps the options of the last channel."""

        def channel(self, address: str, options: Any, name: str | None = None) -> Any:
            self.options = dict(options)

    security = Recorded()
    GrpcTransport("worker.example:50051", 1 << 20, security, resolve_every_s=0.5)
    assert security.options["grpc.dns_min_time_between_resolutions_ms"] == 500


def test_certificates_are_for_the_name_that_was_given() -> None:
    assert discovery.server_name("dns:///workers.example:50051") == "workers.example"
    assert discovery.server_name("10.0.0.1:50051") is None


@pytest.mark.parametrize("target", ["a:1,b", "a", "a:port", "dns:///name", "http://a:1", "a:70000", "a:0"])
def test_a_target_without_addresses_is_told_at_the_start(
    target: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["frontend", "--s-cnn-workers", target])
    assert main() == 2
    assert capsys.readouterr().err.startswith("frontend: --s-cnn-workers: expected host:port, got ")
    settings = FrontendSettings(s_cnn_workers="a:1", coded_workers=f"b:1 {target}")
    with pytest.raises(TargetError, match="--coded-workers: expected host:port, got"):
        check_targets(settings)
