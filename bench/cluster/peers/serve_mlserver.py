"""A real MLServer with one ONNX file: run by the Python of an environment that has mlserver and onnxruntime."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import socket
from pathlib import Path
from typing import Any

from mlserver import MLModel, MLServer, ModelSettings, Settings  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.settings import ModelParameters  # type: ignore[import-not-found]
from mlserver.types import (  # type: ignore[import-not-found]
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
)
from onnx_file import OnnxFile  # type: ignore[import-not-found]

HOST = "127.0.0.1"


class ServedFile(MLModel):  # type: ignore[misc]
    """Runs the file at the model's ``uri``, one request at a time."""

    async def load(self) -> bool:
        """Load the file."""
        self._file = OnnxFile(Path(self.settings.parameters.uri), self.settings.parameters.extra["least_s"])
        self._one = asyncio.Lock()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """All outputs."""
        feed = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        async with self._one:
            outputs = await asyncio.to_thread(self._file.run, feed)
        named = zip(self._file.outputs, outputs, strict=True)
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output(name, array) for (name, *_), array in named]
        )


def free_port() -> int:
    """One that nobody has now."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def settings(name: str, version: str, path: Path, least_s: float) -> Any:
    """The model's settings, with the names, types and shapes of its tensors: MLServer knows them from nowhere else."""
    model = OnnxFile(path)
    return ModelSettings(
        name=name,
        implementation=ServedFile,
        inputs=[MetadataTensor(name=tensor, datatype=kind, shape=shape) for tensor, kind, shape in model.inputs],
        outputs=[MetadataTensor(name=tensor, datatype=kind, shape=shape) for tensor, kind, shape in model.outputs],
        parameters=ModelParameters(uri=str(path), version=version, extra={"least_s": least_s}),
    )


async def serve(args: argparse.Namespace) -> None:
    """Until SIGTERM. No parallel workers, no metrics, no logging of calls."""
    port = args.port or free_port()
    ports = {"grpc_port": port, "http_port": free_port(), "metrics_endpoint": None}
    server = MLServer(Settings(host=HOST, parallel_workers=0, debug=False, **ports))
    serving = asyncio.create_task(server.start([settings(args.name, args.model_version, args.onnx, args.least_s)]))
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
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--model-version", default="1")
    parser.add_argument("--least-s", type=float, default=0.0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--metrics-port", type=int)
    asyncio.run(serve(parser.parse_args()))
