"""Run exported models on a data set: their answers, how sure they are, and how long they take.

Everything runs in ONNX Runtime on one thread, with the encoder that serves. Needs no torch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from collage.model_info import ModelInfo, ModelKind
from collage.plain import PlainInput, logarithm
from encoder.code import Decoding
from encoder.collage import CollageCode, Detections
from encoder.image import Pixels, shrink
from models import description
from models.data import Split, placements


class OnnxModel:
    """An exported model in ONNX Runtime on one CPU thread; ``info`` is what it says of itself."""

    def __init__(self, source: Path | bytes, *, optimised: bool = True, threads: int = 1) -> None:
        """``optimised``: made ready to run fast; not so, it is read in a fraction of the time.

        Raises ValueError for a file that is no model, or that its description does not fit.
        """
        # First, as ONNX Runtime has an exception of its own for a file that is missing.
        self.size_bytes = source.stat().st_size if isinstance(source, Path) else len(source)
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        if not optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise ValueError(
                f"{source if isinstance(source, Path) else 'the model'} cannot be loaded: {error}"
            ) from None
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.info = description.read(metadata, source if isinstance(source, Path) else None)
        graph = self._session.get_inputs()[0]
        self._input = graph.name
        self._feed = PlainInput(self.info.plain, graph.type, graph.shape, self.info.input.shape)
        self._one_by_one = graph.shape[0] == 1

    def __call__(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """All outputs for uint8 RGB ``[N, size, size, 3]``, whatever the graph itself takes; logits as scores."""
        if self._one_by_one and len(pixels) > 1:
            return [np.concatenate(parts) for parts in zip(*(self(one[None]) for one in pixels), strict=True)]
        outputs = [np.asarray(one, np.float32) for one in self._session.run(None, {self._input: self._feed(pixels)})]
        return [logarithm(one) for one in outputs] if self.info.gives_probabilities else outputs

    def detect(self, collage: Pixels) -> Detections:
        """The objects that a collage-cnn finds in one collage, uint8 ``[size, size, 3]``."""
        boxes, confidences, probabilities = self(collage[None])
        return Detections(boxes[0], confidences[0], probabilities[0])

    @property
    def code(self) -> CollageCode:
        """The code of a collage-cnn, as a frontend makes it."""
        return description.code_of(self.info)


@cache
def _described(path: Path, modified_ns: int) -> ModelInfo:
    return OnnxModel(path, optimised=False).info


def describe(path: Path) -> ModelInfo:
    """What a model's file says of itself."""
    return _described(path.resolve(), path.stat().st_mtime_ns)


def discover(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Exported models by data set and role, s-cnns first. Of two files of one name the earlier folder's is taken."""

    def s_cnns_first(path: Path) -> tuple[bool, str]:
        return "-s-cnn" not in path.stem, path.stem

    found: dict[str, dict[str, Path]] = {}
    named = {path.name: path for folder in reversed(folders) for path in folder.glob("*.onnx")}
    for path in sorted(named.values(), key=s_cnns_first):
        info = describe(path)
        dataset = str(info.extra.get("dataset", ""))
        role = path.stem.removeprefix(f"{dataset}-")
        if info.kind is ModelKind.PARITY or not dataset or role == path.stem:
            print(f"{path} is left out: not an s-cnn or collage-cnn called <data set>-<role>.onnx", file=sys.stderr)
        else:
            found.setdefault(dataset, {})[role] = path
    return found


def decode(code: CollageCode, found: Detections) -> Mapping[int, Decoding]:
    """Answers by cell from what was found in a full collage, as a frontend decodes them; none for an empty cell."""
    outputs = (found.boxes, found.confidences, found.class_probabilities)
    return code.decode({}, {0: outputs}, range(code.shape.members))


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """What one model said of one image: an index into the labels, or None for an empty cell."""

    image: str
    label: int
    prediction: int | None
    confidence: float
    seed: int | None = None
    group: int | None = None
    cell: int | None = None


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Class probabilities from scores, both ``[N, classes]``."""
    shares: NDArray[np.float32] = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return shares


def classify(model: OnnxModel, split: Split, batch: int = 50) -> Iterator[ImageAnswer]:
    """The s-cnn's answer for every image of a split; the confidence is the softmax's largest value.

    Images of another size than the model's are resized as for a cell of that size.
    """
    size = model.info.size
    for start in range(0, len(split), batch):
        images = [shrink(image, size, size) for image in split.images[start : start + batch]]
        (scores,) = model(np.stack(images))
        for row, share in enumerate(softmax(scores), start):
            yield ImageAnswer(split.ids[row], int(split.labels[row]), int(share.argmax()), float(share.max()))


def classify_collages(model: OnnxModel, split: Split, seed: int) -> Iterator[ImageAnswer]:
    """The collage-cnn's answer for every image of a split, once, in random groups made with ``seed``.

    Cells are encoded and detections decoded as in serving. The repeats that fill up the last group are not answered.
    """
    code, done = model.code, 0
    for group, members in enumerate(placements(split, code.shape.members, seed)):
        (collage,) = code.encode([split.images[index] for index in members])
        decoded = decode(code, model.detect(collage))
        for cell, index in enumerate(members):
            if done < len(split):
                done += 1
                found = decoded.get(cell)
                guess = None if found is None else int(found.output.argmax())
                confidence = 0.0 if found is None or found.confidence is None else found.confidence
                yield ImageAnswer(split.ids[index], int(split.labels[index]), guess, confidence, seed, group, cell)


def top1(answers: Sequence[ImageAnswer]) -> float:
    """Share of right answers; an empty cell is a wrong one."""
    return sum(answer.prediction == answer.label for answer in answers) / len(answers)


def risk_coverage(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[NDArray[np.float64], ...]:
    """The curve: thresholds (falling), the coverage of each, and the share of right answers accepted at it."""
    order = np.argsort(-confidences, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    thresholds, accuracy = confidences[order], right[order].cumsum() / ranks
    last_of_ties = np.append(thresholds[:-1] != thresholds[1:], True)
    return thresholds[last_of_ties], ranks[last_of_ties] / len(order), accuracy[last_of_ties]


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


def inference(model: OnnxModel, images: NDArray[np.uint8], batch: int = 1) -> Callable[[int], object]:
    """One inference for ``medians``: ``batch`` images for an s-cnn, one whole collage of them else.

    Turn by turn the input differs; ``images`` have the s-cnn's size.
    """
    if model.info.kind is ModelKind.S_CNN:
        size = model.info.size
        pixels = np.stack([shrink(image, size, size) for image in images])
        batches = [pixels.take(range(i, i + batch), 0, mode="wrap") for i in range(len(pixels))]
        return lambda turn: model(batches[turn % len(batches)])
    members = model.code.shape.members
    groups = [images.take(range(i, i + members), 0, mode="wrap") for i in range(len(images))]
    collages = np.stack([model.code.encode(list(group))[0] for group in groups])
    return lambda turn: model(collages[turn % len(collages), None])


def coding(
    code: CollageCode, images: Sequence[Pixels], found: Detections | None = None
) -> list[Callable[[int], object]]:
    """Two calls for ``medians``: encoding one group of images, and decoding what was found in its collage.

    Without ``found`` that is two detections per cell, one of them sure: what the paper's collage-cnn puts out.
    """
    grid = code.grid
    if found is None:
        rng = np.random.default_rng(0)
        boxes = np.repeat(grid.boxes, 2, 0) + rng.normal(0, 0.02, (2 * grid.cells, 4)).astype(np.float32)
        confidences = np.tile(np.array([0.9, 0.1], np.float32), grid.cells)
        found = Detections(boxes, confidences, rng.dirichlet(np.ones(10), len(boxes)).astype(np.float32))
    group = [images[cell % len(images)] for cell in range(grid.cells)]
    return [lambda _: code.encode(group), lambda _: decode(code, found)]
