from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from models import teacher, train
from models.checkpoint import ModelSpec
from models.recipes import FAMILIES, Family
from models.recipes_official import OFFICIAL, TEACHER, TEACHER_ROLE
from tests.models.datasets import write_folders

RECIPES = [(family, role) for family in OFFICIAL for role in family.recipes]
IDS = [f"{family.data_sets[0]}-{role}" for family, role in RECIPES]


def arguments(recipe: str) -> list[str]:
    return ["--data", "data", "--out", "out.pt", *shlex.split(recipe.format(run="runs/x"))]


@pytest.mark.parametrize(("family", "role"), RECIPES, ids=IDS)
def test_a_recipe_is_understood_and_starts_from_what_is_there(family: Family, role: str) -> None:
    recipe = family.recipes[role]
    args = train.parser().parse_args(arguments(recipe))
    earlier = [TEACHER_ROLE, *list(family.recipes)[: list(family.recipes).index(role)]]
    named = re.findall(r"\{run\}-([\w-]+)\.pt", recipe)
    assert set(named) <= set(earlier)
    collage = args.model.startswith("collage")
    assert collage == role.removeprefix("pretrained-").startswith("collage")
    if collage:
        assert f"{args.k}x{args.k}" in role
    options = {name: value for name in ("widths", "blocks", "strides") if (value := getattr(args, name))}
    if args.stem:
        options["stem"] = int(args.stem) if collage else args.stem
    k = args.k if collage else 1
    spec = ModelSpec(args.model, "x", tuple("ab"), args.size * k, k, (0.5,) * 3, (0.25,) * 3, options)
    assert sum(weight.numel() for weight in spec.build().parameters()) < 25e6


def test_names_of_data_sets_belong_to_one_family() -> None:
    names = [name for family in (*FAMILIES, *OFFICIAL) for name in family.data_sets]
    assert len(names) == len(set(names))


def test_the_teacher_recipe_is_understood() -> None:
    args = teacher.parser().parse_args(arguments(TEACHER))
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
