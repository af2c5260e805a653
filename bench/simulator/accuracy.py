"""Accuracy budgets: what they keep, and what they cost in latency, simulated with the answers of shipped models.

``python -m bench accuracy collect out/evaluate.jsonl`` counts the answers of collage-cnns and s-cnns to test images,
which no table of errors was made from. ``python -m bench accuracy run`` draws from these counts, for each budget in
each regime.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.measured import COLLAGE, extra_load
from bench.offer import FAMILIES, REGIMES, MeasuredModels
from bench.progress import watched
from bench.report.stored import RESULTS, ZOO
from bench.samples import KINDS
from bench.simulator.replay import Setup, run
from collage.figures import Row, read_figures, write_figures
from frontend.fitting import error_steps
from frontend.policy.accuracy import Accuracy
from models.measure import describe
from worker.slowdown import COLLAGE_FACTOR

ANSWERS = RESULTS / "coded-answers.json"
"""Counts of answers to test images."""
CURVE = RESULTS / "accuracy-budget.json"
COLLAGES = ("cifar10-jpeg-collage-5x5", "imagenette-224-collage-5x5")
"""The models of the curve."""
BUDGETS = (None, 0.005, 0.002, 0.001, 0.0005, 0.0)
WORKERS, REDUNDANT, LOAD = 100, 4, 0.5
STEPS = 60
"""Ranges of confidence, of equal numbers of answers."""


def lost(answers: MeasuredModels, confidences: NDArray[np.float32]) -> NDArray[np.float64]:
    """Errors beyond the s-cnn's own, on average, of answers of these confidences, ``[N]``."""
    known, counts = answers.steps[:, 0].astype(np.float32), answers.steps[:, 1:]
    mean: NDArray[np.float64] = (counts[:, 2] - counts[:, 1]) / counts.sum(1)
    return mean[np.searchsorted(known, confidences)]


def collect(lines: Iterator[str]) -> Iterator[Row]:
    """Count the answers of an ``evaluate.jsonl``: rows for ranges of confidence of each collage-cnn."""
    own: dict[tuple[str, str], bool] = {}
    coded: dict[str, list[tuple[float, bool, bool]]] = {}
    for line in lines:
        answer: Mapping[str, Any] = json.loads(line)
        model, right = str(answer["model"]), answer["prediction"] == answer["label"]
        dataset, _, grid = model.partition("-collage-")
        if model.endswith("-s-cnn"):
            own[model.removesuffix("-s-cnn"), answer["image"]] = right
        elif grid and answer["prediction"] is not None:
            pair = float(answer["confidence"]), right, own[dataset, answer["image"]]
            coded.setdefault(model, []).append(pair)
    for model, answers in coded.items():
        ordered = np.array(sorted(answers))
        for part in np.array_split(ordered, min(STEPS, len(ordered))):
            kinds = 2 * (part[:, 1] == 0) + (part[:, 2] == 0)
            counts = np.bincount(kinds, minlength=len(KINDS)).tolist()
            yield {"model": model, "confidence": float(part[:, 0].mean()), **dict(zip(KINDS, counts, strict=True))}


def answers_of(model: str, rows: Sequence[Row], zoo: Path) -> MeasuredModels:
    """The counted answers of a model in ``zoo``, which says its threshold and its table; ValueError if it has none."""
    info, mine = describe(zoo / f"{model}.onnx"), [row for row in rows if row["model"] == model]
    if not mine or not info.errors:
        raise ValueError(f"{model} has no {'table of errors' if mine else 'counted answers'}")
    return MeasuredModels.of(mine, info.accept_threshold, COLLAGE_FACTOR, error_steps(info))


def simulated(
    model: str, answers: MeasuredModels, regime: str, budget: float | None, seed: int, requests: int, warm_up: int = 20
) -> Row:
    """One row: ``loss`` is the share of answers that were wrong beyond the s-cnn's own, ``spent`` what the table says.

    Both are means over what is known of answers of the same confidence: the policy sees nothing else of them.
    """
    setup = Setup(WORKERS, REDUNDANT)
    groups = requests // setup.n + warm_up
    done = run(
        setup, "adaptive", REGIMES[regime], seed, groups, LOAD, None, answers, warm_up, limits={"accuracy": budget}
    )
    figures, bound = done.row({}), Accuracy(None)
    bound.use(answers.errors)
    drawn = answers.draw(groups * setup.n, seed).confidence[warm_up * setup.n :]
    coded = drawn[done.source == COLLAGE]
    kept = ("p50_s", "p99_s", "p999_s", "mean_s", "coded_share", "accuracy", "accuracy_available")
    return {
        **{"source": "sim", "model": model, "family": regime, "workers": setup.n, "redundant": setup.redundant},
        **{"load": LOAD, "policy": "adaptive", "budget": budget, "seed": seed, "requests": len(done.latency_s)},
        **{key: figures[key] for key in kept},
        "extra_load": extra_load(figures),
        "loss": float(lost(answers, coded).sum()) / len(done.latency_s),
        "spent": sum(map(bound.cost, coded.tolist())) / len(done.latency_s),
    }


def main(argv: Sequence[str]) -> int:
    """Count answers, or simulate the budgets, and write the figures; 0."""
    parser = argparse.ArgumentParser(prog="python -m bench accuracy", description=(__doc__ or "").partition("\n")[0])
    parts = parser.add_subparsers(dest="what", required=True)
    counting = parts.add_parser("collect", help="count the answers of models.evaluate")
    counting.add_argument("answers", type=Path, nargs="+", help="evaluate.jsonl, of test images")
    running = parts.add_parser("run", help="simulate the budgets")
    running.add_argument("--answers", type=Path, default=ANSWERS, help="what was counted (%(default)s)")
    running.add_argument("--zoo", type=Path, default=ZOO, help="the models (%(default)s)")
    running.add_argument("--families", nargs="+", choices=REGIMES, default=FAMILIES, metavar="REGIME")
    running.add_argument("--requests", type=int, default=40_000, help="of each run (%(default)s)")
    running.add_argument("--seeds", type=int, default=2, help="runs of each case (%(default)s)")
    for part, out in ((counting, ANSWERS), (running, CURVE)):
        part.add_argument("--models", nargs="+", default=COLLAGES, help="collage-cnns (%(default)s)")
        part.add_argument("--out", type=Path, default=out, help="the figures (%(default)s)")
    args = parser.parse_args(argv)
    if args.what == "collect":
        lines = itertools.chain.from_iterable(path.open() for path in args.answers)
        rows = [row for row in collect(lines) if row["model"] in args.models]
    else:
        counted = read_figures(args.answers)
        known = {model: answers_of(model, counted, args.zoo) for model in args.models}
        cases = list(itertools.product(known, args.families, BUDGETS, range(args.seeds)))
        rows = [
            simulated(model, known[model], family, budget, seed, args.requests)
            for model, family, budget, seed in watched(cases, "simulating")
        ]
    print(f"figures: {write_figures(args.out.stem, rows, directory=args.out.parent)}")
    return 0
