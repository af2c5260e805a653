"""MLServer with a model that answers at once, to compare with: run by the Python of an environment that has MLServer.

It imports nothing of ours. No parallel workers, no metrics, no logging of calls: as fast as MLServer gets on one core.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import socket

from mlserver import MLModel, MLServer, ModelSettings, Settings  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput  # type: ignore[import-not-found]

HOST = "127.0.0.1"


class InstantModel(MLModel):  # type: ignore[misc]
    """Always the first of ten classes, whatever it is sent."""

    async def load(self) -> bool:
        """Nothing to do."""
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The answer, at once."""
        best = ResponseOutput(name="probabilities", shape=[1, 10], datatype="FP32", data=[1.0] + 9 * [0.0])
        return InferenceResponse(model_name=self.name, outputs=[best])


def free_port() -> int:
    """One that nobody has now."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


async def serve(port: int) -> None:
    """Until SIGTERM."""
    ports = {"grpc_port": port, "http_port": free_port(), "metrics_endpoint": None}
    settings = Settings(host=HOST, parallel_workers=0, debug=False, **ports)
    server = MLServer(settings)
    serving = asyncio.create_task(server.start([ModelSettings(name="instant", implementation=InstantModel)]))
    while not serving.done():
        with contextlib.suppress(OSError):
            (await asyncio.open_connection(HOST, port))[1].close()
            break
        await asyncio.sleep(0.1)
    logging.disable(logging.WARNING)
    print(f"ready port={port} metrics_port=0", flush=True)
    await serving


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--metrics-port", type=int)
    asked = parser.parse_args().port
    asyncio.run(serve(asked or free_port()))
