"""The HTTP routes: convert, delegate to gRPC's servicers, convert back."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from collage.answers import from_response
from collage.serving import Server
from collage.v1 import predict_pb2
from frontend.http.call import Gate, HttpCall
from frontend.http.open_inference import LENGTH, Asked, plain
from frontend.http.statuses import Refusal, first_mistake
from frontend.inference import FrontendInference
from frontend.server import PredictServicer
from inference import open_inference_pb2 as oip

PREDICT = "/collage.v1.PredictService/Predict"
OPEN_INFERENCE = "/inference.GRPCInferenceService/"
_MAX_UINT32 = 2**32 - 1


class PredictQuery(BaseModel):
    """What ``/v1/predict`` takes beside the image, in the query."""

    model_config = ConfigDict(extra="forbid")

    top_k: int = Field(1, ge=0, le=_MAX_UINT32, description="the number of best classes")
    request_id: str = Field("", description="names the request in logs; the file's name in the path if not given")
    with_output: bool = Field(False, description="the model's whole output as well")
    timeout_s: float | None = Field(None, gt=0, le=1e9, description="seconds after which no answer is wanted")


class Rest:
    """The routes over the servicers of one server."""

    def __init__(self, server: Server, predictions: PredictServicer, inference: FrontendInference) -> None:
        self._server, self._predictions, self._inference = server, predictions, inference
        self.gate = Gate(server)

    def app(self, extra: list[BaseRoute]) -> Starlette:
        """The application, with ``extra`` routes behind these."""
        both = ["POST", "PUT"]
        model, one = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
        routes: list[BaseRoute] = [
            Route("/v1/predict", self.predict, methods=both),
            Route("/v1/predict/{file:path}", self.predict, methods=both),  # what curl -T makes of /v1/predict/
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2", self._asking("ServerMetadata", oip.ServerMetadataRequest)),
            Route("/v2/models/stats", self._asking("ModelStatistics", oip.ModelStatisticsRequest)),
            Route("/v2/repository/index", self.index, methods=["POST"]),
        ]
        for path in (model, one):
            routes += [
                Route(path, self._asking("ModelMetadata", oip.ModelMetadataRequest)),
                Route(f"{path}/ready", self._asking("ModelReady", oip.ModelReadyRequest)),
                Route(f"{path}/config", self._asking("ModelConfig", oip.ModelConfigRequest)),
                Route(f"{path}/stats", self._asking("ModelStatistics", oip.ModelStatisticsRequest)),
                Route(f"{path}/infer", self.infer, methods=["POST"]),
            ]
        return Starlette(routes=[*routes, *extra], exception_handlers={HTTPException: _no_such_route})  # type: ignore[dict-item]

    async def predict(self, request: Request) -> Response:
        """Classify the image in the body."""
        return await self.gate.enter(request, PREDICT, functools.partial(self._predict, request))

    async def _predict(self, request: Request, call: HttpCall, body: bytes) -> Response:
        if request.headers.get("content-type", "").startswith("multipart/"):
            told = "the body is a form: send the image's bytes alone, as curl -T FILE does"
            raise Refusal(415, told, malformed=True)
        query = _read_query(request.query_params)
        if query.timeout_s is not None:
            call.limit(query.timeout_s)
        id = query.request_id or request.path_params.get("file", "")
        message = predict_pb2.PredictRequest(
            image=body, top_k=query.top_k, request_id=id, with_output=query.with_output
        )
        del body
        response = await self._predictions.Predict(message, call)
        answer = asdict(from_response(response, 0.0))
        del answer["latency_s"]  # the caller's own
        return JSONResponse(answer)

    async def infer(self, request: Request) -> Response:
        """Classify a batch of images by the Open Inference Protocol."""
        return await self.gate.enter(request, f"{OPEN_INFERENCE}ModelInfer", functools.partial(self._infer, request))

    async def _infer(self, request: Request, call: HttpCall, body: bytes) -> Response:
        path = request.path_params
        asked = Asked(body, request.headers.get(LENGTH), path["model"], path.get("version", ""))
        del body
        response = await self._inference.ModelInfer(asked.message, call)
        asked.message.Clear()
        content, headers = asked.answer(response)
        return Response(content, headers=headers)

    async def live(self, request: Request) -> Response:
        """Whether the process lives."""
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        """Whether it can answer."""
        ready = self._server.serving
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def index(self, request: Request) -> Response:
        """List the model."""

        async def serve(call: HttpCall, body: bytes) -> Response:
            listed = await self._inference.RepositoryIndex(oip.RepositoryIndexRequest(), call)
            return JSONResponse([plain(model) for model in listed.models])

        return await self.gate.enter(request, f"{OPEN_INFERENCE}RepositoryIndex", serve, most=4096)

    def _asking(self, method: str, message: Callable[..., Any]) -> Callable[[Request], Awaitable[Response]]:
        """Answers GET with what a method of the protocol says of the model in the path."""
        ask = getattr(self._inference, method)

        async def answer(request: Request) -> Response:
            path: Mapping[str, str] = request.path_params
            named = {"name": path["model"], "version": path.get("version", "")} if "model" in path else {}

            async def serve(call: HttpCall, body: bytes) -> Response:
                response = plain(await ask(message(**named), call))
                return JSONResponse(response.get("config", response), 503 if response.get("ready") is False else 200)

            return await self.gate.enter(request, f"{OPEN_INFERENCE}{method}", serve)

        return answer


def _read_query(given: QueryParams) -> PredictQuery:
    try:
        return PredictQuery.model_validate(dict(given))
    except ValidationError as error:
        raise Refusal(400, f"{first_mistake(error)}; known are {', '.join(PredictQuery.model_fields)}") from None


async def _no_such_route(request: Request, error: HTTPException) -> Response:
    told = f"there is nothing at {request.url.path[:200]}: /docs lists what there is"
    if error.status_code == 405:
        allowed = sorted((error.headers or {}).get("Allow", "").split(", "))
        told = f"{request.method} is not for {request.url.path[:200]}: use {' or '.join(allowed)}"
    return JSONResponse({"error": told}, error.status_code, error.headers)
