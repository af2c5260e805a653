"""How every model of the zoo is trained: one file of typed steps for each family of data sets.

Choices were made on validation images; ``models/zoo/README.md`` has what came of them.
"""

from __future__ import annotations

from models.recipes.cifar10 import CIFAR10
from models.recipes.cifar10_official import CIFAR10_OFFICIAL
from models.recipes.fashion_mnist import FASHION_MNIST
from models.recipes.imagenette import IMAGENETTE
from models.recipes.own import OWN_PHOTOS as OWN_PHOTOS
from models.recipes.own import OWN_SMALL as OWN_SMALL
from models.recipes.own import distilled as distilled
from models.recipes.speech import SPEECH
from models.recipes.tiny_imagenet import TINY_IMAGENET, TINY_IMAGENET_BOXES

FAMILIES = (CIFAR10, CIFAR10_OFFICIAL, IMAGENETTE, FASHION_MNIST, TINY_IMAGENET, TINY_IMAGENET_BOXES, SPEECH)
