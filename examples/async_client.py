"""Classify many images at once, with asyncio: python examples/async_client.py 127.0.0.1:50051 *.png"""

import asyncio
import sys
from pathlib import Path

from collage.client import Client


async def classify(address: str, images: list[bytes]) -> list[str]:
    """The label of each image; all requests are under way at once."""
    async with Client(address) as client, asyncio.TaskGroup() as group:
        calls = [group.create_task(client.predict(image, timeout_s=1.0)) for image in images]
    return [call.result().label for call in calls]


address, *files = sys.argv[1:]
labels = asyncio.run(classify(address, [Path(file).read_bytes() for file in files]))
for file, label in zip(files, labels, strict=True):
    print(f"{file}: {label}")
