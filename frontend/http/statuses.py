"""What a failure is in HTTP: the one place where gRPC statuses become HTTP statuses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from grpc import StatusCode
from pydantic import ValidationError
from starlette.responses import JSONResponse

HTTP_STATUS: Mapping[StatusCode, int] = {
    StatusCode.OK: 200,
    StatusCode.CANCELLED: 499,
    StatusCode.UNKNOWN: 500,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.DEADLINE_EXCEEDED: 504,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.ABORTED: 409,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.INTERNAL: 500,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DATA_LOSS: 500,
    StatusCode.UNAUTHENTICATED: 401,
}
"""As google.rpc.Code maps them. Where HTTP has a more exact status, the ``Refusal`` is made with that."""


class Refusal(Exception):
    """A request ends with an HTTP status and a text that says what to do instead.

    ``retry_after_s`` says when trying again may succeed. ``close`` ends the connection. ``malformed`` is
    a message that is refused before anybody looks at its images.
    """

    def __init__(
        self,
        status: int,
        text: str,
        *,
        code: str = "",
        retry_after_s: float | None = None,
        close: bool = False,
        malformed: bool = False,
    ) -> None:
        super().__init__(text)
        self.status, self.text, self.code, self.malformed = status, text, code, malformed
        self.retry_after_s, self.close = retry_after_s, close

    @classmethod
    def of(cls, code: StatusCode, text: str, retry_after_s: float | None = None) -> Refusal:
        """What a gRPC status is."""
        return cls(HTTP_STATUS[code], text, code=code.name, retry_after_s=retry_after_s)

    @property
    def headers(self) -> dict[str, str]:
        """Header fields of the response, beside the usual ones."""
        headers = {"Connection": "close"} if self.close else {}
        if self.status == HTTP_STATUS[StatusCode.UNAUTHENTICATED]:
            headers["WWW-Authenticate"] = "Bearer"
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))  # HTTP counts whole seconds
        return headers

    @property
    def content(self) -> dict[str, Any]:
        """The response's JSON; ``error`` is where the Open Inference Protocol has its text."""
        content: dict[str, Any] = {"error": self.text}
        if self.code:
            content["code"] = self.code
        if self.retry_after_s is not None:
            content["retry_after_s"] = round(self.retry_after_s, 3)
        return content

    def response(self) -> JSONResponse:
        """The response."""
        return JSONResponse(self.content, self.status, self.headers)


def first_mistake(error: ValidationError) -> str:
    """What is wrong first in what was sent, behind its place if it has one."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))[:100]
    return f"{place}: {first['msg']}" if place else first["msg"]
