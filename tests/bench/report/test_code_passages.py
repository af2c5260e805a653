"""The tables of codes, from rows whose means are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.offer import load_table
from bench.report.code_passages import CODING, demo, draw, lost, overall, published
from bench.report.pages import KEPT_BY, take
from bench.report.pictures import Panel
from bench.report.stored import Stored

ROW: dict[str, Any] = {
    "dataset": "fashion-mnist", "base": "fashion-mnist-s-cnn", "code": "addition", "k": 2, "r": 1, "lost": 1, "seed": 0,
    "images": 10000, "a_available": 0.94, "a_degraded": 0.90, "metric": "top1", "cost_ratio": 1.02, "encode_s": 1e-5,
    "decode_s": 1e-5, "command": "python -m bench codes", "commit": "0123456789", "machine": "AMD EPYC, 2 cores",
}  # fmt: skip


def write(folder: Path, *changes: dict[str, Any]) -> Path:
    file = folder / "codes.json"
    file.write_text(json.dumps({"rows": [{**ROW, **change} for change in changes]}))
    return file


def test_codes_are_compared_by_their_members_and_overall(tmp_path: Path) -> None:
    write(
        tmp_path,
        {},
        {"seed": 1, "a_degraded": 0.92},
        {"code": "collage", "k": 4, "a_degraded": 0.935},
        {"r": 2, "lost": 2, "a_degraded": 0.5},
        {"metric": "top5", "a_degraded": 0.99},
    )
    found = Stored(tmp_path)
    table = lost(found)
    assert "| `fashion-mnist-s-cnn`, A_a 94.0 %; N | 2 | 4 |" in table
    assert "| addition | 91.0 % |  |" in table
    assert "| collage |  | 93.5 % |" in table
    assert "codes.json" in table
    rows = overall(found).splitlines()
    (one,) = (row for row in rows if "| addition | 2, 1 |" in row)
    assert "| 1 | 94.00 % | 91.00 ± 0.56 % | 93.97 % | 93.85 % | 93.70 % | 1.02 |" in one
    assert any("| addition | 2, 2 | 2 |" in row for row in rows)


def test_published_figures_stand_beside_those_of_the_same_code(tmp_path: Path) -> None:
    mlp = {"base": "fashion-mnist-s-cnn-mlp", "a_available": 0.89}
    write(
        tmp_path,
        {"code": "learned-conv", "a_degraded": 0.9},
        {"code": "learned-conv-mlp", "a_degraded": 0.83, **mlp},
        {"code": "learned-conv", "k": 3, "a_degraded": 0.5},
    )
    lines = published(Stored(tmp_path)).splitlines()
    learned = [line for line in lines if "| fashion-mnist | learned-conv |" in line]
    assert [line.split("| 2 |")[1].strip() for line in learned] == [
        "ResNet-18 | 92.8 % | 88.9 % | `fashion-mnist-s-cnn` | 94.0 % | 90.0 % |",
        "mlp | 89.5 % | 82.5 % | `fashion-mnist-s-cnn-mlp` | 89.0 % | 83.0 % |",
    ]
    assert any(line.endswith("| addition | 2 | ResNet-18 | 93.5 % | 89.5 % |  |  |  |") for line in lines)


def test_boxes_are_compared_with_a_constant_one(tmp_path: Path) -> None:
    box = {"base": "boxes-s-cnn", "metric": "iou", "a_available": 0.75}
    constant = {**box, "code": "constant box", "k": 1, "r": 0, "a_degraded": 0.525, "cost_ratio": 0.0}
    write(tmp_path, {}, {**box, "a_degraded": 0.7}, {**box, "k": 3, "a_degraded": 0.6}, constant)
    found = Stored(tmp_path)
    table = lost(found)
    assert "| `boxes-s-cnn`, mean IoU 75.0 %; N | 2 | 3 |" in table
    assert "| addition | 70.0 % | 60.0 % |" in table
    assert "| constant box | 52.5 % | 52.5 % |" in table
    assert table.count("constant box") == 1
    (one,) = (row for row in overall(found).splitlines() if "| constant box | 1, 0 |" in row)
    assert "| 75.00 % | 52.50 ±" in one
    assert draw(found).stat().st_size


def test_the_picture_has_a_panel_for_each_base_model_of_several_numbers(tmp_path: Path) -> None:
    several = ({}, {"code": "collage", "k": 4}, {"code": "addition, base itself"})
    write(tmp_path, *several, {"base": "another"}, {"base": "another", "k": 3}, {"base": "of one number"})
    drawn = draw(Stored(tmp_path))
    assert drawn == tmp_path / "codes.png"
    with Image.open(drawn) as one:
        wide = one.width
    other = tmp_path / "other"
    other.mkdir()
    write(other, {}, {"code": "learned-conv"})
    with Image.open(draw(Stored(other))) as one:
        assert one.width < wide


def test_rows_of_other_codes_stay(tmp_path: Path) -> None:
    stored, newer = tmp_path / "stored", tmp_path / "newer"
    stored.mkdir()
    newer.mkdir()
    write(stored, {}, {"code": "collage"})
    take(write(newer, {"a_degraded": 0.5}, {"seed": 2}), stored)
    rows = json.loads((stored / "codes.json").read_text())["rows"]
    assert [(row["code"], row["seed"], row["a_degraded"]) for row in rows] == [
        ("addition", 0, 0.5), ("collage", 0, 0.9), ("addition", 2, 0.9),
    ]  # fmt: skip
    assert set(KEPT_BY["codes"]) <= ROW.keys()


def test_what_costs_more_is_in_the_tables_and_not_in_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panels: list[Panel] = []
    monkeypatch.setattr("bench.report.code_passages.curves", lambda path, shown, colours: panels.extend(shown))
    student = {"code": "student", "cost_ratio": 0.25}
    write(tmp_path, {}, {"k": 3}, student, {**student, "k": 16, "cost_ratio": 2.0})
    draw(Stored(tmp_path))
    assert panels[0].lines["student"].tolist() == [[2, 90, pytest.approx(0.588, abs=0.001)]]
    assert "| student | 90.0 % |  | 90.0 % |" in lost(Stored(tmp_path))


def test_the_demo_of_a_code_stands_beside_the_collages_with_the_best_that_it_could_do(tmp_path: Path) -> None:
    row = {
        **ROW, "policy": "none", "p50_s": 0.15, "p99_s": 0.72, "coded_share": 0.0, "accuracy": 0.95,
        "coded_accuracy": None, "collage_load": 0.0, "replica_load": 0.0,
    }  # fmt: skip
    coded = {"p99_s": 0.23, "coded_share": 0.05, "coded_accuracy": 0.9, "collage_load": 0.5}
    rows = [row, {**row, "policy": "replicate"}, *({**row, **coded, "policy": each} for each in CODING)]
    for name in ("demo", "demo-addition-2"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"rows": rows}))
    lines = demo(Stored(tmp_path)).splitlines()
    assert "| collage, N = 9 | `none` | 150 / 720 | 704 | 0.0 % | 95.0 % |  | 0.0 % |" in lines
    table = load_table()
    best = {"collage": table.quantile(0.9), "addition": table.quantile(1 - 0.0726)}
    for code, seconds in best.items():
        assert sum(f"| {code}, N = " in line and "replicate" not in line for line in lines) == 3
        assert any(
            f"| {code}, N = " in line and f"| `first-come` | 150 / 230 | {1000 * seconds:.0f} | 5.0 % |" in line
            for line in lines
        )
    waits = f"| `collage` | 150 / 230 | {1000 * table.quantile(0.95):.0f} |"
    assert sum(waits in line for line in lines) == 2, "for the deadline"
