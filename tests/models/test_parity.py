"""Parity models: what they are shown and taught, by the papers' formulas; their recipes, and their exported files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from collage.model_info import CodeInfo, ModelKind
from encoder.heads import StackedCode
from encoder.linear import LinearCode, mean_weights
from models import checkpoint, coding, zoo
from models.checkpoint import ModelSpec
from models.data import FASHION_MNIST_LABELS, Dataset, load
from models.export import export
from models.lessons import Lessons, Teachers
from models.lost import CodeAtWork, degraded, outputs_of
from models.measure import OnnxModel
from models.recipes import FAMILIES, OWN_SMALL
from models.restore import restore
from models.steps import S_CNN, Protection, Recipe, Step
from models.tasks.parity import ProtectGroups
from models.train import flags, parser, run, step_of
from tests.models.exports import LOG, RECIPE
from tests.models.runs import trainer
from tests.onnx_models import save_linear

CLASSES, SIZE = 5, 4
NARROW = {"widths": [8, 8, 8, 8], "stem": "small"}
"""Options of a ResNet-18 that is exported quickly."""
RNG = np.random.default_rng(0)
LINEAR = torch.randn(CLASSES, SIZE * SIZE * 3, generator=torch.Generator().manual_seed(0))


def linear(images: Tensor) -> Tensor:
    """A base model that is linear, so that the means' outputs are the outputs' means."""
    return images.float().flatten(1) / 255 @ LINEAR.T


def pictures(count: int) -> Tensor:
    """Images whose means are whole numbers for all weights here: multiples of 24."""
    return torch.from_numpy(24 * np.random.default_rng(1).integers(0, 11, (count, SIZE, SIZE, 3)).astype(np.uint8))


@pytest.mark.parametrize(("members", "inputs", "row"), [(2, 1, 0), (3, 1, 0), (4, 1, 0), (2, 2, 1), (3, 2, 1)])
def test_with_a_linear_base_model_every_answer_is_decoded_exactly(members: int, inputs: int, row: int) -> None:
    task = ProtectGroups(LinearCode(mean_weights(members, inputs)), row, linear)
    images = pictures(6 * members)
    batch = task.batch(images, torch.zeros(len(images), CLASSES), RNG)
    assert batch.pixels.shape == (6, SIZE, SIZE, 3)
    assert float(batch.loss(linear(batch.pixels))) == pytest.approx(0, abs=1e-6)
    assert task.score(linear, images, linear(images).argmax(1)).all()
    assert not task.score(linear, images, linear(images).argmin(1)).any()


def test_the_loss_is_the_squared_error_of_the_sum_of_outputs() -> None:
    task = ProtectGroups(LinearCode(mean_weights(3, 1)), 0, linear)
    images, out = pictures(6), torch.randn(2, CLASSES)
    of_sum = F.mse_loss(3 * out, linear(images).view(2, 3, CLASSES).sum(1))
    torch.testing.assert_close(task.batch(images, torch.zeros(6, CLASSES), RNG).loss(out), of_sum)


def test_decoded_members_are_taught_labels_and_the_base_models_answers() -> None:
    code, images, out = LinearCode(mean_weights(2, 1)), pictures(4), torch.randn(2, CLASSES)
    own, labels = linear(images), F.one_hot(torch.tensor([0, 1, 2, 3]), CLASSES).float()
    plain = ProtectGroups(code, 0, linear).batch(images, labels, RNG).loss(out)
    full = ProtectGroups(code, 0, linear, member=0.5, distil=0.25).batch(images, labels, RNG).loss(out)
    siblings = own.view(2, 2, CLASSES).flip(1)
    decoded = (2 * out[:, None] - siblings).flatten(0, 1)
    wanted = 0.75 * labels + 0.25 * own.softmax(1)
    torch.testing.assert_close(full - plain, 0.5 * -(wanted * decoded.log_softmax(1)).sum(1).mean())


def test_a_code_with_heads_has_an_output_for_every_member() -> None:
    code = StackedCode(3)

    def ask(stacked: Tensor) -> Tensor:
        return linear(stacked.flatten(0, 1)).view(len(stacked), -1)

    task, images = ProtectGroups(code, 0, linear), pictures(6)
    batch = task.batch(images, torch.zeros(6, CLASSES), RNG)
    assert batch.pixels.shape == (2, 3, SIZE, SIZE, 3)
    assert torch.equal(batch.pixels.flatten(0, 1), images)
    assert float(batch.loss(ask(batch.pixels))) == pytest.approx(0, abs=1e-9)
    assert float(batch.loss(ask(batch.pixels) + 2)) == pytest.approx(4)
    assert task.score(ask, images, linear(images).argmax(1)).all()


def test_stored_outputs_are_learnt_and_the_base_model_is_not_asked() -> None:
    def silent(images: Tensor) -> Tensor:
        raise AssertionError("asked")

    images, out = pictures(2), torch.randn(1, CLASSES)
    outputs = torch.randn(2, CLASSES)
    task = ProtectGroups(LinearCode(mean_weights(2, 1)), 0, silent, stored=True)
    targets = torch.cat([torch.zeros(2, CLASSES), outputs], 1)
    torch.testing.assert_close(
        task.batch(images, targets, RNG).loss(out), F.mse_loss(2 * out, outputs.sum(0, keepdim=True))
    )


def test_stored_outputs_follow_class_probabilities_and_flips(data: Dataset) -> None:
    outputs = np.random.default_rng(0).random((2, len(data.train), 10), np.float32)
    lessons = Lessons(data, Recipe(smoothing=0), 16, torch.device("cpu"), teachers=Teachers(outputs=outputs))
    index, flipped = np.array([3, 4, 5]), np.array([True, False, True])
    targets = lessons.targets(index, flipped, np.empty((3, 4), np.float32))
    assert targets[:, :10].argmax(1).tolist() == data.train.labels[index].tolist()
    np.testing.assert_array_equal(targets[:, 10:], outputs[[1, 0, 1], index])


def test_addition_has_the_papers_weights_and_keys_if_wanted() -> None:
    its = coding.described(Protection("addition", 2, 2, 1), "v1")
    assert (its.name, its.weights, its.base, its.heads, its.keys) == ("linear", (1 / 3, 2 / 3), "v1", False, ())
    assert coding.described(Protection("addition", 3, keyed=True)).keys == (0, 4, 2)
    code = coding.built(its, 4)
    assert isinstance(code, LinearCode)
    np.testing.assert_allclose(code.weights, [[0.5, 0.5], [1 / 3, 2 / 3]])
    own = coding.built(CodeInfo("linear", 2, 2, 1, weights=(0.25, 0.75)), 4)
    assert isinstance(own, LinearCode)
    np.testing.assert_allclose(own.weights, [[0.5, 0.5], [0.25, 0.75]])
    stacked = coding.described(Protection("stacked", 3))
    assert (stacked.name, stacked.heads, stacked.stacked, stacked.weights) == ("stacked", True, True, ())
    assert coding.built(stacked, 4).shape.members == 3
    assert not coding.described(Protection("concatenation", 4)).stacked


def test_the_authors_preset() -> None:
    recipe = Recipe.parm(3)
    assert (recipe.adam_lr, recipe.weight_decay, recipe.batch, recipe.member) == (0.001, 1e-5, 96, 0.0)
    assert (recipe.decay, recipe.warmup, recipe.smoothing, recipe.stale, recipe.ema) == (False, 0, 0, True, 0)
    assert Recipe.parm(2).batch == 128
    assert recipe.xavier
    words = ["--model", "resnet32", "--code", "addition", "--base", "b.onnx", "--preset", "paper", "--epochs", "500"]
    step = step_of(parser().parse_args(["--data", "d", "--out", "o", *words]))
    assert step.recipe == Recipe.parm(2, epochs=500)
    assert (step.protects, step.base, step.teachers) == (Protection("addition", 2), "b.onnx", ("b.onnx",))


def test_a_code_and_a_base_model_go_together() -> None:
    args = parser().parse_args(["--data", "d", "--out", "o", "--model", "resnet32", "--code", "stacked"])
    with pytest.raises(ValueError, match="both --code and --base"):
        step_of(args)


@pytest.mark.parametrize(
    ("model", "code", "why"),
    [("resnet32", "learned", "goes with"), ("learned-mlp", "addition", "goes with"), ("collage-vgg", "stacked", "for")],
)
def test_networks_that_do_not_go_with_a_code_are_refused(model: str, code: str, why: str) -> None:
    words = ["--data", "d", "--out", "o", "--model", model, "--code", code, "--base", "b.onnx"]
    with pytest.raises(ValueError, match=why):
        step_of(parser().parse_args(words))


def test_every_ablation_changes_one_thing() -> None:
    (family,) = (family for family in FAMILIES if "fashion-mnist" in family.data_sets)
    ours = family.steps["parity-addition-2"]
    assert isinstance(ours, Step)
    assert ours.parents == (ours.base,) == ("fashion-mnist-s-cnn.onnx",)
    assert ours.model == family.steps[S_CNN].model
    for name, change in {
        "scratch": {"parents": ()},
        "fixed": {"recipe": replace(ours.recipe, collages=27500)},
        "stale": {"recipe": replace(ours.recipe, stale=True)},
        "steady": {"recipe": replace(ours.recipe, decay=False, warmup=0.0, ema=0.0)},
        "squares": {"recipe": replace(ours.recipe, member=0.0)},
        "paper": {"parents": (), "recipe": Recipe.parm(2, epochs=ours.recipe.epochs)},
    }.items():
        assert family.steps[f"parity-addition-2-{name}"] == replace(ours, **change)  # type: ignore[arg-type]
    keyed = family.steps["parity-addition-keyed-2"]
    assert keyed == replace(ours, protects=Protection("addition", 2, keyed=True))


def test_the_base_model_is_asked_once_about_images_that_are_scored_again() -> None:
    asked: list[int] = []

    def counted(images: Tensor) -> Tensor:
        asked.append(len(images))
        return linear(images)

    task = ProtectGroups(LinearCode(mean_weights(2, 1)), 0, counted)
    first, second = pictures(4), pictures(4).flip(0)
    for images in (first, second, first, second):
        assert task.score(linear, images, linear(images).argmax(1)).all()
    assert asked == [4, 4]


def test_a_step_of_a_parity_model_can_be_given_by_flags() -> None:
    step = Step(
        "resnet32",
        protects=Protection("addition", 4, 2, 1, keyed=True),
        base="b",
        recipe=Recipe(flip=False, stale=True),
    )
    words = flags(step, lambda role: Path(f"runs/{role}.pt"))
    assert step_of(parser().parse_args(["--data", "d", "--out", "o", *words])) == replace(step, base="runs/b.pt")


def test_own_images_get_the_parity_model_that_is_asked_for() -> None:
    protects = Protection("concatenation", 4)
    steps = zoo.leading_to(OWN_SMALL, protects)
    assert list(steps) == [S_CNN, "parity-concatenation-4"] == [S_CNN, protects.role]
    step = steps["parity-concatenation-4"]
    assert isinstance(step, Step)
    assert (step.protects, step.base, step.parents) == (protects, S_CNN, (S_CNN,))
    assert step.recipe.least_steps == OWN_SMALL.steps[S_CNN].recipe.least_steps  # type: ignore[union-attr]
    (official,) = (family for family in FAMILIES if "cifar10-png" in family.data_sets)
    found = list(zoo.leading_to(official, Protection("stacked", 2)))
    assert found == ["pretrained-teacher", "pretrained-resnet18", "s-cnn-resnet18", "parity-stacked-2"]
    assert zoo.leading_to(official, Protection("stacked", 7)) == {}


def test_the_running_mean_of_weights_is_what_a_run_is_for(data: Dataset, tmp_path: Path) -> None:
    run_ = trainer(data, "resnet32", epochs=2, batch=24, ema=0.75)
    seen: list[Tensor] = []
    name = "layer1.0.conv1.weight"
    step = run_._step

    def noted(*args: object) -> float:
        loss = step(*args)  # type: ignore[arg-type]
        seen.append(run_.model.state_dict()[name].clone())
        return loss

    run_._step = noted  # type: ignore[method-assign,assignment]
    run_.run_epoch()
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.75 * expected + 0.25 * weight
    torch.testing.assert_close(run_.result.state_dict()[name], expected)
    file = tmp_path / "run.pt"
    run_.save(file)
    assert torch.equal(checkpoint.load(file)[1].state_dict()[name], run_.result.state_dict()[name])
    again = trainer(data, "resnet32", epochs=2, batch=24, ema=0.75)
    again.resume(file)
    run_.run_epoch()
    again.run_epoch()
    for mine, other in ((run_.result, again.result), (run_.model, again.model)):
        torch.testing.assert_close(mine.state_dict()[name], other.state_dict()[name])


def test_first_weights_are_those_of_the_authors(data: Dataset) -> None:
    model = trainer(data, "resnet32", xavier=True).model
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            outputs, inputs, height, width = module.weight.shape
            bound = (6 / ((inputs + outputs) * height * width)) ** 0.5
            assert 0.95 * bound < float(module.weight.detach().abs().max()) <= bound
            assert module.bias is None
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
        elif isinstance(module, nn.Linear):
            assert float(module.weight.detach().std()) == pytest.approx(0.01, rel=0.1)  # of 640
            assert not module.bias.any()


def test_adam_trains_all_weights(data: Dataset) -> None:
    run_ = trainer(data, "resnet32", adam_lr=0.01, warmup=0.0, decay=False)
    (adam,) = run_.optimisers
    assert isinstance(adam, torch.optim.Adam)
    assert sum(len(group["params"]) for group in adam.param_groups) == len(list(run_.model.parameters()))
    run_.run_epoch()
    assert {group["lr"] for group in adam.param_groups} == {0.01}


@pytest.mark.parametrize(("stale", "shift", "stored"), [(False, 0, True), (True, 3, True), (False, 3, False)])
def test_outputs_are_stored_where_images_do_not_vary(
    tmp_path: Path, folder: Path, stale: bool, shift: int, stored: bool
) -> None:
    base, out = tmp_path / "base.pt", tmp_path / "parity.pt"
    spec = replace(trainer(load(folder, 16), "resnet32").spec, size=16)
    checkpoint.save(base, spec, spec.build().eval(), recipe=RECIPE, log=LOG)
    recipe = Recipe(epochs=1, batch=24, shift=shift, stale=stale, adam_lr=0.001)
    step = Step("resnet32", size=16, recipe=recipe, parents=(str(base),), base=str(base))
    run(replace(step, protects=Protection("addition", 2)), folder, out, device="cpu", precision="fp32", threads=1)
    files = list(tmp_path.glob("base-*-outputs.npy"))
    assert len(files) == stored
    found, _, content = checkpoint.load(out)
    assert (found.kind, found.code) == ("parity", CodeInfo("linear", 2, weights=(0.5, 0.5)))
    assert content["lineage"]["teachers"] == content["lineage"]["parents"] == ["base"]
    if stored:
        outputs = np.load(files[0])
        assert outputs.shape == (2, 72, 10)
        assert outputs.min() < 0, "no probabilities"


def test_an_exported_parity_model_names_its_base_and_its_accuracy(tmp_path: Path, folder: Path) -> None:
    base = save_linear(tmp_path / "base.onnx", size=16, labels=FASHION_MNIST_LABELS)
    spec = replace(trainer(load(folder, 16), "resnet32").spec, architecture="resnet18", options=NARROW)
    spec = replace(spec, code=coding.described(Protection("addition", 2, 2, 1)))
    checkpoint.save(tmp_path / "parity.pt", spec, spec.build().eval(), recipe=RECIPE, log=LOG)
    info = export(tmp_path / "parity.pt", tmp_path / "parity.onnx", "int8", data=folder, base=base)
    assert info.kind is ModelKind.PARITY
    assert info.code == replace(coding.described(Protection("addition", 2, 2, 1)), base=OnnxModel(base).info.version)
    work = CodeAtWork("", LinearCode([info.code.weights]), [OnnxModel(tmp_path / "parity.onnx")], 1)
    validation = load(folder, 16).validation
    right = degraded(work, validation, outputs_of(OnnxModel(base), validation), seed=0)
    assert info.extra["validation_accuracy"] == right[0, 0]
    assert abs(info.extra["accuracy_change"]) < 1
    assert OnnxModel(tmp_path / "parity.onnx").info.code == info.code


def test_the_model_of_a_stacked_code_is_exported_and_restored(tmp_path: Path) -> None:
    code = CodeInfo("stacked", 2, heads=True, stacked=True)
    labels, mean, std = ("cat", "dog", "owl"), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    spec = ModelSpec("resnet18", "pets", labels, 16, 1, mean, std, NARROW, code)
    torch.manual_seed(0)
    model = spec.build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, 0, 0.2)  # which are stored once if all are 0
    checkpoint.save(tmp_path / "stacked.pt", spec, model, recipe=RECIPE, log=LOG)
    info = export(tmp_path / "stacked.pt", tmp_path / "stacked.onnx")
    assert info.input.shape == (2, 16, 16, 3)
    assert info.outputs[0].shape == (2, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 16, 16, 3), np.uint8)
    (found,) = OnnxModel(tmp_path / "stacked.onnx")(pixels)
    wanted = spec.ask(model, torch.from_numpy(pixels), bfloat16=False).view(3, 2, 3)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    again, restored = restore(tmp_path / "stacked.onnx")
    assert again.code == code
    same = again.ask(restored, torch.from_numpy(pixels), bfloat16=False).view(3, 2, 3)
    torch.testing.assert_close(same, wanted, atol=1e-4, rtol=1e-4)
