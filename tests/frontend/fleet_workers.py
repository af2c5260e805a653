"""Servers of another make in this process: they speak the Open Inference Protocol, and know nothing of Collage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import numpy as np
from numpy.typing import NDArray

from frontend.workers.transport import Connection
from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc as oip_grpc
from tests.frontend.fakes import LABELS, SIZE, Outputs, classify, detect

TensorMetadata = oip.ModelMetadataResponse.TensorMetadata
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
S_CNN = {"name": "s", "kind": "s-cnn", "labels": list(LABELS), "size": SIZE}
COLLAGE = {"name": "c", "kind": "collage-cnn", "labels": list(LABELS), "size": 2 * SIZE, "k": 2}
DTYPES = {"UINT8": "u1", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}


def tensor(name: str, datatype: str, *shape: int) -> TensorMetadata:
    return TensorMetadata(name=name, datatype=datatype, shape=shape)


def s_cnn_metadata(
    image: TensorMetadata | None = None, scores: TensorMetadata | None = None, versions: Sequence[str] = ("1",)
) -> oip.ModelMetadataResponse:
    image = image or tensor("pixels", "UINT8", -1, SIZE, SIZE, 3)
    scores = scores or tensor("logits", "FP32", -1, len(LABELS))
    return oip.ModelMetadataResponse(name="s", versions=versions, inputs=[image], outputs=[scores])


def collage_metadata() -> oip.ModelMetadataResponse:
    return oip.ModelMetadataResponse(
        name="c",
        versions=["1"],
        inputs=[tensor("collage", "UINT8", -1, 2 * SIZE, 2 * SIZE, 3)],
        outputs=[  # in another order than ours
            tensor("confidences", "FP32", -1, -1),
            tensor("class_probabilities", "FP32", -1, -1, len(LABELS)),
            tensor("boxes", "FP32", -1, -1, 4),
        ],
    )


def pixels_of(request: oip.ModelInferRequest) -> NDArray[Any]:
    """The input as it was sent, without its batch dimension."""
    (given,) = request.inputs
    values = np.frombuffer(request.raw_input_contents[0], DTYPES[given.datatype]).reshape(list(given.shape))
    return values[0] if values.ndim == 4 else values


@dataclass
class OtherMake(oip_grpc.GRPCInferenceServiceServicer):
    """A server with one model."""

    metadata: oip.ModelMetadataResponse
    run: Callable[[NDArray[Any]], Outputs] = classify
    """Makes outputs, in the order of the metadata, from what was sent."""
    typed: bool = False
    """Answer with typed contents instead of raw ones."""
    server_ready: bool = True
    model_ready: bool = True
    seconds: dict[str, float] = field(default_factory=dict)
    """How long a request takes, by its id; others are instant."""
    requests: list[oip.ModelInferRequest] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    told: list[tuple[str, str]] = field(default_factory=list)
    """Metadata of calls."""

    async def ServerLive(self, request: Any, context: Any) -> oip.ServerLiveResponse:
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> oip.ServerReadyResponse:
        return oip.ServerReadyResponse(ready=self.server_ready)

    async def ModelReady(self, request: oip.ModelReadyRequest, context: Any) -> oip.ModelReadyResponse:
        known = request.name == self.metadata.name and request.version in ("", *self.metadata.versions)
        return oip.ModelReadyResponse(ready=known and self.model_ready)

    async def ModelMetadata(self, request: oip.ModelMetadataRequest, context: Any) -> oip.ModelMetadataResponse:
        if request.name != self.metadata.name:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        return self.metadata

    async def ModelInfer(self, request: oip.ModelInferRequest, context: Any) -> oip.ModelInferResponse:
        self.requests.append(request)
        self.told += [(key, value) for key, value in context.invocation_metadata() if key == "authorization"]
        self.running.add(request.id)
        try:
            await asyncio.sleep(self.seconds.get(request.id, 0.0))
        finally:
            self.running.discard(request.id)
        return self.answer(request)

    def answer(self, request: oip.ModelInferRequest) -> oip.ModelInferResponse:
        response = oip.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        for said, output in zip(self.metadata.outputs, self.run(pixels_of(request)), strict=True):
            array = output.astype(DTYPES[said.datatype])
            shape = [1] * (len(said.shape) - array.ndim) + list(array.shape)
            entry = response.outputs.add(name=said.name, datatype=said.datatype, shape=shape)
            if self.typed:
                getattr(entry.contents, f"{said.datatype.lower()}_contents").extend(array.ravel().tolist())
            else:
                response.raw_output_contents.append(array.tobytes())
        return response


def detections(pixels: NDArray[Any]) -> Outputs:
    boxes, confidences, probabilities = detect(pixels)
    return confidences, probabilities, boxes


@asynccontextmanager
async def listening(servicer: OtherMake, port: int = 0) -> AsyncIterator[int]:
    """Serve on a port."""
    server = grpc.aio.server()
    oip_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@asynccontextmanager
async def closing(connection: Connection) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await connection.close()
