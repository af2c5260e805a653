"""Children start, restart, freeze and always end: with the block, with an exception, with us."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, start_http_server

from bench.cluster.processes import Child, Metrics, ProcessError, ProcessGroup
from tests.bench.children import BOUND_S, BROKEN, SERVER, SILENT, STUBBORN, state, until_gone

# A parent that starts three children, tells their pids and waits.
PARENT = """
import asyncio, signal, sys
from pathlib import Path
from bench.cluster.processes import ProcessGroup
from tests.bench.children import SERVER

async def main():
    async with ProcessGroup(Path(sys.argv[1])) as group:
        await group.start([group.add("test", f"child-{i}", SERVER) for i in range(3)])
        print(*(child.pid for child in group.children), flush=True)
        await asyncio.Event().wait()

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
asyncio.run(main())
"""


async def test_children_announce_their_ports_and_end_with_the_block(tmp_path: Path) -> None:
    async with ProcessGroup(tmp_path) as group:
        await group.start([group.add("test", f"child-{i}", SERVER) for i in range(3)])
        assert [child.address for child in group.children] == ["127.0.0.1:4321"] * 3
        pids = [child.pid for child in group.children]
        assert all(os.getsid(pid) == pid for pid in pids), "a Ctrl-C in the terminal must not reach them directly"
    await until_gone(pids)
    assert [await child.wait() for child in group.children] == [-signal.SIGTERM] * 3
    with pytest.raises(ProcessError, match="child-0 is not running"):
        _ = group.children[0].pid


async def test_children_end_when_the_block_raises_or_is_cancelled(tmp_path: Path) -> None:
    pids: list[int] = []

    async def block(error: bool) -> None:
        async with ProcessGroup(tmp_path) as group:
            await group.start([group.add("test", "child", SERVER), group.add("test", "frozen", SERVER)])
            group.children[1].freeze()
            pids.extend(child.pid for child in group.children)
            if error:
                raise ValueError("the test's own")
            await asyncio.Event().wait()

    with pytest.raises(ValueError, match="the test's own"):
        await block(error=True)
    task = asyncio.create_task(block(error=False))
    async with asyncio.timeout(BOUND_S):
        while len(pids) < 4:
            await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_gone(pids)


async def test_a_child_that_fails_is_reported_with_its_last_words_and_the_others_end(tmp_path: Path) -> None:
    group = ProcessGroup(tmp_path)
    children = [group.add("test", "good", SERVER), group.add("test", "bad", BROKEN), group.add("test", "slow", SILENT)]
    with pytest.raises(ProcessError, match="bad ended with exit code 1") as failure:
        async with group:
            await group.start(children)
    assert "there is no model" in str(failure.value)
    assert "fine so far" in str(failure.value)
    assert str(tmp_path / "bad.log") in str(failure.value)
    for child in children:
        with pytest.raises(ProcessError):
            _ = child.pid


async def test_a_child_that_is_never_ready_is_killed(tmp_path: Path) -> None:
    child = Child("test", "silent", SILENT, tmp_path / "silent.log")
    with pytest.raises(ProcessError, match=r"silent was not ready in 0 s"):
        await child.start(timeout_s=0.2)
    assert await child.wait() == -signal.SIGKILL


async def test_kill_freeze_resume_and_restart_on_the_same_port(tmp_path: Path) -> None:
    async with ProcessGroup(tmp_path) as group:
        child = group.add("test", "child", SERVER)
        await group.start([child])
        first = child.pid
        child.freeze()
        async with asyncio.timeout(BOUND_S):
            while state(first) != "T":
                await asyncio.sleep(0.005)
        child.resume()
        async with asyncio.timeout(BOUND_S):
            while state(first) == "T":
                await asyncio.sleep(0.005)
        await child.kill()
        assert await child.wait() == -signal.SIGKILL
        child.port = 4322
        await child.restart()
        assert child.port == 4322, "the child was told its port"
        assert child.pid != first
        child.freeze()  # ends nevertheless


async def test_who_does_not_heed_sigterm_is_killed(tmp_path: Path) -> None:
    child = Child("test", "stubborn", STUBBORN, tmp_path / "stubborn.log")
    await child.start()
    assert await child.stop(timeout_s=0.2) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
async def test_no_child_outlives_its_parent(number: signal.Signals, tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert parent.stdout is not None
        pids = [int(pid) for pid in (await asyncio.wait_for(parent.stdout.readline(), BOUND_S)).split()]
        assert len(pids) == 3
        parent.send_signal(number)
        await asyncio.wait_for(parent.wait(), BOUND_S)
    finally:
        if parent.returncode is None:
            parent.kill()
    await until_gone(pids)


async def test_metrics_are_scraped_and_looked_up_by_labels(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    counter = Counter("sent_total", "Sent", ["attempt", "role"], registry=registry)
    counter.labels("collage", "x").inc(3)
    Counter("plain_total", "Plain", registry=registry).inc(2)
    server, _ = start_http_server(0, "127.0.0.1", registry)
    try:
        child = Child("test", "child", SERVER, tmp_path / "child.log")
        child.metrics_port = server.server_port
        metrics = await child.metrics()
    finally:
        server.shutdown()
        server.server_close()
    assert isinstance(metrics, Metrics)
    assert metrics.value("sent_total", role="x", attempt="collage") == 3
    assert metrics.value("sent_total", role="x", attempt="replica") == 0
    assert metrics.value("plain_total") == 2
