"""Train an s-cnn or a collage-cnn: ``python -m models.train --data DIR --model resnet34 --out runs/s-cnn.pt``.

The run saves a checkpoint after every epoch and resumes from it when called again with the same arguments.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from encoder.tasks import TaskName
from models import coding, photos
from models.checkpoint import ARCHITECTURES, ModelSpec
from models.data import Dataset, digest, load
from models.distributed import ADDITIONS, launch
from models.distributed.links import TIMEOUT_S
from models.distributed.ring import RankLost, Ring
from models.distributed.team import Team
from models.flag_help import DEVICE_HELP, HELP, PRECISION_HELP
from models.layers import default_precision, keep_memory
from models.learned_code import CodeNetworks
from models.lessons import Teachers, gather, same_classes, teach
from models.measure import OnnxModel
from models.steps import S_CNN, Protection, Recipe, Step
from models.tasks import TrainingTask, single_task_of
from models.tasks.learned import LearnCode
from models.tasks.parity import ProtectGroups
from models.trainer import Trainer
from models.transfer import stored

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PAUSE_S = 20.0
"""Between checkpoints of a run whose time is limited: on a GPU an epoch takes seconds."""
OPTIONS = ("widths", "blocks", "strides", "pools", "stem")
"""Arguments of the architectures that the command knows."""


def describe(data: Dataset, architecture: str, size: int, k: int, options: dict[str, object]) -> ModelSpec:
    """The description of a new model, with input statistics from the training images."""
    sample = data.train.images[:: max(1, len(data.train) // 2000)].astype(np.float64) / 255
    mean = tuple(round(float(value), 4) for value in sample.mean((0, 1, 2)))
    std = tuple(round(float(value), 4) for value in sample.std((0, 1, 2)))
    return ModelSpec(architecture, data.name, data.labels, size, k, mean, std, options=options)


def run(
    step: Step,
    data: Path,
    out: Path,
    source: Callable[[str], Path] = Path,
    device: str = DEVICE,
    precision: str | None = None,
    threads: int | None = None,
    told: Callable[[float], object] = lambda share: None,
    team: Team | None = None,
) -> None:
    """Carry out a step on the data set in a folder, from its last checkpoint if ``out`` is there already.

    ``source`` finds the file of a parent or teacher. ``told`` hears the share of the run that is done, from 0 to 1,
    after every step. In a ``team`` every process calls this, and rank 0 reads and writes ``out``. Raises ValueError for
    a step that does not fit its data, its sources, or the run in ``out``, and RankLost if a process of the team ends.
    """
    keep_memory()
    if threads:
        torch.set_num_threads(threads)
    spec, trainer = _prepared(step, data, out, source, device, precision, team)
    trainer.told = told
    if team:
        team.settle(trainer.model)
    parameters = sum(weight.numel() for weight in trainer.model.parameters())
    if trainer.leads:
        size = f"{parameters / 1e6:.2f} M parameters"
        print(f"{step.model} on {spec.dataset}: {size}, {trainer.steps} steps, {step.recipe}")
    pause, saved = (PAUSE_S if step.recipe.minutes else 0.0), time.monotonic()
    while not trainer.finished:
        done = trainer.run_epoch()
        if not trainer.leads:
            continue
        if trainer.finished or time.monotonic() - saved >= pause:
            trainer.save(out)
            saved = time.monotonic()
        print(
            f"epoch {len(trainer.log)} loss {done['loss']:.4f} validation {done['validation']:.4f} "
            f"{done['seconds']:.0f} s",
            flush=True,
        )


def _prepared(
    step: Step,
    folder: Path,
    out: Path,
    source: Callable[[str], Path],
    device: str,
    precision: str | None,
    team: Team | None,
) -> tuple[ModelSpec, Trainer]:
    train_size = round(1.3 * step.image_size) if step.recipe.crop else None
    # Each rank asks the teachers itself, so that none waits for another.
    kept = out.parent / f"rank-{team.ring.rank}" if team and team.ring.rank else out.parent
    kept.mkdir(parents=True, exist_ok=True)
    teacher, live = source(step.teacher) if step.teacher else None, [source(name) for name in step.live_teachers]
    if step.unlabelled:
        if not teacher:
            raise ValueError("photos without labels need a teacher: give --teacher FILE.onnx")
        s_cnn = OnnxModel(teacher, threads=torch.get_num_threads())
        bare = photos.load(folder, s_cnn.info.labels, step.image_size, train_size)
        data, answers = photos.answered(bare, s_cnn, folder, kept)
        # A flipped photo has the answer of the photo itself, which halves the time of asking.
        teachers = Teachers(np.broadcast_to(answers, (2, *answers.shape)))
    else:
        data = load(folder, step.image_size, train_size)
        teachers = gather(teacher, live, folder, device, data, kept)
    spec = describe(data, step.model, step.input_size, step.k, dict(step.options))
    precision = precision or default_precision(device)
    if spec.task == TaskName.LOCALISATION and (step.k > 1 or (step.protects and step.protects.code == coding.LEARNED)):
        raise ValueError(f"the targets of {data.name} are boxes, and boxes are for models of single images")
    task: TrainingTask | None = None
    if its := step.protects:
        base = base_model(source(step.base), spec, data, device)
        spec = replace(spec, code=coding.described(its), mean=base[0].mean, std=base[0].std)
        if its.code == coding.LEARNED:
            task = LearnCode(its.members, its.inputs, step.recipe.member, step.recipe.distil)
        else:
            teachers = stored_outputs(step, source(step.base), folder, data, device, out.parent)
            task = protecting(spec, step.recipe, base, precision, stored=teachers.outputs is not None)
    trainer = Trainer(spec, data, step.recipe, device, precision, teachers, task, team=team)
    if isinstance(trainer.model, CodeNetworks):
        trainer.model.protect(base[1], spec.mean, spec.std)
    held = out.read_bytes() if trainer.leads and out.exists() else b""
    held = team.told(held) if team else held
    if held:
        trainer.resume(out, held)
        if trainer.leads:
            print(f"resuming after {len(trainer.log)} epochs")
        return spec, trainer
    parents = [source(name) for name in step.parents]
    taken = trainer.start_from(parents, [source(name) for name in step.teachers])
    if parents:
        print(f"{taken} tensors from {', '.join(map(str, parents))}")
    return spec, trainer


def base_model(path: Path, spec: ModelSpec, data: Dataset, device: str) -> tuple[ModelSpec, nn.Module]:
    """The base model in a file; raises ValueError for one of other classes, or of another size than ``spec``."""
    its, model = stored(path, device)
    same_classes(its, data)
    if its.size != spec.size or its.kind != S_CNN:
        raise ValueError(f"{path} is a {its.kind} for {its.size} pixels: a base model for {spec.size} pixels is needed")
    return its, model


def stored_outputs(step: Step, base: Path, folder: Path, data: Dataset, device: str, kept: Path) -> Teachers:
    """The base model's outputs for all training images, if they are to be learnt, or do not depend on how one is seen.

    That is where nothing but the flip of an image varies.
    """
    recipe = step.recipe
    if not recipe.stale and (recipe.shift or recipe.crop or recipe.cutout or recipe.mix):
        return Teachers()
    file = kept / f"{base.stem}-{digest(data.train.ids)[:8]}-outputs.npy"
    outputs = teach(base, folder, device, data, file, raw=True)
    return Teachers(outputs=np.broadcast_to(outputs[0], outputs.shape) if recipe.stale else outputs)


def protecting(
    spec: ModelSpec, recipe: Recipe, base: tuple[ModelSpec, nn.Module], precision: str, *, stored: bool
) -> ProtectGroups:
    """What a parity model of ``spec`` is trained for; ``stored``: the base model's outputs come with the targets."""
    if spec.code is None:
        raise ValueError("a parity model needs a code")
    ask = partial(base[0].ask, base[1], bfloat16=precision == "bf16")
    code = coding.built(spec.code, spec.size)
    return ProtectGroups(code, spec.code.row, ask, recipe.member, recipe.distil, stored, single_task_of(base[0]))


def parser() -> argparse.ArgumentParser:
    """The command's arguments; every setting of ``Recipe`` is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--model", choices=sorted(ARCHITECTURES), required=True, help="the network")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write, and to resume from")
    parser.add_argument("--size", type=int, default=32, help="side of an image or of a cell, pixels")
    parser.add_argument("--k", type=int, default=3, help="grid of a collage-cnn")
    parser.add_argument("--collage-size", type=int, help="side of the collage, pixels (default: k times --size)")
    parser.add_argument("--teacher", help="checkpoint or .onnx file whose answers are learnt as well")
    parser.add_argument(
        "--unlabelled",
        action="store_true",
        help="learn nothing but the answers of --teacher, an .onnx s-cnn of any origin: photos need no labels",
    )
    parser.add_argument(
        "--live-teachers", nargs="+", default=[], metavar="FILE",
        help="checkpoints or .onnx files that are asked about every image as it is seen, varied and mixed; "
        "their mean answer is learnt as well",
    )  # fmt: skip
    parser.add_argument(
        "--init", nargs="+", default=[], metavar="FILE",
        help="checkpoint or .onnx file to start from: all that fits; of several the mean",
    )  # fmt: skip
    parser.add_argument("--code", choices=coding.CODES, help="train a parity model for this code, and --base")
    parser.add_argument("--base", help="checkpoint or .onnx file of the base model that a parity model stands in for")
    parser.add_argument("--members", type=int, default=2, help="requests of a group of --code")
    parser.add_argument("--inputs", type=int, default=1, help="redundant inputs of a group of --code")
    parser.add_argument("--row", type=int, default=0, help="redundant input that is learnt, from 0")
    parser.add_argument("--keyed", action="store_true", help="turn every member's image in another way (addition)")
    parser.add_argument("--widths", type=int, nargs="+", help="channels of stages (collage-resnet, resnet18, vgg11)")
    parser.add_argument("--blocks", type=int, nargs="+", help="blocks of each stage (collage-resnet)")
    parser.add_argument("--strides", type=int, nargs="+", help="stride of each stage (collage-resnet)")
    parser.add_argument("--pools", type=int, help="max-pools of stride 2 (collage-yolo)")
    parser.add_argument("--stem", help="imagenet or small (resnet); stride of the first convolution (collage-resnet)")
    parser.add_argument(
        "--preset", choices=("ours", "paper"), default="ours", help="settings that are not given (ours)"
    )
    for setting in fields(Recipe):
        kind = _KINDS[str(setting.type)]
        parser.add_argument(f"--{setting.name.replace('_', '-')}", type=kind, help=HELP[setting.name])
    parser.add_argument("--device", default=DEVICE, help=DEVICE_HELP)
    parser.add_argument("--precision", choices=("bf16", "fp32"), help=PRECISION_HELP)
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes on this machine that share every batch (%(default)s); torchrun starts them on several",
    )
    parser.add_argument(
        "--addition",
        choices=tuple(ADDITIONS),
        default="none",
        help="how they add their gradients up: none compresses nothing (%(default)s)",
    )
    parser.add_argument(
        "--timeout-s", type=float, default=TIMEOUT_S, help="how long one waits for another (%(default)s)"
    )
    return parser


def _switch(text: str) -> bool:
    return bool(("0", "1").index(text))  # ValueError for anything else


_KINDS: Mapping[str, Callable[[str], float]] = {"int": int, "float": float, "bool": _switch}


def step_of(args: argparse.Namespace) -> Step:
    """The step that the command's arguments describe."""
    given = {setting.name: getattr(args, setting.name, None) for setting in fields(Recipe)}
    chosen = {name: value for name, value in given.items() if value is not None}
    collage = args.model.startswith("collage")
    if bool(args.code) != bool(args.base):
        raise ValueError("a parity model needs both --code and --base")
    if (args.code == coding.LEARNED) != args.model.startswith(coding.LEARNED):
        raise ValueError("--code learned goes with the models learned-conv and learned-mlp, and with no others")
    if args.code and args.model.startswith("collage"):
        raise ValueError(f"{args.model} is for collages: a parity model has the base model's network")
    protects = Protection(args.code, args.members, args.inputs, args.row, args.keyed) if args.code else None
    options = {name: value for name in OPTIONS if (value := getattr(args, name))}
    if collage and args.stem:
        options["stem"] = int(args.stem)
    return Step(
        args.model,
        size=args.size,
        k=args.k if collage else 1,
        collage_size=args.collage_size or 0 if collage else 0,
        options=options,
        recipe=preset(protects, **chosen) if args.preset == "paper" else Recipe(**chosen),
        protects=protects,
        base=args.base or "",
        parents=tuple(args.init),
        teacher=args.teacher or "",
        live_teachers=tuple(args.live_teachers),
        unlabelled=args.unlabelled,
    )


def preset(protects: Protection | None, **chosen: float) -> Recipe:
    """The paper's settings, with changes: of the one that is about this kind of model."""
    return Recipe.parm(protects.members, **chosen) if protects else Recipe.paper(**chosen)


def flags(step: Step, source: Callable[[str], Path] = Path) -> list[str]:
    """The command's arguments for a step of the preset ``ours``: ``step_of`` undone."""
    plain = Recipe()
    words = ["--model", step.model, "--size", str(step.size)]
    words += ["--k", str(step.k)] if step.k > 1 else []
    words += ["--collage-size", str(step.collage_size)] if step.collage_size else []
    for name, value in step.options.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    for name, value in asdict(step.recipe).items():
        if value != getattr(plain, name):
            words += [f"--{name.replace('_', '-')}", str(int(value) if isinstance(value, bool) else value)]
    if its := step.protects:
        words += ["--code", its.code, "--members", str(its.members), "--base", str(source(step.base))]
        words += ["--inputs", str(its.inputs), "--row", str(its.row), *(["--keyed"] if its.keyed else [])]
    for flag, names in (
        ("--teacher", (step.teacher,) if step.teacher else ()),
        ("--live-teachers", step.live_teachers),
        ("--init", step.parents),
    ):
        words += [flag, *(str(source(name)) for name in names)] if names else []
    return [*words, *(["--unlabelled"] if step.unlabelled else [])]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    args = parser().parse_args(arguments)
    if args.workers > 1 and not launch.is_member():
        words = sys.argv[1:] if arguments is None else arguments
        raise SystemExit(launch.start(["-m", "models.train", *words], args.workers))
    try:
        with launch.joined(args.timeout_s) if launch.is_member() else nullcontext() as link:
            team = Team(Ring(link), ADDITIONS[args.addition]) if link else None
            run(step_of(args), args.data, args.out, Path, args.device, args.precision, args.threads, team=team)
    except RankLost as error:
        raise SystemExit(f"{error}: the same command goes on after the last epoch that was finished") from None
    except (ValueError, OSError, dist.DistError) as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit("stopped: the same command goes on after the last epoch that was finished") from None


if __name__ == "__main__":
    main()
