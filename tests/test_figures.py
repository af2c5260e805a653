from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from collage.figures import Row, write_figures


def test_rows_come_with_what_made_them_and_records_line_by_line(tmp_path: Path) -> None:
    rows: list[Row] = [{"policy": "none", "p99_s": 0.7, "accuracy": None}, {"policy": "collage", "p99_s": 0.2}]
    path = write_figures("demo", rows, ({"group": group} for group in range(3)), tmp_path / "out")
    assert path == tmp_path / "out" / "demo.json"
    content = json.loads(path.read_text())
    assert list(content) == ["command", "machine", "commit", "rows"]
    assert content["rows"] == rows
    assert content["command"].startswith("python ")
    assert content["machine"]["cores"] >= 1
    assert content["machine"]["python"] == sys.version.split()[0]
    assert all(content["machine"][name] for name in ("cpu", "system", "numpy", "onnxruntime"))
    assert content["commit"] == "unknown" or len(content["commit"]) == 40
    lines = (tmp_path / "out" / "demo.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"group": 0}, {"group": 1}, {"group": 2}]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["demo.json", "demo.jsonl"]


def test_figures_are_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    write_figures("demo", [{"run": 1}], [{"record": 1}], tmp_path)
    with pytest.raises(TypeError):
        write_figures("demo", [{"run": object()}], [], tmp_path)  # type: ignore[dict-item]
    assert json.loads((tmp_path / "demo.json").read_text())["rows"] == [{"run": 1}]
    assert (tmp_path / "demo.jsonl").read_text() == '{"record": 1}\n'
    write_figures("demo", [{"run": 2}], directory=tmp_path)
    assert json.loads((tmp_path / "demo.json").read_text())["rows"] == [{"run": 2}]
    assert (tmp_path / "demo.jsonl").read_text() == ""


def test_the_command_is_the_one_that_was_typed(tmp_path: Path) -> None:
    code = "from collage.figures import write_figures; write_figures('demo', [])"
    subprocess.run([sys.executable, "-c", code, "--data", "a folder"], check=True, timeout=60, cwd=tmp_path)
    command = json.loads((tmp_path / "out" / "demo.json").read_text())["command"]
    assert command.startswith("python -c ")
    assert command.endswith("--data 'a folder'")
