"""The Open Inference Protocol for any process that runs a model on images: convert, delegate, convert back."""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from collage import flags
from collage.errors import InvalidArgument, ServiceError, Unavailable, boundary
from collage.model_info import ModelInfo, ModelKind
from collage.serving import Server
from collage.texts import cut
from encoder.tasks import TASKS
from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc as oip_grpc
from inference.tensors import INPUT, ImageRows, add_output, read_images, read_wanted, whole_number

SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
MAX_ID_BYTES = 128
MAX_ROWS = 1024
"""Images that one request may have, as far as its message has room for them."""
_ENVELOPE_BYTES = 1024  # of a request beside its pixels, at most, unless its parameters are unusual
_PLATFORM = "onnxruntime_onnx"
_EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "statistics")


class NotFound(ServiceError):
    """There is no such model here."""

    code = grpc.StatusCode.NOT_FOUND


class Unimplemented(ServiceError):
    """The protocol knows this, the server does not."""

    code = grpc.StatusCode.UNIMPLEMENTED


@dataclass(frozen=True)
class RowAnswer:
    """One row's answer, float32 ``[m]`` as callers of the model's task get it, whose, and where from.

    ``confidence`` is that of a coded answer, None for others. Times in seconds.
    """

    output: NDArray[np.float32]
    model: ModelInfo
    source: str
    degraded: bool
    confidence: float | None
    queue_s: float
    inference_s: float


class InferenceServicer(oip_grpc.GRPCInferenceServiceServicer, ABC):
    """``inference.GRPCInferenceService`` for one model; see open_inference.proto for what it takes and gives."""

    def __init__(self, server: Server) -> None:
        """``server``'s health is the readiness told here."""
        self._server = server
        self._counts: dict[tuple[str, str], oip.ModelStatistics] = {}

    @property
    @abstractmethod
    def model(self) -> ModelInfo | None:
        """The model that is served; None while nobody knows it."""

    @abstractmethod
    async def run_rows(
        self, images: ImageRows, ids: Sequence[str], timeout_s: float | None, caller: str
    ) -> list[RowAnswer]:
        """One answer per row, whose request ids are ``ids``, within the caller's time; None is no limit.

        ``caller`` names the connection. Raises the ServiceError of the first row that fails.
        """

    @boundary
    async def ServerLive(self, request: oip.ServerLiveRequest, context: Any) -> oip.ServerLiveResponse:
        """Whether the process lives."""
        return oip.ServerLiveResponse(live=True)

    @boundary
    async def ServerReady(self, request: oip.ServerReadyRequest, context: Any) -> oip.ServerReadyResponse:
        """Whether the process can answer."""
        return oip.ServerReadyResponse(ready=self._server.serving)

    @boundary
    async def ModelReady(self, request: oip.ModelReadyRequest, context: Any) -> oip.ModelReadyResponse:
        """Whether the model can answer."""
        if self.model is not None:
            self._find(request.name, request.version)
        return oip.ModelReadyResponse(ready=self.model is not None and self._server.serving)

    @boundary
    async def ServerMetadata(self, request: oip.ServerMetadataRequest, context: Any) -> oip.ServerMetadataResponse:
        """Describe the server."""
        return oip.ServerMetadataResponse(name="collage", version=flags.version(), extensions=_EXTENSIONS)

    @boundary
    async def ModelMetadata(self, request: oip.ModelMetadataRequest, context: Any) -> oip.ModelMetadataResponse:
        """Describe the model."""
        model = self._find(request.name, request.version)
        tensor = oip.ModelMetadataResponse.TensorMetadata
        return oip.ModelMetadataResponse(
            name=model.name,
            versions=[version_number(model)],
            platform=_PLATFORM,
            inputs=[tensor(name=INPUT, datatype="UINT8", shape=[-1, model.size, model.size, 3])],
            outputs=[tensor(name=output_name(model), datatype="FP32", shape=[-1, *model.outputs[0].shape])],
        )

    @boundary
    async def ModelConfig(self, request: oip.ModelConfigRequest, context: Any) -> oip.ModelConfigResponse:
        """Describe the model in Triton's words."""
        model = self._find(request.name, request.version)
        image = oip.ModelInput(
            name=INPUT, data_type=oip.TYPE_UINT8, format=oip.ModelInput.FORMAT_NHWC, dims=[model.size, model.size, 3]
        )
        output = oip.ModelOutput(name=output_name(model), data_type=oip.TYPE_FP32, dims=model.outputs[0].shape)
        room = self._server.settings.max_message_bytes - _ENVELOPE_BYTES
        return oip.ModelConfigResponse(
            config=oip.ModelConfig(
                name=model.name,
                platform=_PLATFORM,
                max_batch_size=max(1, min(MAX_ROWS, room // (3 * model.size**2))),
                input=[image],
                output=[output],
            )
        )

    @boundary
    async def ModelStatistics(self, request: oip.ModelStatisticsRequest, context: Any) -> oip.ModelStatisticsResponse:
        """Count what came through ModelInfer."""
        if request.name:
            return oip.ModelStatisticsResponse(
                model_stats=[self._statistics(self._find(request.name, request.version))]
            )
        return oip.ModelStatisticsResponse(model_stats=self._counts.values())

    @boundary
    async def RepositoryIndex(self, request: oip.RepositoryIndexRequest, context: Any) -> oip.RepositoryIndexResponse:
        """List the model."""
        model, ready = self.model, self._server.serving
        if model is None or (request.ready and not ready):
            return oip.RepositoryIndexResponse()
        entry = oip.RepositoryIndexResponse.ModelIndex(
            name=model.name,
            version=version_number(model),
            state="READY" if ready else "UNAVAILABLE",
            reason="" if ready else "not ready to serve",
        )
        return oip.RepositoryIndexResponse(models=[entry])

    @boundary
    async def ModelInfer(self, request: oip.ModelInferRequest, context: Any) -> oip.ModelInferResponse:
        """Run the model on images."""
        model = self._find(request.model_name, request.model_version)
        with self._counting(model) as answers:
            images = read_images(request, model.size, MAX_ROWS)
            wanted = read_wanted(request, output_name(model), len(model.labels))
            id, timeout_s = request.id, _timeout_s(request, context)
            del request  # the images are all that is needed, and what they are made of is large
            answers += await self.run_rows(images, _ids(id, images.count), timeout_s, context.peer())
        # Another model than that may have come into use meanwhile, and rows may be of a redundant model.
        model = next((answer.model for answer in answers if answer.model.kind is ModelKind.S_CNN), model)
        if any((answer.model.task, answer.model.labels) != (model.task, model.labels) for answer in answers):
            raise Unavailable("a new model came into use meanwhile, and some rows are of the old one: try again")
        response = oip.ModelInferResponse(model_name=model.name, model_version=version_number(model), id=id)
        outputs = np.stack([answer.output for answer in answers])
        add_output(response, output_name(model), outputs, model.labels, wanted)
        _add_provenance(response, answers)
        return response

    @boundary
    async def ModelStreamInfer(  # type: ignore[override]  # raises instead of yielding
        self, request_iterator: AsyncIterator[oip.ModelInferRequest], context: Any
    ) -> None:
        """Refuse."""
        raise Unimplemented("this server does not offer ModelStreamInfer: call ModelInfer, which may be pipelined")

    def _find(self, name: str, version: str) -> ModelInfo:
        model = self.model
        if model is None:
            raise Unavailable("no s-cnn worker is ready: try again later")
        if name != model.name:
            raise NotFound(f"there is no model {cut(name, 100)!r} here: ask for {model.name!r}")
        if version not in ("", version_number(model)):
            raise NotFound(
                f"there is no version {cut(version, 100)!r} of {name!r} here: it is {version_number(model)!r}"
            )
        return model

    def _statistics(self, model: ModelInfo) -> oip.ModelStatistics:
        version = version_number(model)
        return self._counts.setdefault((model.name, version), oip.ModelStatistics(name=model.name, version=version))

    @contextmanager
    def _counting(self, model: ModelInfo) -> Iterator[list[RowAnswer]]:
        """Count a request by how the block ends; its answers are to be added to the list."""
        counts, answers, started = self._statistics(model), list[RowAnswer](), time.perf_counter_ns()
        outcome = counts.inference_stats.fail
        try:
            yield answers
            outcome = counts.inference_stats.success
        finally:
            outcome.count += 1
            outcome.ns += time.perf_counter_ns() - started
        counts.last_inference = time.time_ns() // 1_000_000
        counts.inference_count += len(answers)
        counts.execution_count += len(answers)
        spent = counts.inference_stats
        for duration in (spent.queue, spent.compute_input, spent.compute_infer, spent.compute_output):
            duration.count += len(answers)  # all of them: perf_analyzer ends itself when they differ
        spent.queue.ns += round(1e9 * sum(answer.queue_s for answer in answers))
        spent.compute_infer.ns += round(1e9 * sum(answer.inference_s for answer in answers))


def version_number(model: ModelInfo) -> str:
    """The model's version as the decimal number that the protocol's tools expect.

    Versions that our workers make are twelve hexadecimal digits. A decimal number of fewer digits is the version in a
    fleet of another make, and stays. Any other one is hashed to as many digits as ours have.
    """
    if len(model.version) < 12 and model.version.isascii() and model.version.isdecimal():
        return model.version
    try:
        return str(int(model.version, 16))
    except ValueError:
        return str(int.from_bytes(hashlib.sha256(model.version.encode()).digest()[:6], "big"))


def output_name(model: ModelInfo) -> str:
    """The name of the model's output, by its task."""
    return TASKS[model.task].output


def _ids(id: str, count: int) -> list[str]:
    """Ids of the rows, by which logs name them; empty ones are made up later."""
    if len(id.encode()) > MAX_ID_BYTES:
        raise InvalidArgument(f"the id is longer than {MAX_ID_BYTES} bytes: send a shorter one")
    return [id] if count == 1 else [id and f"{id}-{row}" for row in range(count)]


def _timeout_s(request: oip.ModelInferRequest, context: Any) -> float | None:
    """Seconds that the caller gives: until the gRPC deadline, or the parameter ``timeout`` if that is shorter.

    Raises InvalidArgument.
    """
    limits = [remaining] if (remaining := context.time_remaining()) is not None else []
    if "timeout" in request.parameters and (timeout := whole_number(request.parameters, "timeout", least=0)):
        limits.append(timeout / 1e6)
    return min(limits, default=None)


def _add_provenance(response: oip.ModelInferResponse, answers: Sequence[RowAnswer]) -> None:
    """Strings have one entry per row, separated by commas."""
    response.parameters["source"].string_param = ",".join(answer.source for answer in answers)
    response.parameters["degraded"].bool_param = any(answer.degraded for answer in answers)
    response.parameters["coded_confidence"].string_param = ",".join(
        "" if answer.confidence is None else f"{answer.confidence:.4f}" for answer in answers
    )
