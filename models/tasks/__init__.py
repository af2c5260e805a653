"""What models are trained for: one file per task."""

from __future__ import annotations

from encoder.grid import Grid
from encoder.tasks import TaskName
from models.checkpoint import ModelSpec
from models.tasks.classification import ClassifyImages
from models.tasks.collage import ClassifyCollages
from models.tasks.localisation import LocaliseObjects
from models.tasks.task import AnsweringTask, SingleTask, TrainingTask

__all__ = ["SingleTask", "TrainingTask", "single_task_of", "task_of"]


def task_of(spec: ModelSpec, blank: float = 0.0) -> AnsweringTask:
    """What models of a kind are trained for; ``blank`` is the share of empty cells in training collages."""
    return ClassifyCollages(Grid(spec.k, spec.size), blank) if spec.kind == "collage-cnn" else single_task_of(spec)


def single_task_of(spec: ModelSpec) -> SingleTask:
    """What models that take one image are trained for."""
    return LocaliseObjects() if spec.task == TaskName.LOCALISATION else ClassifyImages()
