"""Classify one image: python examples/sync_client.py 127.0.0.1:50051 shoe.png"""

import sys
from pathlib import Path

from collage.client import ClientError, SyncClient

address, file = sys.argv[1:]
with SyncClient(address) as client:
    try:
        answer = client.predict(Path(file), top_k=3, timeout_s=1.0)
    except ClientError as error:
        sys.exit(f"no answer: {error}")

for found in answer.classes:
    print(f"{found.label}: {found.probability:.1%}")
print(f"from {answer.source} in {1000 * answer.latency_s:.0f} ms")
