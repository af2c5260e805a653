"""Build the zoo: ``python -m models.zoo --data data`` trains, exports and calibrates all it has data for.

Data sets are looked for in the given folders and right below them. Every step is left out where its result is there
already, and an interrupted training run goes on from its last epoch. Models that belong in the repository are written
to ``models/zoo``, all others to ``<runs>/zoo``. A data set of your own (``DIR/train/<class>/*.jpg``) gets an s-cnn and
a 3 x 3 collage-cnn.

With ``--code addition --members 2`` they get an s-cnn and its parity model for that code instead; of the public data
sets, the parity model is trained for which there is a recipe.

With ``--minutes 8 --device cuda`` the models of one data set that ship are trained within that time, and what they
learn from. Runs share it by what they cost. The same command without it exports them, here or on another machine, and
trains the others; ``--only`` chooses.

With ``--s-cnn mine.onnx`` the folder may hold any photos, without labels: a 3 x 3 collage-cnn learns to answer as that
model does, which may be of any origin (its input as its description says), and is written beside it.
"""

from __future__ import annotations

import argparse
import fnmatch
import math
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from collage.figures import write_figures
from collage.model_info import CLASSIFICATION, ModelKind
from models import calibrate, checkpoint, coding, own, photos, teacher, train
from models.data import digest, find, training_ids, validation_count
from models.export import export
from models.learned_export import export_networks
from models.measure import OnnxModel, describe, inference, medians
from models.progress import Building, cost
from models.recipes import FAMILIES, distilled
from models.recipes.parity import protecting
from models.restore import EXPORTED
from models.steps import CURVE, PRETRAINED, S_CNN, AnyStep, Family, Protection, Step, TeacherStep, limited, needed

ZOO = Path(__file__).parent / "zoo"
_TRAINED, _LEAST = 0.85, 0.001
"""Share of the time in which steps are taken, for the rest goes into data, validation and checkpoints; minutes."""
DEAR = 1.5
"""Times of an s-cnn's inference that a collage may take before a person is warned."""


@dataclass(frozen=True)
class Entry:
    """One model to be made of a data set."""

    data: Path
    """Folder of the data set."""
    role: str
    step: AnyStep
    """The run that trains it."""
    runs: str
    """Path of the checkpoints of this data set, up to the role."""
    onnx: Path
    """The file to export it to; of a learned code, its decoder."""
    taught_by: Sequence[AnyStep] = ()
    """The runs that train its live teachers."""

    @property
    def checkpoint(self) -> Path:
        """The file that its run writes."""
        return self.source(self.role)

    def source(self, role: str) -> Path:
        """The checkpoint of any role of the same data set; a shipped model, or any file, by its name."""
        return ZOO / role if role.endswith(EXPORTED) else Path(f"{self.runs}-{role}.pt")

    @property
    def data_set(self) -> str:
        """The name of the data set, as its models' files begin."""
        return self.checkpoint.stem.removesuffix(f"-{self.role}")

    @property
    def unlabelled(self) -> bool:
        """Whether it learns from photos without labels."""
        return isinstance(self.step, Step) and self.step.unlabelled

    @property
    def validation_images(self) -> int | None:
        """How many validation images there are; None for a public data set."""
        return photos.validation_count(self.data) if self.unlabelled else validation_count(self.data)

    @property
    def finished(self) -> bool:
        """Whether the checkpoint holds the whole run, over the images that there are now."""
        if not self.checkpoint.exists():
            return False
        content = checkpoint.read(self.checkpoint)
        ids = photos.training_ids(self.data) if self.unlabelled else training_ids(self.data)
        if ids and content.get("images") not in (None, digest(ids)):
            return False
        return bool(content.get("finished", len(content["log"]) >= content["recipe"]["epochs"]))

    @property
    def spent(self) -> float:
        """Minutes that its run has taken so far."""
        log = checkpoint.read(self.checkpoint)["log"] if self.checkpoint.exists() else []
        return float(sum(entry["seconds"] for entry in log) / 60)

    def train(
        self, device: str, threads: int | None, title: str, told: Callable[[float], object], minutes: float = 0.0
    ) -> None:
        """Carry out the step, or the rest of it; ``told`` hears the share that is done.

        It takes no more than ``minutes`` more if they are given, and no more in all than its recipe says.
        """
        step, source = self.step, self.source
        if minutes:
            step = limited(step, self.spent + minutes)
        settings = teacher.flags(step, source) if isinstance(step, TeacherStep) else train.flags(step, source)
        print(f"{title}: training {self.checkpoint.stem}: {shlex.join(settings)}", flush=True)
        if isinstance(step, TeacherStep):
            teacher.run(step, self.data, self.checkpoint, source, device, threads=threads)
        else:
            train.run(step, self.data, self.checkpoint, source, device, threads=threads, told=told)


def family_of(name: str, folder: Path) -> Family:
    """The recipes for a data set; those for your own images where it is none of the known ones."""
    for family in FAMILIES:
        if name in family.data_sets:
            return family
    return own.family(folder)


def entries(
    data: Sequence[Path],
    runs: Path,
    out: Path,
    only: Sequence[str],
    protects: Protection | None = None,
    *,
    shipped: bool = False,
) -> Iterator[Entry]:
    """All models of all data sets found, in the order of training, whose ``<data set>-<role>`` fits a pattern.

    With ``protects`` no others than the parity models for this code, and those that they need; with ``shipped`` no
    others than those that ship, and those that they need.
    """
    for folder in data:
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}: name one of yours, or `make data` gets public data sets")
    found, chosen = find(*data), False
    if not found:
        listed = ", ".join(map(str, data))
        raise ValueError(f"no data set in {listed}: expected {data[0]}/train/<class>/*.jpg, or what `make data` gets")
    for name, folder in found.items():
        family = family_of(name, folder)
        steps = leading_to(family, protects) if protects else family.steps
        for role, step in (needed(steps, family.ships) if shipped and family.ships else steps).items():
            stem = f"{name}-{role}"
            ships = role in family.ships or not family.data_sets
            if any(fnmatch.fnmatch(stem, pattern) for pattern in only):
                file = f"{stem}/decoder.onnx" if coding.is_learned(step) else f"{stem}.onnx"
                onnx = (out if ships else runs / "zoo") / file
                live = step.live_teachers if isinstance(step, Step) else ()
                taught_by = [family.steps[its] for its in live if its in family.steps]
                yield Entry(folder, role, step, str(runs / name), onnx, taught_by)
                chosen = True
    if not chosen:
        raise ValueError(f"no data set found in {', '.join(map(str, data))} that has models like {', '.join(only)}")


def leading_to(family: Family, protects: Protection) -> dict[str, AnyStep]:
    """The steps to a parity model, which one's own images get for their s-cnn; none where there is no recipe."""
    steps, role = dict(family.steps), protects.role
    s_cnn = steps[S_CNN]
    if role not in steps and not family.data_sets and isinstance(s_cnn, Step):
        settings = {name: getattr(s_cnn.recipe, name) for name in ("epochs", "least_steps", "crop")}
        steps |= protecting(S_CNN, s_cnn, protects, **settings)
    return needed(steps, (role,))


def distilling(folder: Path, s_cnn: Path, runs: Path) -> list[Entry]:
    """The collage-cnn for an s-cnn of any origin, learnt from the photos in a folder, and the runs that lead to it."""
    if not s_cnn.is_file():
        raise ValueError(f"there is no model file {s_cnn}")
    photos.files(folder)  # or it says now what is wrong with them
    info = OnnxModel(s_cnn).info
    if info.kind is not ModelKind.S_CNN or info.task != CLASSIFICATION:
        raise ValueError(f"{s_cnn} is no classifier of single images: it describes itself as {info.kind}, {info.task}")
    stem = s_cnn.stem.removesuffix(f"-{S_CNN}")
    steps = distilled(info.size, str(s_cnn.resolve())).steps
    return [
        Entry(folder, role, step, str(runs / stem), s_cnn.with_name(f"{stem}-{role}.onnx"))
        for role, step in steps.items()
    ]


def expense(s_cnn: Path, step: Step, repeats: int = 15) -> str:
    """What a collage will cost, in words: measured with the shipped model that its network starts from.

    All s-cnns of a size get the same network, so for a small one it is dear. Time grows with the pixels of a collage.
    """
    single, like = OnnxModel(s_cnn), OnnxModel(ZOO / step.parents[0])
    grey = np.full((1, single.info.size, single.info.size, 3), 128, np.uint8)
    s_cnn_s, like_s = medians([inference(single, grey), inference(like, grey)], repeats)
    times = like_s * (step.input_size / like.info.size) ** 2 / s_cnn_s
    text = f"a collage will take about {times:.1f} times as long as an image in {s_cnn.name} ({1000 * s_cnn_s:.0f} ms)"
    if times <= DEAR:
        return text
    workers, members = math.ceil(times), step.k * step.k
    return (
        f"WARNING: {text}: {members} workers of the s-cnn take about {workers} of the collage-cnn to protect every "
        "request, instead of one"
    )


def build(
    wanted: Sequence[Entry],
    out: Path,
    device: str,
    threads: int | None,
    s_cnn: Path | None = None,
    until: float | None = None,
) -> None:
    """Train, export and calibrate the models of one data set, as far as that is not done yet.

    ``s_cnn`` is the file that the others are calibrated with; by default that of the data set in ``out``. With
    ``until``, a time of the monotonic clock, the runs share the minutes that are left by what they cost, and nothing is
    exported yet.
    """
    missing = [entry for entry in wanted if not entry.finished]
    costs = {entry.role: cost(entry.step, entry.taught_by) for entry in missing}
    with Building(costs) as building:
        for entry in missing:
            title, minutes = building.begin(entry.role), 0.0
            if until is not None:
                minutes = max(_LEAST, _TRAINED * building.part * (until - time.monotonic()) / 60)
            entry.train(device, threads, title, building.advance, minutes)
    if until is not None:
        return
    for entry in sorted(wanted, key=lambda entry: entry.role != S_CNN):  # which the others are calibrated with
        if not entry.role.startswith((CURVE, PRETRAINED)):
            publish(entry, s_cnn or out / f"{entry.data_set}-{S_CNN}.onnx")


def publish(entry: Entry, s_cnn: Path) -> None:
    """Export a model, and calibrate a collage-cnn, unless that was done since it and the s-cnn were trained.

    A parity model's base is the exported file of its role beside ``s_cnn`` or, if it does not ship, beside its own file
    or folder.
    """
    calibrated, base = entry.role.startswith("collage"), None
    if isinstance(entry.step, Step) and (its := entry.step.base):
        folders = (s_cnn.parent, entry.onnx.parent, entry.onnx.parent.parent)
        beside = [folder / f"{entry.data_set}-{its}{EXPORTED}" for folder in folders]
        base = ZOO / its if its.endswith(EXPORTED) else next(filter(Path.exists, beside), beside[0])
    sources = [entry.checkpoint, *(file for file in (base, s_cnn if calibrated else None) if file and file.exists())]
    if entry.onnx.exists() and entry.onnx.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return
    if coding.is_learned(entry.step):  # its encoder is beside it
        export_networks(entry.checkpoint, entry.onnx.parent, base)
        return
    storage = "fp32" if "mobilenet" in entry.role else "int8"  # its depthwise filters do not survive int8
    with checkpoint.written(entry.onnx) as partial:
        measured = None if entry.unlabelled else entry.data
        export(entry.checkpoint, partial, storage=storage, name=entry.onnx.stem, data=measured, base=base)
        if calibrated:
            words = ["--data", str(entry.data), "--s-cnn", str(s_cnn), "--collage", str(partial)]
            calibrate.main([*words, *(["--unlabelled"] if entry.unlabelled else [])])


def report(wanted: Sequence[Entry]) -> None:
    """Print what came of the models of one's own images."""
    for entry in wanted:
        images = entry.validation_images
        if images is not None and entry.onnx.exists():
            for text in own.summary(describe(entry.onnx), images):
                print(text, flush=True)


def learning_curve(runs: Path) -> None:
    """Collect the runs of the learning curve into ``<runs>/learning-curve.json``."""
    points = []
    for path in runs.glob(f"*-{CURVE}-*.pt"):
        content = checkpoint.read(path)
        points.append({"collages": content["recipe"]["collages"], "validation": content["log"][-1]["validation"]})
    points.sort(key=lambda point: point["collages"] or float("inf"))
    if points:
        write_figures("learning-curve", points, directory=runs)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="data sets, or folders of data sets")
    parser.add_argument(
        "--s-cnn",
        type=Path,
        metavar="FILE",
        help="an ONNX classifier of any origin, with its sidecar: distil its collage-cnn from the photos in --data",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of checkpoints")
    parser.add_argument("--out", type=Path, default=ZOO, help="folder for the models that ship")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="such as 'cifar10-collage-*'")
    parser.add_argument(
        "--code", choices=coding.PARITY_CODES, help="train parity models for this code, and what they need"
    )
    parser.add_argument("--members", type=int, default=2, help="requests of a group of --code (%(default)s)")
    parser.add_argument("--device", default=train.DEVICE, help="device to train on")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument(
        "--minutes",
        type=float,
        help="train all that ship of one data set within this time; exported without it",
    )
    args = parser.parse_args(arguments)
    if args.minutes is not None and args.minutes <= 0:
        parser.error("--minutes must be above 0")
    until = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    try:
        if args.s_cnn:
            (folder,) = args.data  # a data set, or any folder of photos
            wanted = distilling(folder, args.s_cnn, args.runs)
            for step in (entry.step for entry in wanted if not entry.finished):
                if isinstance(step, Step) and step.parents:
                    print(expense(args.s_cnn, step), flush=True)
        else:
            protects = Protection(args.code, args.members) if args.code else None
            shipped = until is not None
            wanted = list(entries(args.data, args.runs, args.out, args.only, protects, shipped=shipped))
            if shipped and len({entry.data for entry in wanted}) > 1:
                raise ValueError("minutes are for the models of one data set: name its folder")
        for _, of_one in groupby(wanted, key=lambda entry: entry.data):
            build(list(of_one), args.out, args.device, args.threads, args.s_cnn, until)
        report(wanted)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit("stopped: the same command goes on after the last epoch that was finished") from None
    learning_curve(args.runs)


if __name__ == "__main__":
    main()
