"""Build the zoo: ``python -m models.zoo --data data`` trains, exports and calibrates all it has data for.

Data sets are looked for in the given folders and right below them. Every step is left out where its result is there
already, and an interrupted training run goes on from its last epoch. Models that belong in the repository are written
to ``models/zoo``, all others to ``<runs>/zoo``. A data set of your own (``DIR/train/<class>/*.jpg``) gets an s-cnn and
a 3 x 3 collage-cnn.
"""

from __future__ import annotations

import argparse
import fnmatch
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from PIL import Image

from collage.figures import write_figures
from models import calibrate, checkpoint, teacher, train
from models.data import digest, find, training_files, training_ids
from models.export import export
from models.recipes import FAMILIES, OWN_PHOTOS, OWN_SMALL
from models.steps import CURVE, PRETRAINED, S_CNN, AnyStep, Family, TeacherStep

ZOO = Path(__file__).parent / "zoo"


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
    """The file to export it to."""

    @property
    def checkpoint(self) -> Path:
        """The file that its run writes."""
        return self.source(self.role)

    def source(self, role: str) -> Path:
        """The checkpoint of any role of the same data set."""
        return Path(f"{self.runs}-{role}.pt")

    @property
    def finished(self) -> bool:
        """Whether the checkpoint holds the whole run, over the images that there are now."""
        if not self.checkpoint.exists():
            return False
        content = checkpoint.read(self.checkpoint)
        ids = training_ids(self.data)
        if ids and content.get("images") not in (None, digest(ids)):
            return False
        return bool(content.get("finished", len(content["log"]) >= content["recipe"]["epochs"]))

    def train(self, device: str, threads: int | None) -> None:
        """Carry out the step, or the rest of it."""
        step, source = self.step, self.source
        settings = teacher.flags(step, source) if isinstance(step, TeacherStep) else train.flags(step, source)
        print(f"training {self.checkpoint.stem}: {shlex.join(settings)}", flush=True)
        if isinstance(step, TeacherStep):
            teacher.run(step, self.data, self.checkpoint, source, device, threads=threads)
        else:
            train.run(step, self.data, self.checkpoint, source, device, threads=threads)


def family_of(name: str, folder: Path) -> Family:
    """The recipes for a data set; those for your own images where it is none of the known ones."""
    for family in FAMILIES:
        if name in family.data_sets:
            return family
    files = training_files(folder)
    if not files:
        raise SystemExit(f"{folder / 'train'} holds no images")
    with Image.open(files[0]) as first:
        return OWN_PHOTOS if min(first.size) > 96 else OWN_SMALL


def entries(data: Sequence[Path], runs: Path, out: Path, only: Sequence[str]) -> Iterator[Entry]:
    """All models of all data sets found, in the order of training, whose ``<data set>-<role>`` fits a pattern."""
    for name, folder in find(*data).items():
        family = family_of(name, folder)
        for role, step in family.steps.items():
            stem = f"{name}-{role}"
            ships = role in family.ships or not family.data_sets
            if any(fnmatch.fnmatch(stem, pattern) for pattern in only):
                onnx = (out if ships else runs / "zoo") / f"{stem}.onnx"
                yield Entry(folder, role, step, str(runs / name), onnx)


def build(wanted: Sequence[Entry], out: Path, device: str, threads: int | None) -> None:
    """Train, export and calibrate the models of one data set, as far as that is not done yet."""
    for entry in wanted:
        if not entry.finished:
            entry.train(device, threads)
    for entry in sorted(wanted, key=lambda entry: entry.role != S_CNN):  # which the others are calibrated with
        if not entry.role.startswith((CURVE, PRETRAINED)):
            publish(entry, out / f"{entry.checkpoint.stem.removesuffix(entry.role)}{S_CNN}.onnx")


def publish(entry: Entry, s_cnn: Path) -> None:
    """Export a model, and calibrate a collage-cnn, unless that was done since it and the s-cnn were trained."""
    calibrated = entry.role.startswith("collage")
    sources = [entry.checkpoint, *([s_cnn] if calibrated and s_cnn.exists() else [])]
    if entry.onnx.exists() and entry.onnx.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return
    storage = "fp32" if "mobilenet" in entry.role else "int8"  # its depthwise filters do not survive int8
    with checkpoint.written(entry.onnx) as partial:
        export(entry.checkpoint, partial, storage=storage, name=entry.onnx.stem, data=entry.data)
        if calibrated:
            calibrate.main(["--data", str(entry.data), "--s-cnn", str(s_cnn), "--collage", str(partial)])


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
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of checkpoints")
    parser.add_argument("--out", type=Path, default=ZOO, help="folder for the models that ship")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="such as 'cifar10-collage-*'")
    parser.add_argument("--device", default=train.DEVICE, help="device to train on")
    parser.add_argument("--threads", type=int, help="CPU threads")
    args = parser.parse_args(arguments)
    wanted = list(entries(args.data, args.runs, args.out, args.only))
    if not wanted:
        raise SystemExit(f"no data set found in {', '.join(map(str, args.data))} that has models like {args.only}")
    for _, of_one in groupby(wanted, key=lambda entry: entry.data):
        try:
            build(list(of_one), args.out, args.device, args.threads)
        except ValueError as error:
            raise SystemExit(str(error)) from None
    learning_curve(args.runs)


if __name__ == "__main__":
    main()
