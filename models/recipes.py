"""How every model of the zoo is trained: arguments of ``models.train``, in the order of training.

A recipe belongs to a family of data sets (CIFAR-10 as released, or as JPEG files) and a role in the zoo; ``{run}`` in
it stands for the checkpoints of the same data set. Choices were made on validation images; ``models/zoo/README.md``
has what came of them.
"""

from __future__ import annotations

from dataclasses import dataclass

S_CNN = "s-cnn"
"""The role of the model that the collage-cnns of the same data set protect."""


@dataclass(frozen=True)
class Family:
    """Data sets with the same recipes; ``ships`` are the roles whose models belong in the repository."""

    data_sets: tuple[str, ...]
    source: str
    licence: str
    ships: tuple[str, ...]
    recipes: dict[str, str]


PRETRAINED = "pretrained"
"""Roles that start with it are only for other models to start from."""
TEACHER = "--teacher {run}-s-cnn.pt"
SHIPPED = (S_CNN, "collage-3x3", "collage-2x2", "collage-4x4", "collage-5x5")

_CIFAR_S_CNN, _CIFAR_TAUGHT = f"{PRETRAINED}-s-cnn-first", f"{PRETRAINED}-s-cnn-taught"
_CIFAR_FIRST, _CIFAR_MIXED = f"{PRETRAINED}-3x3-first", f"{PRETRAINED}-3x3-mixed"
_CIFAR_AGAIN, _CIFAR_MEAN, _CIFAR_MORE = (f"{PRETRAINED}-s-cnn-{word}" for word in ("again", "mean", "more"))
_CIFAR_WIDE, _CIFAR_WIDE_AGAIN, _CIFAR_WIDE_MORE = (f"{PRETRAINED}-2x2{word}" for word in ("", "-again", "-more"))
_CIFAR_TEACHER = f"--teacher {{run}}-{_CIFAR_S_CNN}.pt"
_CIFAR_RESNET = "--model resnet34 --stem cifar"
_CIFAR_ALONE = "--model collage-vgg --sgd-lr 0.04 --bias-gain 32"
_CIFAR_COLLAGE = f"{_CIFAR_ALONE} --batch 500 {_CIFAR_TEACHER}"
_CIFAR_3X3 = "--k 3 --widths 24 64 192 256"
_CIFAR_2X2 = f"{_CIFAR_ALONE} --k 2 --widths 32 96 320 320 --batch 504"
_CIFAR_5X5 = "--k 5 --widths 16 32 128 192"


def _cifar_live(*teachers: str, mix: float = 0.5) -> str:
    return " ".join([f"--mix {mix} --live-teachers", *(f"{{run}}-{role}.pt" for role in teachers)])


def _cifar_mean(*roles: str) -> str:
    """Their mean, trained no further but for the statistics of its batch norm."""
    return " ".join(
        ["--mix 0.5 --muon-lr 0 --sgd-lr 0 --epochs 0.05 --init", *(f"{{run}}-{role}.pt" for role in roles)]
    )


_PHOTOS = f"--batch 108 {TEACHER}"
_PHOTO_SHAPE = f"--model collage-resnet --widths 48 96 208 416 --blocks 1 1 3 2 {_PHOTOS}"
_PHOTO_ALIGNED = f"{_PHOTO_SHAPE} --stem 4 --strides 1 2 2 3"
_PHOTO_3X3 = f"{_PHOTO_ALIGNED} --k 3"
_PHOTO_4X4 = f"{_PHOTO_ALIGNED} --k 4 --collage-size 384"
_PHOTO_5X5 = f"{_PHOTO_SHAPE} --k 5 --collage-size 400 --stem 5 --strides 1 2 2 2"
_PHOTO_FULL = f"{PRETRAINED}-3x3-full"
_PHOTO_PAPER = f"--model collage-tiny --k 3 {_PHOTOS}"
_PHOTO_RIVAL = f"--size 144 --batch 96 {TEACHER}"

FAMILIES = (
    Family(
        ("cifar10", "cifar10-jpeg"),
        "CIFAR-10 (Krizhevsky, 2009); cifar10-jpeg is a copy as JPEG files with 7,970 of the 10,000 test images",
        "none stated",
        (*SHIPPED, "s-cnn-resnet32"),
        {
            f"{PRETRAINED}-s-cnn": "--model resnet34 --stem small --epochs 24",
            f"{PRETRAINED}-s-cnn-full": f"{_CIFAR_RESNET} --cutout 10 --epochs 6 --init {{run}}-{PRETRAINED}-s-cnn.pt",
            _CIFAR_S_CNN: f"{_CIFAR_RESNET} --cutout 10 --epochs 6 --muon-lr 0.03 --sgd-lr 0.02 "
            f"--init {{run}}-{PRETRAINED}-s-cnn-full.pt",
            _CIFAR_FIRST: f"{_CIFAR_COLLAGE} {_CIFAR_3X3} --cutout 8 --muon-lr 0.12 --epochs 30",
            _CIFAR_MIXED: f"{_CIFAR_COLLAGE} {_CIFAR_3X3} --muon-lr 0.1 --mix 0.5 --epochs 24 "
            f"--init {{run}}-{_CIFAR_FIRST}.pt",
            # Two networks together know 1.1 points more than the better one; others learn it from them, and so on.
            "collage-3x3": f"{_CIFAR_ALONE} {_CIFAR_3X3} --batch 500 --muon-lr 0.08 --epochs 27 --distil 0.8 "
            f"{_cifar_live(_CIFAR_MIXED, _CIFAR_FIRST)} --init {{run}}-{_CIFAR_MIXED}.pt",
            _CIFAR_TAUGHT: f"{_CIFAR_RESNET} --batch 252 --sgd-lr 0.05 --epochs 8 "
            f"{_cifar_live(_CIFAR_MIXED, _CIFAR_FIRST)} --init {{run}}-{_CIFAR_S_CNN}.pt",
            _CIFAR_WIDE: f"{_CIFAR_2X2} --distil 0.7 --muon-lr 0.08 --epochs 28 "
            f"{_cifar_live(_CIFAR_MIXED, _CIFAR_FIRST)} --init {{run}}-collage-3x3.pt",
            _CIFAR_AGAIN: f"{_CIFAR_RESNET} --batch 252 --muon-lr 0.05 --sgd-lr 0.04 --epochs 7.5 "
            f"{_cifar_live(_CIFAR_WIDE, _CIFAR_FIRST)} --init {{run}}-{_CIFAR_TAUGHT}.pt",
            _CIFAR_WIDE_AGAIN: f"{_CIFAR_2X2} --distil 0.7 --sgd-lr 0.03 --epochs 15 "
            f"{_cifar_live(_CIFAR_TAUGHT, _CIFAR_WIDE)} --init {{run}}-{_CIFAR_WIDE}.pt",
            _CIFAR_MEAN: f"{_CIFAR_RESNET} --batch 252 {_cifar_mean(_CIFAR_AGAIN, _CIFAR_TAUGHT)}",
            _CIFAR_MORE: f"{_CIFAR_RESNET} --batch 252 --muon-lr 0.03 --sgd-lr 0.025 --epochs 7 "
            f"{_cifar_live(_CIFAR_WIDE_AGAIN, 'collage-3x3')} --init {{run}}-{_CIFAR_MEAN}.pt",
            S_CNN: f"{_CIFAR_RESNET} --batch 252 {_cifar_mean(_CIFAR_MORE, _CIFAR_MEAN)}",
            _CIFAR_WIDE_MORE: f"{_CIFAR_2X2} --distil 0.85 --muon-lr 0.04 --sgd-lr 0.02 --epochs 10 "
            f"{_cifar_live(_CIFAR_MEAN, _CIFAR_WIDE_AGAIN, 'collage-3x3', mix=0.75)} "
            f"--init {{run}}-{_CIFAR_WIDE_AGAIN}.pt",
            "collage-2x2": f"{_CIFAR_2X2} {_cifar_mean(_CIFAR_WIDE_MORE, _CIFAR_WIDE_AGAIN)}",
            "collage-4x4": f"{_CIFAR_COLLAGE} --k 4 --widths 16 48 160 256 --cutout 6 --muon-lr 0.12 --epochs 20",
            "collage-5x5": f"{_CIFAR_COLLAGE} {_CIFAR_5X5} --cutout 6 --muon-lr 0.12 --epochs 16",
            "collage-3x3-paper": "--model collage-tiny --k 3 --batch 500 --muon-lr 0.1 --sgd-lr 0.04 --epochs 14 "
            f"{_CIFAR_TEACHER}",
            "s-cnn-resnet32": "--model resnet32 --batch 128 --epochs 16",
            "collage-3x3-yolo": f"--model collage-yolo --k 3 --pools 4 --muon-lr 0.1 --epochs 30 {TEACHER}",
            "rival-student": f"--model resnet18 --stem small --widths 32 64 128 256 --epochs 30 {TEACHER}",
            "rival-mobilenet": f"--model mobilenetv2 --stem small --epochs 20 {TEACHER}",
        },
    ),
    Family(
        ("imagenette2-320", "imagenette-224"),
        "Imagenette (fast.ai): 10 classes of ImageNet; imagenette-224 is a copy at 224 px with 2,391 of the 3,925 "
        "validation images",
        "Apache-2.0 (the selection); the photos are ImageNet's, for research and education",
        SHIPPED,
        {
            f"{PRETRAINED}-s-cnn": "--model resnet34 --size 112 --crop 0.35 --batch 96 --epochs 16",
            S_CNN: "--model resnet34 --size 224 --crop 0.35 --batch 96 --epochs 6 --muon-lr 0.03 --sgd-lr 0.05 "
            f"--small-size 176 --small-share 1 --init {{run}}-{PRETRAINED}-s-cnn.pt",
            f"{PRETRAINED}-3x3": f"{_PHOTO_3X3} --crop 0.35 --collage-size 288 --epochs 40",
            _PHOTO_FULL: f"{_PHOTO_3X3} --crop 0.5 --collage-size 432 --muon-lr 0.03 --sgd-lr 0.08 --epochs 20 "
            f"--init {{run}}-{PRETRAINED}-3x3.pt",
            # Crops magnify: the last epochs see images nearly whole, as those to be classified are.
            "collage-3x3": f"{_PHOTO_3X3} --crop 0.8 --collage-size 432 --muon-lr 0.006 --sgd-lr 0.02 --epochs 2 "
            f"--init {{run}}-{_PHOTO_FULL}.pt",
            "collage-2x2": f"{_PHOTO_ALIGNED} --k 2 --collage-size 384 --crop 0.6 --muon-lr 0.02 --sgd-lr 0.05 "
            f"--epochs 7 --init {{run}}-{_PHOTO_FULL}.pt",
            f"{PRETRAINED}-4x4": f"{_PHOTO_4X4} --crop 0.6 --muon-lr 0.03 --sgd-lr 0.05 --epochs 12 "
            f"--init {{run}}-{_PHOTO_FULL}.pt",
            "collage-4x4": f"{_PHOTO_4X4} --crop 0.8 --muon-lr 0.01 --sgd-lr 0.03 --epochs 5 "
            f"--init {{run}}-{PRETRAINED}-4x4.pt",
            f"{PRETRAINED}-5x5": f"{_PHOTO_5X5} --crop 0.6 --muon-lr 0.04 --sgd-lr 0.1 --epochs 12 "
            f"--init {{run}}-{_PHOTO_FULL}.pt",
            "collage-5x5": f"{_PHOTO_5X5} --crop 0.8 --muon-lr 0.015 --sgd-lr 0.03 --epochs 7 "
            f"--init {{run}}-{PRETRAINED}-5x5.pt",
            f"{PRETRAINED}-3x3-paper": f"{_PHOTO_PAPER} --collage-size 288 --crop 0.35 --epochs 40",
            f"{PRETRAINED}-3x3-paper-full": f"{_PHOTO_PAPER} --collage-size 416 --crop 0.5 --muon-lr 0.03 "
            f"--sgd-lr 0.08 --epochs 12 --init {{run}}-{PRETRAINED}-3x3-paper.pt",
            "collage-3x3-paper": f"{_PHOTO_PAPER} --collage-size 416 --crop 0.8 --muon-lr 0.006 --sgd-lr 0.02 "
            f"--epochs 3 --init {{run}}-{PRETRAINED}-3x3-paper-full.pt",
            "collage-3x3-yolo": f"--model collage-yolo --k 3 --collage-size 416 --crop 0.5 {_PHOTOS} --muon-lr 0.03 "
            f"--sgd-lr 0.08 --epochs 8 --init {{run}}-{PRETRAINED}-3x3-paper-full.pt",
            "rival-lowres": f"{_PHOTO_RIVAL} --model resnet34 --crop 0.6 --muon-lr 0.01 --sgd-lr 0.03 --epochs 2 "
            "--init {run}-s-cnn.pt",
            "rival-student": f"{_PHOTO_RIVAL} --model resnet18 --widths 32 80 160 320 --crop 0.35 --epochs 16",
            "rival-mobilenet": f"{_PHOTO_RIVAL} --model mobilenetv2 --crop 0.35 --epochs 5",
        },
    ),
    Family(
        ("fashion-mnist",),
        "Fashion-MNIST (Zalando Research)",
        "MIT, (c) 2017 Zalando SE",
        SHIPPED,
        {
            S_CNN: "--model resnet34 --stem small --epochs 10",
            "collage-3x3": "--model collage-resnet --k 3 --widths 48 128 256 --muon-lr 0.1 --epochs 25",
            "collage-2x2": "--model collage-resnet --k 2 --widths 80 192 384 --muon-lr 0.1 --epochs 12",
            "collage-4x4": "--model collage-resnet --k 4 --widths 48 96 192 --muon-lr 0.1 --epochs 10",
            "collage-5x5": "--model collage-resnet --k 5 --widths 32 80 160 --muon-lr 0.1 --epochs 10",
        },
    ),
)

OWN_SMALL = Family(
    (),
    "your own images, served at 32 px",
    "yours",
    (),
    {
        S_CNN: "--model resnet34 --stem small --epochs 24",
        "collage-3x3": f"--model collage-resnet --k 3 --widths 48 128 256 --muon-lr 0.1 --epochs 40 {TEACHER}",
    },
)
OWN_PHOTOS = Family(
    (),
    "your own images, served at 224 px",
    "yours",
    (),
    {
        role: FAMILIES[1].recipes[role]
        for role in (f"{PRETRAINED}-s-cnn", S_CNN, f"{PRETRAINED}-3x3", _PHOTO_FULL, "collage-3x3")
    },
)

LEARNING_CURVE = f"{_CIFAR_ALONE} {_CIFAR_5X5} --batch 500 --muon-lr 0.12 --epochs 4 --collages {{collages}}"
"""Our 5 x 5 CIFAR-10 collage-cnn, trained briefly on so many different collages; 0 stands for fresh ones each epoch."""
LEARNING_CURVE_COLLAGES = (400, 1800, 5400, 0)
