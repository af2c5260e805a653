"""Pictures of the page for the documents, light and dark: ``python -m tests.page_pictures``.

Starts a cluster as ``make up`` does, presses what a person presses in a real Chromium, and writes
``docs/page-light.png`` and ``docs/page-dark.png``. Takes five minutes; nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from bench.cluster.greeting import samples_of
from bench.cluster.local import COLLAGE, ROOT, S_CNN, Cluster
from bench.cluster.switches import Switches
from tests.browser import Browser, browser

BEFORE_S, AFTER_S = 40.0, 75.0
"""How long samples are sent before all workers straggle, and after that: the chart shows two minutes."""
TRIES = 8  # of a photo, until its answer comes from a collage


async def take(page: Browser, address: str, scheme: str, per_s: float) -> bytes:
    """A picture of the page as PNG."""
    await page.open(address, scheme)
    await page.until("document.querySelectorAll('#samples button').length > 5")
    await page.run(f"document.getElementById('rate').value = {per_s}")
    await page.click("#load")
    await asyncio.sleep(BEFORE_S)
    await page.click("#all")
    await asyncio.sleep(AFTER_S)
    for _ in range(TRIES):
        await page.click("#samples button:nth-child(3)")
        await asyncio.sleep(4)
        if "COLLAGE" in await page.run("document.getElementById('told').innerText"):
            break
    picture = await page.picture()
    await page.click("#all")
    await page.click("#load")
    return picture


async def main(per_s: float, out: Path) -> None:
    """Write both pictures."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        flags = ("--http-port", "0")
        switches = Switches(folder, samples_of(S_CNN))
        async with (
            Cluster(S_CNN, COLLAGE, frontend_flags=flags, switches=switches, logs=folder / "logs") as cluster,
            browser(folder / "profile") as page,
        ):
            for scheme in ("light", "dark"):
                taken = await take(page, f"http://127.0.0.1:{cluster.frontend.http_port}/", scheme, per_s)
                with Image.open(io.BytesIO(taken)) as picture:
                    picture.convert("RGB").quantize(128).save(out / f"page-{scheme}.png", optimize=True)
                print(out / f"page-{scheme}.png", flush=True)
            if page.complaints:
                sys.exit(f"the page complains: {page.complaints}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.page_pictures", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--per-s", type=float, default=10, help="samples a second, each way (%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the pictures (%(default)s)")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.per_s, arguments.out))
