"""The page of ``make up``: what it shows of the cluster, and its switches. For one person on one machine.

It shows images of whoever calls, and makes workers slow. So it is off unless a file says where its samples and switches
are, and it answers only to browsers that were opened on this machine's own name or address.
"""

from __future__ import annotations

import base64
import io
import ipaddress
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from encoder.code import Source
from encoder.collage import CollageCode, Detections
from frontend.coding import GroupRun
from frontend.config import FrontendSettings
from frontend.dispatch import Dispatcher
from frontend.http.call import HttpCall
from frontend.http.offering import MOST_PER_S, Offering
from frontend.http.openapi import FILES, PAGE_HEADERS
from frontend.http.rest import Rest
from frontend.http.statuses import Refusal
from frontend.workers import Pool

OTHERS = 8
"""Samples that come with a person's photo: together they fill a collage of 3 x 3."""
KEPT_GROUPS = 32
KEPT_ANSWERS = 4096
STRAGGLING = "bimodal:0.002,2.0,0.05"
"""What a straggling worker does: one of 20 calls takes two seconds, too few for its ejection."""
_METHOD = "/playground"


class SwitchState(BaseModel):
    """What a worker's switch is set to."""

    model_config = ConfigDict(extra="forbid", strict=True)

    straggles: bool


class OfferedRate(BaseModel):
    """How many samples a second are offered."""

    model_config = ConfigDict(extra="forbid")

    per_s: float = Field(ge=0, le=MOST_PER_S, allow_inf_nan=False)


class PlaygroundFile(BaseModel):
    """What ``make up`` tells: the folder of samples (one folder a class), and each worker's switch by its address."""

    samples: Path
    switches: dict[str, Path]
    usual: str


class Playground:
    """Watches two dispatchers of one cluster, one with the frontend's policy and one without any."""

    def __init__(
        self,
        settings: FrontendSettings,
        file: Path,
        rest: Rest,
        dispatcher: Dispatcher,
        without: Dispatcher,
        coded: Sequence[Pool],
    ) -> None:
        """``without`` has no policy. Raises OSError if the file cannot be used."""
        try:
            self._told = PlaygroundFile.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise OSError(f"--playground: {file} is none: {error.errors()[0]['msg']}") from None
        self._rest, self._dispatcher, self._coded = rest, dispatcher, coded
        self._groups: deque[GroupRun] = deque(maxlen=KEPT_GROUPS)
        self._answers: deque[tuple[int, float, str, str, float]] = deque(maxlen=KEPT_ANSWERS)
        self._count = 0
        self._samples = sorted(self._told.samples.rglob("*.png")) + sorted(self._told.samples.rglob("*.jpg"))
        dispatcher.group_watchers.append(self._groups.append)
        self._watch(dispatcher, "with")
        self._watch(without, "without")
        samples = [sample.read_bytes() for sample in self._samples]
        both = (dispatcher, without)
        self._offering = Offering(both, samples, settings.timeout_s, rest.gate.server.draining)

    def _watch(self, dispatcher: Dispatcher, side: str) -> None:
        def answered(source: Source, seconds: float) -> None:
            self._count += 1
            self._answers.append((self._count, time.monotonic(), side, source.name, seconds))

        dispatcher.metrics.watchers.append(answered)

    def routes(self) -> list[BaseRoute]:
        """The page and what it asks for."""
        return [
            Route("/", self.page),
            Route("/playground/live", self.live),
            Route("/playground/samples", self.samples),
            Route("/playground/samples/{number:int}", self.sample),
            Route("/playground/groups/{group}", self.group),
            Route("/playground/workers/{address}", self.switch, methods=["PUT"]),
            Route("/playground/load", self.load, methods=["PUT"]),
            Route("/playground/predict", self.predict, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """The page itself."""
        return FileResponse(FILES / "page.html", headers=PAGE_HEADERS)

    async def live(self, request: Request) -> Response:
        """Answers since the one whose number is in the query, what was sent, and the workers."""

        async def serve(call: HttpCall, body: bytes) -> Response:
            self._offering.watched()
            since = request.query_params.get("since", "0")
            first = int(since) if since.isdigit() and len(since) < 16 else 0
            now = time.monotonic()
            answers = [
                {"side": side, "source": source, "age_s": round(now - at, 3), "total_s": seconds}
                for number, at, side, source, seconds in self._answers
                if number > first
            ]
            sent = {sample.labels["attempt"]: sample.value for sample in self._sent()}
            workers = [
                self._worker(pool, address)
                for pool in (self._dispatcher.base, *self._coded)
                for address in pool.workers
            ]
            content = {"last": self._count, "answers": answers, "sent": sent, "workers": workers}
            content |= {"deadline_s": self._dispatcher.policy.deadline, "per_s": self._offering.per_s}
            return JSONResponse(content)

        return await self._guarded(request, serve)

    def _sent(self) -> list[Any]:
        (family,) = self._dispatcher.metrics.sent.collect()
        return family.samples

    def _worker(self, pool: Pool, address: str) -> dict[str, Any]:
        switch = self._told.switches.get(address)
        straggles = None
        if switch is not None:
            with suppress(OSError):
                straggles = switch.read_text() == STRAGGLING
        worker = pool.workers[address]
        return {
            "address": address,
            "role": pool.name,
            "kind": worker.info.kind if worker.info else "unknown",
            "ready": worker.ready,
            "outstanding": pool.balancer.outstanding(address),
            "straggles": straggles,
        }

    async def samples(self, request: Request) -> Response:
        """Labels of the samples, by their numbers."""

        async def serve(call: HttpCall, body: bytes) -> Response:
            return JSONResponse([self._label(file) for file in self._samples])

        return await self._guarded(request, serve)

    def _label(self, file: Path) -> str:
        return file.parent.name if file.parent != self._told.samples else file.stem.partition("-")[0]

    async def sample(self, request: Request) -> Response:
        """One sample's file."""

        async def serve(call: HttpCall, body: bytes) -> Response:
            number = request.path_params["number"]
            if number >= len(self._samples):
                raise Refusal(404, f"there are {len(self._samples)} samples: ask for a number below that")
            return FileResponse(self._samples[number])

        return await self._guarded(request, serve)

    async def group(self, request: Request) -> Response:
        """A group's redundant input as a picture, and what the redundant model found in it."""

        async def serve(call: HttpCall, body: bytes) -> Response:
            id = request.path_params["group"]
            for run in self._groups:
                if any(job.group_id == id for job in run.jobs.values()):
                    return JSONResponse(described_group(run))
            raise Refusal(404, "this group is not kept any more: send another photo")

        return await self._guarded(request, serve)

    async def switch(self, request: Request) -> Response:
        """Make a worker straggle, or stop that."""

        async def serve(call: HttpCall, body: bytes) -> Response:
            _refuse_forms(request)
            file = self._told.switches.get(request.path_params["address"])
            if file is None:
                raise Refusal(404, "this worker has no switch: /playground/live lists those that have one")
            try:
                wanted = SwitchState.model_validate_json(body)
            except ValidationError:
                raise Refusal(400, 'send {"straggles": true} or {"straggles": false}') from None
            new = file.with_suffix(".new")
            new.write_text(STRAGGLING if wanted.straggles else self._told.usual)
            new.replace(file)  # at once: the worker may be reading it
            return JSONResponse({"straggles": wanted.straggles})

        return await self._guarded(request, serve)

    async def load(self, request: Request) -> Response:
        """Offer so many samples a second, each to both dispatchers."""

        async def serve(call: HttpCall, body: bytes) -> Response:
            _refuse_forms(request)
            try:
                wanted = OfferedRate.model_validate_json(body)
            except ValidationError:
                raise Refusal(400, f'send {{"per_s": 10}}, from 0 to {MOST_PER_S:.0f}') from None
            self._offering.set(wanted.per_s)
            return JSONResponse({"per_s": wanted.per_s})

        return await self._guarded(request, serve)

    async def predict(self, request: Request) -> Response:
        """Classify a photo as ``/v1/predict`` does, while as many samples come as fill its group."""
        if not _is_ours(request):
            return _NOT_OURS.response()
        self._offering.send(OTHERS, [self._dispatcher])
        return await self._rest.predict(request)

    async def _guarded(self, request: Request, serve: Any) -> Response:
        if not _is_ours(request):
            return _NOT_OURS.response()
        return await self._rest.gate.enter(request, _METHOD, serve, most=1024)


_NOT_OURS = Refusal(403, "open the page by localhost or an IP address")


def _refuse_forms(request: Request) -> None:
    """Raises Refusal for what another site's page could send from here without asking first."""
    if request.headers.get("content-type") != "application/json":
        raise Refusal(415, "send application/json")


def _is_ours(request: Request) -> bool:
    """Whether the browser was led here by no name of another site's."""
    host = request.url.hostname or ""
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def described_group(run: GroupRun) -> dict[str, Any]:
    """The first redundant input of a group; of a collage the boxes as well, in shares of the picture's side."""
    members = {place: job.name for place, job in run.jobs.items()}
    described: dict[str, Any] = {"members": members, "state": _state(run), "boxes": [], "image": None}
    described["code"] = run.code.name
    code = run.code
    inputs = [job.input if (job := run.jobs.get(place)) else None for place in range(code.shape.members)]
    try:
        redundant = code.encode(inputs)[0]
    except ValueError:  # a group that lacks members which its code needs
        return described
    pixels = redundant if redundant.ndim == 3 else np.hstack([*redundant])
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    described["image"] = base64.b64encode(buffer.getvalue()).decode()
    if not isinstance(code, CollageCode):
        return described
    described |= {"k": code.grid.k, "size": code.grid.size}
    if 0 in run.coded and 0 in run.models:
        found, labels = Detections(*run.coded[0]), run.models[0].labels
        for box, confidence, classes in zip(found.boxes, found.confidences, found.class_probabilities, strict=True):
            if confidence >= code.detection_threshold:
                label = labels[int(classes.argmax())]
                described["boxes"].append(
                    {"box": box.tolist(), "label": label, "confidence": float(confidence * classes.max())}
                )
    return described


def _state(run: GroupRun) -> str:
    if run.coded:
        return "answered"
    return "under way" if run.calls or run.encoding else "cancelled"
