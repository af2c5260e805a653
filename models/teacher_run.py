"""The loop that trains a teacher: steps until its time or its epochs are spent, and checkpoints to resume from.

Source of the method: Jordan, "94 % on CIFAR-10 in 3.29 seconds on a single GPU" (alternating flip: section 3.6), and
"Muon: an optimizer for hidden layers".
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models import checkpoint
from models.augment import windowed
from models.checkpoint import ModelSpec
from models.data import Dataset, Split, digest
from models.optim import Muon
from models.steps import TeacherRecipe
from models.transfer import origin, start
from models.wide import WideNet

WHITENED_FROM, ANCHORS = 5000, 500
"""Training images from which the first layer is computed, and a new run's batch norm after an exported file."""


class TeacherRun:
    """One run: the model, its optimisers, and steps over batches until time or epochs are spent."""

    def __init__(self, spec: ModelSpec, data: Dataset, recipe: TeacherRecipe, device: str, precision: str) -> None:
        if not recipe.minutes and not recipe.epochs:
            raise ValueError("a run without an end: give minutes or epochs")
        if not 0 <= recipe.skip < 1:
            raise ValueError(f"an epoch leaves out {recipe.skip} of the easy images: must be less than 1")
        if len(data.train) < recipe.batch:
            raise ValueError(f"{len(data.train)} training images are too few: one step takes {recipe.batch}")
        torch.manual_seed(recipe.seed)
        self.spec, self.data, self.recipe = spec, data, recipe
        self.device, self.bfloat16 = torch.device(device), precision == "bf16"
        model = spec.build()
        if not isinstance(model, WideNet):
            raise ValueError(f"{spec.architecture} has no first layer that is computed from images")  # noqa: TRY004
        model.whiten_from(spec.normalise(torch.from_numpy(data.train.images[self._sample()])))
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimisers = self._optimisers(torch.bfloat16 if self.bfloat16 else torch.float32)
        self.peaks = [[group["lr"] for group in optimiser.param_groups] for optimiser in self.optimisers]
        margin = recipe.shift
        padded = np.pad(data.train.images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), "reflect")
        self.padded = torch.from_numpy(padded).to(self.device)
        self.losses = np.full(len(data.train), np.inf, np.float32)  # of each image, when it was last seen
        self.step, self.seconds, self.epoch, self.place, self.steps_of_epoch = 0, 0.0, 0, 0, 1
        self._begin(0)
        self.log: list[dict[str, float]] = []
        self.lineage = origin([], [])
        self.finished = False

    def _sample(self) -> NDArray[np.int64]:
        order = np.random.default_rng(self.recipe.seed).permutation(len(self.data.train))
        return order[:WHITENED_FROM]

    def _optimisers(self, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
        recipe, model = self.recipe, self.model
        convolutions = [weight for weight in model.groups.parameters() if weight.ndim == 4]
        offsets = [weight for name, weight in model.groups.named_parameters() if name.endswith("bias")]
        chosen = (([model.whiten.bias, *offsets], recipe.bias_lr), ([model.head.weight], recipe.head_lr))
        sgd = torch.optim.SGD(
            [
                {"params": weights, "lr": rate * recipe.batch, "weight_decay": recipe.weight_decay / rate}
                for weights, rate in chosen
            ],
            momentum=recipe.momentum,
            nesterov=True,
        )
        return [sgd, Muon(convolutions, recipe.muon_lr, recipe.muon_momentum, dtype)]

    @property
    def done(self) -> float:
        """The share of the run that is over, 0 to 1."""
        spent = self.seconds / (60 * self.recipe.minutes or math.inf)
        return min(1.0, max(spent, self.epochs / (self.recipe.epochs or math.inf)))

    @property
    def epochs(self) -> float:
        """The epochs that are over."""
        return self.epoch + self.place / self.steps_of_epoch

    def _begin(self, epoch: int) -> None:
        """Choose the images of an epoch, and their weights in the loss.

        Some easy images are left out, and the others of them count for more, so that the expected gradient stays (Qin
        et al., "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning").
        """
        skip = self.recipe.skip if self.done < self.recipe.whole_from else 0.0
        rng = np.random.default_rng([self.recipe.seed, epoch, 2])
        seen = np.isfinite(self.losses)
        easy = self.losses < (self.losses[seen].mean() if seen.any() else 0.0)
        left_out = easy & (rng.random(len(easy)) < skip)
        weights = np.where(easy, 1 / (1 - skip), 1.0) * ~left_out
        if np.count_nonzero(weights) < self.recipe.batch:
            weights = np.ones(len(easy))
        self.epoch, self.place = epoch, 0
        self.weights = weights.astype(np.float32)
        self._arrange()

    def _arrange(self) -> None:
        order = np.random.default_rng([self.recipe.seed, self.epoch]).permutation(len(self.weights))
        self.order = order[self.weights[order] > 0]
        self.steps_of_epoch = len(self.order) // self.recipe.batch

    def advance(self) -> float:
        """Train one step; returns its loss. The clock counts all of it."""
        started = time.monotonic()
        if self.place == self.steps_of_epoch:
            self._begin(self.epoch + 1)
        index = self.order[self.place * self.recipe.batch : (self.place + 1) * self.recipe.batch]
        done = self.done
        for optimiser, peaks in zip(self.optimisers, self.peaks, strict=True):
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * (1 - done)
        self.model.whiten.bias.requires_grad_(done < self.recipe.whiten_share)
        self.model.train()
        x = self.spec.normalise(self.varied(index, self.epoch))
        labels = torch.from_numpy(self.data.train.labels[index]).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            out = self.model(x)
        each = F.cross_entropy(out.float(), labels, label_smoothing=self.recipe.smoothing, reduction="none")
        loss = (each * torch.from_numpy(self.weights[index]).to(self.device)).mean()
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in self.optimisers:
            optimiser.step()
        self.losses[index] = each.detach().cpu().numpy()
        value = each.mean().item()
        self.step, self.place = self.step + 1, self.place + 1
        self.seconds += time.monotonic() - started
        return value

    def varied(self, index: NDArray[np.int64], epoch: int) -> Tensor:
        """These training images as they look in this epoch: shifted at random, and mirrored every other epoch.

        Which images begin mirrored is drawn once. Returns uint8 ``[B, H, W, 3]``.
        """
        size = self.spec.size
        rng = np.random.default_rng([self.recipe.seed, epoch, int(index[0])])
        rows = rng.integers(0, 2 * self.recipe.shift + 1, (len(index), 1)) + np.arange(size)
        columns = rng.integers(0, 2 * self.recipe.shift + 1, (len(index), 1)) + np.arange(size)
        begins = np.random.default_rng([self.recipe.seed, 1]).integers(0, 2, len(self.data.train))[index]
        mirrored = (begins + epoch) % 2 == 1
        columns = np.where(mirrored[:, None], columns[:, ::-1], columns)
        return windowed(self.padded[torch.from_numpy(index).to(self.device)], rows, columns)

    @torch.no_grad()
    def accuracy(self, split: Split, views: int | None = None, batch: int = 500) -> float:
        """Top-1 over a split, with the model's own views or others."""
        self.model.eval()
        before, self.model.views = self.model.views, views or self.model.views
        right = 0
        for first in range(0, len(split), batch):
            images = torch.from_numpy(split.images[first : first + batch]).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                out = self.model(self.spec.normalise(images))
            right += int((out.argmax(-1).cpu().numpy() == split.labels[first : first + batch]).sum())
        self.model.views = before
        return right / len(split)

    def save(self, path: Path) -> None:
        """Write a checkpoint from which ``resume`` goes on at the same step."""
        checkpoint.save(
            path,
            self.spec,
            self.model,
            recipe={**asdict(self.recipe), "epochs": self.step * self.recipe.batch / len(self.data.train)},
            images=digest(self.data.train.ids),
            optimisers=[optimiser.state_dict() for optimiser in self.optimisers],
            step=self.step,
            place=[self.epoch, self.place],
            losses=torch.from_numpy(self.losses),
            weights=torch.from_numpy(self.weights),
            seconds=self.seconds,
            log=self.log,
            lineage=self.lineage,
            finished=self.finished,
        )

    def start_from(self, source: Path) -> int:
        """Take over the weights of a checkpoint or of an exported file; returns the number of tensors that fit."""
        images = torch.from_numpy(self.data.train.images[self._sample()[:ANCHORS]]).to(self.device)
        self.lineage = origin([source], [])
        return start(self.model, [source], lambda: self.spec.normalise(images))

    def resume(self, path: Path) -> None:
        """Take over a checkpoint of the same run.

        Minutes, epochs and views may differ. Raises ValueError if the file belongs to another run, or to other images.
        """
        content = torch.load(path, map_location=self.device, weights_only=True)
        if content.get("images") != digest(self.data.train.ids):
            raise ValueError(f"the data set changed since the run in {path} began: choose another file")
        ends = {"minutes": self.recipe.minutes, "epochs": self.recipe.epochs}
        for spec in (content["spec"], own := asdict(self.spec)):
            spec["options"].pop("views", None)
        if content["spec"] != own or {**content["recipe"], **ends} != asdict(self.recipe):
            raise ValueError(f"{path} holds a run with other settings: choose another file")
        self.model.load_state_dict(content["model"])
        for optimiser, state in zip(self.optimisers, content["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.step, self.seconds, self.log = content["step"], content["seconds"], content["log"]
        self.lineage = content.get("lineage", self.lineage)
        self.epoch, self.place = content["place"]
        self.losses, self.weights = content["losses"].cpu().numpy(), content["weights"].cpu().numpy()
        self._arrange()

    def run(self, path: Path, every: int) -> None:
        """Train to the end, with a checkpoint in ``path`` every ``every`` steps, after every epoch and at the end.

        The validation accuracy of a single view is measured after every epoch, that of the model's own views at the
        end; the clock stands still meanwhile. A run that is over gets its own views: they may be others than before.
        """
        losses: list[float] = []
        while self.done < 1:
            losses.append(self.advance())
            if self.place == self.steps_of_epoch or self.done == 1:
                self._note(losses)
                losses = []
                self.save(path)
            elif self.step % every == 0:
                print(f"  step {self.step} loss {np.mean(losses):.4f} {self.seconds / 60:.1f} min", flush=True)
                self.save(path)
        if not self.log:  # less time than before, and all of it spent
            self._note([math.nan])
        self.log[-1]["validation"] = self.accuracy(self.data.validation)
        print(f"validation {self.log[-1]['validation']:.4f} with {self.model.views} views", flush=True)
        self.finished = True
        self.save(path)

    def _note(self, losses: Sequence[float]) -> None:
        """Measure and log what became of an epoch, or of the part of it that there was time for."""
        seconds = self.seconds - sum(entry["seconds"] for entry in self.log)
        accuracy = self.accuracy(self.data.validation, views=1)
        self.log.append(
            {
                "loss": float(np.mean(losses)),
                "images": len(self.order),
                "seconds": seconds,
                "validation_one_view": accuracy,
                "validation": accuracy,
            }
        )
        print(f"epoch {self.epochs:.2f} {self.seconds / 60:.1f} min, {self.done:.1%}: {self.log[-1]}", flush=True)
