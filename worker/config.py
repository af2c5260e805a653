"""The worker's settings: flags (``--queue-size 32``) or environment (``COLLAGE_QUEUE_SIZE=32``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from collage.serving import ServerSettings
from encoder.image import MAX_PIXELS


class WorkerSettings(ServerSettings):
    """Which model to serve, and how."""

    sections: ClassVar[Mapping[str, str]] = {
        **ServerSettings.sections,
        "model": "the model",
        "slowdown": "injected slowness",
    }

    model: Path = Field(description="ONNX file; a plain one needs its description beside it in FILE.onnx.json")
    threads: int = Field(1, ge=1, le=256, description="threads of one inference; make it the pod's CPU limit")
    providers: str = Field(
        "CPU",
        description="ONNX Runtime's execution providers, the preferred one first, with commas between them (CUDA,CPU): "
        "those of the installed package, such as CUDA of onnxruntime-gpu or OpenVINO of onnxruntime-openvino",
    )
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="largest encoded image accepted, width times height")
    queue_size: int = Field(16, ge=0, description="calls that may wait behind the running one; more are refused")
    slowdown: str = Field(
        "off",
        description="injected slowness, for experiments: off, fixed:SECONDS, quantiles:FILE.json, trace:FILE.npy "
        "or a slice of it, trace:FILE.npy#START-END, bimodal:FAST,SLOW,SHARE, pareto:LEAST,SHAPE, "
        "persistent:FILE.json#INDEX/COUNT, mixture:FILE.json#INDEX/COUNT, switch:FILE (of these)",
    )
    slowdown_seed: int = Field(0, description="draws are a function of this seed, the request's id and its attempt")
    slowdown_scale: float = Field(1.0, ge=0, description="multiplies every draw")
