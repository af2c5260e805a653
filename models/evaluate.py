"""Measure exported models: accuracy, empty cells, latency and size.

``python -m models.evaluate --data DIR --s-cnn FILE.onnx --collage FILE.onnx [FILE.onnx ...]`` runs the shipped files
in ONNX Runtime, on one thread, with the encoder that serves. It prints a table and writes ``out/evaluate.json`` and,
with one line per answer, ``out/evaluate.jsonl``. Needs no torch.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from collage.figures import OUT, Row, Scalar, write_figures
from collage.model_info import METADATA_KEY, ModelInfo, ModelKind
from encoder.collage import CollageCode, Detections
from encoder.grid import Grid
from encoder.image import Pixels, shrink
from models.data import Split, load, placements

PAPER_GRID, PAPER_IMAGE = Grid(3, 416), 224
"""The encoding case that the paper times (section 5.4): nine 224 x 224 images into a 416 x 416 collage."""


class OnnxModel:
    """An exported model in ONNX Runtime on one CPU thread; ``info`` is what it says of itself."""

    def __init__(self, source: Path | bytes) -> None:
        content = source if isinstance(source, bytes) else source.read_bytes()
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        metadata = self._session.get_modelmeta().custom_metadata_map
        if METADATA_KEY not in metadata:
            raise ValueError(
                f"{source if isinstance(source, Path) else 'the model'} does not describe itself: export it"
            )
        version = hashlib.sha256(content).hexdigest()[:12]
        self.info = replace(ModelInfo.from_json(metadata[METADATA_KEY]), version=version)
        self.size_bytes = len(content)

    def __call__(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """All outputs for uint8 ``[N, size, size, 3]``."""
        outputs: list[NDArray[np.float32]] = self._session.run(None, {self._input: pixels})
        return outputs

    @property
    def code(self) -> CollageCode:
        """The code of a collage-cnn, as a frontend makes it."""
        return CollageCode(Grid(self.info.k, self.info.size), self.info.detection_threshold)


@dataclass(frozen=True)
class Answer:
    """What one model said of one image: an index into the labels, or None for an empty cell."""

    image: str
    label: int
    prediction: int | None
    confidence: float
    seed: int | None = None
    group: int | None = None
    cell: int | None = None


def classify(model: OnnxModel, split: Split, batch: int = 50) -> Iterator[Answer]:
    """The s-cnn's answer for every image of a split; the confidence is the softmax's largest value."""
    for start in range(0, len(split), batch):
        (scores,) = model(split.images[start : start + batch])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        for row, share in enumerate(shares, start):
            yield Answer(split.ids[row], int(split.labels[row]), int(share.argmax()), float(share.max()))


def classify_collages(model: OnnxModel, split: Split, seed: int) -> Iterator[Answer]:
    """The collage-cnn's answer for every image of a split, once, in random groups made with ``seed``.

    Cells are encoded and detections decoded as in serving. The repeats that fill up the last group are not answered.
    """
    code, done = model.code, 0
    for group, members in enumerate(placements(split, code.members, seed)):
        (collage,) = code.encode([split.images[index] for index in members])
        boxes, confidences, probabilities = model(collage[None])
        found = Detections(boxes[0], confidences[0], probabilities[0])
        predictions = code.decode([found], [True] * code.members)
        for cell, (index, prediction) in enumerate(zip(members, predictions, strict=True)):
            if done < len(split):
                done += 1
                guess = None if prediction is None else int(prediction.probabilities.argmax())
                confidence = 0.0 if prediction is None else prediction.confidence
                yield Answer(split.ids[index], int(split.labels[index]), guess, confidence, seed, group, cell)


def top1(answers: Sequence[Answer]) -> float:
    """Share of right answers; an empty cell is a wrong one."""
    return sum(answer.prediction == answer.label for answer in answers) / len(answers)


def medians(calls: Sequence[Callable[[int], object]], repeats: int) -> list[float]:
    """Median seconds of every call, all of them taking turns in one loop; each is told the turn's number."""
    for call in calls:
        call(0)  # warm-up
    seconds = np.empty((repeats, len(calls)))
    for turn in range(repeats):
        for column, call in enumerate(calls):
            started = time.perf_counter()
            call(turn)
            seconds[turn, column] = time.perf_counter() - started
    result: list[float] = np.median(seconds, 0).tolist()
    return result


def latencies(models: Sequence[OnnxModel], images: NDArray[np.uint8], repeats: int) -> list[float]:
    """Median seconds per input of every model at batch 1: one image for an s-cnn, one whole collage of them else."""

    def inputs(model: OnnxModel) -> NDArray[np.uint8]:
        if model.info.kind is ModelKind.S_CNN:
            return images
        members = model.code.members
        groups = [np.take(images, range(i, i + members), 0, mode="wrap") for i in range(len(images))]
        return np.stack([model.code.encode(list(group))[0] for group in groups])

    def call(model: OnnxModel) -> Callable[[int], object]:
        pixels = inputs(model)
        return lambda turn: model(pixels[turn % len(pixels), None])

    return medians([call(model) for model in models], repeats)


def code_latencies(grid: Grid, images: Sequence[Pixels], classes: int, repeats: int) -> tuple[float, float]:
    """Median seconds of encoding one group of images as they come from the s-cnn's input, and of decoding it.

    The detections to decode are two per cell, one of them sure: what the paper's collage-cnn puts out.
    """
    code = CollageCode(grid)
    rng = np.random.default_rng(0)
    boxes = np.repeat(grid.boxes, 2, 0) + rng.normal(0, 0.02, (2 * grid.cells, 4)).astype(np.float32)
    confidences = np.tile(np.array([0.9, 0.1], np.float32), grid.cells)
    found = Detections(boxes, confidences, rng.dirichlet(np.ones(classes), len(boxes)).astype(np.float32))
    group = [images[cell % len(images)] for cell in range(grid.cells)]
    filled = [True] * grid.cells
    encode, decode = medians([lambda _: code.encode(group), lambda _: code.decode([found], filled)], repeats)
    return encode, decode


def evaluate(
    s_cnn: OnnxModel, collages: Sequence[OnnxModel], split: Split, dataset: str, seeds: int, repeats: int
) -> tuple[list[dict[str, Scalar]], list[dict[str, Scalar]]]:
    """Measure everything; returns one row per model (and one for the paper's encoding case), and the raw records."""
    rows: list[dict[str, Scalar]] = []
    records: list[dict[str, Scalar]] = []
    models = [s_cnn, *collages]
    seconds = latencies(models, split.images[:64], repeats)
    for model, latency in zip(models, seconds, strict=True):
        info = model.info
        row: dict[str, Scalar] = {"dataset": dataset, "model": info.name, "version": info.version, "kind": info.kind}
        row |= {"k": info.k, "images": len(split)}
        if info.kind is ModelKind.S_CNN:
            answers = list(classify(model, split))
        else:
            answers = []
            for seed in range(seeds):
                _progress(f"{info.name}: placement {seed + 1} of {seeds}")
                answers += classify_collages(model, split, seed)
        empty = sum(answer.prediction is None for answer in answers) / len(answers)
        row |= {"answers": len(answers), "top1": top1(answers), "empty_share": empty, "accepted_share": 1 - empty}
        row |= {"latency_s": latency, "latency_ratio": latency / seconds[0], "size_bytes": model.size_bytes}
        if info.kind is ModelKind.COLLAGE_CNN:
            for seed in range(seeds):
                row[f"top1_seed_{seed}"] = top1([answer for answer in answers if answer.seed == seed])
            times = code_latencies(model.code.grid, list(split.images[:64]), len(info.labels), repeats)
            row["encode_s"], row["decode_s"] = times
        rows.append(row)
        records += [{"model": info.name, **vars(answer)} for answer in answers]
    images = [shrink(image, PAPER_IMAGE, PAPER_IMAGE) for image in split.images[: PAPER_GRID.cells]]
    encode, decode = code_latencies(PAPER_GRID, images, len(s_cnn.info.labels), repeats)
    name = f"{PAPER_GRID.cells} images of {PAPER_IMAGE} px into {PAPER_GRID.size} px"
    rows.append(
        {"dataset": dataset, "model": name, "kind": "code", "k": PAPER_GRID.k, "encode_s": encode, "decode_s": decode}
    )
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{**columns, **row} for row in rows], records


def table(rows: Sequence[Row]) -> str:
    """The rows for people: accuracies in percent, times in milliseconds, sizes in MB."""
    columns: list[tuple[str, str, Callable[[Any], str]]] = [
        ("model", "model", str),
        ("k", "k", str),
        ("images", "images", "{:,}".format),
        ("top1", "top-1 %", lambda share: f"{100 * share:.2f}"),
        ("accepted_share", "accepted %", lambda share: f"{100 * share:.2f}"),
        ("latency_s", "latency ms", lambda seconds: f"{1e3 * seconds:.2f}"),
        ("latency_ratio", "/ s-cnn", "{:.2f}".format),
        ("encode_s", "encode ms", lambda seconds: f"{1e3 * seconds:.2f}"),
        ("decode_s", "decode ms", lambda seconds: f"{1e3 * seconds:.3f}"),
        ("size_bytes", "MB", lambda size: f"{size / 1e6:.1f}"),
    ]
    lines = [[title for _, title, _ in columns]]
    lines += [[show(row[key]) if row.get(key) is not None else "" for key, _, show in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--s-cnn", type=Path, required=True, help="the exported s-cnn")
    parser.add_argument("--collage", type=Path, nargs="*", default=[], help="exported collage-cnns")
    parser.add_argument("--seeds", type=int, default=3, help="random placements of every image")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--repeats", type=int, default=300, help="runs behind every median")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for evaluate.json and evaluate.jsonl")
    args = parser.parse_args(arguments)
    s_cnn, collages = OnnxModel(args.s_cnn), [OnnxModel(path) for path in args.collage]
    _progress(f"reading {args.data}")
    data = load(args.data, s_cnn.info.size)
    for model, kind in [(s_cnn, ModelKind.S_CNN), *((model, ModelKind.COLLAGE_CNN) for model in collages)]:
        if model.info.kind is not kind:
            raise SystemExit(f"{model.info.name} is a model of kind {model.info.kind}, expected {kind}")
        if model.info.labels != data.labels:
            raise SystemExit(f"{model.info.name} knows other classes than {data.name}: {', '.join(model.info.labels)}")
    split: Split = getattr(data, args.split)
    rows, records = evaluate(s_cnn, collages, split, data.name, args.seeds, args.repeats)
    print(table(rows))
    print(f"written: {write_figures('evaluate', rows, records, args.out)}")


if __name__ == "__main__":
    main()
