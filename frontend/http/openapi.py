"""The description of the HTTP routes: ``/openapi.json`` for programs, ``/docs`` for people, and the files of pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from collage import flags
from frontend.http.open_inference import LENGTH, InferRequest
from frontend.http.rest import PredictQuery

FILES = Path(__file__).with_name("files")
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Pages run scripts and styles of their own files only, and talk to this port only."""

_REFUSED = {
    400: "not a request that can be served, now or later",
    401: "no valid token",
    404: "no such model",
    408: "the request did not come in time",
    413: "too many bytes",
    415: "a form, or compressed",
    429: "no room now: Retry-After says when",
    503: "no worker is ready, or this process is shutting down",
    504: "no answer in time",
}
_ANSWER = {
    "type": "object",
    "description": "as collage predict --json prints it; times in seconds",
    "properties": {
        "request_id": {"type": "string"},
        "classes": {
            "type": "array",
            "description": "the best first; empty for localisation",
            "items": {
                "type": "object",
                "properties": {
                    "label": {"type": "string"},
                    "index": {"type": "integer"},
                    "probability": {"type": "number"},
                },
            },
        },
        "source": {"enum": ["S_CNN", "COLLAGE", "PARITY", "CODED", "REPLICA", "DEFAULT"]},
        "degraded": {"type": "boolean", "description": "whether the answer is an approximation"},
        "coded_confidence": {"type": ["number", "null"]},
        "group_id": {"type": "string"},
        "cell": {"type": ["integer", "null"]},
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "queue_s": {"type": "number"},
        "inference_s": {"type": "number"},
        "total_s": {"type": "number"},
        "box": {"type": ["object", "null"], "description": "for localisation: edges in shares of the image's sides"},
        "output": {"type": ["array", "null"], "items": {"type": "number"}},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string", "description": "what was wrong, and what to do instead"},
        "code": {"type": "string", "description": "the gRPC status"},
        "retry_after_s": {"type": "number"},
    },
}


def _operation(summary: str, *refused: int, **more: Any) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses: dict[str, Any] = {"200": {"description": "the answer"}}
    responses |= {str(status): {"description": _REFUSED[status], "content": error} for status in (*refused, 401)}
    return {"summary": summary, "responses": responses, **more}


def _in_path(path: str) -> list[dict[str, Any]]:
    names = [part.strip("{}") for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def document() -> dict[str, Any]:
    """The routes by OpenAPI 3.1."""
    _, schemas = models_json_schema([(InferRequest, "validation")], ref_template="#/components/schemas/{model}")
    query = PredictQuery.model_json_schema()["properties"]
    image = {"required": True, "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
    predict = _operation(
        "Classify one image: the body is a JPEG, PNG, WebP or BMP file", *(400, 408, 413, 415, 429, 503, 504),
        requestBody=image,
        parameters=[
            {"name": name, "in": "query", "description": schema.pop("description", ""), "schema": schema}
            for name, schema in query.items()
        ],
    )  # fmt: skip
    predict["responses"]["200"]["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}}
    json_body = {"schema": {"$ref": "#/components/schemas/InferRequest"}}
    infer = _operation(
        "Classify a batch (Open Inference Protocol)", *(400, 404, 408, 413, 415, 429, 503, 504),
        requestBody={"required": True, "content": {"application/json": json_body}},
        description=f"Tensors may follow the JSON: the header field {LENGTH} says how long that is, and the parameter "
        "binary_data_size how many bytes a tensor has.",
    )  # fmt: skip
    paths: dict[str, Any] = {
        "/v1/predict": {"post": predict, "put": predict},
        "/v2": {"get": _operation("Describe the server")},
        "/v2/health/live": {"get": _operation("Whether the process lives")},
        "/v2/health/ready": {"get": _operation("Whether it can answer", 503)},
        "/v2/models/stats": {"get": _operation("Count requests")},
        "/v2/repository/index": {"post": _operation("List the model")},
    }
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        paths |= {
            path: {"get": _operation("Describe the model", 404, 503)},
            f"{path}/ready": {"get": _operation("Whether the model can answer", 404, 503)},
            f"{path}/config": {"get": _operation("Describe the model in Triton's words", 404, 503)},
            f"{path}/stats": {"get": _operation("Count requests of the model", 404, 503)},
            f"{path}/infer": {"post": infer},
        }
    for path, item in paths.items():
        item["parameters"] = _in_path(path)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Collage", "version": flags.version() or "0"},
        "paths": paths,
        "components": {
            "schemas": {**schemas["$defs"], "Answer": _ANSWER, "Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def documentation() -> list[BaseRoute]:
    """The routes of the description, and of the pages' files."""
    described = document()
    files = {file.name: file.read_bytes() for file in FILES.iterdir() if file.suffix in _TYPES}

    async def openapi(request: Request) -> Response:
        return JSONResponse(described)

    async def docs(request: Request) -> Response:
        return FileResponse(FILES / "docs.html", headers=PAGE_HEADERS)

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if (content := files.get(name)) is None:
            return JSONResponse({"error": f"there is no file {name[:100]!r} here"}, 404)
        return Response(content, media_type=_TYPES[Path(name).suffix], headers=PAGE_HEADERS)

    return [Route("/openapi.json", openapi), Route("/docs", docs), Route("/files/{name}", static)]
