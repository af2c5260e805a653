"""A real headless Chromium, driven by its DevTools protocol over two pipes."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

BOUND_S = 60.0


class Browser:
    """One page. ``complaints`` are its errors: exceptions, and what the page's security policy refused."""

    def __init__(self, reader: asyncio.StreamReader, write: Any) -> None:
        self._reader, self._write = reader, write
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._session: str | None = None
        self.complaints: list[str] = []

    async def listen(self) -> None:
        """Take what the browser says, until it ends."""
        with suppress(asyncio.IncompleteReadError):
            while True:
                message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
                if waiting := self._waiting.pop(message.get("id", 0), None):
                    waiting.set_result(message)
                elif message.get("method") == "Runtime.exceptionThrown":
                    self.complaints.append(json.dumps(message["params"]["exceptionDetails"]))
                elif message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                    self.complaints.append(json.dumps(message["params"]["entry"]))

    async def call(self, method: str, **parameters: Any) -> Mapping[str, Any]:
        """The result of a command."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._write(json.dumps(message).encode() + b"\0")
        async with asyncio.timeout(BOUND_S):
            answer = await waiting
        assert "error" not in answer, answer
        result: Mapping[str, Any] = answer["result"]
        return result

    async def attach(self, width: int, height: int) -> None:
        """Make the page, with a window of this size in pixels."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **metrics)

    async def open(self, url: str, scheme: str = "light") -> None:
        """Go to a page, light or dark."""
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await self.call("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        """The value of an expression in the page; waits for it if it is a promise."""
        told = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, script: str) -> Any:
        """The value of an expression as soon as it is true."""
        async with asyncio.timeout(BOUND_S):
            while not (value := await self.run(script)):
                await asyncio.sleep(0.1)
        return value

    async def click(self, selector: str) -> None:
        """Press the middle of an element, as a person does."""
        place = await self.until(
            f"(() => {{ const found = document.querySelector({selector!r}); if (!found) return null; "
            "found.scrollIntoView({block: 'center'}); const box = found.getBoundingClientRect(); "
            "return box.width ? [box.x + box.width / 2, box.y + box.height / 2] : null; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            where = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
            await self.call("Input.dispatchMouseEvent", type=kind, **where)

    async def picture(self) -> bytes:
        """The whole page as PNG."""
        told = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(told["data"])


@asynccontextmanager
async def browser(folder: Path, width: int = 1000, height: int = 1400) -> AsyncIterator[Browser]:
    """A browser with a profile in ``folder``; it talks to nobody but this machine."""
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    flags = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --remote-debugging-pipe"
    flags += (
        " --hide-scrollbars --disable-background-networking --disable-component-update --disable-sync --no-proxy-server"
    )
    flags += " --host-resolver-rules='MAP * ~NOTFOUND , EXCLUDE 127.0.0.1'"
    command = f"exec chromium {flags} --user-data-dir={folder} 3<&{theirs_in} 4>&{theirs_out}"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", command),
        pass_fds=(theirs_in, theirs_out),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
    )
    os.close(theirs_in)
    os.close(theirs_out)
    reader = asyncio.StreamReader(limit=64 << 20)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours_in, "rb"))
    page = Browser(reader, lambda data: os.write(ours_out, data))
    listening = asyncio.create_task(page.listen())
    try:
        await page.attach(width, height)
        yield page
    finally:
        process.kill()
        await process.wait()
        await listening
        transport.close()
        os.close(ours_out)
