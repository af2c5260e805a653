from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from encoder.collage import CollageCode
from encoder.grid import Grid
from models import checkpoint
from models.augment import augment, cut_mix, normalise, tile
from models.data import Dataset, load
from models.optim import Muon, orthogonalise
from models.resnet import resnet32
from models.train import Recipe, Trainer, describe, main
from models.transfer import scores, teach, warm_start
from tests.models.datasets import write_idx

SPECS = {"resnet32": (1, {}), "collage-resnet": (2, {"widths": [8, 16, 16]})}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_idx(tmp_path_factory.mktemp("fashion"), train=80, test=20)


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return load(folder, 16)


def trainer(data: Dataset, architecture: str, precision: str = "fp32", **changes: float) -> Trainer:
    k, options = SPECS[architecture]
    spec = describe(data, architecture, 16 * k, k, dict(options))
    return Trainer(spec, data, Recipe(**{"epochs": 2, "batch": 24, **changes}), "cpu", precision)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("architecture", "precision", "changes"),
    [
        ("collage-resnet", "fp32", {}),
        ("collage-resnet", "bf16", {"muon_lr": 0.0}),
        ("resnet32", "fp32", {"small_size": 8, "small_share": 0.5}),
        ("collage-resnet", "fp32", {"bias_gain": 8.0}),
    ],
)
def test_a_resumed_run_ends_with_the_same_weights(
    tmp_path: Path, data: Dataset, architecture: str, precision: str, changes: dict[str, float]
) -> None:
    whole = trainer(data, architecture, precision, **changes)
    while not whole.finished:
        whole.run_epoch()
    interrupted = trainer(data, architecture, precision, **changes)
    interrupted.run_epoch()
    interrupted.save(tmp_path / "run.pt")
    resumed = trainer(data, architecture, precision, **changes)
    resumed.resume(tmp_path / "run.pt")
    assert len(resumed.log) == 1
    while not resumed.finished:
        resumed.run_epoch()
    assert [epoch["loss"] for epoch in resumed.log] == [epoch["loss"] for epoch in whole.log]
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], weight, rtol=0, atol=0, msg=name)


def test_a_run_of_other_settings_is_not_resumed(tmp_path: Path, data: Dataset) -> None:
    trainer(data, "collage-resnet").save(tmp_path / "run.pt")
    with pytest.raises(ValueError, match="other settings"):
        trainer(data, "collage-resnet", seed=1).resume(tmp_path / "run.pt")


def test_a_run_over_other_images_is_not_resumed(tmp_path: Path, data: Dataset) -> None:
    run, path = trainer(data, "collage-resnet"), tmp_path / "run.pt"
    run.save(path)
    fewer = replace(data, train=data.train.take(np.arange(len(data.train) - 1)))
    other = Trainer(run.spec, fewer, run.recipe, "cpu", "fp32")
    with pytest.raises(ValueError, match="the data set changed"):
        other.resume(path)
    content = torch.load(path, weights_only=True)
    del content["images"]
    torch.save(content, path)
    other.resume(path)  # an older checkpoint does not tell


def test_collages_of_a_fixed_set_come_again_and_fresh_ones_do_not(data: Dataset) -> None:
    def groups(collages: int) -> set[tuple[int, ...]]:
        run = trainer(data, "collage-resnet", collages=collages)
        orders = [run._order(np.random.default_rng(epoch)).reshape(-1, 4) for epoch in range(10)]
        assert {order.shape for order in orders} == {(len(data.train) // 4, 4)}
        return {tuple(group) for order in orders for group in order.tolist()}

    assert len(groups(5)) == 5
    assert len(groups(0)) == 10 * (len(data.train) // 4)


def test_the_command_trains_saves_and_resumes(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs" / "collage.pt"
    arguments = ["--data", str(folder), "--model", "collage-resnet", "--widths", "8", "16", "16", "--size", "16"]
    arguments += ["--k", "2", "--batch", "24", "--epochs", "4", "--precision", "fp32", "--out", str(out)]
    main(arguments)
    spec, _, content = checkpoint.load(out)
    assert (spec.dataset, spec.size, spec.k, spec.kind) == ("fashion-mnist", 32, 2, "collage-cnn")
    assert content["recipe"]["epochs"] == 4
    losses = [epoch["loss"] for epoch in content["log"]]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert "epoch 4" in capsys.readouterr().out
    main(arguments)
    printed = capsys.readouterr().out
    assert "resuming after 4 epochs" in printed
    assert "loss" not in printed
    with pytest.raises(SystemExit, match="other settings"):
        main([*arguments, "--seed", "1"])
    with pytest.raises(SystemExit, match="72 training images are too few: one step takes 81"):
        main([*arguments, "--k", "9", "--out", str(tmp_path / "other.pt")])


@pytest.mark.parametrize(("architecture", "count", "used"), [("resnet32", 30, 30), ("collage-resnet", 30, 28)])
def test_a_step_takes_no_more_images_than_there_are(data: Dataset, architecture: str, count: int, used: int) -> None:
    few = replace(data, train=data.train.take(np.arange(count)))
    run = trainer(few, architecture, batch=108, epochs=1)
    assert run.steps_per_epoch * run._images_per_step == used
    assert run.run_epoch()["loss"] > 0
    assert run.finished


def test_biases_and_embeddings_learn_faster_and_decay_as_before(data: Dataset) -> None:
    run = trainer(data, "collage-resnet", bias_gain=8.0, sgd_lr=0.1, warmup=0.0)
    run._schedule(0)
    groups = {id(weight): group for group in run.optimisers[0].param_groups for weight in group["params"]}
    rates = {name: groups[id(weight)] for name, weight in run.model.named_parameters() if id(weight) in groups}
    fast = {name for name, group in rates.items() if group["lr"] == pytest.approx(0.8)}
    assert fast == {name for name in rates if name.endswith("bias") or name.startswith("embeddings")} - {"head.bias"}
    assert all(rates[name]["lr"] == pytest.approx(0.1) for name in rates.keys() - fast)
    assert all(group["lr"] * group["weight_decay"] == pytest.approx(0.1 * 5e-4) for group in rates.values())


def test_the_papers_preset_is_plain_sgd() -> None:
    recipe = Recipe.paper(sgd_lr=0.005)
    assert (recipe.sgd_lr, recipe.momentum, recipe.weight_decay, recipe.batch) == (0.005, 0.9, 0.0005, 64)
    assert (recipe.muon_lr, recipe.decay, recipe.warmup) == (0.0, False, 0.0)


@pytest.mark.parametrize(("k", "size"), [(2, 32), (3, 41), (4, 64)])
def test_training_collages_are_the_encoders(k: int, size: int) -> None:
    grid = Grid(k, size)
    code = CollageCode(grid)
    side = max(grid.cell_size(cell)[0] for cell in range(grid.cells))
    cells = np.random.default_rng(0).integers(0, 256, (2 * grid.cells, side, side, 3), np.uint8)
    collages = tile(torch.from_numpy(cells), grid).numpy()
    for collage, members in zip(collages, (cells[: grid.cells], cells[grid.cells :]), strict=True):
        cut = [image[: grid.cell_size(i)[1], : grid.cell_size(i)[0]] for i, image in enumerate(members)]
        np.testing.assert_array_equal(collage, code.encode(cut)[0])


def test_augmented_images_are_shifted_and_mirrored_originals() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (40, 8, 8, 3), np.uint8)
    moved = augment(images, 8, np.random.default_rng(1), shift=2, crop=0, flip=True)[0].numpy()
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    flips = 0
    for image, found in zip(padded, moved, strict=True):
        windows = [image[y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
        straight = any((window == found).all() for window in windows)
        mirrored = any((window[:, ::-1] == found).all() for window in windows)
        assert straight != mirrored
        flips += mirrored
    assert 8 < flips < 32
    np.testing.assert_array_equal(augment(images, 8, rng, shift=0, crop=0, flip=False)[0].numpy(), images)


def test_windows_are_parts_of_the_image_at_its_own_scale() -> None:
    images = np.random.default_rng(0).integers(1, 256, (20, 8, 8, 3), np.uint8)
    seen = augment(images, 6, np.random.default_rng(1), shift=0, crop=0, flip=False)[0].numpy()
    corners = set()
    for image, found in zip(images, seen, strict=True):
        ((y, x),) = [(y, x) for y in range(3) for x in range(3) if (image[y : y + 6, x : x + 6] == found).all()]
        corners.add((y, x))
    assert len(corners) > 5


@pytest.mark.parametrize(("architecture", "window"), [("resnet32", 17), ("collage-resnet", 8)])
def test_windows_are_for_single_images_and_no_larger(data: Dataset, architecture: str, window: int) -> None:
    with pytest.raises(ValueError, match="window"):
        trainer(data, architecture, window=window)


def test_a_box_of_another_image_is_pasted_and_counts_by_its_area() -> None:
    """Images of one colour each, which tells what a pixel is of."""
    batch = 300
    images = torch.arange(batch).to(torch.int16)[:, None, None, None].expand(-1, 10, 10, 3)
    mixed, targets = cut_mix(images, torch.eye(batch), 0.5, np.random.default_rng(0))
    other = mixed[..., 0] != images[..., 0]
    for own, found, pasted, target in zip(images, mixed, other, targets, strict=True):
        colours, counts = found[..., 0].unique(return_counts=True)
        assert len(colours) <= 2
        torch.testing.assert_close(target[colours.long()], counts / 100)
        assert (found[~pasted] == own[0, 0, 0]).all()
        assert pasted.sum() == pasted.any(0).sum() * pasted.any(1).sum(), "a box"
    touched = other.any(2).any(1)
    assert 0.3 < touched.float().mean() < 0.55
    assert other[touched].float().mean() > 0.2
    assert other.any(0).all(), "everywhere"
    assert cut_mix(images, targets, 0.0, np.random.default_rng(0)) == (images, targets)


def test_a_square_of_every_image_is_cut_out() -> None:
    images = np.full((200, 12, 12, 3), 9, np.uint8)
    cut, _ = augment(images, 12, np.random.default_rng(0), shift=0, crop=0, flip=False, cutout=4)
    black = (cut.numpy() == 0).all(-1)
    assert (black.any((1, 2))).all()
    for rows, columns in zip(black.any(2), black.any(1), strict=True):
        assert 1 <= rows.sum() <= 4
        assert 1 <= columns.sum() <= 4
    np.testing.assert_array_equal(black.sum((1, 2)), black.any(2).sum(1) * black.any(1).sum(1))
    assert black.any(0).all(), "every place is cut out in some image"


def test_crops_show_parts_of_their_own_image() -> None:
    """Images of one colour each: a crop keeps the colour (its brightness varies) and has the size asked for."""
    images = np.zeros((30, 20, 20, 3), np.uint8)
    for number, image in enumerate(images):
        image[..., number % 3] = 150
    crops, _ = augment(images, 12, np.random.default_rng(0), shift=0, crop=0.35, flip=True)
    assert crops.shape == (30, 12, 12, 3)
    assert crops.dtype == torch.uint8
    brightest = crops.float().mean((1, 2)).argmax(-1).tolist()
    assert brightest == [number % 3 for number in range(30)]
    assert crops.float().amax((1, 2, 3)).std() > 5


def test_a_crop_is_mirrored_where_augment_says_so() -> None:
    images = np.zeros((40, 16, 16, 3), np.uint8)
    images[:, :, 8:] = 200  # bright on the right
    crops, flipped = augment(images, 16, np.random.default_rng(0), shift=0, crop=0.99, flip=True)
    left_is_brighter = (crops[:, :, :4].float().mean((1, 2, 3)) > crops[:, :, -4:].float().mean((1, 2, 3))).numpy()
    np.testing.assert_array_equal(left_is_brighter, flipped)
    assert 5 < flipped.sum() < 35


def test_a_teacher_is_part_of_the_target(data: Dataset) -> None:
    teacher = np.zeros((2, len(data.train), 10), np.float32)
    teacher[0, :, 3] = teacher[1, :, 4] = 1
    spec = describe(data, "resnet32", 16, 1, {})
    taught = Trainer(spec, data, Recipe(batch=24, distil=0.25, smoothing=0.0), "cpu", "fp32", teacher)
    targets = taught._targets(np.array([5, 6]), np.array([False, True])).numpy()
    expected = 0.75 * np.eye(10)[data.train.labels[[5, 6]]] + 0.25 * np.eye(10)[[3, 4]]
    np.testing.assert_allclose(targets, expected, atol=1e-6)


def test_live_teachers_are_asked_about_what_is_seen(data: Dataset) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (8, 16, 16, 3), dtype=torch.uint8)
    single, collages = trainer(data, "resnet32"), trainer(data, "collage-resnet")
    live = [(each.spec, each.model.eval()) for each in (single, collages)]
    taught = Trainer(single.spec, data, Recipe(batch=24, distil=0.25), "cpu", "fp32", live=live)
    answers = [scores(model, spec, images, False).softmax(-1) for spec, model in live]
    assert not torch.allclose(answers[0], answers[1])
    targets = torch.eye(10)[:8]
    expected = 0.75 * targets + 0.125 * (answers[0] + answers[1])
    torch.testing.assert_close(taught._taught(images, targets), expected)
    torch.testing.assert_close(single._taught(images, targets), targets)
    taught.run_epoch()


@pytest.mark.parametrize("changes", [{"batch": 23}, {"window": 8}])
def test_live_teachers_must_be_able_to_look(data: Dataset, changes: dict[str, int]) -> None:
    collages, student = trainer(data, "collage-resnet"), describe(data, "resnet32", 16, 1, {})
    with pytest.raises(ValueError, match="live teacher"):
        Trainer(student, data, Recipe(**changes), "cpu", "fp32", live=[(collages.spec, collages.model)])  # type: ignore[arg-type]


def test_a_teachers_answers_and_a_warm_start(tmp_path: Path, folder: Path, data: Dataset) -> None:
    source = trainer(data, "resnet32")
    source.save(tmp_path / "teacher.pt")
    kept = tmp_path / "kept.npy"
    answers = teach(tmp_path / "teacher.pt", folder, "cpu", data, kept)
    assert answers.shape == (2, len(data.train), 10)
    np.testing.assert_allclose(answers.sum(-1), 1, rtol=1e-3)
    np.save(kept, answers + 1)
    np.testing.assert_array_equal(
        teach(tmp_path / "teacher.pt", folder, "cpu", data, kept), answers + 1
    )  # not worked out again
    os.utime(tmp_path / "teacher.pt", (time.time() + 9, time.time() + 9))
    np.testing.assert_array_equal(
        teach(tmp_path / "teacher.pt", folder, "cpu", data, kept), answers
    )  # it has learned since
    other = trainer(data, "resnet32", seed=5)
    assert warm_start(other.model, tmp_path / "teacher.pt") == len(source.model.state_dict())
    for name, weight in source.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], weight, msg=name)


def test_a_teacher_must_know_the_same_classes_in_the_same_order(tmp_path: Path, folder: Path, data: Dataset) -> None:
    source, kept = trainer(data, "resnet32"), tmp_path / "kept.npy"
    source.save(tmp_path / "teacher.pt")
    teach(tmp_path / "teacher.pt", folder, "cpu", data, kept)
    turned = replace(data, labels=data.labels[::-1])
    with pytest.raises(ValueError, match="the classes of a teacher are T-shirt"):
        teach(tmp_path / "teacher.pt", folder, "cpu", turned, kept)  # whose answers are known
    student = describe(turned, "resnet32", 16, 1, {})
    with pytest.raises(ValueError, match="the classes of a teacher are T-shirt"):
        Trainer(student, turned, Recipe(batch=24), "cpu", "fp32", live=[(source.spec, source.model)])


def test_a_wider_model_begins_as_what_it_starts_from(tmp_path: Path, data: Dataset) -> None:
    narrow, wide = (
        Trainer(
            describe(data, "collage-vgg", 32, 2, {"widths": widths}), data, Recipe(epochs=1, batch=24), "cpu", "fp32"
        )
        for widths in ((4, 6, 8), (6, 8, 12))
    )
    narrow.run_epoch()
    narrow.save(tmp_path / "narrow.pt")
    assert warm_start(wide.model, tmp_path / "narrow.pt") == len(narrow.model.state_dict())
    collages = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(wide.model.eval()(collages), narrow.model.eval()(collages))


def test_a_run_can_start_from_the_mean_of_others(tmp_path: Path, data: Dataset) -> None:
    runs = [trainer(data, "resnet32", seed=seed) for seed in (1, 2, 3)]
    for seed, run in enumerate(runs):
        run.save(tmp_path / f"{seed}.pt")
    mean = trainer(data, "resnet32")
    assert mean.start_from(tmp_path / "0.pt", tmp_path / "1.pt", tmp_path / "2.pt") == len(mean.model.state_dict())
    for name, weight in mean.model.named_parameters():
        own = torch.stack([run.model.get_parameter(name) for run in runs]).mean(0)
        torch.testing.assert_close(weight, own, msg=name)
    trainer(data, "collage-resnet").save(tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"no mean of .*0\.pt, .*other\.pt: they are not of one shape"):
        mean.start_from(tmp_path / "0.pt", tmp_path / "other.pt")


def test_what_is_called_alike_but_is_of_another_kind_is_not_taken_over(tmp_path: Path, data: Dataset) -> None:
    trainer(data, "resnet32").save(tmp_path / "convolutions.pt")
    assert warm_start(nn.ModuleDict({"conv1": nn.Linear(3, 16)}), tmp_path / "convolutions.pt") == 0


def test_the_last_layer_of_a_model_with_other_classes_is_not_taken_over(tmp_path: Path, data: Dataset) -> None:
    source = trainer(data, "resnet32")
    source.save(tmp_path / "ten.pt")
    more = resnet32(classes=12)
    own = more.fc.weight.clone()
    assert warm_start(more, tmp_path / "ten.pt") == len(source.model.state_dict()) - 2
    assert torch.equal(more.fc.weight, own)


def test_a_collage_cnn_can_be_a_teacher(tmp_path: Path, folder: Path, data: Dataset) -> None:
    source = trainer(data, "collage-resnet")
    source.run_epoch()
    source.save(tmp_path / "collage.pt")
    answers = teach(tmp_path / "collage.pt", folder, "cpu", data, tmp_path / "kept.npy")
    mirrored = replace(data.train, images=data.train.images[:, :, ::-1].copy())
    for given, split in zip(answers, (data.train, mirrored), strict=True):
        np.testing.assert_allclose(given.sum(-1), 1, rtol=1e-3)
        assert (given.argmax(-1) == split.labels).mean() == pytest.approx(source.accuracy(split))  # the same collages


def test_normalised_training_images_have_mean_0_and_deviation_1(data: Dataset) -> None:
    spec = describe(data, "resnet32", 16, 1, {})
    x = normalise(torch.from_numpy(data.train.images), spec)
    assert x.shape == (len(data.train), 3, 16, 16)
    assert x.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(32, 288), (288, 32), (128, 1152)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalised_matrices_have_singular_values_near_1(shape: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    found = orthogonalise(matrix, dtype)
    values = torch.linalg.svdvals(found)
    assert found.dtype == torch.float32
    assert values.min() > 0.6
    assert values.max() < 1.25
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    exact = left @ right
    assert (found * exact).sum() / (found.norm() * exact.norm()) > 0.98  # points the same way


def test_muon_keeps_filters_at_unit_scale_and_skips_those_without_gradient() -> None:
    torch.manual_seed(0)
    trained, idle = torch.randn(16, 8, 3, 3), torch.randn(4, 4, 1, 1)
    before = idle.clone()
    trained.grad = torch.randn_like(trained)
    optimiser = Muon([trained, idle], lr=0.1)
    optimiser.step()
    assert trained.norm() == pytest.approx(16**0.5, rel=0.15)
    torch.testing.assert_close(idle, before)
