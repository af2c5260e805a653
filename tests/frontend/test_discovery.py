"""Where workers are said to be: lists, DNS names, files that change."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from frontend.__main__ import check_targets, main
from frontend.config import FrontendSettings
from frontend.workers import TargetError, discovery

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
    file.write_text("a:1\nb:3")
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


async def test_a_name_is_resolved_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods come and go behind a headless Service; while none is ready its name does not resolve."""
    answers: list[list[str] | None] = [["10.0.0.1"], None, ["10.0.0.1", "fd00::2"]]

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        assert (host, port) == ("workers.example", 50051)
        now = answers.pop(0) if len(answers) > 1 else answers[0]
        if now is None:
            raise socket.gaierror("Name or service not known")
        return [(0, 0, 0, "", (ip, port)) for ip in now]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    found = discovery.addresses("dns:///workers.example:50051", OFTEN_S)
    assert await anext(found) == {"10.0.0.1:50051"}
    assert await anext(found) == {"10.0.0.1:50051", "[fd00::2]:50051"}


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
