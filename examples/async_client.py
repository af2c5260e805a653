"""Classify many images at once, with asyncio: python examples/async_client.py 127.0.0.1:50051 *.png"""

import asyncio
import sys
from pathlib import Path

from collage.client import Client


async def classify(address: str, files: list[Path]) -> list[str]:
    """The label of each file; all requests are under way at once."""
    async with Client(address) as client, asyncio.TaskGroup() as group:
        calls = [group.create_task(client.predict(file, timeout_s=1.0)) for file in files]
    return [call.result().label for call in calls]


address, files = sys.argv[1], [Path(file) for file in sys.argv[2:]]
for file, label in zip(files, asyncio.run(classify(address, files)), strict=True):
    print(f"{file}: {label}")
