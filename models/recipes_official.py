"""How the next models of the zoo are trained, on the official pixels of CIFAR-10 and on Tiny-ImageNet.

``TEACHER`` holds arguments of ``models.teacher``, the families those of ``models.train``, in the order of training;
``{run}`` stands for the checkpoints of the same data set, as in ``models.recipes``. Epochs are plans, not findings:
nothing but the teacher was trained by these recipes yet. Two cores that are free take about 100 seconds for 10^13
multiply-adds forward and backward, which makes 50 hours of CIFAR-10's recipes.
"""

from __future__ import annotations

from models.recipes import PRETRAINED, S_CNN, SHIPPED, Family

TEACHER_ROLE = f"{PRETRAINED}-teacher"
TEACHER = "--views 6 --minutes 112"
"""Two cores that others used as well: 112 minutes of them, see ``models/teachers/README.md`` for what came of it."""

_TAUGHT = f"--mix 0.5 --distil 0.9 --live-teachers {{run}}-{TEACHER_ROLE}.pt"
_VGG = f"--model collage-vgg --sgd-lr 0.04 --bias-gain 32 {_TAUGHT}"
_RESIDUAL = "--model collage-resnet --size 64 --stem 2 --blocks 1 1 3 2 --strides 1 2 2 2 --crop 0.5"
_TINY_TAUGHT = f"--mix 0.5 --distil 0.7 --live-teachers {{run}}-{S_CNN}.pt"

RESNET18 = f"{S_CNN}-resnet18"
"""The role of the base model that parity models share."""

CIFAR10_OFFICIAL = Family(
    ("cifar10-png",),
    "CIFAR-10 (Krizhevsky, 2009), the official pixels as PNG files",
    "none stated",
    (*SHIPPED, RESNET18),
    {
        f"{PRETRAINED}-resnet18": f"--model resnet18 --stem small --epochs 30 {_TAUGHT}",
        RESNET18: "--model resnet18 --stem cifar --batch 252 --muon-lr 0.03 --sgd-lr 0.05 --epochs 10 "
        f"{_TAUGHT} --init {{run}}-{PRETRAINED}-resnet18.pt",
        f"{PRETRAINED}-s-cnn": f"--model resnet34 --stem small --epochs 24 {_TAUGHT}",
        S_CNN: "--model resnet34 --stem cifar --batch 252 --muon-lr 0.03 --sgd-lr 0.05 --epochs 10 "
        f"{_TAUGHT} --init {{run}}-{PRETRAINED}-s-cnn.pt",
        "collage-3x3": f"{_VGG} --k 3 --widths 24 64 192 256 --batch 504 --muon-lr 0.12 --epochs 60",
        "collage-2x2": f"{_VGG} --k 2 --widths 32 96 320 320 --batch 504 --muon-lr 0.08 --epochs 28 "
        "--init {run}-collage-3x3.pt",
        "collage-4x4": f"{_VGG} --k 4 --widths 16 48 160 256 --batch 496 --muon-lr 0.12 --epochs 60",
        "collage-5x5": f"{_VGG} --k 5 --widths 16 32 128 192 --batch 500 --muon-lr 0.12 --epochs 60",
    },
)

TINY_IMAGENET = Family(
    ("tiny-imagenet-100", "tiny-imagenet-200"),
    "Tiny-ImageNet (Stanford CS231n): 200 classes of ImageNet at 64 px; tiny-imagenet-100 has the first 100 by WordNet "
    "number; its validation images are the test part",
    "none stated; the photos are ImageNet's, for research and education",
    (),
    {
        S_CNN: "--model resnet34 --stem small --size 64 --crop 0.35 --mix 0.5 --epochs 24 --small-size 40 "
        "--small-share 0.6",
        "collage-2x2": f"{_RESIDUAL} --k 2 --widths 48 112 256 512 --epochs 30 {_TINY_TAUGHT}",
        "collage-3x3": f"{_RESIDUAL} --k 3 --widths 48 96 208 416 --epochs 40 {_TINY_TAUGHT}",
        "collage-4x4": f"{_RESIDUAL} --k 4 --widths 48 80 160 320 --epochs 50 {_TINY_TAUGHT}",
    },
)

OFFICIAL = (CIFAR10_OFFICIAL, TINY_IMAGENET)
