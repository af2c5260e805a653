from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.data import load
from models.evaluate import OnnxModel, classify_collages, main, medians, table
from tests.onnx_models import save_collage_cnn, save_plain, save_s_cnn, solid

LABELS = ("0-red", "1-green", "2-blue")
GREY = 2
"""So many grey test images of every class: s-cnns call them red, collages leave their cells empty."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Red, green and blue squares; some test images are grey. Every image has another brightness."""
    path = tmp_path / "colours"
    for part, count in (("train", 20), ("test", 9)):
        for label, name in enumerate(LABELS):
            folder = path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                grey = part == "test" and number < GREY
                pixels = np.full((8, 8, 3), 30 * label + number, np.uint8)
                if not grey:
                    pixels = solid(name.split("-")[1], 8) - np.minimum(solid(name.split("-")[1], 8), number)
                Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return path


def run(data: Path, tmp_path: Path, *extra: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    s_cnn = save_s_cnn(tmp_path / "one.onnx", labels=LABELS, name="one")
    twos = save_collage_cnn(tmp_path / "twos.onnx", k=2, cell=4, labels=LABELS, name="twos")
    threes = save_collage_cnn(tmp_path / "threes.onnx", k=3, cell=8, labels=LABELS, name="threes")
    out = tmp_path / "out"
    files = ["--s-cnn", str(s_cnn), "--collage", str(twos), str(threes), "--out", str(out)]
    main(["--data", str(data), *files, "--repeats", "3", *extra])
    records = [json.loads(line) for line in (out / "evaluate.jsonl").read_text().splitlines()]
    return json.loads((out / "evaluate.json").read_text()), records


def test_rows_and_records(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures, records = run(data, tmp_path, "--seeds", "2")
    assert {"command", "machine", "commit", "rows"} == figures.keys()
    one, twos, threes, code = figures["rows"]
    assert [row["model"] for row in (one, twos, threes)] == ["one", "twos", "threes"]
    assert [(row["kind"], row["k"]) for row in (one, twos)] == [("s-cnn", 1), ("collage-cnn", 2)]
    for row in (one, twos, threes):
        assert (row["dataset"], row["images"]) == ("colours", 27)
        assert row["size_bytes"] == (tmp_path / f"{row['model']}.onnx").stat().st_size
        assert row["latency_s"] > 0
        assert row["latency_ratio"] == row["latency_s"] / one["latency_s"]
    assert (one["answers"], one["top1"], one["empty_share"]) == (27, pytest.approx(23 / 27), 0)
    for row in (twos, threes):
        assert row["answers"] == 2 * 27
        assert row["top1"] == row["top1_seed_0"] == row["top1_seed_1"] == pytest.approx(21 / 27)
        assert row["empty_share"] == pytest.approx(6 / 27)
        assert row["accepted_share"] == pytest.approx(21 / 27)
        assert 0 < row["decode_s"] < 1
        assert 0 < row["encode_s"] < 1
    assert (code["kind"], code["k"]) == ("code", 3)
    assert code["model"] == "9 images of 224 px into 416 px"
    printed = capsys.readouterr().out
    assert "85.19" in printed
    assert "77.78" in printed

    # Every image is answered once per placement, fillers of the last group are not; places differ by seed.
    assert Counter(record["model"] for record in records) == {"one": 27, "twos": 54, "threes": 54}
    for seed in (0, 1):
        chosen = [record for record in records if record["model"] == "twos" and record["seed"] == seed]
        assert len({record["image"] for record in chosen}) == 27
        assert all(record["image"].startswith("test/") for record in chosen)
        assert Counter(record["group"] for record in chosen) == {**dict.fromkeys(range(6), 4), 6: 3}
        assert {record["cell"] for record in chosen} == {0, 1, 2, 3}
    places = [
        {record["image"]: (record["group"], record["cell"]) for record in records if record["seed"] == seed}
        for seed in (0, 1)
    ]
    assert places[0] != places[1]
    for record in records:
        assert LABELS[record["label"]] == record["image"].split("/")[1]
        if record["prediction"] is None:
            assert record["confidence"] == 0
            assert record["image"].endswith(("/00.png", "/01.png"))
        else:
            assert 0.15 < record["confidence"] <= 1


def test_the_validation_split_is_used_on_demand(data: Path, tmp_path: Path) -> None:
    figures, records = run(data, tmp_path, "--seeds", "1", "--split", "validation")
    validation = load(data, 8).validation
    assert figures["rows"][0]["images"] == len(validation) == 6
    assert {record["image"] for record in records} == set(validation.ids)
    assert [row["top1"] for row in figures["rows"][:3]] == [1, 1, 1]


def test_models_that_do_not_fit_are_refused(data: Path, tmp_path: Path) -> None:
    s_cnn = save_s_cnn(tmp_path / "one.onnx", labels=LABELS)
    other = save_s_cnn(tmp_path / "other.onnx")
    for files, message in (
        (["--s-cnn", str(other)], r"knows other classes than colours: red, green, blue"),
        (["--s-cnn", str(s_cnn), "--collage", str(s_cnn)], r"of kind s-cnn, expected collage-cnn"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["--data", str(data), *files, "--out", str(tmp_path / "out")])
    with pytest.raises(ValueError, match=r"plain\.onnx does not describe itself"):
        OnnxModel(save_plain(tmp_path / "plain.onnx"))
    assert not (tmp_path / "out").exists()


def test_a_placement_is_reproducible(data: Path, tmp_path: Path) -> None:
    model = OnnxModel(save_collage_cnn(tmp_path / "twos.onnx", k=2, cell=4, labels=LABELS))
    test = load(data, 8).test
    assert list(classify_collages(model, test, seed=3)) == list(classify_collages(model, test, seed=3))


def test_calls_take_turns_between_measurements() -> None:
    calls: list[str] = []
    result = medians([lambda turn: calls.append(f"a{turn}"), lambda turn: calls.append(f"b{turn}")], repeats=3)
    assert calls == ["a0", "b0", "a0", "b0", "a1", "b1", "a2", "b2"]
    assert len(result) == 2


def test_table_leaves_unknown_fields_empty() -> None:
    lines = table(
        [{"model": "a", "top1": 0.9, "k": 1, "images": 1000}, {"model": "code", "encode_s": 0.0021}]
    ).splitlines()
    assert [line.split() for line in lines[1:]] == [["a", "1", "1,000", "90.00"], ["code", "2.10"]]


def test_evaluation_needs_no_torch() -> None:
    code = "import sys, models.evaluate; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
