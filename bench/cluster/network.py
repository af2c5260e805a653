"""A slow network on one machine: namespaces behind a bridge, each with its own limited link. Linux, as root."""

from __future__ import annotations

import os
import shutil
import subprocess
from types import TracebackType
from typing import Self

DEVICE = "eth0"
"""A namespace's link, in it."""


def missing() -> str:
    """Why there can be no such network here, in words; empty if there can."""
    if os.name != "posix" or os.geteuid():
        return "only root makes network namespaces"
    lacking = [name for name in ("ip", "tc") if shutil.which(name) is None]
    return f"{' and '.join(lacking)} missing: Debian's package iproute2" if lacking else ""


class Network:
    """``size`` namespaces that send at most ``mbit_s`` each, and disappear with the block."""

    def __init__(self, size: int, mbit_s: float) -> None:
        self._hub, self._rate = f"collage-{os.getpid()}", mbit_s
        self.names = [f"{self._hub}-{number}" for number in range(size)]
        self.addresses = [f"10.77.0.{number + 1}" for number in range(size)]

    def inside(self, number: int) -> list[str]:
        """What comes before a command to run it in a namespace."""
        return ["ip", "netns", "exec", self.names[number]]

    def cut(self, number: int, off: bool) -> None:
        """Take a namespace's link away, or give it back."""
        _run("ip", "-n", self.names[number], "link", "set", DEVICE, "down" if off else "up")

    def __enter__(self) -> Self:
        try:
            _run("ip", "netns", "add", self._hub)
            _run("ip", "-n", self._hub, "link", "add", "bridge", "type", "bridge")
            _run("ip", "-n", self._hub, "link", "set", "bridge", "up")
            for number, name in enumerate(self.names):
                self._add(number, name)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _add(self, number: int, name: str) -> None:
        end, limit = f"port{number}", f"{self._rate:g}mbit"
        burst = max(16_000, round(self._rate * 1e6 / 8 / 100))  # 10 ms: the kernel refills a bucket once in a tick
        _run("ip", "netns", "add", name)
        _run("ip", "-n", self._hub, "link", "add", end, "type", "veth", "peer", "name", DEVICE, "netns", name)
        _run("ip", "-n", self._hub, "link", "set", end, "master", "bridge", "up")
        _run("ip", "-n", name, "address", "add", f"{self.addresses[number]}/24", "dev", DEVICE)
        for device in ("lo", DEVICE):
            _run("ip", "-n", name, "link", "set", device, "up")
        bucket = ("tbf", "rate", limit, "burst", str(burst), "latency", "400ms")
        _run("ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", DEVICE, "root", *bucket)

    def _remove(self) -> None:
        for name in (*self.names, self._hub):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)  # noqa: S603, S607


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
