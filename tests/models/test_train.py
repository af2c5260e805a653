from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import checkpoint
from models.data import Dataset
from models.steps import Recipe
from models.train import main
from models.trainer import Trainer
from tests.models.runs import trainer


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
    assert run.steps_per_epoch * run.images_per_step == used
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


@pytest.mark.parametrize(("architecture", "window"), [("resnet32", 17), ("collage-resnet", 8)])
def test_windows_are_for_single_images_and_no_larger(data: Dataset, architecture: str, window: int) -> None:
    with pytest.raises(ValueError, match="window"):
        trainer(data, architecture, window=window)
