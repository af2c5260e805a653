"""Torch on one thread: tests' models gain nothing from more, which wait long for each other where cores are busy."""

from pathlib import Path

import pytest
import torch

from models.data import Dataset, load
from tests.models.datasets import write_idx

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Fashion-MNIST, 80 training and 20 test images; to be read only."""
    return write_idx(tmp_path_factory.mktemp("fashion"), train=80, test=20)


@pytest.fixture(scope="session")
def data(folder: Path) -> Dataset:
    """The same at 16 px."""
    return load(folder, 16)
