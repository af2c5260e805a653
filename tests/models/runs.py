"""Training runs of a few seconds."""

from __future__ import annotations

from models.data import Dataset
from models.steps import Recipe
from models.train import describe
from models.trainer import Trainer

SPECS = {"resnet32": (1, {}), "collage-resnet": (2, {"widths": [8, 16, 16]})}


def trainer(data: Dataset, architecture: str, precision: str = "fp32", **changes: float) -> Trainer:
    k, options = SPECS[architecture]
    spec = describe(data, architecture, 16 * k, k, dict(options))
    return Trainer(spec, data, Recipe(**{"epochs": 2, "batch": 24, **changes}), "cpu", precision)  # type: ignore[arg-type]
