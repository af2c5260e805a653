"""``python -m models.description``: what a fleet of another make is to be described by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from collage.model_info import ModelInfo
from models.description import main
from tests import onnx_models


def test_a_file_is_described_for_a_fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = onnx_models.save_collage_cnn(tmp_path / "c.onnx", accept_threshold=0.5, extra={"recipe": "long"})
    assert main([str(path), "--name", "flowers-collage"]) == 0
    printed = capsys.readouterr().out
    info = ModelInfo.from_json(printed)
    assert (info.name, info.k, info.accept_threshold, info.version, info.extra) == ("flowers-collage", 2, 0.5, "", {})
    assert printed.count("\n") == 1
    assert main([str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "colour-collages"


def test_the_sidecar_counts_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"name": "p", "kind": "s-cnn", "labels": ["a", "b", "c"], "size": 8, "mean": [0.5] * 3, "std": [0.2] * 3}
    path = onnx_models.save_plain(tmp_path / "p.onnx", sidecar=said)
    assert main([str(path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {key: printed[key] for key in said} == said


@pytest.mark.parametrize("name", ["missing.onnx", "text.onnx", "plain.onnx"])
def test_what_cannot_be_described_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    onnx_models.save_plain(tmp_path / "plain.onnx")
    assert main([str(tmp_path / name)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("python -m models.description: ")
    assert told.count("\n") == 1
