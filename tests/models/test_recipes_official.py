"""The plan of the next zoo: what is planned can be built, and a wide net teaches live."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import teacher, train
from models.checkpoint import ARCHITECTURES
from models.recipes import FAMILIES
from models.recipes.official import OFFICIAL, TEACHER, TEACHER_ARGUMENTS
from models.steps import Family
from models.train import flags, parser, step_of
from tests.models.datasets import write_folders


@pytest.mark.parametrize("family", OFFICIAL, ids=lambda family: family.data_sets[0])
def test_a_step_can_be_built_and_given_by_flags_and_starts_from_what_is_there(family: Family) -> None:
    assert set(family.ships) <= set(family.steps)
    roles = list(family.steps)
    for role, step in family.steps.items():
        assert set(step.parents) | set(step.teachers) <= {TEACHER, *roles[: roles.index(role)]}
        assert (step.k > 1) == role.startswith("collage")
        assert step.k == 1 or f"{step.k}x{step.k}" in role
        arguments = (step.k, step.input_size, 10) if step.k > 1 else (10,)
        with torch.device("meta"):
            model = ARCHITECTURES[step.model](*arguments, **step.options)
        assert sum(weight.numel() for weight in model.parameters()) < 25e6
        assert step_of(parser().parse_args(["--data", "d", "--out", "o", *flags(step)])) == step


def test_names_of_data_sets_belong_to_one_family() -> None:
    names = [name for family in (*FAMILIES, *OFFICIAL) for name in family.data_sets]
    assert len(names) == len(set(names))


def test_the_teacher_recipe_is_understood() -> None:
    args = teacher.parser().parse_args(["--data", "data", "--out", "out.pt", *TEACHER_ARGUMENTS])
    assert (args.views, args.minutes, args.epochs) == (6, 112, 0)


def test_a_teacher_of_one_view_teaches_live(tmp_path: Path) -> None:
    """As the recipes have it, on tiny data: a collage-cnn learns from a wide net's answers to mixed images."""
    path = write_folders(tmp_path / "pets", {"train": 24, "test": 2})
    runs = tmp_path / "runs"
    common = ["--data", str(path), "--precision", "fp32", "--size", "16", "--threads", "1"]
    teacher.main([*common, "--widths", "8", "8", "8", "--batch", "20", "--epochs", "1", "--out", str(runs / "t.pt")])
    recipe = "--model collage-vgg --k 2 --widths 8 8 8 --batch 20 --epochs 1 --mix 0.5 --distil 0.9 --live-teachers"
    train.main([*common, *recipe.split(), str(runs / "t.pt"), "--out", str(runs / "c.pt")])
    assert (runs / "c.pt").exists()
