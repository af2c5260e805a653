"""How models are trained, as values: settings, steps with what they take over from other models, and families of steps.

Needs no torch. The steps of the zoo are in ``models.recipes``. ``models.train`` carries out a step, ``models.teacher``
that of a teacher.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

S_CNN = "s-cnn"
"""The role of the model that the collage-cnns of the same data set protect."""
PRETRAINED = "pretrained"
"""Roles that start with it are only for other models to start from, or to learn from."""
PARITY = "parity"
"""Roles that start with it stand in for s-cnns in a code."""
CURVE = "curve"
"""Roles that start with it are points of a learning curve."""


@dataclass(frozen=True)
class Recipe:
    """The settings of one training run. The defaults are ours; ``paper()`` has Collage inference's, section 5.1."""

    epochs: float = 10.0
    minutes: float = 0.0  # longest time of training; 0: no limit
    least_steps: int = 0  # further epochs follow until there are as many: few images make short epochs
    batch: int = 256  # images per step, or all there are; a collage of N counts as N
    muon_lr: float = 0.06  # for convolutions; 0 trains everything with SGD
    sgd_lr: float = 0.2
    bias_gain: float = 1.0  # rate of batch-norm biases and cell embeddings, in SGD's
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.1  # share of the run
    decay: bool = True  # linearly to zero
    smoothing: float = 0.1
    shift: int = 3  # pixels
    flip: bool = True
    crop: float = 0.0  # smallest share of an image's area in a random crop; 0: shift instead
    window: int = 0  # side of the part of an image that is seen, pixels; 0: all of it
    cutout: int = 0  # side of a square that is blackened, pixels
    mix: float = 0.0  # share of images into which a box of another is pasted
    mixup: float = 0.0  # share of images that become their mean with another
    blank: float = 0.02  # share of empty cells in training collages
    distil: float = 0.5  # weight of the teachers' answer in the target, if there are any
    small_size: int = 0  # train the first part of the run with images (or cells) of this side ...
    small_share: float = 0.0  # ... for this share of it
    collages: int = 0  # number of different collages or groups, drawn once; 0: new ones every epoch
    adam_lr: float = 0.0  # of all weights; 0: Muon and SGD
    ema: float = 0.0  # share of the running mean of the weights that every step keeps; 0: the last weights count
    stale: bool = False  # parity models learn the base model's outputs for images as they are, not as they are seen
    xavier: bool = False  # first weights are those of the parity models' authors
    member: float = 1.0  # parity models: weight of the decoded members' cross-entropy beside their squared error
    seed: int = 0

    @classmethod
    def paper(cls, **changes: float) -> Recipe:
        """The paper's setting, with changes."""
        base = {"batch": 64, "muon_lr": 0.0, "sgd_lr": 0.001, "warmup": 0.0, "smoothing": 0.0, "blank": 0.0}
        return cls(**{**base, "decay": False, **changes})  # type: ignore[arg-type]

    @classmethod
    def parm(cls, members: int, **changes: float) -> Recipe:
        """That of a parity model as its authors trained it (Learning-based coded computation, section V-E)."""
        groups = 64 if members == 2 else 32
        base = {"batch": groups * members, "adam_lr": 0.001, "weight_decay": 1e-5, "warmup": 0.0, "stale": True}
        base |= {"xavier": True, "member": 0.0, "smoothing": 0.0, "decay": False}
        return cls(**{**base, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Protection:
    """The code whose redundant inputs a model runs, and the one that it runs."""

    code: str
    """One of ``models.coding.CODES``."""
    members: int
    """N (k in the paper): requests of a group."""
    inputs: int = 1
    """r: redundant inputs of a group."""
    row: int = 0
    """Which of them, from 0."""
    keyed: bool = False
    """Every member's image is turned in another way before they are added up."""

    @property
    def role(self) -> str:
        """What its model is called, such as ``parity-addition-2``, or ``parity-addition-2-r2-row1`` of two rows."""
        keyed = "-keyed" if self.keyed else ""
        several = f"-r{self.inputs}-row{self.row}" if self.inputs > 1 else ""
        return f"{PARITY}-{self.code}{keyed}-{self.members}{several}"


@dataclass(frozen=True)
class Step:
    """One training run: a network, its settings, and the models it takes something over from.

    ``parents``, ``teacher`` and ``live_teachers`` are roles of the same data set (in ``models.recipes``) or files (in
    ``models.train``).
    """

    model: str
    """Name of the architecture."""
    size: int = 32
    """Side of an image, or of a collage's cell; pixels."""
    k: int = 1
    """The grid of a collage-cnn; 1 for an s-cnn."""
    collage_size: int = 0
    """Side of a collage, pixels; 0 stands for ``k * size``."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the architecture: widths, blocks, strides, pools, stem."""
    recipe: Recipe = Recipe()
    parents: tuple[str, ...] = ()
    """The run starts from this model, or from the mean of several of one shape; none: from random weights."""
    teacher: str = ""
    """Its answers to every training image, given once, are learnt as well."""
    live_teachers: tuple[str, ...] = ()
    """Their mean answer to every image as it is seen, varied and mixed, is learnt as well."""
    protects: Protection | None = None
    """A parity model is trained for this code; None: an s-cnn or a collage-cnn."""
    base: str = ""
    """The base model whose outputs a parity model stands in for."""
    unlabelled: bool = False
    """Photos without labels: all that is learnt is the answers of ``teacher``, an exported s-cnn of any origin."""

    @property
    def input_size(self) -> int:
        """Side of the model's input, pixels."""
        return self.collage_size or self.size * self.k

    @property
    def image_size(self) -> int:
        """Side of one image, pixels; in a collage, of the largest cell."""
        return -(-self.input_size // self.k)

    @property
    def teachers(self) -> tuple[str, ...]:
        """All teachers."""
        return (*(name for name in (self.teacher, self.base) if name), *self.live_teachers)


@dataclass(frozen=True)
class TeacherRecipe:
    """The settings of a teacher's run.

    Rates are those of the published record, per image of a batch where they depend on its size.
    """

    minutes: float = 0.0  # longest time of training; 0: no limit
    epochs: float = 0.0  # 0: no limit
    batch: int = 500  # images
    muon_lr: float = 0.12
    muon_momentum: float = 0.6
    bias_lr: float = 0.053  # per image; what batch norms and the first layer add
    head_lr: float = 0.67  # per image
    weight_decay: float = 2e-6  # per image, of the biases and the head
    momentum: float = 0.85
    smoothing: float = 0.2
    shift: int = 2  # pixels; borders are mirrored
    whiten_share: float = 0.2  # share of the run in which the first layer's bias is learnt
    skip: float = 0.5  # share of the easy images, those of less than the mean loss, that an epoch leaves out
    whole_from: float = 0.85  # share of the run after which an epoch leaves none out
    seed: int = 0


@dataclass(frozen=True)
class TeacherStep:
    """The training run of a wide network that others learn from; it learns from labels alone."""

    size: int = 32
    """Side of an image, pixels."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the network: widths, depth, views."""
    recipe: TeacherRecipe = TeacherRecipe()
    init: str = ""
    """The role or file that the run starts from; none: random weights."""

    model: ClassVar[str] = "wide"
    k: ClassVar[int] = 1
    teachers: ClassVar[tuple[str, ...]] = ()

    @property
    def input_size(self) -> int:
        """Side of the model's input, pixels."""
        return self.size

    @property
    def parents(self) -> tuple[str, ...]:
        """``init``, if there is one."""
        return (self.init,) if self.init else ()


AnyStep = Step | TeacherStep


@dataclass(frozen=True)
class Family:
    """Data sets whose models are trained by the same steps."""

    data_sets: tuple[str, ...]
    """Names of the data sets; none for your own images."""
    source: str
    """Where the images come from."""
    licence: str
    """Their licence."""
    ships: tuple[str, ...]
    """Roles whose models belong in the repository."""
    steps: Mapping[str, AnyStep]
    """Steps by role, in the order of training."""


def needed(steps: Mapping[str, AnyStep], roles: Sequence[str]) -> dict[str, AnyStep]:
    """The steps of these roles, and of the models that they take something over from, in their order."""
    found = set(roles)
    for name, step in reversed([*steps.items()]):
        if name in found:
            found |= {*step.parents, *step.teachers}
    return {name: step for name, step in steps.items() if name in found}


def limited(step: AnyStep, minutes: float) -> AnyStep:
    """The same run within so many minutes, or within its own if they are less."""
    minutes = min(minutes, step.recipe.minutes or math.inf)
    if isinstance(step, TeacherStep):
        return replace(step, recipe=replace(step.recipe, minutes=minutes))
    return replace(step, recipe=replace(step.recipe, minutes=minutes))
