"""The frontend's settings: flags (``--deadline-s 0.25``) or environment (``COLLAGE_DEADLINE_S=0.25``)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from collage.serving import ServerSettings
from encoder.image import MAX_PIXELS


class FrontendSettings(ServerSettings):
    """How to find workers, and what to do about stragglers. All times are in seconds."""

    s_cnn_workers: str = Field(
        description="s-cnn workers: host:port,host:port,... or dns:///name:port, resolved again and again"
    )
    collage_workers: str = Field("", description="collage-cnn workers, in the same form; empty for none")
    resolve_every_s: float = Field(5.0, gt=0, description="how often DNS names are resolved and workers are asked")
    policy: Literal["none", "replicate", "collage"] = Field("collage", description="what to do about stragglers")
    deadline_s: float = Field(0.25, gt=0, le=60, description="when a request without an answer becomes a straggler")
    group_wait_s: float = Field(
        0.05, ge=0, le=60, description="how long an open group may wait for members before it closes with empty cells"
    )
    detection_threshold: float | None = Field(
        None, ge=0, le=1, description="detections below this confidence are dropped; the model's own if not given"
    )
    accept_threshold: float = Field(
        0.0, ge=0, le=1, description="a coded answer below this confidence counts as unsure: replicate instead"
    )
    extra_load: float = Field(
        0.25, ge=0, le=2, description="budget: redundant requests sent per ordinary one, collages and replicas together"
    )
    timeout_s: float = Field(10.0, gt=0, le=600, description="longest a request may take; a caller's shorter one wins")
    max_in_flight: int = Field(1024, ge=1, description="requests admitted at once; more are refused")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="largest image accepted, width times height")
    image_threads: int = Field(2, ge=1, le=64, description="threads that decode images and build collages")
