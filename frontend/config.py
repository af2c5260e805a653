"""The frontend's settings: flags (``--deadline-s 0.25``) or environment (``COLLAGE_DEADLINE_S=0.25``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import CliSuppress

from collage.security import ClientSecurity
from collage.serving import ServerSettings
from encoder.image import MAX_PIXELS
from frontend.policy import MAX_BYTES, Ejection, Rules


class FrontendSettings(ServerSettings):
    """How to find workers, and what to do about stragglers. All times are in seconds."""

    sections: ClassVar[Mapping[str, str]] = {
        **ServerSettings.sections,
        "s_cnn_workers": "workers",
        "policy": "stragglers",
        "eject_factor": "workers that are left out for a while",
        "timeout_s": "requests",
        "events_file": "observation",
    }

    s_cnn_workers: str = Field(
        min_length=1,
        description="s-cnn workers: host:port,host:port,... or dns:///name:port or file:///path with one host:port a "
        "line; names are resolved and files read again and again",
    )
    coded_workers: str = Field(
        "",
        description="workers of redundant models: one list, in the same form, for each redundant input of the code, "
        "with spaces between them (a collage has one); empty for none",
    )
    code: str = Field(
        "",
        description="code whose redundant inputs the s-cnn itself runs, on workers that --coded-workers lists: "
        "linear:N:r (means of N inputs), berrut:N:r or approxifer:N:r; or learned:FOLDER, whose encoder.onnx and "
        "decoder.onnx the frontend runs; empty where redundant models say what their code is",
    )
    s_cnn_description: Path | None = Field(
        None,
        description="JSON file that describes the s-cnn; given if its workers speak the Open Inference Protocol "
        "(Triton, KServe, MLServer)",
    )
    coded_descriptions: str = Field(
        "",
        description="such a file for each redundant input, with spaces between them; given if the workers of redundant "
        "models speak the Open Inference Protocol",
    )
    resolve_every_s: float = Field(5.0, gt=0, description="how often DNS names are resolved and files are read")
    http_port: int | None = Field(
        None, ge=0, le=65535, description="port for HTTP/1.1, with what gRPC has of TLS and tokens; 0 takes a free one"
    )
    playground: Path | None = Field(
        None, description="file by which `make up` offers its page: samples, and switches that make workers straggle"
    )
    worker_ca: Path | None = Field(
        None, description="CA certificates of the workers, PEM; turns on TLS towards them (to DNS names as given)"
    )
    worker_cert: Path | None = Field(None, description="certificate shown to workers (mutual TLS), PEM")
    worker_key: Path | None = Field(None, description="private key of worker-cert, PEM")
    worker_token_file: Path | None = Field(None, description="file whose first line is the bearer token for workers")
    policy: Literal["none", "ejection", "replicate", "hedge", "collage-only", "first-come", "collage", "adaptive"] = (
        Field("adaptive", description="what to do about stragglers")
    )
    deadline_s: float = Field(
        0.25,
        gt=0,
        le=60,
        description="when a request without an answer becomes a straggler (hedge, adaptive: at first)",
    )
    deadline_quantile: float = Field(
        0.95,
        ge=0.5,
        le=0.999,
        description="hedge, adaptive: the deadline is this quantile of what first copies take; of adaptive, 1.6 "
        "medians at most, and a higher quantile where --extra-load pays neither for a collage of every group nor for a "
        "replica of every straggler",
    )
    shortest_deadline_s: float = Field(0.001, gt=0, description="hedge, adaptive: bound of the deadline")
    longest_deadline_s: float = Field(10.0, gt=0, le=60, description="hedge, adaptive: bound of the deadline")
    group_wait_s: float | None = Field(
        None,
        ge=0,
        le=60,
        description="how long an open group may wait for members before it closes with empty cells; if not given, "
        "0.05, or as long as its collage can be back by the deadline (adaptive)",
    )
    detection_threshold: float | None = Field(
        None, ge=0, le=1, description="detections below this confidence are dropped; the model's own if not given"
    )
    grid: int | None = Field(
        None,
        ge=2,
        le=16,
        description="collages have this many rows and columns: collage workers with another grid are refused; if not "
        "given, the grid of most of them",
    )
    accept_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="a coded answer below this confidence is unsure: replicate instead; if not given, "
        "the model's own (adaptive) or 0 (others)",
    )
    patience: float = Field(
        1.1, ge=1, le=100, description="adaptive: a straggler gets an unsure coded answer after this many deadlines"
    )
    extra_load: float = Field(
        0.25, ge=0, le=2, description="budget: redundant requests sent per ordinary one, collages and replicas together"
    )
    accuracy_budget: float | None = Field(
        None,
        ge=0,
        le=1,
        description="budget: errors of coded answers, beyond the s-cnn's own, per ordinary request (0.001 is 0.1 "
        "points); early answers stop first, then the less sure ones of stragglers; if not given, no bound",
    )
    audit_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of coded answers whose late s-cnn is let finish, to compare; --accuracy-budget learns of it",
    )
    worker_choice: CliSuppress[Literal["fewest-calls", "power-of-two", "peak-ewma", "idle-only"]] = Field(
        "fewest-calls", description="who gets a call; the others are rivals, for benchmarks"
    )
    eject_factor: float = Field(
        1.5, gt=1, le=100, description="ejection, adaptive: a call is slow if it takes longer than this many medians"
    )
    eject_evidence: float = Field(
        18.0,
        gt=0,
        le=700,
        description="evidence that leaves a slow worker out, the log of a likelihood ratio: by chance that happens to "
        "workers that are well at most once in exp(this) calls",
    )
    eject_failures: int = Field(3, ge=1, le=1000, description="so is a worker after this number of failures in a row")
    eject_most: float = Field(
        0.34, ge=0, le=0.5, description="never more than this share of the workers is left out (panic threshold)"
    )
    eject_rest_s: float = Field(
        5.0, gt=0, le=3600, description="how long a worker is left out at first; doubled with every relapse"
    )
    eject_longest_s: float = Field(300.0, gt=0, le=86400, description="the longest that it is left out")
    eject_probes: int = Field(
        3, ge=1, le=100, description="good calls, one at a time, after which it is used like any other again"
    )
    timeout_s: float = Field(10.0, gt=0, le=600, description="longest a request may take; a caller's shorter one wins")
    max_connection_age_s: float = Field(
        0.0,
        ge=0,
        description="clients' connections and streams are ended after this long, when what they have is answered: so "
        "they find frontends that have come since; 0: never",
    )
    max_in_flight: int = Field(1024, ge=1, description="requests admitted at once; more are refused")
    max_bytes_in_flight: int = Field(
        MAX_BYTES, ge=1, description="bytes that requests in flight may hold; more are refused"
    )
    caller_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of both that one connection may have; raise it where all callers come through one proxy",
    )
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="largest image accepted, width times height")
    image_threads: int = Field(
        2, ge=1, le=64, description="threads that decode images; half as many more decode those that take over 0.1 s"
    )
    default_label: str = Field(
        "",
        description="answered, as source DEFAULT, when a request's time runs out: the first class of this name; "
        "DEADLINE_EXCEEDED if empty",
    )
    events_file: Path | None = Field(
        None,
        description="record the policy's last 100,000 events, and write them to this file on SIGUSR1 and at exit, for "
        "python -m bench replay --events",
    )
    slo_s: float | None = Field(
        None, gt=0, le=600, description="latency objective: becomes a bucket edge of collage_request_seconds"
    )

    @model_validator(mode="after")
    def _worker_tls_is_complete(self) -> Self:
        if bool(self.worker_cert) != bool(self.worker_key):
            raise ValueError("--worker-cert and --worker-key belong together: give both or neither")
        if self.worker_cert and not self.worker_ca:
            raise ValueError("--worker-cert needs --worker-ca as well")
        return self

    @model_validator(mode="after")
    def _every_coded_worker_is_described(self) -> Self:
        described, listed = len(self.coded_descriptions.split()), len(self.coded_workers.split())
        if described not in (0, listed):
            raise ValueError(f"--coded-descriptions names {described} files for {listed} lists of --coded-workers")
        return self

    @model_validator(mode="after")
    def _playground_is_local(self) -> Self:
        if self.playground and (self.http_port is None or self.token_file):
            raise ValueError("--playground is for one person on one machine: it needs --http-port, and no --token-file")
        return self

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> Self:
        tracked = self.policy in ("hedge", "adaptive")
        if tracked and not self.shortest_deadline_s <= self.deadline_s <= self.longest_deadline_s:
            raise ValueError("--deadline-s must lie between --shortest-deadline-s and --longest-deadline-s")
        if self.eject_rest_s > self.eject_longest_s:
            raise ValueError("--eject-rest-s must not be longer than --eject-longest-s")
        return self

    @property
    def slow_image_threads(self) -> int:
        """Threads that decode images which take long, beside those for all others."""
        return max(1, self.image_threads // 2)

    def worker_security(self) -> ClientSecurity:
        """How to connect to workers."""
        return ClientSecurity(
            ca=self.worker_ca, cert=self.worker_cert, key=self.worker_key, token_file=self.worker_token_file
        )

    def rules(self) -> Rules:
        """The rules of the chosen policy, with these limits."""
        own = {"accept": self.accept_threshold, "group_wait": self.group_wait_s}
        own = {name: value for name, value in own.items() if value is not None}
        if self.policy == "adaptive":
            own["patience"] = self.patience
        return Rules.named(
            self.policy,
            deadline=self.deadline_s,
            quantile=self.deadline_quantile,
            shortest=self.shortest_deadline_s,
            longest=self.longest_deadline_s,
            extra_load=self.extra_load,
            audit=self.audit_share,
            accuracy=self.accuracy_budget,
            **own,
        )

    def ejection(self) -> Ejection | None:
        """When workers are left out; None if the policy leaves out none."""
        if not self.rules().eject:
            return None
        return Ejection(
            factor=self.eject_factor,
            evidence=self.eject_evidence,
            failures=self.eject_failures,
            share=self.eject_most,
            rest=self.eject_rest_s,
            longest=self.eject_longest_s,
            probes=self.eject_probes,
        )
