"""Train an s-cnn or a collage-cnn: ``python -m models.train --data DIR --model resnet34 --out runs/s-cnn.pt``.

The run saves a checkpoint after every epoch and resumes from it when called again with the same arguments.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from encoder.grid import Grid
from models import checkpoint
from models.augment import augment, cut_mix, normalise, tile, tiled
from models.checkpoint import ModelSpec
from models.collage_cnn import collage_loss
from models.data import Dataset, Split, digest, load, placements
from models.layers import default_precision, keep_memory
from models.optim import optimisers
from models.restore import EXPORTED, anchor
from models.transfer import same_classes, scores, stored, teach, warm_start

ANCHORS = 500
"""Images whose statistics an exported model gets for its batch norm, which export folds away."""


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are ours; ``paper()`` is the setting of Collage inference, section 5.1."""

    epochs: float = 10.0
    batch: int = 256  # images per step, or all there are; a collage of N counts as N
    muon_lr: float = 0.06  # for convolutions; 0 trains everything with SGD
    sgd_lr: float = 0.2
    bias_gain: float = 1.0  # rate of batch-norm biases and cell embeddings, in SGD's
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.1  # share of the run
    decay: bool = True  # linearly to zero
    smoothing: float = 0.1
    shift: int = 3  # pixels
    flip: bool = True
    crop: float = 0.0  # smallest share of an image's area in a random crop; 0: shift instead
    window: int = 0  # side of the part of an image that is seen, pixels; 0: all of it
    cutout: int = 0  # side of a square that is blackened, pixels
    mix: float = 0.0  # share of images into which a box of another is pasted
    blank: float = 0.02  # share of empty cells in training collages
    distil: float = 0.5  # weight of the teachers' answer in the target, if there are any
    small_size: int = 0  # train the first part of the run with images (or cells) of this side ...
    small_share: float = 0.0  # ... for this share of it
    collages: int = 0  # so many different collages, drawn once; 0: new ones every epoch
    seed: int = 0

    @classmethod
    def paper(cls, **changes: float) -> Recipe:
        """The paper's setting, with changes."""
        base = {"batch": 64, "muon_lr": 0.0, "sgd_lr": 0.001, "warmup": 0.0, "smoothing": 0.0, "blank": 0.0}
        return cls(**{**base, "decay": False, **changes})  # type: ignore[arg-type]


class Trainer:
    """One run: the model, its optimisers, and steps over batches.

    Live teachers are where the model is, in evaluation mode.
    """

    def __init__(
        self,
        spec: ModelSpec,
        data: Dataset,
        recipe: Recipe,
        device: str,
        precision: str,
        teacher: NDArray[np.float32] | None = None,
        live: Sequence[tuple[ModelSpec, nn.Module]] = (),
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.teacher = teacher
        self.spec, self.data, self.recipe = spec, data, recipe
        self.device = torch.device(device)
        self.bfloat16 = precision == "bf16"
        if recipe.window > spec.size or (recipe.window and spec.kind == "collage-cnn"):
            raise ValueError(f"a window of {recipe.window} pixels: only for an s-cnn, and no larger than its images")
        self.grid = Grid(spec.k, spec.size)
        self.boxes = torch.from_numpy(self.grid.boxes.copy()).to(self.device)
        self.model = spec.build().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimisers = optimisers(
            self.model,
            muon_lr=recipe.muon_lr,
            sgd_lr=recipe.sgd_lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            bias_gain=recipe.bias_gain,
            dtype=torch.bfloat16 if self.bfloat16 else torch.float32,
        )
        self.peaks = [recipe.sgd_lr, recipe.muon_lr]
        self.live = live
        for of, _ in live:
            same_classes(of, data)
            if self._images_per_step % of.k**2 or of.image_size != self._seen_size:
                raise ValueError(
                    f"a live teacher of {of.k} x {of.k} images in {of.size} pixels cannot look at "
                    f"{self._images_per_step} of {self._seen_size} pixels"
                )
        self.steps_per_epoch = len(data.train) // self._images_per_step
        if not self.steps_per_epoch:
            raise ValueError(f"{len(data.train)} training images are too few: one step takes {self._images_per_step}")
        self.steps = max(1, round(self.steps_per_epoch * recipe.epochs))
        self.log: list[dict[str, float]] = []

    @property
    def finished(self) -> bool:
        """Whether all steps of the recipe are done."""
        return len(self.log) * self.steps_per_epoch >= self.steps

    def run_epoch(self) -> dict[str, float]:
        """Train the next epoch; logs and returns its mean loss, validation accuracy and seconds."""
        started = time.monotonic()
        loss = self.epoch(len(self.log))
        seconds = time.monotonic() - started
        self.log.append({"loss": loss, "validation": self.accuracy(self.data.validation), "seconds": seconds})
        return self.log[-1]

    def save(self, path: Path) -> None:
        """Write a checkpoint from which ``resume`` goes on as if nothing had happened."""
        states = [optimiser.state_dict() for optimiser in self.optimisers]
        recipe, images = asdict(self.recipe), digest(self.data.train.ids)
        checkpoint.save(path, self.spec, self.model, recipe=recipe, images=images, optimisers=states, log=self.log)

    def resume(self, path: Path) -> None:
        """Take over a checkpoint of the same run; raises ValueError if it belongs to another, or to other images."""
        content = torch.load(path, map_location=self.device, weights_only=True)
        images = digest(self.data.train.ids)
        if content.get("images", images) != images:
            raise ValueError(
                f"the data set changed since the run in {path} began: choose another file, or folder for --runs"
            )
        if content["spec"] != asdict(self.spec) or Recipe(**content["recipe"]) != self.recipe:
            raise ValueError(f"{path} holds a run with other settings: choose another file")
        self.model.load_state_dict(content["model"])
        for optimiser, state in zip(self.optimisers, content["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.log = content["log"]

    def start_from(self, *sources: Path) -> int:
        """Take over what fits of another model, see ``warm_start``; returns how many tensors that are."""
        taken = warm_start(self.model, *sources)
        if any(source.suffix == EXPORTED for source in sources):
            rng = np.random.default_rng(self.recipe.seed)
            order = rng.permutation(len(self.data.train))  # folders are read class by class
            images, _ = self._augmented(order[: min(ANCHORS, len(order)) // self.grid.cells * self.grid.cells], rng)
            anchor(self.model, normalise(tiled(images.to(self.device), self.spec, self.grid), self.spec))
        return taken

    @property
    def _images_per_step(self) -> int:
        cells = self.grid.cells
        return max(1, min(round(self.recipe.batch / cells), len(self.data.train) // cells)) * cells

    @property
    def _seen_size(self) -> int:
        return self.recipe.window or self.spec.image_size

    def _targets(self, index: NDArray[np.int64], flipped: NDArray[np.bool_]) -> Tensor:
        """What to learn of these images: class probabilities, float32 ``[B, classes]``."""
        classes, smoothing = len(self.spec.labels), self.recipe.smoothing
        targets = np.full((len(index), classes), smoothing / classes, np.float32)
        targets[np.arange(len(index)), self.data.train.labels[index]] += 1 - smoothing
        if self.teacher is not None:
            targets += self.recipe.distil * (self.teacher[flipped.astype(int), index] - targets)
        return torch.from_numpy(targets)

    def _taught(self, images: Tensor, targets: Tensor) -> Tensor:
        """The targets with what the live teachers say of these very images, uint8 ``[B, H, W, 3]``.

        Student and teachers see the same variation (Beyer et al., "Knowledge distillation: A good teacher is patient
        and consistent").
        """
        if not self.live:
            return targets
        answers = [scores(model, spec, images, self.bfloat16).softmax(-1) for spec, model in self.live]
        return targets + self.recipe.distil * (torch.stack(answers).mean(0) - targets)

    def epoch(self, number: int) -> float:
        """Train one epoch (or what is left of the last one); returns the mean loss."""
        rng = np.random.default_rng([self.recipe.seed, number])
        order = self._order(rng)
        first = number * self.steps_per_epoch
        count = min(self.steps_per_epoch, self.steps - first)
        self.model.train()
        total, started = 0.0, time.monotonic()
        for i in range(count):
            self._schedule(first + i)
            index = order[i * self._images_per_step : (i + 1) * self._images_per_step]
            images, flipped = self._augmented(index, rng)
            targets = self._targets(index, flipped).to(self.device)
            total += self._step(images.to(self.device), targets, rng, (first + i) / self.steps)
            if i % 50 == 49:
                speed = (time.monotonic() - started) / (i + 1)
                left = (self.steps - first - i) * speed / 60
                print(f"  step {first + i + 1}/{self.steps} loss {total / (i + 1):.4f} {left:.1f} min left", flush=True)
        return total / max(1, count)

    def _augmented(self, index: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, NDArray[np.bool_]]:
        recipe = self.recipe
        variations: Any = {"shift": recipe.shift, "crop": recipe.crop, "flip": recipe.flip, "cutout": recipe.cutout}
        return augment(self.data.train.images[index], self._seen_size, rng, **variations)

    def _order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The images of one epoch, group by group: each once, or those of collages out of a fixed set."""
        count = len(self.data.train)
        if not self.recipe.collages:
            return rng.permutation(count)
        fixed = np.random.default_rng(self.recipe.seed).integers(0, count, (self.recipe.collages, self.grid.cells))
        chosen: NDArray[np.int64] = fixed[rng.integers(0, len(fixed), count // self.grid.cells)].reshape(-1)
        return chosen

    def _schedule(self, step: int) -> None:
        done = step / self.steps
        warm = min(1.0, (done + 1 / self.steps) / self.recipe.warmup) if self.recipe.warmup else 1.0
        decay = min(1.0, (1 - done) / (1 - self.recipe.warmup)) if self.recipe.decay else 1.0
        for optimiser, peak in zip(self.optimisers, self.peaks, strict=False):
            for group in optimiser.param_groups:
                group["lr"] = peak * group.get("gain", 1.0) * min(warm, decay)

    def _step(self, images: Tensor, targets: Tensor, rng: np.random.Generator, done: float) -> float:
        recipe = self.recipe
        images, targets = cut_mix(images, targets, recipe.mix, rng)
        targets = self._taught(images, targets)
        filled = torch.from_numpy(rng.random(len(targets)) >= recipe.blank).to(self.device)
        if self.spec.kind == "collage-cnn":
            images = tile(images * filled[:, None, None, None], self.grid)
        x = normalise(images, self.spec)
        if done < recipe.small_share:
            side = recipe.small_size * self.spec.k
            x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            out = self.model(x)
        if self.spec.kind == "collage-cnn":
            loss = collage_loss(out, targets.view(len(images), self.grid.cells, -1), filled, self.boxes)
        else:
            loss = F.cross_entropy(out.float(), targets)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in self.optimisers:
            optimiser.step()
        return loss.item()

    @torch.no_grad()
    def accuracy(self, split: Split) -> float:
        """Top-1 over a split; for collages over cells, read at their own position (a training-time estimate)."""
        self.model.eval()
        right = 0
        count = max(1, 512 // self.grid.cells) * self.grid.cells
        order = np.concatenate(list(placements(split, self.grid.cells, seed=0)))
        for start in range(0, len(order), count):
            index = order[start : start + count]
            images = torch.from_numpy(split.images[index]).to(self.device)
            labels = torch.from_numpy(split.labels[index]).to(self.device)
            out = scores(self.model, self.spec, images, self.bfloat16)
            right += int((out.argmax(-1) == labels).sum())
        return right / len(order)


def describe(data: Dataset, architecture: str, size: int, k: int, options: dict[str, object]) -> ModelSpec:
    """The description of a new model, with input statistics from the training images."""
    sample = data.train.images[:: max(1, len(data.train) // 2000)].astype(np.float64) / 255
    mean = tuple(round(float(value), 4) for value in sample.mean((0, 1, 2)))
    std = tuple(round(float(value), 4) for value in sample.std((0, 1, 2)))
    return ModelSpec(architecture, data.name, data.labels, size, k, mean, std, options=options)


def parser() -> argparse.ArgumentParser:
    """The command's arguments; every setting of ``Recipe`` that is a number is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--model", choices=sorted(checkpoint.ARCHITECTURES), required=True)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write, and to resume from")
    parser.add_argument("--size", type=int, default=32, help="side of an image or of a cell, pixels")
    parser.add_argument("--k", type=int, default=3, help="grid of a collage-cnn")
    parser.add_argument("--collage-size", type=int, help="side of the collage, pixels (default: k times --size)")
    parser.add_argument("--teacher", type=Path, help="checkpoint or .onnx file whose answers are learnt as well")
    parser.add_argument(
        "--live-teachers", type=Path, nargs="+", default=[], metavar="FILE",
        help="the same, asked anew about every image as it is seen, varied and mixed; their mean answer counts",
    )  # fmt: skip
    parser.add_argument(
        "--init", type=Path, nargs="+", metavar="FILE",
        help="checkpoint or .onnx file to start from: all that fits; of several the mean",
    )  # fmt: skip
    parser.add_argument("--widths", type=int, nargs="+", help="channels of each stage (collage-resnet, resnet18)")
    parser.add_argument("--blocks", type=int, nargs="+", help="blocks of each stage (collage-resnet)")
    parser.add_argument("--strides", type=int, nargs="+", help="stride of each stage (collage-resnet)")
    parser.add_argument("--pools", type=int, help="max-pools of stride 2 (collage-yolo)")
    parser.add_argument("--stem", help="imagenet or small (resnet); stride of the first convolution (collage-resnet)")
    parser.add_argument("--preset", choices=("ours", "paper"), default="ours")
    for setting in fields(Recipe):
        if setting.type != "bool":
            kind = {"int": int, "float": float}[str(setting.type)]
            parser.add_argument(f"--{setting.name.replace('_', '-')}", type=kind)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("bf16", "fp32"))
    parser.add_argument("--threads", type=int, help="CPU threads")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    args = parser().parse_args(arguments)
    keep_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    chosen = {
        setting.name: getattr(args, setting.name)
        for setting in fields(Recipe)
        if getattr(args, setting.name, None) is not None
    }
    recipe = Recipe.paper(**chosen) if args.preset == "paper" else Recipe(**chosen)
    collage = args.model.startswith("collage")
    k = args.k if collage else 1
    collage_size = (args.collage_size or args.size * k) if collage else args.size
    image_size = -(-collage_size // k)
    data = load(args.data, image_size, train_size=round(1.3 * image_size) if recipe.crop else None)
    options = {
        name: value for name in ("widths", "blocks", "strides", "pools", "stem") if (value := getattr(args, name))
    }
    if collage and args.stem:
        options["stem"] = int(args.stem)
    spec = describe(data, args.model, collage_size, k, options)
    precision = args.precision or default_precision(args.device)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        images = digest(data.train.ids)[:8]  # others have other answers
        answers = args.out.with_name(f"{args.teacher.stem}-{images}.npy") if args.teacher else None
        teacher = teach(args.teacher, args.data, args.device, data, answers) if answers else None
        live = [stored(path, args.device) for path in args.live_teachers]
        trainer = Trainer(spec, data, recipe, args.device, precision, teacher, live)
        if args.out.exists():
            trainer.resume(args.out)
            print(f"resuming after {len(trainer.log)} epochs")
        elif args.init:
            print(f"{trainer.start_from(*args.init)} tensors from {', '.join(map(str, args.init))}")
    except ValueError as error:
        raise SystemExit(str(error)) from None
    parameters = sum(weight.numel() for weight in trainer.model.parameters())
    print(f"{args.model} on {data.name}: {parameters / 1e6:.2f} M parameters, {trainer.steps} steps, {recipe}")
    while not trainer.finished:
        done = trainer.run_epoch()
        trainer.save(args.out)
        print(
            f"epoch {len(trainer.log)} loss {done['loss']:.4f} validation {done['validation']:.4f} "
            f"{done['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
