"""Runs a stock tritonclient against a server in this process."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PROBE = Path(__file__).with_name("triton_probe.py")
BOUND_S = 60.0


async def triton(command: str, port: int, request: Any = None) -> Any:
    """What a command of triton_probe.py prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        PROBE,
        command,
        f"127.0.0.1:{port}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=PROBE.parent,
    )
    try:
        async with asyncio.timeout(BOUND_S):
            printed, _ = await process.communicate(json.dumps(request).encode())
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0
    return json.loads(printed)


def png(pixels: NDArray[np.uint8]) -> str:
    """An encoded image, as hexadecimal digits."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue().hex()
