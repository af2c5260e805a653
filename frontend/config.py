"""The frontend's settings: flags (``--deadline-s 0.25``) or environment (``COLLAGE_DEADLINE_S=0.25``)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from collage.serving import ServerSettings
from encoder.image import MAX_PIXELS
from frontend.policy import Rules


class FrontendSettings(ServerSettings):
    """How to find workers, and what to do about stragglers. All times are in seconds."""

    s_cnn_workers: str = Field(
        description="s-cnn workers: host:port,host:port,... or dns:///name:port, resolved again and again"
    )
    collage_workers: str = Field("", description="collage-cnn workers, in the same form; empty for none")
    resolve_every_s: float = Field(5.0, gt=0, description="how often DNS names are resolved and workers are asked")
    policy: Literal["none", "ejection", "replicate", "hedge", "collage-only", "collage", "adaptive"] = Field(
        "adaptive", description="what to do about stragglers"
    )
    deadline_s: float = Field(
        0.25,
        gt=0,
        le=60,
        description="when a request without an answer becomes a straggler (hedge, adaptive: at first)",
    )
    deadline_quantile: float = Field(
        0.95, ge=0.5, le=0.999, description="hedge, adaptive: the deadline is this quantile of what first copies take"
    )
    shortest_deadline_s: float = Field(0.001, gt=0, description="hedge, adaptive: bound of the deadline")
    longest_deadline_s: float = Field(10.0, gt=0, le=60, description="hedge, adaptive: bound of the deadline")
    group_wait_s: float = Field(
        0.05, ge=0, le=60, description="how long an open group may wait for members before it closes with empty cells"
    )
    detection_threshold: float | None = Field(
        None, ge=0, le=1, description="detections below this confidence are dropped; the model's own if not given"
    )
    accept_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="a coded answer below this confidence is unsure: replicate instead; if not given, "
        "the model's own (adaptive) or 0 (others)",
    )
    patience: float = Field(
        1.15, ge=1, description="adaptive: a straggler gets an unsure coded answer after this many deadlines"
    )
    extra_load: float = Field(
        0.25, ge=0, le=2, description="budget: redundant requests sent per ordinary one, collages and replicas together"
    )
    audit_share: float = Field(
        0.0, ge=0, le=1, description="share of coded answers whose late s-cnn is let finish, to compare"
    )
    timeout_s: float = Field(10.0, gt=0, le=600, description="longest a request may take; a caller's shorter one wins")
    max_in_flight: int = Field(1024, ge=1, description="requests admitted at once; more are refused")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="largest image accepted, width times height")
    image_threads: int = Field(2, ge=1, le=64, description="threads that decode images and build collages")

    def rules(self) -> Rules:
        """The rules of the chosen policy, with these limits."""
        own = {} if self.accept_threshold is None else {"accept": self.accept_threshold}
        if self.policy == "adaptive":
            own["patience"] = self.patience
        return Rules.named(
            self.policy,
            deadline=self.deadline_s,
            quantile=self.deadline_quantile,
            shortest=self.shortest_deadline_s,
            longest=self.longest_deadline_s,
            group_wait=self.group_wait_s,
            extra_load=self.extra_load,
            audit=self.audit_share,
            **own,
        )
