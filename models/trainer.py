"""The training loop: batches of a task, steps over them, checkpoints. It knows no task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models import checkpoint
from models.checkpoint import ModelSpec
from models.data import Dataset, Split, digest, placements
from models.distributed.team import Team
from models.layers import xavier
from models.lessons import Lessons, Teachers
from models.optim import optimisers
from models.steps import Recipe
from models.tasks import TrainingTask, task_of
from models.transfer import origin, start

ANCHORS = 500
"""Images whose statistics an exported model gets for its batch norm, which export folds away."""


class Trainer:
    """One run: the model, its optimisers, and steps over the batches of a task; by default that of the model's kind."""

    def __init__(
        self,
        spec: ModelSpec,
        data: Dataset,
        recipe: Recipe,
        device: str,
        precision: str,
        teachers: Teachers = Teachers(),  # noqa: B008 - immutable
        task: TrainingTask | None = None,
        team: Team | None = None,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.spec, self.data, self.recipe = spec, data, recipe
        self.device = torch.device(device)
        self.bfloat16 = precision == "bf16"
        self.team = team
        self.task = task or task_of(spec, recipe.blank)
        if team and recipe.minutes:
            raise ValueError("processes that share a run have no clock in common: give epochs, no minutes")
        if recipe.window > spec.size or (recipe.window and self.task.members > 1):
            raise ValueError(f"a window of {recipe.window} pixels: only for an s-cnn, and no larger than its images")
        size = recipe.window or spec.image_size
        self.lessons = Lessons(data, recipe, size, self.device, self.bfloat16, teachers)
        self.model = spec.build().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.xavier:
            xavier(self.model)
        self.optimisers = optimisers(
            self.model,
            muon_lr=recipe.muon_lr,
            sgd_lr=recipe.sgd_lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            bias_gain=recipe.bias_gain,
            dtype=torch.bfloat16 if self.bfloat16 else torch.float32,
            adam_lr=recipe.adam_lr,
        )
        self.peaks = [recipe.adam_lr] if recipe.adam_lr else [recipe.sgd_lr, recipe.muon_lr]
        self.mean: AveragedModel | None = None
        self.lessons.check(self.images_per_step)
        self.steps_per_epoch = len(data.train) // self.images_per_step
        if not self.steps_per_epoch:
            raise ValueError(f"{len(data.train)} training images are too few: one step takes {self.images_per_step}")
        self.steps = max(1, round(self.steps_per_epoch * recipe.epochs), recipe.least_steps)
        self.told: Callable[[float], object] = lambda share: None
        self.log: list[dict[str, float]] = []
        self.lineage: Mapping[str, Any] = {}

    @property
    def leads(self) -> bool:
        """Whether this process saves and reports: the only one, or rank 0."""
        return not self.team or self.team.ring.rank == 0

    @property
    def finished(self) -> bool:
        """Whether all steps of the recipe are done, or its time is over."""
        return self.done(len(self.log) * self.steps_per_epoch) >= 1

    def done(self, step: int, seconds: float = 0.0) -> float:
        """The share of the run that is over before a step, ``seconds`` after the last epoch that was finished.

        Of its steps, or of its time if that is more; the clock stands still between epochs.
        """
        spent = sum(entry["seconds"] for entry in self.log) + seconds
        return min(1.0, max(step / self.steps, spent / (60 * self.recipe.minutes or math.inf)))

    @property
    def result(self) -> nn.Module:
        """The model that the run is for: its running mean, if the recipe wants one."""
        return self.mean.module if self.mean else self.model

    @property
    def ranks(self) -> int:
        """Processes that share this run."""
        return self.team.ring.size if self.team else 1

    @property
    def images_per_step(self) -> int:
        """About the recipe's batch, of all ranks together, in whole inputs and as many for each; or all there are."""
        members = self.task.members
        inputs = min(round(self.recipe.batch / members), len(self.data.train) // members)
        return max(1, inputs // self.ranks) * self.ranks * members

    def run_epoch(self) -> dict[str, float]:
        """Train the next epoch; logs and returns its mean loss, validation score and seconds."""
        started = time.monotonic()
        if self.recipe.ema and self.mean is None:  # not before the run's own first weights are there
            self.mean = self._running_mean()
        loss = self._epoch(len(self.log))
        seconds = time.monotonic() - started
        self.log.append({"loss": loss, "validation": self.score(self.data.validation), "seconds": seconds})
        return self.log[-1]

    def save(self, path: Path) -> None:
        """Write a checkpoint from which ``resume`` goes on as if nothing had happened."""
        states = [optimiser.state_dict() for optimiser in self.optimisers]
        checkpoint.save(
            path,
            self.spec,
            self.result,
            recipe=asdict(self.recipe),
            **({"last": self.model.state_dict(), "steps": self.mean.n_averaged} if self.mean else {}),
            images=digest(self.data.train.ids),
            optimisers=states,
            log=self.log,
            lineage=self.lineage,
            finished=self.finished,
        )

    def resume(self, path: Path, held: bytes = b"") -> None:
        """Take over a checkpoint of the same run, or ``held``, the content of its file.

        Its minutes may differ. Raises ValueError if it belongs to another run, or to other images.
        """
        content = torch.load(BytesIO(held) if held else path, map_location=self.device, weights_only=True)
        images = digest(self.data.train.ids)
        if content.get("images", images) != images:
            raise ValueError(
                f"the data set changed since the run in {path} began: choose another file, or folder for --runs"
            )
        recipe = Recipe(**{**content["recipe"], "minutes": self.recipe.minutes})
        if ModelSpec(**content["spec"]) != self.spec or recipe != self.recipe:
            raise ValueError(f"{path} holds a run with other settings: choose another file")
        self.model.load_state_dict(content.get("last", content["model"]))
        if "last" in content:
            self.mean = self._running_mean()
            self.mean.module.load_state_dict(content["model"])
            self.mean.n_averaged = content["steps"]
        for optimiser, state in zip(self.optimisers, content["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.log = content["log"]
        self.lineage = content.get("lineage", {})

    def start_from(self, parents: Sequence[Path], teachers: Sequence[Path] = ()) -> int:
        """Begin a run: take over the weights of parents that fit, and record where the model comes from.

        Returns the number of tensors taken, see ``models.transfer.start``.
        """

        def sample() -> Tensor:
            rng = np.random.default_rng(self.recipe.seed)
            order = rng.permutation(len(self.data.train))  # folders are read class by class
            chosen = order[: min(ANCHORS, len(order)) // self.task.members * self.task.members]
            return self.spec.normalise(self.task.batch(*self.lessons.draw(chosen, rng), rng).pixels)

        self.lineage = origin(parents, teachers)
        return start(self.model, parents, sample) if parents else 0

    def _running_mean(self) -> AveragedModel:
        update = get_ema_multi_avg_fn(self.recipe.ema)  # type: ignore[no-untyped-call]
        return AveragedModel(self.model, multi_avg_fn=update, use_buffers=True)

    @torch.no_grad()
    def score(self, split: Split) -> float:
        """The task's mean score over a split, whose images are put together with a fixed seed."""
        model = self.result.eval()
        members = self.task.members
        count = max(1, 512 // members) * members
        order = np.concatenate(list(placements(split, members, seed=0)))
        ask, total = partial(self.spec.ask, model, bfloat16=self.bfloat16), 0.0
        for first in range(0, len(order), count):
            index = order[first : first + count]
            images = torch.from_numpy(split.images[index]).to(self.device)
            truth = torch.from_numpy(split.truth[index]).to(self.device)
            total += float(self.task.score(ask, images, truth).sum())
        return total / len(order)

    def _epoch(self, number: int) -> float:
        """Train one epoch (or what there are steps or time for of the last one); returns the mean loss."""
        rng = np.random.default_rng([self.recipe.seed, number])
        order = self._order(rng)
        if self.team:
            rng = np.random.default_rng([self.recipe.seed, number, self.team.ring.rank])
        first = number * self.steps_per_epoch
        begun = done = self.done(first)
        taken = 0
        self.model.train()
        # On the device until it is asked for, so that a GPU need not be waited for after every step.
        total, started = torch.zeros((), device=self.device), time.monotonic()
        while taken < min(self.steps_per_epoch, self.steps - first) and done < 1:
            self._schedule(done)
            index = order[taken * self.images_per_step : (taken + 1) * self.images_per_step]
            total += self._step(index, rng, done)
            taken += 1
            seconds = time.monotonic() - started
            done = self.done(first + taken, seconds)
            self.told(done)
            if taken % 50 == 0 and self.leads:
                loss, left = float(total) / taken, seconds * (1 - done) / (done - begun) / 60
                print(f"  step {first + taken}/{self.steps} loss {loss:.4f} {left:.1f} min left", flush=True)
        mean = float(total) / max(1, taken)
        if self.team:
            self.team.settle(self.model)
            mean = self.team.mean_of(mean)
        return mean

    def _order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The images of one epoch, group by group: each once, or those of groups out of a fixed set."""
        count = len(self.data.train)
        if not self.recipe.collages:
            return rng.permutation(count)
        members = self.task.members
        fixed = np.random.default_rng(self.recipe.seed).integers(0, count, (self.recipe.collages, members))
        chosen: NDArray[np.int64] = fixed[rng.integers(0, len(fixed), count // members)].reshape(-1)
        return chosen

    def _schedule(self, done: float) -> None:
        warm = min(1.0, (done + 1 / self.steps) / self.recipe.warmup) if self.recipe.warmup else 1.0
        decay = min(1.0, (1 - done) / (1 - self.recipe.warmup)) if self.recipe.decay else 1.0
        for optimiser, peak in zip(self.optimisers, self.peaks, strict=False):
            for group in optimiser.param_groups:
                group["lr"] = peak * group.get("gain", 1.0) * min(warm, decay)

    def _step(self, index: NDArray[np.int64], rng: np.random.Generator, done: float) -> Tensor:
        """One step over training images; ``done`` is the share of the run that lies behind. Returns the loss.

        In a team, the step takes this rank's share of the images, and the mean of all ranks' gradients.
        """
        index = self.team.share(index) if self.team else index
        batch = self.task.batch(*self.lessons.draw(index, rng), rng)
        x = self.spec.normalise(batch.pixels)
        if done < self.recipe.small_share:
            side = self.recipe.small_size * self.spec.k
            x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            out = self.model(x)
        loss = batch.loss(out)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.team:
            self.team.average(self.model)
        for optimiser in self.optimisers:
            optimiser.step()
        if self.mean:
            self.mean.update_parameters(self.model)
        return loss.detach()
