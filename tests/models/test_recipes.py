from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models import teacher
from models.checkpoint import ARCHITECTURES
from models.coding import is_learned
from models.measure import OnnxModel, discover
from models.recipes import FAMILIES, OWN_PHOTOS, OWN_SMALL
from models.steps import S_CNN, AnyStep, Family, Recipe, Step, TeacherRecipe, TeacherStep
from models.train import flags, parser, step_of
from models.zoo import ZOO

EVERY = [*FAMILIES, OWN_SMALL, OWN_PHOTOS]


def by_flags(step: AnyStep) -> AnyStep:
    command = ["--data", "d", "--out", "o"]
    if isinstance(step, TeacherStep):
        return teacher.step_of(teacher.parser().parse_args([*command, *teacher.flags(step)]))
    return step_of(parser().parse_args([*command, *flags(step)]))


def test_names_of_data_sets_belong_to_one_family() -> None:
    names = [name for family in FAMILIES for name in family.data_sets]
    assert len(names) == len(set(names))
    assert {"cifar10-png", "tiny-imagenet-100", "tiny-imagenet-200"} <= set(names)


@pytest.mark.parametrize("family", EVERY)
def test_a_step_needs_only_models_that_are_trained_before_it(family: Family) -> None:
    assert S_CNN in family.steps, "collage-cnns need it for calibration"
    assert set(family.ships) <= set(family.steps)
    roles = list(family.steps)
    for role, step in family.steps.items():
        needed = {*step.parents, *step.teachers}
        shipped = {name for name in needed if name.endswith(".onnx")}
        assert needed - shipped <= set(roles[: roles.index(role)])
        assert all((ZOO / name).is_file() for name in shipped)


@pytest.mark.parametrize("family", EVERY)
def test_every_step_can_be_built(family: Family) -> None:
    for role, step in family.steps.items():
        arguments = (step.k, step.input_size, 10) if isinstance(step, Step) and step.k > 1 else (10,)
        if is_learned(step):
            arguments = (step.size, 10, 2, 1)
        assert (step.k > 1) == step.model.startswith("collage")
        if found := re.fullmatch(r"collage-(\d)x\d", role):
            assert step.k == int(found[1])
        with torch.device("meta"):
            model = ARCHITECTURES[step.model](*arguments, **step.options)
        assert sum(weight.numel() for weight in model.parameters()) < 25e6


@pytest.mark.parametrize("family", EVERY)
def test_every_step_can_be_given_by_flags(family: Family) -> None:
    for step in family.steps.values():
        assert by_flags(step) == step


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10-jpeg"])
def test_narrow_models_cost_a_fraction_of_their_base(name: str) -> None:
    def multiplications(step: Step, channels: int) -> int:
        counted: list[int] = []

        def counting(its: nn.Module, _: object, out: Tensor) -> None:
            counted.append(out[0].numel() * next(its.parameters())[0].numel())

        made = {"widths": step.options["widths"]} if "widths" in step.options else {}
        with torch.device("meta"):
            model = ARCHITECTURES[step.model](10, stem=step.options["stem"], channels=channels, **made)
            for module in model.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.register_forward_hook(counting)
            model.eval()(torch.empty(1, channels, step.size, step.size))
        return sum(counted)

    (family,) = (family for family in FAMILIES if name in family.data_sets)
    base = family.steps[S_CNN]
    assert isinstance(base, Step)
    narrow = {role: step for role, step in family.steps.items() if role.endswith("-narrow")}
    assert "parity-addition-2-narrow" in narrow
    for role, step in narrow.items():
        assert isinstance(step, Step)
        its = step.protects
        assert its
        assert role == f"{its.role}-narrow"
        assert (step.parents, step.recipe.shift, step.recipe.batch) == ((), 0, 128 * its.members)
        channels = 3 * its.members if its.code == "stacked" else 3
        assert 5 * multiplications(step, channels) < multiplications(base, 3)


def test_flags_name_files() -> None:
    step = Step("resnet32", teacher="one", live_teachers=("two", "three"), parents=("four", "five"))
    words = flags(step, lambda role: Path(f"runs/{role}.pt"))
    assert step_of(parser().parse_args(["--data", "d", "--out", "o", *words])) == replace(
        step,
        teacher="runs/one.pt",
        live_teachers=("runs/two.pt", "runs/three.pt"),
        parents=("runs/four.pt", "runs/five.pt"),
    )


def test_a_teachers_step_can_be_given_by_flags() -> None:
    recipe = TeacherRecipe(minutes=2.5, skip=0.25, batch=100)
    step = TeacherStep(16, {"widths": [8, 16], "depth": 1, "views": 6}, recipe, "one.onnx")
    assert by_flags(step) == step
    assert (step.parents, step.teachers, TeacherStep().parents) == (("one.onnx",), (), ())
    assert teacher.flags(step, lambda role: Path("runs") / role)[-2:] == ["--init", "runs/one.onnx"]


def test_the_papers_preset_is_plain_sgd() -> None:
    recipe = Recipe.paper(sgd_lr=0.005)
    assert (recipe.sgd_lr, recipe.momentum, recipe.weight_decay, recipe.batch) == (0.005, 0.9, 0.0005, 64)
    assert (recipe.muon_lr, recipe.decay, recipe.warmup) == (0.0, False, 0.0)
    args = parser().parse_args(
        ["--data", "d", "--out", "o", "--model", "resnet32", "--preset", "paper", "--sgd-lr", "0.005"]
    )
    assert step_of(args).recipe == recipe


def test_sides_of_images_in_collages() -> None:
    step = Step("collage-tiny", size=30, k=3)
    assert (step.input_size, step.image_size) == (90, 30)
    step = replace(step, collage_size=100)
    assert (step.input_size, step.image_size) == (100, 34), "of the largest cell"


def test_shipped_files_were_trained_by_their_steps() -> None:
    """So that a card may tell the lineage of a file that does not record it."""
    for dataset, roles in discover([ZOO]).items():
        (family,) = (family for family in FAMILIES if dataset in family.data_sets)
        assert set(family.ships) == set(roles)
        for role, path in roles.items():
            info, step = OnnxModel(path).info, family.steps[role]
            assert info.extra["recipe"].items() <= asdict(step.recipe).items()
            assert (info.extra["architecture"], info.k, info.size) == (step.model, step.k, step.input_size)
            assert info.extra["options"] == step.options
