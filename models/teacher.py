"""Train a strong s-cnn within a given time: ``python -m models.teacher --data DIR --minutes 100 --out runs/wide.pt``.

The learning rate falls to zero over ``--minutes`` of training, however many steps fit, or over ``--epochs``, whichever
ends first. The run saves a checkpoint every ``--every`` steps and resumes from it when called again; time between the
checkpoint and the interruption is not counted. Called again with more minutes, it goes on at the rate that belongs to
the share of them that is spent.

The method is described in ``models.teacher_run``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch

from models.data import load
from models.flag_help import DEVICE_HELP, HELP, PRECISION_HELP
from models.layers import default_precision, keep_memory
from models.steps import TeacherRecipe, TeacherStep
from models.teacher_run import TeacherRun
from models.train import DEVICE, describe

EVERY = 20
"""Steps between checkpoints."""
OPTIONS = ("widths", "depth", "views")
"""Arguments of the network that the command knows."""


def run(
    step: TeacherStep,
    folder: Path,
    out: Path,
    source: Callable[[str], Path] = Path,
    device: str = DEVICE,
    precision: str | None = None,
    threads: int | None = None,
    every: int = EVERY,
) -> None:
    """Carry out a step on the data set in a folder, from where the run in ``out`` stopped if that is there already.

    ``source`` finds the file that the step starts from. Raises ValueError for a step that does not fit its data, its
    source, or the run in ``out``.
    """
    keep_memory()
    if threads:
        torch.set_num_threads(threads)
    data = load(folder, step.size)
    out.parent.mkdir(parents=True, exist_ok=True)
    spec = describe(data, step.model, step.size, step.k, dict(step.options))
    teacher = TeacherRun(spec, data, step.recipe, device, precision or default_precision(device))
    if out.exists():
        teacher.resume(out)
        print(f"resuming after step {teacher.step}, {teacher.seconds / 60:.1f} minutes")
    elif step.init:
        print(f"{teacher.start_from(source(step.init))} tensors from {source(step.init)}")
    parameters = sum(weight.numel() for weight in teacher.model.parameters())
    print(f"{parameters / 1e6:.2f} M parameters, {step.recipe}", flush=True)
    teacher.run(out, every)


def parser() -> argparse.ArgumentParser:
    """The command's arguments; every setting of ``TeacherRecipe`` is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write, and to resume from")
    parser.add_argument(
        "--init", type=Path, metavar="FILE", help="checkpoint or .onnx file of such a net to start from"
    )
    parser.add_argument("--size", type=int, default=32, help="side of an image, pixels")
    parser.add_argument("--widths", type=int, nargs="+", help="channels of each group of convolutions")
    parser.add_argument("--depth", type=int, help="convolutions in a group")
    parser.add_argument("--views", type=int, choices=(1, 2, 6), help="views that an answer is the mean of")
    parser.add_argument("--every", type=int, default=EVERY, help="steps between checkpoints")
    for setting in fields(TeacherRecipe):
        kind = {"int": int, "float": float}[str(setting.type)]
        parser.add_argument(
            f"--{setting.name.replace('_', '-')}", type=kind, default=setting.default, help=HELP[setting.name]
        )
    parser.add_argument("--device", default=DEVICE, help=DEVICE_HELP)
    parser.add_argument("--precision", choices=("bf16", "fp32"), help=PRECISION_HELP)
    parser.add_argument("--threads", type=int, help="CPU threads")
    return parser


def step_of(args: argparse.Namespace) -> TeacherStep:
    """The step that the command's arguments describe."""
    recipe = TeacherRecipe(**{setting.name: getattr(args, setting.name) for setting in fields(TeacherRecipe)})
    options = {name: value for name in OPTIONS if (value := getattr(args, name))}
    return TeacherStep(args.size, options, recipe, str(args.init or ""))


def flags(step: TeacherStep, source: Callable[[str], Path] = Path) -> list[str]:
    """The command's arguments for a step: ``step_of`` undone."""
    plain, words = TeacherRecipe(), ["--size", str(step.size)]
    for name, value in step.options.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    for name, value in asdict(step.recipe).items():
        if value != getattr(plain, name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return [*words, *(["--init", str(source(step.init))] if step.init else [])]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    args = parser().parse_args(arguments)
    try:
        run(step_of(args), args.data, args.out, Path, args.device, args.precision, args.threads, args.every)
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
