"""How every model of the zoo is trained: one file of typed steps for each family of data sets.

Choices were made on validation images; ``models/zoo/README.md`` has what came of them.
"""

from models.recipes.cifar10 import CIFAR10
from models.recipes.fashion_mnist import FASHION_MNIST
from models.recipes.imagenette import IMAGENETTE
from models.recipes.own import OWN_PHOTOS, OWN_SMALL

__all__ = ["FAMILIES", "OWN_PHOTOS", "OWN_SMALL"]

FAMILIES = (CIFAR10, IMAGENETTE, FASHION_MNIST)
