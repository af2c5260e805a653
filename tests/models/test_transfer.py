from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from models.data import Dataset
from models.resnet import resnet32
from models.steps import Recipe
from models.train import describe
from models.trainer import Trainer
from models.transfer import warm_start
from tests.models.runs import trainer


def test_a_warm_start_takes_all_weights_of_the_same_network(tmp_path: Path, data: Dataset) -> None:
    source, other = trainer(data, "resnet32"), trainer(data, "resnet32", seed=5)
    source.save(tmp_path / "source.pt")
    assert warm_start(other.model, tmp_path / "source.pt") == len(source.model.state_dict())
    for name, weight in source.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], weight, msg=name)


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
    assert mean.start_from([tmp_path / "0.pt", tmp_path / "1.pt", tmp_path / "2.pt"]) == len(mean.model.state_dict())
    for name, weight in mean.model.named_parameters():
        own = torch.stack([run.model.get_parameter(name) for run in runs]).mean(0)
        torch.testing.assert_close(weight, own, msg=name)
    trainer(data, "collage-resnet").save(tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"no mean of .*0\.pt, .*other\.pt: they are not of one shape"):
        mean.start_from([tmp_path / "0.pt", tmp_path / "other.pt"])


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
