"""``python -m bench codes``: how right every code of the field is where an answer is lost, and what it costs.

Images are put into groups at random. In each group every set of ``lost`` members loses its answers in turn, and what is
decoded is compared with the labels, or the boxes, of the images (Learning-based coded computation, section III-B).
Models are those of the zoo. The base model itself runs the redundant inputs of sums, of Berrut's interpolation, and of
learned codes, whose networks are in folders called ``<data set>-learned-<name>``.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.progress import watched
from bench.report.stored import ZOO
from collage.figures import OUT, Row, Scalar, write_figures
from collage.model_info import ModelKind
from encoder.berrut import ApproxIferCode, BerrutCode
from encoder.code import Code, Outputs
from encoder.learned import LearnedCode
from encoder.linear import LinearCode, mean_weights
from frontend.own_code import CodeError, load_networks
from models import boxes, coding, data
from models.data import Dataset, Split
from models.lost import CodeAtWork, Runner, accuracy, batched, degraded, metrics_of, outputs_of
from models.measure import OnnxModel, discover, inference, medians

ALONE = ((2, 1), (3, 1), (4, 1))
"""N and r of the sums that the base model itself is tried on."""
SYSTEMATIC = ((3, 1), (4, 1), (8, 1), (4, 2))
"""N and r of Berrut's codes with members' own answers; with N = 2 and r = 1 they are sums."""
APPROXIFER = ((2, 1), (4, 1), (8, 1), (12, 1))
"""K and S of ApproxIFER's."""
STUDENT = "rival-student"
"""The role of a small model that was taught by the base model. It needs no code: the redundant execution is a batch of
all members' images."""
BATCHES = (2, 4, 9, 16)
"""Members of its groups."""
CONSTANT = "constant box"
"""How reports call the answer that needs no model."""
ROLE = re.compile(r"parity-(?P<code>[a-z]+(?:-keyed)?)-(?P<k>\d+)(?:-r\d+-row(?P<row>\d+))?(?:-(?P<variant>.+))?")
"""Of a parity model: its code, its members, the row if there are several, and how it was trained if there are several
ways."""


def times(work: CodeAtWork, split: Split, own: NDArray[np.float32], repeats: int) -> tuple[float, float]:
    """Median seconds of encoding a group, and of decoding it with one answer lost."""
    members = work.code.shape.members
    inputs = [split.images[place % len(split)] for place in range(members)]
    encoded = work.code.encode(inputs)
    coded: dict[int, Outputs] = {
        row: [tensor[0] for tensor in run(encoded[row][None])] for row, run in enumerate(work.runners)
    }
    answers = {place: own[place % len(own)] for place in range(1, members)} if work.alone else {}
    if not work.alone:
        del coded[0]
    encode_s, decode_s = medians(
        [lambda _: work.code.encode(inputs), lambda _: work.code.decode(answers, coded, range(members))], repeats
    )
    return encode_s, decode_s


def untrained(base: Runner) -> Iterator[CodeAtWork]:
    """The codes whose redundant inputs the base model itself runs."""
    for members, inputs in ALONE:
        code: Code = LinearCode(mean_weights(members, inputs))
        yield CodeAtWork("addition, base itself", code, [base] * inputs, inputs)
    for members, inputs in SYSTEMATIC:
        yield CodeAtWork("Berrut", BerrutCode(members, inputs), [base] * inputs, inputs)
    for members, spare in APPROXIFER:
        code = ApproxIferCode(members, members + spare)
        yield CodeAtWork("ApproxIFER", code, [base] * code.shape.inputs, spare, alone=False)


def _is_for(base: OnnxModel, version: str, what: str) -> bool:
    """Whether a code decodes for this base model, ``version`` being the one it names; says so if it does not."""
    fits = version in ("", base.info.version)
    if not fits:
        print(f"{what} is left out: it is for version {version} of the base model", file=sys.stderr)
    return fits


def learned(folders: Sequence[Path], dataset: str, base: OnnxModel) -> Iterator[tuple[CodeAtWork, OnnxModel]]:
    """The codes whose networks are in these folders, and what runs their redundant inputs.

    That is the base model, or the parity model that was trained with them. Those that decode for another base model are
    left out.
    """
    for file in sorted(file for folder in folders for file in folder.glob(f"{dataset}-learned-*/encoder.onnx")):
        networks = load_networks(file.parent)
        label = file.parent.name.removeprefix(f"{dataset}-")
        if not _is_for(base, networks.base, label):
            continue
        parity = file.with_name("parity.onnx")
        model = OnnxModel(parity) if parity.exists() else base
        yield CodeAtWork(label, LearnedCode(networks), [model] * networks.inputs, networks.inputs), model


def trained(models: Mapping[str, OnnxModel], base: OnnxModel) -> Iterator[tuple[CodeAtWork, OnnxModel]]:
    """What redundant models do, by role, and one of these to be timed; rows of one code are used together.

    Those that decode for another version of the base model are left out.
    """
    rows: dict[str, dict[int, OnnxModel]] = {}
    for role, model in models.items():
        if re.fullmatch(r"collage-(\d)x\1", role):
            code: Code = model.code
            yield CodeAtWork("collage", code, [model], 1), model
        elif role == STUDENT:
            yield from ((batched(model, members, "student"), model) for members in BATCHES)
        elif found := ROLE.fullmatch(role):
            label = found["code"] + (f", {found['variant']}" if found["variant"] else "")
            rows.setdefault(f"{label} {found['k']}", {})[int(found["row"] or 0)] = model
    for name, its in rows.items():
        first = its[min(its)].info.code
        if first is None or len(its) < first.inputs:
            print(f"{name} is left out: {len(its)} of its models are there", file=sys.stderr)
            continue
        if not _is_for(base, first.base, name):
            continue
        code = coding.built(first, its[0].info.size)
        yield CodeAtWork(name.rpartition(" ")[0], code, [its[row] for row in range(len(its))], len(its)), its[0]


def measure(
    work: CodeAtWork, about: Mapping[str, Scalar], split: Split, own: NDArray[np.float32], seeds: int, repeats: int
) -> Iterator[Row]:
    """Rows of one code, for every number of lost answers and every seed; ``about`` begins each."""
    metrics = metrics_of(split, own.shape[1])
    encode_s, decode_s = times(work, split, own, repeats)
    for seed in range(seeds):
        losses = range(0 if not work.alone else 1, work.most + 1)
        shares = degraded(work, split, own, seed, losses, metrics)
        whole = accuracy(own, split, metrics) if work.alone else shares[0]
        for lost, parts in zip(losses, shares, strict=True):
            for metric, a_available, a_degraded in zip(metrics, whole.tolist(), parts.tolist(), strict=True):
                if lost:
                    yield {
                        **about,
                        "code": work.label,
                        "k": work.code.shape.members,
                        "r": work.most,
                        "lost": lost,
                        "seed": seed,
                        "images": len(split),
                        "a_available": a_available,
                        "a_degraded": a_degraded,
                        "metric": metric,
                        "encode_s": encode_s,
                        "decode_s": decode_s,
                    }


def constant(found: Dataset, split: Split, base: OnnxModel, own: NDArray[np.float32]) -> Row:
    """The row of no code: a lost answer is the one box that is best for all training images."""
    box = np.tile(np.array(boxes.constant(found.train.truth.astype(np.float32)), np.float32), (len(split), 1))
    (a_available,), (a_degraded,) = (accuracy(answers, split, metrics_of(split)).tolist() for answers in (own, box))
    return {
        "dataset": found.name,
        "base": base.info.name,
        "model": None,
        "version": None,
        "cost_ratio": 0.0,
        "code": CONSTANT,
        "k": 1,
        "r": 0,
        "lost": 1,
        "seed": 0,
        "images": len(split),
        "a_available": a_available,
        "a_degraded": a_degraded,
        "metric": metrics_of(split)[0],
        "encode_s": 0.0,
        "decode_s": 0.0,
    }


def measured(
    found: Dataset,
    models: Mapping[str, OnnxModel],
    role: str,
    networks: Sequence[Path],
    part: str,
    only: Sequence[str],
    seeds: int,
    repeats: int,
) -> Iterator[Row]:
    """Rows of all codes of a data set whose ``<data set>-<code>-<k>`` fits a pattern, each as soon as it is known.

    ``role`` is the base model's, ``networks`` are the folders of learned codes, and ``part`` names the split.
    """
    base, dataset = models[role], found.name
    split: Split = getattr(found, part)
    every = [*((work, base) for work in untrained(base)), *learned(networks, dataset, base), *trained(models, base)]
    chosen = [
        (work, model)
        for work, model in every
        if any(fnmatch.fnmatch(f"{dataset}-{work.label}-{work.code.shape.members}", pattern) for pattern in only)
    ]
    own = outputs_of(base, split)
    if chosen and split.boxes is not None:
        yield (row := constant(found, split, base, own))
        print(f"{CONSTANT}: {row['metric']} {100 * float(row['a_degraded'] or 0):.2f} %", flush=True)
    for work, model in watched(chosen, dataset):
        redundant_s, base_s = medians(
            [inference(model, split.images[:32], work.batch), inference(base, split.images[:32])], repeats
        )
        ratio = 1.0 if model is base else redundant_s / base_s
        name, version = model.info.name, model.info.version
        about: Row = {
            "dataset": dataset, "base": base.info.name, "model": name, "version": version, "cost_ratio": ratio,
        }  # fmt: skip
        rows = []
        for row in measure(work, about, split, own, seeds, repeats):
            rows.append(row)
            yield row
        print(*in_words(rows, work), sep="\n", flush=True)


def in_words(its: Sequence[Row], work: CodeAtWork) -> Iterator[str]:
    """A line for each number of losses and each metric of a code, of which ``its`` rows are: means over seeds."""
    for lost, metric in dict.fromkeys((row["lost"], row["metric"]) for row in its):
        same = [row for row in its if (row["lost"], row["metric"]) == (lost, metric)]
        a_degraded, a_available = (
            100 * float(np.mean([float(row[name] or 0) for row in same])) for name in ("a_degraded", "a_available")
        )
        yield (
            f"{work.label}, k = {work.code.shape.members}, r = {work.most}: {metric} of {lost} lost "
            f"{a_degraded:.2f} %, available {a_available:.2f} %, cost {float(same[0]['cost_ratio'] or 0):.2f}"
        )


def main(argv: Sequence[str]) -> int:
    """Measure and write ``codes.json``: 0 if it went well, 2 if the data or models cannot be used.

    The file is written again with every row, so that a run that is interrupted keeps what it has.
    """
    parser = argparse.ArgumentParser(prog="python -m bench codes", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="data sets, or folders of data sets")
    parser.add_argument("--models", type=Path, nargs="+", default=[ZOO], help="folders of models (%(default)s)")
    parser.add_argument("--base", default="s-cnn", metavar="ROLE", help="base model of the codes (%(default)s)")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="such as 'fashion-mnist-Berrut-*'")
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="images (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="random placements of every image (%(default)s)")
    parser.add_argument("--repeats", type=int, default=100, help="runs behind every median (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the figures (%(default)s)")
    args = parser.parse_args(argv)
    rows: list[Row] = []
    try:
        folders = data.find(*args.data)
        for dataset, paths in discover(args.models, list(ModelKind)).items():
            if dataset in folders and args.base in paths:
                models = {role: OnnxModel(path) for role, path in paths.items()}
                found = data.load(folders[dataset], models[args.base].info.size)
                its = (models, args.base, args.models, args.split, args.only, args.seeds, args.repeats)
                for row in measured(found, *its):
                    rows.append(row)
                    file = write_figures("codes", rows, directory=args.out)
    except (OSError, ValueError, CodeError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    if not rows:
        print(f"{parser.prog}: no base model with its data, or no such code", file=sys.stderr)
        return 2
    print(f"written: {file}")
    return 0
