"""Classify a folder over one stream: python examples/stream_folder.py 127.0.0.1:50051 photos

The stream sends images while answers come back, in completion order. An image that fails does not end it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from collage.client import ClientError, SyncClient


def images(folder: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file. They are read as the stream takes them, so any number of files fits in memory."""
    for file in sorted(Path(folder).iterdir()):
        yield file.name, file.read_bytes()


address, folder = sys.argv[1:]
with SyncClient(address) as client:
    for name, result in client.predict_stream(images(folder), timeout_s=5.0):
        print(name, result.message if isinstance(result, ClientError) else result.label)
