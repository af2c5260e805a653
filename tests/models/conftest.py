"""Torch on one thread: tests' models gain nothing from more, which wait long for each other where cores are busy."""

import torch

torch.set_num_threads(1)
