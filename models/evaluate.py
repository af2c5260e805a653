"""Evaluate exported models: accuracy, latency and size (Collage inference, fig. 6, sections 5.3 and 5.5).

``python -m models.evaluate --data DIR [DIR ...] --models DIR [DIR ...]`` takes every ``<data set>-<role>.onnx`` in the
model folders whose data set is, or lies in, one of the data folders. Roles:

* ``s-cnn`` is the classifier that collages protect; ``s-cnn-*`` are others of its kind.
* ``collage-<K>x<K>`` are ours; ``collage-<K>x<K>-*`` are of other architectures.
* ``rival-*`` classify the cells of a 3 x 3 collage kept apart, nine in a batch.

With ``--s-cnn mine.onnx``, an s-cnn of any origin, that and ``mine-collage-<K>x<K>.onnx`` beside it are evaluated on
the images in ``DIR/test/<class>``, whose classes are some of its own.

It prints tables, draws pictures, and writes ``out/evaluate.json``, one row per model; ``out/evaluate.jsonl``, one line
per answer; and ``out/images/<data set>.txt``, the images used.
All runs in ONNX Runtime on one thread; no torch.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from collage.figures import MADE, OUT, Row, Scalar, read_figures, write_figures
from collage.model_info import LOCALISATION, ModelKind
from encoder.collage import CollageCode
from encoder.grid import Grid
from encoder.image import shrink
from models import photos
from models.data import Split, find, load
from models.measure import (
    ImageAnswer,
    OnnxModel,
    classify,
    classify_collages,
    coding,
    describe,
    discover,
    inference,
    medians,
    top1,
)
from models.tables import report

PAPER_GRID, PAPER_IMAGE = Grid(3, 416), 224
"""The encoding case that the paper times (section 5.4): nine 224 x 224 images into a 416 x 416 collage."""
RIVALS_K = 3
"""The grid at which rivals are compared (section 5.5)."""
TOLERANCE = 0.003
"""How far a model's accuracy may be from the published one."""

Models = Mapping[str, OnnxModel]
"""Models of one data set by role."""


def answer(models: Models, splits: Callable[[int], Split], seeds: int) -> dict[str, list[ImageAnswer]]:
    """Every model's answers, by role; ``splits`` gives the images at a size.

    What a frontend sends to s-cnns is made for their own size; collages and rivals get cells of the s-cnn's input.
    """
    answers = {}
    for role, model in models.items():
        _progress(f"{model.info.name}: accuracy")
        split = splits(model.info.size if role.startswith("s-cnn") else models["s-cnn"].info.size)
        if model.info.kind is ModelKind.S_CNN:
            answers[role] = list(classify(model, split))
        else:
            answers[role] = [found for seed in range(seeds) for found in classify_collages(model, split, seed)]
    return answers


def accuracy(
    model: OnnxModel, answers: Sequence[ImageAnswer], reference: Mapping[str, int | None]
) -> dict[str, Scalar]:
    """Top-1, and for a collage-cnn its spread over placements, the cells answered and those accepted.

    ``reference`` are the s-cnn's predictions by image. ``answered_share`` is of cells that are not empty, ``coverage``
    of cells whose answer the calibrated threshold accepts; ``covered_agreement`` is of these with the s-cnn.
    """
    row: dict[str, Scalar] = {"answers": len(answers), "top1": top1(answers)}
    if model.info.kind is ModelKind.S_CNN:
        return row
    seeds = sorted({answer.seed for answer in answers if answer.seed is not None})
    each = {f"top1_seed_{seed}": top1([answer for answer in answers if answer.seed == seed]) for seed in seeds}
    empty = sum(answer.prediction is None for answer in answers) / len(answers)
    threshold = model.info.accept_threshold
    sure = [answer for answer in answers if answer.prediction is not None and answer.confidence >= threshold]
    agree = sum(answer.prediction == reference[answer.image] for answer in sure)
    return {
        **row,
        "top1_spread": max(each.values()) - min(each.values()),
        "empty_share": empty,
        "answered_share": 1 - empty,
        "accept_threshold": threshold,
        "coverage": len(sure) / len(answers),
        "agreement": sum(answer.prediction == reference[answer.image] for answer in answers) / len(answers),
        "covered_top1": top1(sure) if sure else None,
        "covered_agreement": agree / len(sure) if sure else None,
        **each,
    }


def timed(models: Models, split: Split) -> dict[tuple[str, str], Callable[[int], Any]]:
    """All that is timed, by role and column, for ``models.measure.medians``.

    ``latency_s`` is of one image or one collage, ``nine_s`` of nine images. The role ``code`` is the paper's case of
    encoding and decoding; a collage-cnn's own is from the s-cnn's input, decoding what it finds there.
    """
    images = split.images[:32]
    calls: dict[tuple[str, str], Callable[[int], Any]] = {}
    for role, model in models.items():
        calls[role, "latency_s"] = inference(model, images)
        if model.info.kind is ModelKind.S_CNN:
            calls[role, "nine_s"] = inference(model, images, RIVALS_K**2)
        else:
            code, group = model.code, [images[cell % len(images)] for cell in range(model.code.shape.members)]
            found = model.detect(code.encode(group)[0])
            calls[role, "encode_s"], calls[role, "decode_s"] = coding(code, group, found)
    group = [shrink(image, PAPER_IMAGE, PAPER_IMAGE) for image in images]
    calls["code", "encode_s"], calls["code", "decode_s"] = coding(CollageCode(PAPER_GRID), group)
    return calls


def latency(models: Models, split: Split, repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds, by role and column, of all that is timed, measured in turns in one loop."""
    calls = timed(models, split)
    seconds: dict[str, dict[str, float]] = {}
    for (role, column), value in zip(calls, medians(list(calls.values()), repeats), strict=True):
        seconds.setdefault(role, {})[column] = value
    for role, model in models.items():
        if model.info.k == RIVALS_K:
            seconds[role]["nine_s"] = seconds[role]["latency_s"]
    return seconds


def evaluate(
    dataset: str, models: Models, splits: Callable[[int], Split], seeds: int, repeats: int
) -> tuple[list[dict[str, Scalar]], dict[str, list[ImageAnswer]]]:
    """Measure the models of one data set: a row for each and one for the paper's encoding case, and all answers."""
    answers = answer(models, splits, seeds)
    _progress(f"{dataset}: latencies")
    seconds = latency(models, splits(models["s-cnn"].info.size), repeats)
    reference = {found.image: found.prediction for found in answers["s-cnn"]}
    image = seconds["s-cnn"]["latency_s"]
    nine = seconds.get(f"collage-{RIVALS_K}x{RIVALS_K}", {}).get("nine_s")
    rows: list[dict[str, Scalar]] = []
    for role, model in models.items():
        info, times = model.info, seconds[role]
        row: dict[str, Scalar] = {"dataset": dataset, "model": f"{dataset}-{role}", "role": role}
        row |= {"kind": info.kind, "version": info.version, "storage": info.extra.get("storage")}
        row |= {"architecture": info.extra.get("architecture"), "k": info.k, "size": info.size}
        row |= {"size_bytes": model.size_bytes, "images": len(reference)}
        row |= accuracy(model, answers[role], reference)
        row |= {**times, "latency_ratio": times["latency_s"] / image}
        if "nine_s" in times:
            row |= {
                "nine_to_image": times["nine_s"] / image,
                "nine_to_collage": times["nine_s"] / nine if nine else None,
            }
        rows.append(row)
    name = f"{PAPER_GRID.cells} images of {PAPER_IMAGE} px into {PAPER_GRID.size} px"
    code: dict[str, Scalar] = {"dataset": dataset, "model": name, "role": "code", "kind": "code", "k": PAPER_GRID.k}
    return [*rows, {**code, "size": PAPER_GRID.size, **seconds["code"]}], answers


def list_images(dataset: str, part: str, ids: Sequence[str]) -> str:
    """The ids of the images used, short: a line per folder, runs of numbers as first-last."""
    digest = hashlib.sha256("".join(f"{name}\n" for name in ids).encode()).hexdigest()
    lines = [f"# {len(ids)} images of {dataset} ({part}); sha256 of the ids in their order, one a line: {digest}"]
    folders: dict[tuple[str, str], list[list[str]]] = {}
    for name in ids:
        prefix, number, suffix = re.fullmatch(r"(.*?)(\d*)((?:\.\w+)?)", name).groups()  # type: ignore[union-attr]
        runs = folders.setdefault((prefix, suffix), [])
        last = runs[-1][-1] if runs else ""
        if last and number and len(last) == len(number) and int(number) == int(last) + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    for (prefix, suffix), runs in folders.items():
        lines.append(f"{prefix}*{suffix}: {' '.join('-'.join(run) for run in runs)}")
    return "\n".join(lines) + "\n"


def differences(rows: Sequence[Row], published: Sequence[Row]) -> list[str]:
    """Where measured models are not as published: unknown there, or of another accuracy."""
    known = {row["model"]: row["top1"] for row in published if row.get("top1") is not None}
    complaints = []
    for row in rows:
        name, found, wanted = row["model"], row.get("top1"), known.get(row["model"])
        if isinstance(found, float) and not isinstance(wanted, float):
            complaints.append(f"{name} is not published")
        elif isinstance(found, float) and isinstance(wanted, float) and abs(found - wanted) > TOLERANCE:
            complaints.append(f"{name}: top-1 {100 * found:.2f} %, published {100 * wanted:.2f} %")
    return complaints


def completed(rows: Sequence[Row], earlier: Sequence[Row]) -> list[Row]:
    """Rows, and those of an earlier ``evaluate.json`` for other data sets and models, which name what made them."""
    measured = {(row["dataset"], row["model"]) for row in rows}
    return [*rows, *(row for row in earlier if (row["dataset"], row["model"]) not in measured)]


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, nargs="+", action="extend", required=True, help="data sets, or folders of data sets"
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--models", type=Path, nargs="+", help="folders of exported models")
    which.add_argument("--s-cnn", type=Path, metavar="FILE", help="an s-cnn of any origin, with what is beside it")
    parser.add_argument("--seeds", type=int, default=3, help="random placements of every image")
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="images (%(default)s)")
    parser.add_argument("--repeats", type=int, default=300, help="runs behind every median")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for what is written")
    parser.add_argument("--pictures", type=Path, help="folder for pictures (default: the same)")
    parser.add_argument(
        "--learning-curve", type=Path, default=Path("runs/learning-curve.json"), help="drawn if it is there"
    )
    parser.add_argument(
        "--compare", type=Path, help="published evaluate.json: fail if an accuracy differs by over 0.3 points"
    )
    parser.add_argument(
        "--add-to", type=Path, metavar="FILE", help="earlier evaluate.json whose rows of other models are kept"
    )
    args = parser.parse_args(arguments)
    earlier = read_figures(args.add_to) if args.add_to else []
    published = read_figures(args.compare) if args.compare else None
    rows: list[dict[str, Scalar]] = []
    answers: dict[str, dict[str, list[ImageAnswer]]] = {}
    if args.s_cnn:
        folders = {folder.resolve().name: folder for folder in args.data}
        found_models = dict.fromkeys(folders, _beside(args.s_cnn))
    else:
        folders, found_models = find(*args.data), discover(args.models)
    for dataset, paths in found_models.items():
        folder = folders.get(dataset)
        if folder is None or "s-cnn" not in paths:
            _progress(f"{dataset} is left out: {'no data' if folder is None else f'no {dataset}-s-cnn.onnx'}")
            continue
        if describe(paths["s-cnn"]).task == LOCALISATION:
            _progress(f"{dataset} is left out: its s-cnn is a localiser, whose boxes `python -m bench codes` judges")
            continue
        models = {role: OnnxModel(path) for role, path in paths.items()}
        splits = _reader(folder, args.split, models, bool(args.s_cnn))
        found, answers[dataset] = evaluate(dataset, models, splits, args.seeds, args.repeats)
        rows += [{**row, "split": args.split} for row in found]
        print(report(dataset, found), end="\n\n", flush=True)
        listed = args.out / "images" / f"{dataset}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text(list_images(dataset, args.split, splits(models["s-cnn"].info.size).ids))
    if not rows:
        raise SystemExit("nothing to evaluate: no models with their data")
    complete = completed(rows, earlier)
    columns = dict.fromkeys(key for row in complete for key in row if key not in MADE)
    records = (
        {"model": f"{dataset}-{role}", **asdict(one)}
        for dataset, roles in answers.items() for role, given in roles.items() for one in given
    )  # fmt: skip
    print(f"written: {write_figures('evaluate', [{**columns, **row} for row in complete], records, args.out)}")

    from models import pictures  # matplotlib is slow to import: not for those who only use a function of this module

    pictures.draw(args.pictures or args.out, rows, answers, args.learning_curve)
    if published is not None and (complaints := differences(rows, published)):
        raise SystemExit("not as published: " + "; ".join(complaints))


def _beside(s_cnn: Path) -> dict[str, Path]:
    """An s-cnn of any origin and the collage-cnns beside it, by role."""
    stem = s_cnn.stem.removesuffix("-s-cnn")
    others = {path.stem.removeprefix(f"{stem}-"): path for path in sorted(s_cnn.parent.glob(f"{stem}-collage-*.onnx"))}
    return {"s-cnn": s_cnn, **others}


def _reader(folder: Path, part: str, models: Models, foreign: bool) -> Callable[[int], Split]:
    @cache
    def read(size: int) -> Split:
        _progress(f"reading {folder} at {size} px")
        if foreign:
            try:
                return photos.test_part(folder, models["s-cnn"].info.labels, size)
            except ValueError as error:
                raise SystemExit(str(error)) from None
        data = load(folder, size)
        for model in models.values():
            if model.info.labels != data.labels:
                known = ", ".join(model.info.labels)
                raise SystemExit(f"{model.info.name} knows other classes than {data.name}: {known}")
        split: Split = getattr(data, part)
        return split

    return read


if __name__ == "__main__":
    main()
