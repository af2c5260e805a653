"""What models are trained for: one file per task."""

from __future__ import annotations

from encoder.grid import Grid
from models.checkpoint import ModelSpec
from models.tasks.classification import ClassifyImages
from models.tasks.collage import ClassifyCollages
from models.tasks.task import ClassifyingTask, TrainingTask

__all__ = ["TrainingTask", "task_of"]


def task_of(spec: ModelSpec, blank: float = 0.0) -> ClassifyingTask:
    """What models of a kind are trained for; ``blank`` is the share of empty cells in training collages."""
    return ClassifyCollages(Grid(spec.k, spec.size), blank) if spec.kind == "collage-cnn" else ClassifyImages()
