"""MLServer as fast as it gets on one core: no parallel workers, no metrics, no logging of calls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from mlserver import MLServer, Settings  # type: ignore[import-not-found]
from peer import HOST, free_port  # type: ignore[import-not-found]


async def serve(model: Any, port: int) -> None:
    """Serve the model of these settings until SIGTERM, and say when that begins."""
    ports = {"grpc_port": port, "http_port": free_port(), "metrics_endpoint": None}
    server = MLServer(Settings(host=HOST, parallel_workers=0, debug=False, **ports))
    serving = asyncio.create_task(server.start([model]))
    while not serving.done():
        with contextlib.suppress(OSError):
            (await asyncio.open_connection(HOST, port))[1].close()
            break
        await asyncio.sleep(0.1)
    logging.disable(logging.WARNING)
    print(f"ready port={port} metrics_port=0", flush=True)
    await serving
