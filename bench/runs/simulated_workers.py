"""Training by several workers that are threads of one process: the accuracy of a way to add gradients up."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from collage.figures import Row
from models.checkpoint import ModelSpec
from models.data import load
from models.distributed import ADDITIONS, GradiVeQ
from models.distributed.links import MemoryLink
from models.distributed.ring import Ring, whole_bytes
from models.distributed.team import Team
from models.layers import default_precision
from models.steps import Recipe
from models.train import describe
from models.trainer import Trainer

PATIENCE_S = 3600.0
"""A worker waits for another's whole step, and its validation."""


def train(folder: Path, model: str, options: dict[str, object], workers: int, addition: str, recipe: Recipe) -> Row:
    """Train on a data set of 32 pixels and test; ``explained`` are shares by stage, one text for each epoch."""
    data = load(folder, 32)
    spec: ModelSpec = describe(data, model, 32, 1, options)
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    runs = [
        Trainer(spec, data, recipe, "cpu", default_precision("cpu"), team=Team(Ring(link), ADDITIONS[addition]))
        for link in MemoryLink.ring(workers, PATIENCE_S)
    ]
    first = runs[0]
    explained = []
    with ThreadPoolExecutor(workers) as pool:
        while not first.finished:
            list(pool.map(Trainer.run_epoch, runs))
            used = first.team.addition if first.team else None
            if isinstance(used, GradiVeQ):
                explained.append(" ".join(f"{share:.3f}" for share in used.explained))
            print(f"{addition} epoch {len(first.log)}: {first.log[-1]}", flush=True)
    sent = first.team.sent if first.team else 0
    weights = sum(weight.numel() for weight in first.model.parameters())
    return {
        "dataset": data.name,
        "images": len(data.test),
        "top1": first.score(data.test),
        "epochs": recipe.epochs,
        "steps": first.steps,
        "bytes": sent / first.steps,
        "bytes_plain": whole_bytes(weights, workers),
        "explained": "; ".join(explained) or None,
        "seconds": math.fsum(epoch["seconds"] for epoch in first.log),
        "mbit_s": None,
        "communication_s": None,
        "compute_s": None,
        "step_s": None,
    }
