from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from collage.figures import MADE, Row, interval, read_figures, write_figures


def test_rows_come_with_what_made_them_and_records_line_by_line(tmp_path: Path) -> None:
    earlier: Row = {"policy": "hedge", "command": "make old", "commit": "012", "machine": "Abacus"}
    rows: list[Row] = [{"policy": "none", "p99_s": 0.7, "accuracy": None}, {"policy": "collage", "p99_s": 0.2}, earlier]
    path = write_figures("demo", rows, ({"group": group} for group in range(3)), tmp_path / "out")
    assert path == tmp_path / "out" / "demo.json"
    content = json.loads(path.read_text())
    assert list(content) == ["rows"]
    one, two, other = content["rows"]
    made = {key: one.pop(key) for key in MADE}
    assert made == {key: two.pop(key) for key in MADE}
    assert [one, two, other] == rows
    assert made["command"].startswith("python ")
    assert made["commit"] == "unknown" or len(made["commit"]) == 40
    assert re.fullmatch(
        rf".+, \d+ cores?, {re.escape(platform.platform())}, python {re.escape(platform.python_version())}, "
        r"numpy [\d.]+, onnxruntime [\d.]+, grpcio [\d.]+(, torch .+)?",
        made["machine"],
    )
    assert read_figures(path) == [{**rows[0], **made}, {**rows[1], **made}, earlier]
    lines = (tmp_path / "out" / "demo.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"group": 0}, {"group": 1}, {"group": 2}]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["demo.json", "demo.jsonl"]


def test_figures_are_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    write_figures("demo", [{"run": 1}], [{"record": 1}], tmp_path)
    with pytest.raises(TypeError):
        write_figures("demo", [{"run": object()}], [], tmp_path)  # type: ignore[dict-item]
    assert [row["run"] for row in read_figures(tmp_path / "demo.json")] == [1]
    assert (tmp_path / "demo.jsonl").read_text() == '{"record": 1}\n'
    write_figures("demo", [{"run": 2}], directory=tmp_path)
    assert [row["run"] for row in read_figures(tmp_path / "demo.json")] == [2]
    assert not (tmp_path / "demo.jsonl").exists(), "records of another run"
    write_figures("demo", [{"run": 3}], [], tmp_path)
    assert (tmp_path / "demo.jsonl").read_text() == ""


def test_figures_of_earlier_versions_name_what_made_them_once(tmp_path: Path) -> None:
    made = {"command": "make old", "commit": "012", "machine": {"cpu": "Abacus", "cores": 1, "numpy": "2"}}
    own = {"run": 2, "command": "make other", "commit": "345"}
    (tmp_path / "old.json").write_text(json.dumps({**made, "rows": [{"run": 1}, own]}))
    in_words = "Abacus, 1 core, numpy 2"
    assert read_figures(tmp_path / "old.json") == [
        {"run": 1, "command": "make old", "commit": "012", "machine": in_words},
        {**own, "machine": in_words},
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "holds no rows"),
        ('{"made": "up"}', "holds no rows"),
        ('{"rows": [{"run": 1, "command": "c", "commit": "d"}]}', "does not say what made it"),
        ('{"rows": [{"run": 1, "command": "c", "commit": "", "machine": "m"}]}', "does not say what made it"),
    ],
)
def test_figures_without_rows_or_without_their_origin_are_refused(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "figures.json").write_text(content)
    with pytest.raises(ValueError, match=told):
        read_figures(tmp_path / "figures.json")


def test_an_interval_is_that_of_images() -> None:
    assert interval(0.9, 900) == pytest.approx(1.96 * 0.01)
    assert interval(0.9, 3600) == pytest.approx(1.96 * 0.005)
    assert interval(1.0, 10) == 0


def test_the_command_is_the_one_that_was_typed(tmp_path: Path) -> None:
    code = "from collage.figures import write_figures; write_figures('demo', [{}])"
    subprocess.run([sys.executable, "-c", code, "--data", "a folder"], check=True, timeout=60, cwd=tmp_path)
    ((command, *_),) = ([row[key] for key in MADE] for row in read_figures(tmp_path / "out" / "demo.json"))
    assert command.startswith("python -c ")
    assert command.endswith("--data 'a folder'")
