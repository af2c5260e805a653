"""How every model of the zoo is trained: one file of typed steps for each family of data sets.

Choices were made on validation images; ``models/zoo/README.md`` has what came of them.
"""

from __future__ import annotations

from models.recipes.cifar10 import CIFAR10
from models.recipes.cifar10_official import CIFAR10_OFFICIAL
from models.recipes.fashion_mnist import FASHION_MNIST
from models.recipes.imagenette import FULL, IMAGENETTE, PLAIN, THREES
from models.recipes.tiny_imagenet import TINY_IMAGENET
from models.steps import S_CNN, Family, Recipe, Step

FAMILIES = (CIFAR10, CIFAR10_OFFICIAL, IMAGENETTE, FASHION_MNIST, TINY_IMAGENET)

# Your own images get an s-cnn and a 3 x 3 collage-cnn.
OWN_SMALL = Family(
    data_sets=(),
    source="your own images, served at 32 px",
    licence="yours",
    ships=(),
    steps={
        S_CNN: Step("resnet34", options={"stem": "small"}, recipe=Recipe(epochs=24)),
        "collage-3x3": Step(
            "collage-resnet",
            k=3,
            options={"widths": [48, 128, 256]},
            recipe=Recipe(muon_lr=0.1, epochs=40),
            teacher=S_CNN,
        ),
    },
)
OWN_PHOTOS = Family(
    data_sets=(),
    source="your own images, served at 224 px",
    licence="yours",
    ships=(),
    steps={role: IMAGENETTE.steps[role] for role in (PLAIN, S_CNN, THREES, FULL, "collage-3x3")},
)
