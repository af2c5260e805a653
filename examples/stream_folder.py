"""Classify a folder over one stream: python examples/stream_folder.py 127.0.0.1:50051 photos

The stream sends images while answers come back, in completion order. An image that fails does not end it.
"""

import sys
from pathlib import Path

from collage.client import ClientError, SyncClient

address, folder = sys.argv[1:]
images = ((file.name, file) for file in sorted(Path(folder).iterdir()))  # read when they are sent
with SyncClient(address) as client:
    for name, result in client.predict_stream(images, timeout_s=5.0):
        print(name, result.message if isinstance(result, ClientError) else result.label)
