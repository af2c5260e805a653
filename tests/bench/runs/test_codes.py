"""``python -m bench codes`` on tiny linear models, whose lost answers are decoded exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, save

from bench.runs import codes
from bench.runs.codes import ROLE, main
from collage.figures import read_figures
from encoder.learned import BASE
from models.data import FASHION_MNIST_LABELS, load
from models.measure import OnnxModel, describe, inference
from tests.frontend.test_own_code import APART, network
from tests.models.datasets import write_idx
from tests.onnx_models import save_linear, save_parity

ABOUT: dict[str, Any] = {"size": 16, "labels": FASHION_MNIST_LABELS, "extra": {"dataset": "fashion-mnist"}}


@pytest.mark.parametrize(
    ("role", "found"),
    [
        ("parity-addition-2", ("addition", "2", None, None)),
        ("parity-addition-keyed-3", ("addition-keyed", "3", None, None)),
        ("parity-addition-2-r2-row1", ("addition", "2", "1", None)),
        ("parity-addition-2-stale", ("addition", "2", None, "stale")),
        ("parity-stacked-4-r2-row0-paper", ("stacked", "4", "0", "paper")),
    ],
)
def test_roles_of_parity_models_are_read(role: str, found: tuple[str | None, ...]) -> None:
    parts = ROLE.fullmatch(role)
    assert parts
    assert (parts["code"], parts["k"], parts["row"], parts["variant"]) == found


def test_codes_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_idx(tmp_path / "data", train=40, test=21)
    models = tmp_path / "models"
    models.mkdir()
    save_linear(models / "fashion-mnist-s-cnn.onnx", **ABOUT)
    for number, weights in enumerate([(0.5, 0.5), (1 / 3, 2 / 3)]):
        name = f"fashion-mnist-parity-addition-2-r2-row{number}.onnx"
        save_parity(models / name, weights=weights, inputs=2, row=number, **ABOUT)
    save_parity(models / "fashion-mnist-parity-addition-4-r2-row0.onnx", weights=(1 / 4,) * 4, inputs=2, **ABOUT)
    save_parity(models / "fashion-mnist-parity-addition-3.onnx", weights=(1 / 3,) * 3, base="other", **ABOUT)
    out = tmp_path / "codes.json"
    common = ["--data", str(data), "--models", str(models), "--out", str(tmp_path), "--repeats", "1", "--seeds", "2"]
    assert main([*common, "--only", "*-addition*-2"]) == 0
    printed = capsys.readouterr()
    assert "addition 3 is left out: it is for version other of the base model" in printed.err
    assert "addition 4 is left out: 1 of its models are there" in printed.err
    assert "addition, k = 2, r = 2: top1 of 2 lost" in printed.out
    rows = read_figures(out)
    files = {"linear": "s-cnn", "linear-parity": "parity-addition-2-r2-row0"}
    versions = {name: describe(models / f"fashion-mnist-{file}.onnx").version for name, file in files.items()}
    kinds = {(row["code"], row["k"], row["r"], row["lost"], row["seed"]) for row in rows}
    single = {("addition, base itself", 2, 1, 1, seed) for seed in range(2)}
    assert kinds == single | {("addition", 2, 2, lost, seed) for lost in (1, 2) for seed in range(2)}
    for row in rows:
        assert (row["dataset"], row["base"], row["images"], row["metric"]) == (
            "fashion-mnist", "linear", 21, "top1",
        )  # fmt: skip
        assert row["a_degraded"] == pytest.approx(row["a_available"], abs=0.1), "a mean is rounded to whole numbers"
        assert row["model"] == ("linear" if row["code"] == "addition, base itself" else "linear-parity")
        assert row["version"] == versions[row["model"]]
        assert row["encode_s"] > 0
        assert row["decode_s"] > 0
        assert (row["cost_ratio"] == 1) == (row["code"] == "addition, base itself")
        assert row["commit"]
        assert row["machine"]
    (a_available,) = {row["a_available"] for row in rows}
    base, split = OnnxModel(models / "fashion-mnist-s-cnn.onnx"), load(data, 16).test
    assert a_available == np.mean(base(split.images)[0].argmax(1) == split.labels)

    save_linear(models / "fashion-mnist-rival-student.onnx", **ABOUT)
    batches: list[int] = []

    def noted(model: OnnxModel, images: NDArray[np.uint8], batch: int = 1) -> Callable[[int], object]:
        batches.append(batch)
        return inference(model, images, batch)

    monkeypatch.setattr(codes, "inference", noted)
    assert main([*common, "--only", "*-student-*", "--seeds", "1"]) == 0
    students = read_figures(out)
    assert {(row["code"], row["k"], row["r"]) for row in students} == {("student", k, 1) for k in (2, 4, 9, 16)}
    assert {row["a_degraded"] for row in students} == {a_available}, "the student is the base model's twin"
    assert batches == [2, 1, 4, 1, 9, 1, 16, 1]

    assert main([*common, "--only", "*-ApproxIFER-2"]) == 0
    assert {(row["code"], row["r"], row["lost"]) for row in read_figures(out)} == {("ApproxIFER", 1, 1)}


def test_an_interrupted_run_keeps_the_rows_that_it_has(tmp_path: Path) -> None:
    data = write_idx(tmp_path / "data", train=20, test=20)
    models = tmp_path / "models"
    models.mkdir()
    save_linear(models / "fashion-mnist-s-cnn.onnx", **ABOUT)
    smaller = {**ABOUT, "size": 8}  # which fails when it is run
    save_parity(models / "fashion-mnist-parity-addition-2.onnx", weights=(0.5, 0.5), **smaller)
    common = ["--data", str(data), "--models", str(models), "--out", str(tmp_path), "--repeats", "1", "--seeds", "2"]
    with pytest.raises(Exception, match="Got invalid dimensions"):
        main([*common, "--only", "*-addition*-2"])
    found = [(row["code"], row["seed"]) for row in read_figures(tmp_path / "codes.json")]
    assert found == [("addition, base itself", 0), ("addition, base itself", 1)]


def test_nothing_to_measure_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_idx(tmp_path / "data", train=20, test=10)
    assert main(["--data", str(data), "--models", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "no base model with its data" in capsys.readouterr().err


def test_a_learned_code_is_measured_with_its_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_idx(tmp_path / "data", train=20, test=20)
    models = tmp_path / "models"
    folder = models / "fashion-mnist-learned-mine"
    folder.mkdir(parents=True)
    save(network(np.full((1, 2), 0.5, np.float32), [16, 16, 3], TensorProto.UINT8), folder / "encoder.onnx")
    save(network(APART, [len(FASHION_MNIST_LABELS)], TensorProto.FLOAT), folder / "decoder.onnx")
    save_linear(models / "fashion-mnist-s-cnn.onnx", **ABOUT)
    common = ["--data", str(data), "--models", str(models), "--out", str(tmp_path), "--repeats", "1", "--seeds", "1"]
    assert main([*common, "--only", "*-learned-*"]) == 0
    (row,) = read_figures(tmp_path / "codes.json")
    assert (row["code"], row["k"], row["r"], row["lost"], row["cost_ratio"]) == ("learned-mine", 2, 1, 1, 1)
    assert row["a_degraded"] == pytest.approx(row["a_available"], abs=0.1)
    save_parity(folder / "parity.onnx", weights=(0.5, 0.5), **ABOUT)
    assert main([*common, "--only", "*-learned-*"]) == 0
    (row,) = read_figures(tmp_path / "codes.json")
    assert row["model"] == "linear-parity", "which is asked instead of the base model"
    assert row["a_degraded"] == pytest.approx(row["a_available"], abs=0.1)
    other = network(APART, [len(FASHION_MNIST_LABELS)], TensorProto.FLOAT)
    other.metadata_props.add(key=BASE, value="another")
    save(other, folder / "decoder.onnx")
    assert main([*common, "--only", "*-learned-*"]) == 2
    assert "learned-mine is left out: it is for version another of the base model" in capsys.readouterr().err
    (folder / "decoder.onnx").unlink()
    assert main([*common, "--only", "*-learned-*"]) == 2
