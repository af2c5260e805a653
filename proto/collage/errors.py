"""Errors with a gRPC status: those that servers answer with, and the one that clients raise."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from collage.texts import within

logger = logging.getLogger("collage")

MAX_TEXT = 1024
"""Longest error text sent: gRPC drops the status of a call whose text exceeds its limit on metadata, 8 KB, and sends
what is not ASCII as three times as many bytes."""


class ClientError(Exception):
    """A call failed: ``code`` is its gRPC status, ``message`` says why and what to do about it."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code, self.message = code, message


class ServiceError(Exception):
    """A failure with a gRPC status; its text is meant for the caller.

    ``retry_after_s`` says when trying again may succeed; gRPC clients with a retry policy obey it.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    def __init__(self, message: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class InvalidArgument(ServiceError):
    """The request cannot be served, now or later."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class AlreadyExists(ServiceError):
    """The name is taken."""

    code = grpc.StatusCode.ALREADY_EXISTS


class ResourceExhausted(ServiceError):
    """A queue is full, or too long for the caller's deadline; trying again later may succeed."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(ServiceError):
    """No worker can be reached, or this process is draining."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(ServiceError):
    """The caller's time ran out."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


def status_of(error: BaseException, request_id: str = "") -> tuple[grpc.StatusCode, str]:
    """The status and the text for the caller. An unexpected error is logged, and the caller gets a fixed text."""
    if isinstance(error, ServiceError):
        level = logging.INFO if isinstance(error, Unavailable | DeadlineExceeded) else logging.DEBUG
        logger.log(level, "not answered: %s %s", error.code.name, error, extra={"request_id": request_id})
        return error.code, within(str(error), MAX_TEXT)
    if _hung_up(error):
        logger.debug("the caller hung up", extra={"request_id": request_id})
        return grpc.StatusCode.CANCELLED, "the caller hung up"
    logger.error("unexpected error", exc_info=error, extra={"request_id": request_id})
    return grpc.StatusCode.INTERNAL, "internal error: see the server's log"


def _hung_up(error: BaseException) -> bool:
    """Whether gRPC could not write to the caller, and no other error happened."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_hung_up, error.exceptions))
    return isinstance(error, grpc.aio.InternalError)


@functools.cache
def _id_field(kind: type) -> str:
    """The field of a message that names the request, "id" in the Open Inference Protocol; empty if it has none."""
    fields = kind.DESCRIPTOR.fields_by_name if issubclass(kind, Message) else ()
    return next((name for name in ("request_id", "id") if name in fields), "")


def _id_of(request: Any) -> str:
    # To ask a message for a field that it lacks takes twenty times as long.
    field = _id_field(type(request))  # type: ignore[arg-type]  # types are hashable
    return str(getattr(request, field)) if field else ""


_Method = TypeVar("_Method", bound=Callable[..., Awaitable[Any]])


def boundary(method: _Method) -> _Method:
    """Turn exceptions of a servicer method into gRPC statuses.

    Only the caller's own cancellation passes. If an inner one did, gRPC would send no status, and the caller would wait
    until its deadline.
    """

    @functools.wraps(method)
    async def guarded(self: object, request: object, context: Any) -> object:
        id = _id_of(request)
        try:
            answer = method(self, request, context)
            del request  # its image may be large, and the method lets go of it early
            return await answer
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return await abort(context, error, id)
        except Exception as error:
            return await abort(context, error, id)

    return guarded  # type: ignore[return-value]


async def abort(context: Any, error: BaseException, request_id: str = "") -> NoReturn:
    """End a call with an error's status."""
    code, text = status_of(error, within(request_id, MAX_TEXT))
    await context.abort(code, text, pushback(error))
    raise AssertionError("abort returned")


def pushback(error: BaseException) -> tuple[tuple[str, str], ...]:
    """Trailing metadata that says after how many milliseconds gRPC may retry the call; empty if it says nothing."""
    after = error.retry_after_s if isinstance(error, ServiceError) else None
    return () if after is None else (("grpc-retry-pushback-ms", str(max(1, math.ceil(1000 * after)))),)
