"""What is beside a model's file: its sidecar, its data, and the version that all of them make."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from collage.model_files import version
from tests import onnx_models
from tests.onnx_models import COLOURS
from tests.worker.conftest import Load
from worker.model import ModelError, ServedModel

SIDECAR: dict[str, Any] = {"name": "stranger", "kind": "s-cnn", "labels": list(COLOURS), "size": 8}


async def test_a_sidecar_corrects_what_the_metadata_say(load: Load, tmp_path: Path) -> None:
    file = onnx_models.save_s_cnn(tmp_path / "m.onnx", extra={"dataset": "colours", "seed": 3})
    beside = tmp_path / "m.onnx.json"
    beside.write_text('\ufeff{"labels": ["rouge", "vert", "bleu"], "extra": {"seed": 4}}', "utf-8")
    info = load(file).info
    assert (info.name, info.labels, info.extra) == (
        "colours",
        ("rouge", "vert", "bleu"),
        {"dataset": "colours", "seed": 4},
    )
    for text, told in (
        ("not even JSON", "Expecting value"),
        ("[]", "name, kind, labels, size"),
        ('{"size": 9}', "has inputs"),
    ):
        beside.write_text(text)
        with pytest.raises(ModelError, match=told):
            load(file)


def external(folder: Path, value: float, location: str = "m.onnx.data") -> Path:
    """A plain classifier whose scores are scaled by data in a file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = onnx_models.save_plain(folder / "m.onnx", sidecar=SIDECAR)
    model = onnx.load(file)
    model.graph.node[-1].output[0] = "unscaled"
    model.graph.node.append(helper.make_node("Mul", ["unscaled", "scale"], ["y"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full(300, value, np.float32)[:3].copy(), "scale"))
    (folder / location).unlink(missing_ok=True)
    onnx.save(model, file, save_as_external_data=True, location=location, size_threshold=0)
    return file


@pytest.mark.parametrize("location", ["m.onnx.data", "weights.bin", "w" * 200])
async def test_the_version_covers_what_is_beside_the_file(load: Load, tmp_path: Path, location: str) -> None:
    one, other = (external(tmp_path / name, value, location) for name, value in (("a", 1.0), ("b", 2.0)))
    assert one.read_bytes() == other.read_bytes()
    versions = [load(file).info.version for file in (one, other, one)]
    assert versions[0] == versions[2] != versions[1]
    assert versions[0] != hashlib.sha256(one.read_bytes()).hexdigest()[:12]
    beside = tmp_path / "a" / "m.onnx.json"
    beside.write_text(json.dumps(format_of(mean=[0.5] * 3, std=[0.5] * 3)))
    assert load(one).info.version not in versions
    (tmp_path / "a" / "readme.txt").write_text("no part of the model")
    (tmp_path / "c").mkdir()
    moved = [path.rename(tmp_path / "c" / path.name) for path in (one, beside, one.parent / location)]
    assert re.fullmatch("[0-9a-f]{12}", load(moved[0]).info.version)


async def test_a_file_that_is_alone_has_the_version_of_its_content(load: Load, tmp_path: Path) -> None:
    file = onnx_models.save_s_cnn(tmp_path / "m.onnx", name=b"\n\x08location\x12\x06m.json".hex())
    assert load(file).info.version == hashlib.sha256(file.read_bytes()).hexdigest()[:12]


@pytest.mark.parametrize(
    "tail", [b"", b"\x05", b"\xff", b"\xff\x01" + b"x" * 255, b"\x01\x00", b"\x02\xff\xff", b"\x02.."]
)
def test_bytes_that_only_look_like_the_name_of_a_file_do_no_harm(tmp_path: Path, tail: bytes) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(b"\n\x08location\x12" + tail)
    assert version(file) == hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def format_of(**told: Any) -> dict[str, Any]:
    """A sidecar with more keys."""
    return {**SIDECAR, **told}


@pytest.mark.parametrize(
    ("sidecar", "told"),
    [
        (None, "does not describe itself: write "),
        ({}, "name, kind, labels, size"),
        ({**SIDECAR, "typo": 1}, "name, kind, labels, size"),
        ({**SIDECAR, "kind": "cnn"}, "kind must be s-cnn, collage-cnn, parity, not 'cnn'"),
        ({**SIDECAR, "kind": "parity"}, "a parity model needs a code"),
        ({**SIDECAR, "kind": "collage-cnn"}, "have boxes, confidences, class_probabilities"),
        ({**SIDECAR, "labels": 3}, "labels must be"),
        ({**SIDECAR, "size": 0}, "size must be"),
        (format_of(mean=[0.5], std=[1, 1, 1]), "mean must be a list of three numbers, one per channel, not [0.5]"),
        (format_of(mean="grey", std=[1, 1, 1]), "mean must be a list of three numbers, one per channel, not 'grey'"),
        (format_of(mean={"r": 0}, std=[1, 1, 1]), "mean must be a list of three numbers"),
        (format_of(mean=[[1], 0, 0], std=[1, 1, 1]), "mean, in shares of 255, must be a number from 0 to 1, not [1]"),
        (format_of(mean=[123.7, 116.3, 103.5], std=[1, 1, 1]), "a number from 0 to 1, not 123.7"),
        (format_of(mean=[0, 10**400, 0], std=[1, 1, 1]), "mean, in shares of 255, must be a number from 0 to 1"),
        (format_of(mean=[0, math.nan, 0], std=[1, 1, 1]), "mean, in shares of 255, must be a number from 0 to 1"),
        (format_of(mean=[0, 0, 0], std=[58.4, 57.1, 57.4]), "std, in shares of 255, must be a number from 1e-06 to 1"),
        (format_of(mean=[0, 0, 0], std=[1, 0, 1]), "std, in shares of 255, must be a number from 1e-06 to 1, not 0"),
        (format_of(mean=[0, 0, 0], std=[1, -1, 1]), "std, in shares of 255, must be"),
        (format_of(mean=[0, 0, 0], std=[1, 1e-320, 1]), "std, in shares of 255, must be"),
        (format_of(mean=[0, 0, 0], std=[1, math.nan, 1]), "std, in shares of 255, must be"),
        (format_of(mean=[0, 0, 0]), "mean and std go together: one of them is missing"),
        (format_of(std=[1, 1, 1]), "mean and std go together: one of them is missing"),
        (format_of(scores="odds"), "scores must be logits or probabilities, not 'odds'"),
        (format_of(scores=[]), "scores must be logits or probabilities, not []"),
        (format_of(layout="nchw"), "layout must be NHWC or NCHW, not 'nchw'"),
        (format_of(layout="NHWC"), "layout is NHWC, and the graph takes NCHW"),
        (format_of(colours="GBR"), "colours must be RGB or BGR, not 'GBR'"),
        ({**SIDECAR, "extra": {"mean": [0.5, 0.5, 0.5]}}, "move mean and std out of extra, to where its name is"),
        ({**SIDECAR, "extra": {"std": [0.5, 0.5, 0.5]}}, "move mean and std out of extra, to where its name is"),
        (format_of(scores="x" * 5000), "xxx..."),
        ({**SIDECAR, "size": 2**32}, "size must be"),
        ({**SIDECAR, "labels": ["a", "b", "\ud800"]}, "half a surrogate"),
        ({**SIDECAR, "labels": ["a", "b", "c" * 1025]}, "of at most 1024 characters"),
        ({**SIDECAR, "labels": ["a", "b", ["c"]]}, "labels must be"),
        ({**SIDECAR, "labels": {"a": 1}}, "labels must be"),
        ({**SIDECAR, "name": "\ud800"}, "name must be"),
        ({**SIDECAR, "kind": {}}, "kind must be"),
        ({**SIDECAR, "task": {}}, "task must be"),
        ({**SIDECAR, "extra": [[]]}, "extra must be"),
        ({**SIDECAR, "accept_threshold": math.nan}, "accept_threshold must be"),
        ({**SIDECAR, "accept_threshold": [1]}, "accept_threshold must be"),
        ({**SIDECAR, "detection_threshold": math.nan}, "detection_threshold must be"),
        ({**SIDECAR, "k": 2**32}, "k must be"),
        ({**SIDECAR, "code": {"name": "linear", "members": 2**32}}, "the code's members must be"),
        ({**SIDECAR, "code": {"name": "linear", "members": 2, "weights": [[], []]}}, "a weight of the code must be"),
    ],
)
def test_an_unusable_sidecar_is_refused(tmp_path: Path, sidecar: dict[str, Any] | None, told: str) -> None:
    with pytest.raises(ModelError) as caught:
        ServedModel(onnx_models.save_plain(tmp_path / "m.onnx", sidecar=sidecar))
    assert told in str(caught.value)
    assert str(tmp_path / "m.onnx") in str(caught.value)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"extra": ' * 50_000, "nested too deeply"),
        (b"\xff\xfe", "can't decode"),
        (b'{"size": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b"", "Expecting value"),
        (b"null", "name, kind, labels, size"),
    ],
)
def test_a_sidecar_that_is_no_description_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    file = onnx_models.save_plain(tmp_path / "m.onnx")
    (tmp_path / "m.onnx.json").write_bytes(content)
    with pytest.raises(ModelError, match=told):
        ServedModel(file)
