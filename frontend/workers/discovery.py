"""Where workers are: a fixed list, a DNS name, or a file, the last two looked at again and again."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, cast

from collage.channels import join

logger = logging.getLogger("collage.frontend")

_T = TypeVar("_T")

DNS, FILE = "dns:///", "file://"
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):\d{1,5}")


class TargetError(ValueError):
    """A list of workers that cannot be understood; the message names the part."""


def parse(text: str) -> set[str]:
    """Addresses in lines or between commas, without what follows a ``#``."""
    lines = (line.partition("#")[0] for line in text.splitlines())
    return {part for line in lines for part in re.split(r"[\s,]+", line) if part}


def check(target: str) -> str:
    """The target itself; raises TargetError if it can never name a worker."""
    if target.startswith(FILE):
        return target
    for address in [target.removeprefix(DNS)] if target.startswith(DNS) else parse(target):
        if not _ADDRESS.fullmatch(address) or not 0 < int(address.rpartition(":")[2]) < 65536:
            raise TargetError(f"expected host:port, got {address!r}")
    return target


def server_name(target: str) -> str | None:
    """The name on the workers' certificates if it is not their address: that of the DNS entry which lists them."""
    return target.removeprefix(DNS).rpartition(":")[0] if target.startswith(DNS) else None


async def addresses(target: str, every_s: float) -> AsyncIterator[set[str]]:
    """What ``target`` names, now and again every ``every_s`` seconds if that can change.

    ``host:port,...``, ``dns:///name:port`` (a Kubernetes headless Service lists its pods there), or ``file:///path``.
    A name that does not resolve, or a file that is missing, empty or malformed, changes nothing: losing the list is
    no reason to lose the workers. Where a name has addresses of both families, those of IPv4 are taken: a worker that
    has both is one worker.
    """
    if not target.startswith((DNS, FILE)):
        yield parse(target)
        return
    complaint = None
    while True:
        try:
            found = await (_resolve if target.startswith(DNS) else _read)(target)
            if not found:
                raise TargetError("it names no worker")
        except (OSError, ValueError) as error:
            if complaint != str(error):
                logger.warning("no list of workers from %s: %s", target, error)
            complaint = str(error)
        else:
            complaint = None
            yield found
        await asyncio.sleep(every_s)


async def _resolve(target: str) -> set[str]:
    host, _, port = target.removeprefix(DNS).rpartition(":")
    found = await _apart(lambda: socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM))
    families = {entry[0] for entry in found}
    return {
        join(str(entry[4][0]), int(entry[4][1]))
        for entry in found
        if entry[0] == socket.AF_INET or socket.AF_INET not in families
    }


async def _read(target: str) -> set[str]:
    path = Path(target.removeprefix(FILE))
    return parse(check(await _apart(lambda: path.read_text("utf-8-sig"))))


async def _apart(work: Callable[[], _T]) -> _T:
    """Run what may hang, in a thread that nobody waits for when the process exits."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def finish(result: _T | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error:
            done.set_exception(error)
        else:
            done.set_result(cast(_T, result))

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(finish, result, failure)

    threading.Thread(target=run, name="discovery", daemon=True).start()
    return await done
