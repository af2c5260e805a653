"""A dispatcher that traces requests: one span each, with what the policy heard and decided as its events."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from collage.traces import Span, Traces, incoming, outgoing
from encoder.code import GroupShape
from encoder.image import Pixels
from frontend.dispatch import Dispatcher
from frontend.jobs import Outcome
from frontend.policy import events as e

_current: ContextVar[Span | None] = ContextVar("current", default=None)


class TracedDispatcher(Dispatcher):
    """A dispatcher whose requests are spans, and whose workers are told of them."""

    def __init__(self, traces: Traces, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._traces = traces
        self._spans: dict[int, Span] = {}
        self._members: dict[int, dict[int, int]] = {}
        """Requests of groups whose code is at work, by place."""

    async def predict(self, prepare: Callable[[int], Pixels], *args: Any, **named: Any) -> Outcome:
        """Serve one request; see Dispatcher."""
        span = self._traces.begin("collage.predict", self._loop.time(), incoming.get())
        token = _current.set(span)
        timed = functools.partial(self._prepared, span, prepare)
        try:
            with span.during("the caller hung up"):
                outcome = await super().predict(timed, *args, **named)
                source, degraded = outcome.answered.source.name, outcome.degraded
                span.tell(request_id=outcome.request_id, source=source, degraded=degraded)
                if outcome.place is not None:
                    span.tell(group_id=outcome.group_id, place=outcome.place)
                return outcome
        finally:
            _current.reset(token)

    def _prepared(self, span: Span, prepare: Callable[[int], Pixels], size: int) -> Pixels:
        image = prepare(size)
        span.event("prepared", self._loop.time())
        return image

    def _feed_now(self, event: e.Arrived | e.Answered) -> None:
        if isinstance(event, e.Arrived) and (span := _current.get()):
            self._spans[event.request] = span
            span.event("admitted", self._jobs[event.request].admitted_at)
            self._jobs[event.request].future.add_done_callback(lambda _: self._spans.pop(event.request, None))
        super()._feed_now(event)

    def _handle(self, events: Sequence[e.Event]) -> None:
        for event in events:
            self._note(event)
        super()._handle(events)

    def _note(self, event: e.Event) -> None:
        match event:
            case e.Answered(at, request, attempt):
                self._event(request, "answered", at, attempt=attempt)
            case e.Failed(at, request, attempt):
                self._event(request, "attempt failed", at, attempt=attempt)
            case e.Returned(at, group, ok):
                for request in self._members.get(group, {}).values():
                    self._event(request, "redundant answer" if ok else "redundant call failed", at)
            case e.Decoded(at, group, confidences):
                for place, request in self._members.pop(group, {}).items():
                    if place in confidences:
                        self._event(request, "decoded", at, confidence=confidences[place])
            case _:
                pass

    def _perform(self, action: e.Action) -> None:
        at = self._loop.time()
        match action:
            case e.Straggles(request):
                self._event(request, "straggles", at)
            case e.Cancel(request, attempt):
                self._event(request, "cancelled", at, attempt=attempt)
            case e.CancelCoded(group):
                for request in self._members.pop(group, {}).values():
                    self._event(request, "redundant call cancelled", at)
            case _:
                pass
        super()._perform(action)

    def _send(self, request: int, attempt: int) -> None:
        span = self._spans.get(request)
        token = outgoing.set(span.context if span else "")
        try:
            super()._send(request, attempt)
        finally:
            outgoing.reset(token)
        job = self._jobs.get(request)
        self._event(
            request, "sent", self._loop.time(), attempt=attempt, worker=job.tried.get(attempt, "") if job else ""
        )

    def _send_coded(self, group: int, members: Mapping[int, int], shape: GroupShape) -> None:
        traced = {place: request for place, request in members.items() if request in self._spans}
        if traced:
            self._members[group] = traced
        for place, request in traced.items():
            self._event(request, "joined a group", self._loop.time(), place=place, members=len(members))
        first = min(traced.values(), default=0)
        token = outgoing.set(self._spans[first].context if traced else "")
        try:
            super()._send_coded(group, members, shape)
        finally:
            outgoing.reset(token)

    def _event(self, request: int, name: str, at: float, **attributes: str | int | float) -> None:
        if span := self._spans.get(request):
            span.event(name, at, **attributes)
