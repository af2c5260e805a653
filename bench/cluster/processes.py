"""Child processes that never outlive us: start, freeze, kill, restart, stop."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from collage.flags import PREFIX, FlagSettings
from frontend.config import FrontendSettings
from worker.config import WorkerSettings

HOST = "127.0.0.1"
LOGS = Path("out/logs")
LAST_LINES = 12  # of a child's log, shown when it fails
_PROGRAMS: dict[str, type[FlagSettings]] = {"frontend": FrontendSettings, "worker": WorkerSettings}
_READY = re.compile(rb"ready port=(\d+) metrics_port=(\d+)(?: http_port=(\d+))?")
# Asks the kernel to kill the child with its parent, then becomes the child. (A preexec_fn could do so as well, but
# must not be used in a process with threads, and gRPC has many.)
_TETHER = """
import ctypes, os, signal, sys
parent, command = int(sys.argv[1]), sys.argv[2:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died first
        sys.exit(1)
os.execv(command[0], command)
"""


class ProcessError(Exception):
    """A child did not start or does not do what it should; the message may end with the last lines of its log."""

    exit_code = 1


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


class Metrics(dict[str, float]):
    """One scrape of a metrics port: ``name{label="value",...}`` (labels sorted) to value."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read Prometheus' text format."""
        return cls(
            (_key(sample.name, sample.labels), sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        )

    def value(self, name: str, **labels: str) -> float:
        """One sample; 0 if there is none, as of a labelled counter that was never raised."""
        return self.get(_key(name, labels), 0.0)


def _environment(command: Sequence[str]) -> dict[str, str]:
    """Our environment without the settings of the other program, which a child would not know."""
    module = command[2] if list(command[1:2]) == ["-m"] else ""
    theirs = {
        f"{PREFIX}{name.upper()}"
        for other, settings in _PROGRAMS.items()
        if other != module
        for name in settings.model_fields.keys() - _PROGRAMS.get(module, settings).model_fields.keys()
    }
    return {name: value for name, value in os.environ.items() if name not in theirs or module not in _PROGRAMS}


def _key(name: str, labels: dict[str, str]) -> str:
    inside = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{inside}}}" if inside else name


class Child:
    """A server process that prints ``ready port=<grpc> metrics_port=<http>`` once it listens.

    ``command`` is called with ``--port`` and ``--metrics-port`` appended: free ones at first, the same ones again after
    a restart. Everything it prints goes to ``log``.
    """

    def __init__(self, role: str, name: str, command: Sequence[str], log: Path) -> None:
        self.role, self.name, self.command, self.log = role, name, list(command), log
        self.port = self.metrics_port = 0
        self.http_port: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where it serves gRPC, ``host:port``."""
        return f"{HOST}:{self.port}"

    @property
    def metrics_address(self) -> str:
        """Where it serves its metrics, a URL."""
        return f"http://{HOST}:{self.metrics_port}/metrics"

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Its process id; ProcessError if it does not run."""
        if self._process is None or not self.running:
            raise ProcessError(f"{self.name} is not running")
        return self._process.pid

    async def start(self, timeout_s: float = 60.0) -> None:
        """Start, and wait until it listens. Raises ProcessError if it ends or takes too long."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        ports = ("--port", str(self.port), "--metrics-port", str(self.metrics_port))
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-ISc", _TETHER, str(os.getpid()), *self.command, *ports),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=_environment(self.command),
                start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on
            )
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read(self._process, ready))
        try:
            async with asyncio.timeout(timeout_s):
                await ready
        except TimeoutError:
            await self.kill()
            raise ProcessError(f"{self.name} was not ready in {timeout_s:.0f} s{self._last_lines()}") from None
        except BaseException:
            await self.kill()
            raise

    async def _read(self, process: asyncio.subprocess.Process, ready: asyncio.Future[None]) -> None:
        assert process.stdout is not None  # noqa: S101 - we asked for a pipe
        with self.log.open("ab") as log:
            async for line in process.stdout:
                log.write(line)
                log.flush()
                found = _READY.search(line)
                if found and not ready.done():
                    self.port, self.metrics_port = int(found[1]), int(found[2])
                    self.http_port = None if found[3] is None else int(found[3])
                    ready.set_result(None)
        code = await process.wait()
        if not ready.done():
            ready.set_exception(ProcessError(f"{self.name} ended with exit code {code}{self._last_lines()}"))

    def _last_lines(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "".join(f"\n  {line}" for line in (f"the end of {self.log}:", *lines))

    async def wait(self) -> int:
        """Wait until it has ended; returns its exit code, negative for a signal."""
        if self._process is None:
            return 0
        code = await self._process.wait()
        if self._reader is not None:
            await asyncio.wait([self._reader])  # not `await self._reader`: cancelling us must not cancel it
        return code

    async def kill(self) -> None:
        """Kill it at once (SIGKILL)."""
        self._signal(signal.SIGKILL)
        await self.wait()

    def freeze(self) -> None:
        """Stop it (SIGSTOP): its connections stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run again after ``freeze``."""
        self._signal(signal.SIGCONT)

    async def stop(self, timeout_s: float = 10.0) -> int:
        """Ask it to finish its calls and end (SIGTERM), kill it after ``timeout_s``; returns the exit code."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(timeout_s):
                return await self.wait()
        except TimeoutError:
            await self.kill()
            return await self.wait()

    async def restart(self) -> None:
        """Start it again, on the same ports; stops it first if it still runs."""
        await self.stop()
        await self.start()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)  # send_signal() may reap it, and asyncio lose its exit code

    async def metrics(self) -> Metrics:
        """Scrape its metrics port."""

        def scrape() -> str:
            connection = http.client.HTTPConnection(HOST, self.metrics_port, timeout=5)
            try:
                connection.request("GET", "/metrics")
                return connection.getresponse().read().decode()
            finally:
                connection.close()

        return Metrics.parse(await asyncio.to_thread(scrape))


class ProcessGroup:
    """Children that end with the ``async with`` block, however it ends; SIGKILL of this process ends them as well.

    They end as well if it cannot begin.
    """

    def __init__(self, logs: Path = LOGS) -> None:
        self.logs = logs
        self.children: list[Child] = []

    async def __aenter__(self) -> Self:
        try:
            await self.begin()
        except BaseException:
            await self.stop()
            raise
        return self

    async def begin(self) -> None:
        """Start what is to run when the block is entered; here nothing."""

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def add(self, role: str, name: str, command: Sequence[str]) -> Child:
        """A child, not started yet; its log ``<name>.log`` starts empty."""
        log = self.logs / f"{name}.log"
        log.unlink(missing_ok=True)
        child = Child(role, name, command, log)
        self.children.append(child)
        return child

    async def start(self, children: Sequence[Child]) -> None:
        """Start children side by side. Raises the first one's ProcessError if any fails."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for child in children:
                    tasks.create_task(child.start())
        except* ProcessError as failures:
            raise failures.exceptions[0] from None

    async def stop(self) -> None:
        """End all children, the last started first to be asked. Idempotent."""
        async with asyncio.TaskGroup() as tasks:
            for child in reversed(self.children):
                tasks.create_task(child.stop())
