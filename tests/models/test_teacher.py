from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional as F

from models import checkpoint, train
from models.data import CIFAR10_LABELS, Dataset, load
from models.export import accuracy, export, pack, probes, store
from models.lineage import of_description
from models.measure import OnnxModel
from models.recipes.cifar10_official import CIFAR10_OFFICIAL, TEACHER
from models.restore import restore
from models.steps import TeacherRecipe
from models.teacher import main
from models.teacher_run import TeacherRun
from models.train import describe
from models.wide import WideNet
from tests.models.datasets import write_folders

WIDTHS = {"widths": [8, 16, 16], "views": 2}


def teacher(data: Dataset, precision: str = "fp32", **changes: float) -> TeacherRun:
    recipe = TeacherRecipe(**{"epochs": 4, "batch": 12, **changes})  # type: ignore[arg-type]
    return TeacherRun(describe(data, "wide", 16, 1, dict(WIDTHS)), data, recipe, "cpu", precision)


@pytest.mark.parametrize("stopped_after", [3, 6, 7, 15])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, data: Dataset, stopped_after: int) -> None:
    whole = teacher(data)
    whole.run(tmp_path / "whole.pt", every=100)
    interrupted = teacher(data)
    for _ in range(stopped_after):
        interrupted.advance()
    interrupted.save(tmp_path / "run.pt")
    resumed = teacher(data)
    resumed.resume(tmp_path / "run.pt")
    assert resumed.step == stopped_after
    resumed.run(tmp_path / "run.pt", every=2)
    assert resumed.step == whole.step
    images = checkpoint.read(tmp_path / "run.pt")["recipe"]["epochs"] * len(data.train)
    assert images == pytest.approx(12 * whole.step), "epochs are of all images, whatever was left out"
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], weight, rtol=0, atol=0, msg=name)


def test_it_learns_and_ends_with_the_accuracy_of_its_own_views(tmp_path: Path, data: Dataset) -> None:
    run = teacher(data, epochs=12)
    run.run(tmp_path / "run.pt", every=100)
    assert len(run.log) == 12
    assert run.log[-1]["loss"] < run.log[0]["loss"] / 1.2
    assert run.accuracy(data.train) > 0.3, "a tenth would be chance"
    assert run.log[-1]["validation"] == run.accuracy(data.validation)
    assert run.log[-1]["validation_one_view"] == run.accuracy(data.validation, views=1)
    assert run.model.views == 2
    assert sum(entry["seconds"] for entry in run.log) == pytest.approx(run.seconds)


def test_minutes_end_a_run_and_set_its_rate(tmp_path: Path, data: Dataset) -> None:
    run = teacher(data, epochs=0, minutes=1.0)
    run.seconds = 15.0
    run.advance()
    for optimiser, peaks in zip(run.optimisers, run.peaks, strict=True):
        assert [group["lr"] for group in optimiser.param_groups] == [peak * 0.75 for peak in peaks]
    run.seconds = 61.0
    assert run.done == 1
    steps = run.step
    run.run(tmp_path / "run.pt", every=1)
    assert run.step == steps, "no step more"
    assert run.log[-1]["validation"] == run.accuracy(data.validation)


def test_a_run_that_is_over_gets_other_views(tmp_path: Path, data: Dataset) -> None:
    teacher(data).run(tmp_path / "run.pt", every=100)
    spec = describe(data, "wide", 16, 1, {"widths": [8, 16, 16]})
    again = TeacherRun(spec, data, TeacherRecipe(epochs=4, batch=12), "cpu", "fp32")
    again.resume(tmp_path / "run.pt")
    weights = again.model.state_dict()["head.weight"].clone()
    again.run(tmp_path / "run.pt", every=1)
    stored, _, content = checkpoint.load(tmp_path / "run.pt")
    assert stored.options == {"widths": [8, 16, 16]}
    assert content["log"][-1]["validation"] == content["log"][-1]["validation_one_view"]
    torch.testing.assert_close(content["model"]["head.weight"], weights, rtol=0, atol=0)


def test_a_run_goes_on_with_more_minutes(tmp_path: Path, data: Dataset) -> None:
    run = teacher(data, epochs=0, minutes=1.0)
    run.seconds = 30.0
    run.save(tmp_path / "run.pt")
    longer = teacher(data, epochs=0, minutes=2.0)
    longer.resume(tmp_path / "run.pt")
    assert longer.done == 0.25


def test_a_run_without_an_end_or_with_too_few_images_is_refused(data: Dataset) -> None:
    with pytest.raises(ValueError, match="without an end: give minutes or epochs"):
        teacher(data, epochs=0)
    with pytest.raises(ValueError, match=r"leaves out 1\.0 of the easy images: must be less than 1"):
        teacher(data, skip=1.0)
    with pytest.raises(ValueError, match="72 training images are too few: one step takes 73"):
        teacher(data, batch=73)
    with pytest.raises(ValueError, match="resnet32 has no first layer"):
        TeacherRun(describe(data, "resnet32", 16, 1, {}), data, TeacherRecipe(epochs=1, batch=12), "cpu", "fp32")


def test_a_run_of_other_settings_or_images_is_not_resumed(tmp_path: Path, data: Dataset) -> None:
    run, path = teacher(data), tmp_path / "run.pt"
    run.save(path)
    with pytest.raises(ValueError, match="other settings"):
        teacher(data, seed=1).resume(path)
    fewer = replace(data, train=data.train.take(np.arange(len(data.train) - 1)))
    with pytest.raises(ValueError, match="the data set changed"):
        TeacherRun(run.spec, fewer, run.recipe, "cpu", "fp32").resume(path)


def test_every_image_is_mirrored_every_other_epoch(data: Dataset) -> None:
    run = teacher(data, shift=0)
    index = np.arange(len(data.train))
    first, second, third = (run.varied(index, epoch).numpy() for epoch in range(3))
    np.testing.assert_array_equal(first, third)
    np.testing.assert_array_equal(first[:, :, ::-1], second)
    mirrored = (first != data.train.images).any((1, 2, 3))
    assert 20 < mirrored.sum() < 60, "about half of them begin mirrored"
    np.testing.assert_array_equal(first[~mirrored], data.train.images[~mirrored])


def test_images_are_shifted_over_mirrored_borders(data: Dataset) -> None:
    run = teacher(data, shift=1)
    index = np.arange(len(data.train))
    padded = np.pad(data.train.images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    seen = set()
    for epoch in range(4):
        for image, whole in zip(run.varied(index, epoch).numpy(), padded, strict=True):
            windows = [(r, c) for r in range(3) for c in range(3)]
            views = {place: whole[place[0] : place[0] + 16, place[1] : place[1] + 16] for place in windows}
            found = [place for place, view in views.items() if (image == view).all() or (image[:, ::-1] == view).all()]
            assert found
            seen.update(found)
    assert len(seen) == 9


def test_easy_images_are_left_out_and_the_others_weigh_for_them(data: Dataset) -> None:
    run = teacher(data, skip=0.5, epochs=10)
    assert len(run.order) == 72, "nothing is known of the images in the first epoch"
    run.losses[:] = 1.0
    run.losses[:20] = 9.0
    run.losses[20:24] = np.inf
    run._begin(1)
    kept, weights = set(run.order.tolist()), run.weights
    assert set(range(24)) <= kept, "hard images, and those not seen yet, are never left out"
    assert 36 < len(kept) < 60
    assert (weights[:24] == 1).all()
    assert {0.0, 2.0} == set(weights[24:].tolist())
    assert {i for i in range(72) if weights[i]} == kept
    run.epoch, run.place = 8, run.steps_of_epoch
    run._begin(9)
    assert len(run.order) == 72, "the last epochs are whole"
    few = teacher(data, skip=0.99, epochs=10)
    few.losses[:] = 1.0
    few.losses[0] = 100.0
    few._begin(1)
    assert len(few.order) == 72, "too few for one step: all of them"
    assert (few.weights == 1).all()


def test_weights_count_in_the_gradient(data: Dataset) -> None:
    gradients = []
    for weight in (1.0, 3.0):
        run = teacher(data, batch=72, shift=0)
        run.weights[:] = weight
        run.advance()
        gradients.append(run.model.head.weight.grad)
    torch.testing.assert_close(gradients[1], 3 * gradients[0], rtol=1e-3, atol=1e-5)


def test_the_first_layers_offsets_are_learnt_at_first_only(data: Dataset) -> None:
    run = teacher(data, epochs=10, whiten_share=0.5)
    filters = run.model.whiten.weight.clone()
    before = run.model.whiten.bias.clone()
    run.advance()
    learnt = run.model.whiten.bias.clone()
    assert (learnt != before).any()
    run._begin(6)
    run.advance()
    torch.testing.assert_close(run.model.whiten.bias, learnt, rtol=0, atol=0)
    torch.testing.assert_close(run.model.whiten.weight, filters, rtol=0, atol=0)


def test_the_first_layer_whitens_patches(data: Dataset) -> None:
    run = teacher(data)
    x = run.spec.normalise(torch.from_numpy(data.train.images))
    out = F.conv2d(x, run.model.whiten.weight).transpose(0, 1).flatten(1)
    torch.testing.assert_close(out[:12], -out[12:])
    strong = out[:12].square().mean(1)
    assert (strong < 1.001).all()
    assert strong[-1] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("depth", [1, 3])
def test_shapes_and_views(depth: int) -> None:
    torch.manual_seed(0)
    model = WideNet(7, (8, 16, 24), depth).eval()
    assert sum(weight.ndim == 4 for weight in model.parameters()) == 3 * depth + 1
    x = torch.randn(5, 3, 32, 32)
    plain = model(x)
    assert plain.shape == (5, 7)
    assert model(torch.randn(2, 3, 16, 20)).shape == (2, 7)
    model.views = 2
    torch.testing.assert_close(model(x), model(x.flip(3)))
    torch.testing.assert_close(model(x), (plain + model.look(x.flip(3))) / 2)
    model.views = 6
    padded = F.pad(x, (1, 1, 1, 1), "reflect")
    corners = [padded[:, :, i : i + 32, i : i + 32] for i in (0, 2)]
    expected = (model.look(x) + model.look(x.flip(3))) / 4
    expected = expected + sum(model.look(view) + model.look(view.flip(3)) for view in corners) / 8
    torch.testing.assert_close(model(x), expected)
    model.train()
    before = model.groups[0].norms[0].num_batches_tracked.item()
    model(x)
    assert model.groups[0].norms[0].num_batches_tracked.item() == before + 1, "training looks once"
    with pytest.raises(ValueError, match="3 views: choose 1, 2 or 6"):
        WideNet(7, views=3)


def test_the_command_trains_resumes_and_exports(
    tmp_path: Path, folder: Path, data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "teacher.pt"
    arguments = ["--data", str(folder), "--out", str(out), "--size", "16", "--widths", "8", "16", "16", "--views", "2"]
    arguments += ["--batch", "12", "--every", "3", "--precision", "fp32", "--threads", "1"]
    main([*arguments, "--epochs", "1"])
    main([*arguments, "--epochs", "2"])
    printed = capsys.readouterr().out
    assert "resuming after step 6, 0.0 minutes" in printed
    spec, model, content = checkpoint.load(out)
    assert (spec.architecture, spec.kind, spec.options["views"]) == ("wide", "s-cnn", 2)
    assert len(content["log"]) == 2
    with pytest.raises(SystemExit, match="other settings"):
        main([*arguments, "--epochs", "3", "--seed", "1"])
    exported = tmp_path / "fp32.onnx"
    info = export(out, exported, data=folder)
    (stage,) = of_description("teacher", info.extra)
    assert (stage.epochs, stage.parents, stage.teachers) == (content["recipe"]["epochs"], (), ())
    assert info.extra["validation_accuracy"] == pytest.approx(content["log"][-1]["validation"])
    for storage in ("fp32", "fp16", "int8"):
        file = tmp_path / f"{storage}.onnx"
        file.write_bytes(pack(store(onnx.load(exported), storage), info))
        assert accuracy(OnnxModel(file), data.validation) == pytest.approx(content["log"][-1]["validation"], abs=0.3)
        again, restored = restore(file)
        assert again == spec
        images = load(folder, 16).test.images
        expected = OnnxModel(file.read_bytes())(images)[0]
        run = teacher(data)
        run.start_from(file)
        assert run.lineage["parents"] == [storage]
        with torch.inference_mode():
            found = run.model(spec.normalise(torch.from_numpy(images))).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        run.advance()
        assert run.log == [], "a run of its own begins"
        for network in (restored, model) if storage == "fp32" else (restored,):
            with torch.inference_mode():
                found = network(spec.normalise(torch.from_numpy(images))).numpy()
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_a_wide_net_teaches_live(tmp_path: Path) -> None:
    """As the steps have it, on tiny data: a collage-cnn learns from its answers to mixed images."""
    path = write_folders(tmp_path / "pets", {"train": 24, "test": 2})
    common = ["--data", str(path), "--precision", "fp32", "--size", "16", "--threads", "1"]
    wide = ["--widths", "8", "8", "8", "--batch", "20", "--epochs", "1", "--views", "2"]
    main([*common, *wide, "--out", str(tmp_path / "t.pt")])
    recipe = "--model collage-vgg --k 2 --widths 8 8 8 --batch 20 --epochs 1 --mix 0.5 --distil 0.9 --live-teachers"
    train.main([*common, *recipe.split(), str(tmp_path / "t.pt"), "--out", str(tmp_path / "c.pt")])
    assert checkpoint.read(tmp_path / "c.pt")["lineage"]["teachers"] == ["t"]


def test_the_shipped_teacher_can_teach() -> None:
    file = Path(train.__file__).parent / "teachers" / "cifar10-png.onnx"
    spec, model = restore(file)
    step = CIFAR10_OFFICIAL.steps[TEACHER]
    assert (spec.architecture, spec.labels, spec.size, spec.options) == ("wide", CIFAR10_LABELS, 32, step.options)
    assert OnnxModel(file).info.extra["recipe"]["minutes"] == step.recipe.minutes
    pixels = probes(32)
    with torch.inference_mode():
        found = model(spec.normalise(torch.from_numpy(pixels))).numpy()
    np.testing.assert_allclose(found, OnnxModel(file)(pixels)[0], rtol=0, atol=1e-3)
