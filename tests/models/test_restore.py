from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models import checkpoint
from models.data import Dataset, Split
from models.export import Served, check, export, probes
from models.measure import OnnxModel
from models.restore import anchor, restore
from models.steps import Recipe
from models.train import main
from models.trainer import Trainer
from tests.models.datasets import write_idx
from tests.models.exports import SPECS, trained, write
from tests.onnx_models import save_plain, save_s_cnn


@pytest.mark.parametrize("architecture", SPECS)
def test_a_restored_model_is_the_one_that_is_served(tmp_path: Path, architecture: str) -> None:
    spec, file = SPECS[architecture], write(architecture, tmp_path / "run.onnx", "int8")
    found, model = restore(file)
    assert found == spec
    assert not model.training
    assert check(Served(spec, model), OnnxModel(file), probes(spec.size), "fp32") < 1e-5


@pytest.mark.parametrize("architecture", SPECS)
def test_an_anchored_model_computes_the_same_in_training_mode(architecture: str) -> None:
    spec = SPECS[architecture]
    model = trained(spec)
    x = spec.normalise(torch.from_numpy(probes(spec.size, 16)))
    with torch.no_grad():
        before = model(x)
        anchor(model, x)
        torch.testing.assert_close(model(x), before, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(model.train()(x), before, rtol=1e-3, atol=1e-3)
        assert (trained(spec).train()(x) - before).abs().max() > 0.05  # not so without


def test_statistics_are_of_all_classes_where_images_come_class_by_class(tmp_path: Path) -> None:
    spec, count = SPECS["s-cnn"], 400
    file = write("s-cnn", tmp_path / "run.onnx")
    shades = np.repeat(np.array([20, 120, 220], np.uint8), count)
    images = np.tile(shades[:, None, None, None], (1, 16, 16, 3))
    split = Split(images, np.repeat(np.arange(3), count), tuple(map(str, range(3 * count))))
    run = Trainer(spec, Dataset("pets", spec.labels, split, split, split), Recipe(shift=0), "cpu", "fp32")
    run.start_from([file])
    with torch.no_grad():
        seen = run.model.get_submodule("conv1")(spec.normalise(torch.from_numpy(images)))
    error = run.model.get_submodule("bn1").get_buffer("running_mean") - seen.mean((0, 2, 3))
    assert (error.abs() / seen.std((0, 2, 3))).max() < 0.2


def test_files_of_another_origin_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"plain\.onnx does not describe itself"):
        restore(save_plain(tmp_path / "plain.onnx"))
    with pytest.raises(ValueError, match="does not tell its 'architecture'"):
        restore(save_s_cnn(tmp_path / "described.onnx"))


def test_training_goes_on_from_an_exported_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(write_idx(tmp_path / "data", train=80, test=20))
    model = ["--data", data, "--model", "collage-resnet", "--widths", "8", "16", "16", "--size", "16", "--k", "2"]
    model += ["--batch", "24", "--precision", "fp32"]
    main([*model, "--epochs", "12", "--out", str(tmp_path / "first.pt")])
    export(tmp_path / "first.pt", tmp_path / "first.onnx", "int8")
    start = ["--init", str(tmp_path / "first.onnx"), "--teacher", str(tmp_path / "first.onnx")]
    low = ["--muon-lr", "0.001", "--sgd-lr", "0.001", "--epochs", "1"]
    main([*model, *start, *low, "--out", str(tmp_path / "second.pt")])
    assert "tensors from" in capsys.readouterr().out
    assert list(tmp_path.glob("first-*.npy"))
    first, second = (checkpoint.load(tmp_path / f"{name}.pt")[2]["log"] for name in ("first", "second"))
    assert second[0]["loss"] < first[5]["loss"] < first[0]["loss"]
