"""Training, export and evaluation of the models. The only package that may import torch."""
