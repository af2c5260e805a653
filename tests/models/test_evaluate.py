from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from collage.figures import write_figures
from collage.model_info import CodeInfo, ModelKind
from models.data import load
from models.evaluate import differences, list_images, main
from models.measure import OnnxModel, classify, classify_collages, discover, medians
from models.tables import FIGURE_6, table
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


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """One model of every role, for ``data``; collages and rivals of 3 x 3 have cells of 4 px."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    known: dict[str, Any] = {"labels": LABELS, "extra": {"dataset": "colours", "storage": "int8"}}
    for role, size in (("s-cnn", 8), ("s-cnn-small", 6), ("rival-lowres", 4)):
        save_s_cnn(folder / f"colours-{role}.onnx", size=size, name=role, **known)
    for role, k, threshold in (("collage-2x2", 2, 0.9), ("collage-3x3", 3, 1.0), ("collage-3x3-paper", 3, 1.0)):
        path = folder / f"colours-{role}.onnx"
        save_collage_cnn(path, k=k, cell=4, name=role, accept_threshold=threshold, **known)
    return folder


def run(data: Path, *models: Path, extra: tuple[str, ...] = ()) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    out = models[0].parent / "out"
    main(["--data", str(data), "--models", *map(str, models), "--repeats", "3", "--out", str(out), *extra])
    records = [json.loads(line) for line in (out / "evaluate.jsonl").read_text().splitlines()]
    return json.loads((out / "evaluate.json").read_text()), records


def test_rows(data: Path, zoo: Path) -> None:
    figures, records = run(data.parent, zoo, extra=("--seeds", "2"))
    assert figures.keys() == {"rows"}
    assert all(row["command"] and row["commit"] and row["machine"] for row in figures["rows"])
    *_, code = figures["rows"]
    rows = {row["role"]: row for row in figures["rows"]}
    assert list(rows) == [
        "s-cnn", "s-cnn-small", "collage-2x2", "collage-3x3", "collage-3x3-paper", "rival-lowres", "code",
    ]  # fmt: skip
    assert all(row.keys() == code.keys() for row in rows.values())
    one, twos, threes, rival = (rows[role] for role in ("s-cnn", "collage-2x2", "collage-3x3", "rival-lowres"))
    assert [(row["kind"], row["k"], row["size"]) for row in (one, twos)] == [("s-cnn", 1, 8), ("collage-cnn", 2, 8)]
    for role, row in rows.items():
        if role != "code":
            file = zoo / f"{row['model']}.onnx"
            assert (row["dataset"], row["images"], row["storage"]) == ("colours", 27, "int8")
            assert (row["size_bytes"], row["version"]) == (file.stat().st_size, OnnxModel(file).info.version)
            assert row["latency_s"] > 0
            assert row["latency_ratio"] == row["latency_s"] / one["latency_s"]
    assert {row["split"] for row in rows.values()} == {"test"}
    for row in (one, rows["s-cnn-small"], rival):
        assert (row["answers"], row["top1"], row["empty_share"]) == (27, pytest.approx(23 / 27), None)
        assert row["nine_to_collage"] == row["nine_s"] / threes["latency_s"]
        assert row["nine_to_image"] == row["nine_s"] / one["latency_s"]
    assert (threes["nine_s"], threes["nine_to_collage"]) == (threes["latency_s"], 1)
    assert twos["nine_s"] is None
    for row in (twos, threes):
        assert row["answers"] == 2 * 27
        assert row["top1"] == row["top1_seed_0"] == row["top1_seed_1"] == pytest.approx(21 / 27)
        assert row["top1_spread"] == 0
        assert row["empty_share"] == pytest.approx(6 / 27)
        assert row["answered_share"] == pytest.approx(21 / 27)
        assert 0 < row["decode_s"] < 1
        assert 0 < row["encode_s"] < 1
    # What is coloured is sure and right; at threshold 1 nothing is sure.
    sure = [one["confidence"] >= 0.9 for one in records if one["model"] == "colours-collage-2x2"]
    assert twos["coverage"] == pytest.approx(sum(sure) / len(sure))
    assert 0 < twos["coverage"] <= 21 / 27
    assert (twos["covered_top1"], twos["covered_agreement"]) == (1, 1)
    assert (code["kind"], code["k"], code["latency_s"]) == ("code", 3, None)
    assert code["model"] == "9 images of 224 px into 416 px"


def test_records_and_images(data: Path, zoo: Path) -> None:
    _, records = run(data, zoo, extra=("--seeds", "2"))
    # Every image is answered once per placement, fillers of the last group are not; places differ by seed.
    counts = Counter(record["model"].removeprefix("colours-") for record in records)
    singles = dict.fromkeys(("s-cnn", "s-cnn-small", "rival-lowres"), 27)
    assert counts == {**singles, **dict.fromkeys(("collage-2x2", "collage-3x3", "collage-3x3-paper"), 54)}
    for seed in (0, 1):
        chosen = [one for one in records if one["model"] == "colours-collage-2x2" and one["seed"] == seed]
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
    listed = (zoo.parent / "out/images/colours.txt").read_text().splitlines()
    assert listed[0].startswith("# 27 images of colours (test); sha256 of the ids in their order, one a line: ")
    assert listed[1:] == [f"test/{label}/*.png: 00-08" for label in LABELS]


def test_tables_and_pictures(data: Path, zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    curve, pictures = zoo.parent / "curve.json", zoo.parent / "pictures"
    write_figures(
        "curve", [{"collages": 1000, "validation": 0.8}, {"collages": 0, "validation": 0.9}], None, curve.parent
    )
    run(data, zoo, extra=("--seeds", "2", "--learning-curve", str(curve), "--pictures", str(pictures)))
    fig6, alone, nine = capsys.readouterr().out.split("## ")[1:]
    assert [line.split("|")[1].strip() for line in fig6.splitlines() if "colours-" in line] == [
        f"colours-{role}" for role in ("s-cnn", "s-cnn-small", "collage-2x2", "collage-3x3", "collage-3x3-paper")
    ]
    assert "| 27 | 85.19 | 13.40 |" in fig6, "the interval is that of 27 images"
    assert "| 27 | 77.78 | 15.68 | 0.00 |" in fig6, "two placements do not shrink it"
    assert "9 images of 224 px into 416 px" in alone
    assert "rival" not in alone
    assert "colours-rival-lowres | 1 | 4 |" in nine
    assert "collage-2x2" not in nine
    for name in ("fig6-colours", "risk-coverage", "learning-curve"):
        with Image.open(pictures / f"{name}.png") as picture:
            assert picture.width > 400
            assert len(set(picture.convert("L").get_flattened_data())) > 10
    assert not list((zoo.parent / "out").glob("*.png"))


def test_the_validation_split_is_used_on_demand(data: Path, zoo: Path) -> None:
    figures, records = run(data, zoo, extra=("--seeds", "1", "--split", "validation"))
    validation = load(data, 8).validation
    assert figures["rows"][0]["images"] == len(validation) == 6
    assert {record["image"] for record in records} == set(validation.ids)
    assert [row["top1"] for row in figures["rows"][:4]] == [1, 1, 1, 1]


def test_published_figures_are_compared(data: Path, zoo: Path) -> None:
    figures, _ = run(data, zoo)
    published = zoo.parent / "published.json"
    published.write_text(json.dumps(figures))
    run(data, zoo, extra=("--compare", str(published)))
    figures["rows"][2]["top1"] += 0.0031
    figures["rows"][3]["top1"] += 0.0029
    del figures["rows"][4]
    published.write_text(json.dumps(figures))
    with pytest.raises(SystemExit) as stop:
        run(data, zoo, extra=("--compare", str(published)))
    assert stop.value.code == (
        "not as published: colours-collage-2x2: top-1 77.78 %, published 78.09 %; "
        "colours-collage-3x3-paper is not published"
    )
    assert differences([], figures["rows"]) == []


def test_models_are_found_by_data_set_and_role(data: Path, zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later = zoo.parent / "later"
    later.mkdir()
    save_s_cnn(later / "colours-s-cnn.onnx", name="later")
    save_s_cnn(later / "sounds-rival-x.onnx", extra={"dataset": "sounds"})
    save_s_cnn(later / "sounds.onnx", extra={"dataset": "sounds"})
    code = CodeInfo("linear", 2, weights=(0.5, 0.5))
    save_s_cnn(later / "colours-parity.onnx", kind=ModelKind.PARITY, code=code, extra={"dataset": "colours"})
    found = discover([zoo, later])
    assert list(found["colours"])[:2] == ["s-cnn", "s-cnn-small"]
    assert found["colours"]["s-cnn"] == zoo / "colours-s-cnn.onnx"
    assert found["sounds"] == {"rival-x": later / "sounds-rival-x.onnx"}
    assert "parity" not in found["colours"]
    (told,) = capsys.readouterr().err.splitlines()
    assert told.split(" is left out")[0].endswith("/sounds.onnx")
    figures, _ = run(data, zoo, later)
    assert {row["dataset"] for row in figures["rows"]} == {"colours"}
    assert "sounds is left out: no data" in capsys.readouterr().err


def test_models_that_do_not_fit_are_refused(data: Path, zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_s_cnn(zoo / "colours-s-cnn.onnx", extra={"dataset": "colours"}, name="other")
    with pytest.raises(SystemExit, match=r"other knows other classes than colours: red, green, blue"):
        run(data, zoo)
    save_s_cnn(zoo / "colours-s-cnn.onnx", labels=LABELS[::-1], extra={"dataset": "colours"}, name="turned")
    with pytest.raises(SystemExit, match="turned knows other classes than colours: 2-blue, 1-green, 0-red"):
        run(data, zoo)
    (zoo / "colours-s-cnn.onnx").unlink()
    with pytest.raises(SystemExit, match="nothing to evaluate"):
        run(data, zoo)
    assert "colours is left out: no colours-s-cnn.onnx" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"plain\.onnx does not describe itself"):
        OnnxModel(save_plain(zoo / "plain.onnx"))
    assert not (zoo.parent / "out").exists()


def test_images_of_another_size_become_cells(data: Path, tmp_path: Path) -> None:
    rival = OnnxModel(save_s_cnn(tmp_path / "rival.onnx", size=4, labels=LABELS))
    test = load(data, 8).test
    assert [one.prediction for one in classify(rival, test, batch=7)].count(0) == 9 + 2 * GREY


def test_image_lists_are_short_and_complete() -> None:
    ids = [
        "t/a/009.jpg",
        "t/a/010.jpg",
        "t/a/012.jpg",
        "t/a/0013.jpg",
        "t/b/x_9.png",
        "t/b/x_10.png",
        "t/b/name",
        "c/7",
    ]
    header, *lines = list_images("pets", "test", ids).splitlines()
    assert lines == ["t/a/*.jpg: 009-010 012 0013", "t/b/x_*.png: 9 10", "t/b/name*: ", "c/*: 7"]
    assert header.startswith("# 8 images of pets (test); ")
    assert header.endswith(hashlib.sha256(("\n".join(ids) + "\n").encode()).hexdigest())
    thousands = list_images("digits", "test", [f"t10k/{number:05d}" for number in range(10_000)])
    assert thousands.splitlines()[1:] == ["t10k/*: 00000-09999"]


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
    rows: list[dict[str, Any]] = [{"model": "a", "top1": 0.9, "k": 1, "images": 1000}, {"model": "b", "coverage": 0.5}]
    lines = table(rows, [column for column in FIGURE_6 if column[0] in ("model", "images", "top1", "coverage")])
    assert lines.splitlines() == [
        "| model | images | top-1 % | cells accepted % |",
        "| --- | ---: | ---: | ---: |",
        "| a | 1,000 | 90.00 |  |",
        "| b |  |  | 50.00 |",
    ]


def test_evaluation_needs_no_torch() -> None:
    code = "import sys, models.evaluate, models.pictures; sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
