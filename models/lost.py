"""What is decoded where answers are lost: random groups of images, every loss in turn, against the truth.

Learning-based coded computation, section III-B. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from encoder.code import Code, Outputs
from encoder.heads import StackedCode
from encoder.tasks import TASKS, TaskName
from models.data import Split, placements

Runner = Callable[[NDArray[np.uint8]], Outputs]
"""A model: inputs uint8 ``[B, ...]`` to its output tensors, each ``[B, ...]``."""
BATCH = 64
"""Groups that are encoded and run at a time."""
MANY_CLASSES = 100
"""From this number of classes on, it counts too whether the right one is among the first five."""


Metric = Callable[[NDArray[np.float32], NDArray[np.float32] | int], float]
"""How good an output ``[m]`` is, 0 to 1, where the truth is a label or a box."""


def _among(most: int, output: NDArray[np.float32], truth: NDArray[np.float32] | int) -> float:
    """1 if the label is among the first classes of logits."""
    return float((output > output[truth]).sum() < most)


METRICS: Mapping[str, Metric] = {
    "top1": partial(_among, 1),
    "top5": partial(_among, 5),
    "iou": TASKS[TaskName.LOCALISATION].score,
}
"""What is reported, by name; the mean over images counts."""


def metrics_of(split: Split, classes: int = 0) -> tuple[str, ...]:
    """How models are judged on these images, whose labels are of so many classes; what matters most is first."""
    if split.boxes is not None:
        return ("iou",)
    return ("top1", "top5") if classes >= MANY_CLASSES else ("top1",)


@dataclass(frozen=True)
class CodeAtWork:
    """A code with the models that run its redundant inputs."""

    label: str
    """As reports call it."""
    code: Code
    runners: Sequence[Runner]
    """One for each redundant input."""
    most: int
    """Answers of a group that may be lost."""
    alone: bool = True
    """Whether members are sent alone as well; if not, redundant outputs are what is lost."""
    batch: int = 1
    """Inputs of its model that one redundant execution takes."""


def batched(model: Runner, members: int, label: str) -> CodeAtWork:
    """A small model of single images that answers for a group of N by a batch of N, in place of a code."""

    def run(stacked: NDArray[np.uint8]) -> Outputs:
        return [output.reshape(*stacked.shape[:2], -1) for output in model(stacked.reshape(-1, *stacked.shape[2:]))]

    return CodeAtWork(label, StackedCode(members), [run], 1, batch=members)


def outputs_of(model: Runner, split: Split) -> NDArray[np.float32]:
    """A base model's outputs, ``[images, m]``."""
    return np.concatenate([model(split.images[first : first + BATCH])[0] for first in range(0, len(split), BATCH)])


def accuracy(own: NDArray[np.float32], split: Split, metrics: Sequence[str] = ("top1",)) -> NDArray[np.float64]:
    """How good own answers are, by ``METRICS``: means over images, ``[metrics]``."""
    scores = [_scores(output, truth, metrics) for output, truth in zip(own, split.truth, strict=True)]
    means: NDArray[np.float64] = np.mean(scores, 0)
    return means


def degraded(
    work: CodeAtWork,
    split: Split,
    own: NDArray[np.float32],
    seed: int,
    losses: Sequence[int] = (1,),
    metrics: Sequence[str] = ("top1",),
) -> NDArray[np.float64]:
    """How good decoded answers are, ``[losses, metrics]``, over all ways to lose so many in a group.

    ``own`` are the base model's outputs, ``[images, m]``. Members that only fill up the last group do not count. Where
    members are not sent alone, 0 losses stand for all answers, decoded from all redundant outputs.
    """
    places, done = range(work.code.shape.members), 0
    right, counted = np.zeros((len(losses), len(metrics))), np.zeros((len(losses), 1))
    for group, outputs in _groups(work, split, seed):
        known = {place: own[index] for place, index in enumerate(group)} if work.alone else {}
        everything: Mapping[int, Outputs] = dict(enumerate(outputs))
        real = [place for place in places if done + place < len(split)]
        done += len(group)
        for row, lost in enumerate(losses):
            for gone in combinations(known if work.alone else everything, lost):
                answers = {place: output for place, output in known.items() if place not in gone}
                coded = {name: output for name, output in everything.items() if work.alone or name not in gone}
                decoded = work.code.decode(answers, coded, places)
                for place in real:
                    if place not in answers:
                        found = decoded.get(place)
                        right[row] += _scores(found.output if found else None, split.truth[group[place]], metrics)
                        counted[row] += 1
    return right / counted


def _groups(work: CodeAtWork, split: Split, seed: int) -> Iterator[tuple[NDArray[np.int64], list[Outputs]]]:
    """Groups, each image once in random places (the last group is filled up), and the outputs for their inputs."""
    groups = list(placements(split, work.code.shape.members, seed))
    for first in range(0, len(groups), BATCH):
        some = groups[first : first + BATCH]
        encoded = [work.code.encode([split.images[index] for index in group]) for group in some]
        made = [run(np.stack([inputs[row] for inputs in encoded])) for row, run in enumerate(work.runners)]
        for number, group in enumerate(some):
            yield group, [[tensor[number] for tensor in outputs] for outputs in made]


def _scores(
    output: NDArray[np.float32] | None, truth: NDArray[np.float32] | int, metrics: Sequence[str]
) -> list[float]:
    """How good an output is, by metric; not at all where there is none."""
    return [0.0 if output is None else METRICS[name](output, truth) for name in metrics]
