from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models import checkpoint, teacher, train
from models.checkpoint import ARCHITECTURES
from models.data import CIFAR10_LABELS
from models.export import probes
from models.measure import OnnxModel
from models.recipes import FAMILIES
from models.recipes.official import OFFICIAL, TEACHER, TEACHER_ROLE
from models.restore import restore
from models.steps import S_CNN, Family
from models.train import flags, parser, step_of
from tests.models.datasets import write_folders


@pytest.mark.parametrize("family", OFFICIAL)
def test_a_step_can_be_built_and_needs_only_what_is_trained_before_it(family: Family) -> None:
    assert S_CNN in family.steps, "collage-cnns need it for calibration"
    assert set(family.ships) <= set(family.steps)
    known = {TEACHER_ROLE}
    for role, step in family.steps.items():
        assert set(step.parents) | set(step.teachers) <= known
        known.add(role)
        assert step_of(parser().parse_args(["--data", "d", "--out", "o", *flags(step)])) == step
        arguments = (step.k, step.input_size, 10) if step.k > 1 else (10,)
        assert role.endswith(f"collage-{step.k}x{step.k}") == step.model.startswith("collage")
        with torch.device("meta"):
            ARCHITECTURES[step.model](*arguments, **step.options)


def test_names_of_data_sets_belong_to_one_family() -> None:
    names = [name for family in (*FAMILIES, *OFFICIAL) for name in family.data_sets]
    assert len(names) == len(set(names))


def test_the_teachers_arguments_are_understood() -> None:
    args = teacher.parser().parse_args(["--data", "data", "--out", "out.pt", *TEACHER.split()])
    assert (args.views, args.minutes, args.epochs) == (2, 103, 0)


def test_a_wide_net_teaches_live(tmp_path: Path) -> None:
    """As the steps have it, on tiny data: a collage-cnn learns from its answers to mixed images."""
    path = write_folders(tmp_path / "pets", {"train": 24, "test": 2})
    common = ["--data", str(path), "--precision", "fp32", "--size", "16", "--threads", "1"]
    wide = ["--widths", "8", "8", "8", "--batch", "20", "--epochs", "1", "--views", "2"]
    teacher.main([*common, *wide, "--out", str(tmp_path / "t.pt")])
    recipe = "--model collage-vgg --k 2 --widths 8 8 8 --batch 20 --epochs 1 --mix 0.5 --distil 0.9 --live-teachers"
    train.main([*common, *recipe.split(), str(tmp_path / "t.pt"), "--out", str(tmp_path / "c.pt")])
    assert checkpoint.read(tmp_path / "c.pt")["lineage"]["teachers"] == ["t"]


def test_the_shipped_teacher_can_teach() -> None:
    file = Path(train.__file__).parent / "teachers" / "cifar10-png.onnx"
    spec, model = restore(file)
    assert (spec.architecture, spec.labels, spec.size, spec.options) == ("wide", CIFAR10_LABELS, 32, {"views": 2})
    pixels = probes(32)
    with torch.inference_mode():
        found = model(spec.normalise(torch.from_numpy(pixels))).numpy()
    np.testing.assert_allclose(found, OnnxModel(file)(pixels)[0], rtol=0, atol=1e-3)
