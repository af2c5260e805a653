"""The report from hand-made rows and records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.report import pictures
from bench.report.comparison import Report, main
from bench.report.findings import (
    DENSITY,
    FoundRow,
    Usage,
    _usage_of_groups,
    below,
    best_rival,
    count_usage,
    ratio,
    read,
)
from bench.simulator import sweep
from bench.simulator.replay import COMPARED, KNOWN

SEEDS = (0, 1, 2)


def row(policy: str, seed: int, p99: float = 0.7, sent: float = 0.0, **about: Any) -> FoundRow:
    values = {"source": "real", "regime": "transient", "offered": "closed", "load": None, "n": 9, "redundant": 1}
    values |= {"policy": policy, "seed": seed, "groups": 2, "p50_s": 0.14, "p99_s": p99, "mean_s": 0.2, "std_s": 0.1}
    values |= {"group_p50_s": 0.2, "group_p99_s": p99 + 0.01 * seed, "group_p999_s": None, "group_std_s": 0.2}
    values |= {"coded_share": 0.05, "unsure_share": 0.01, "accuracy": 0.92, "accuracy_available": 0.93}
    return {**values, "collage_load": 0.0, "replica_load": sent, **about}


def record(policy: str, seed: int, group: int, member: int, **about: Any) -> FoundRow:
    answer = {"source": "S_CNN", "latency_s": 0.1, "label": "bag", "prediction": "bag", "n": 9, "load": None}
    return {"regime": "transient", "policy": policy, "seed": seed, "group": group, "member": member, **answer, **about}


def write(file: Path, rows: list[FoundRow], records: list[FoundRow]) -> Path:
    about = {"command": f"make {file.stem}", "machine": {"cpu": "Abacus", "cores": 2}, "commit": "0123456789"}
    file.write_text(json.dumps({**about, "rows": rows}))
    file.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    return file


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Two policies; of collage's two groups the second has two stragglers, one of whose coded answers is wrong."""
    coded = {"source": "COLLAGE", "latency_s": 0.15}
    special = {(1, 0): coded, (1, 1): {**coded, "prediction": "coat"}}
    policies = {"none": 0.7, "collage": 0.22}
    rows = [row(policy, seed, p99) for policy, p99 in policies.items() for seed in SEEDS]
    rows += [row(policy, seed, p99, source="sim") for policy, p99 in policies.items() for seed in SEEDS]
    records = [
        record(policy, seed, group, member, **(special.get((group, member), {}) if policy == "collage" else {}))
        for policy in policies
        for seed in SEEDS
        for group in range(2)
        for member in range(9)
    ]
    return write(tmp_path / "full.json", rows, records)


@pytest.fixture
def simulated(tmp_path: Path) -> Path:
    """What a sweep writes: settings, offered loads, and group latencies."""
    about: dict[str, Any] = {"source": "sim", "groups": 50}
    rows = [row("none", seed, **about) for seed in SEEDS]
    for value, p99 in ((1.1, 0.24), (2.0, 0.4)):
        rows += [row("adaptive", seed, p99, 0.13, setting="patience", value=value, **about) for seed in SEEDS]
    for policy, p99 in (("none", 0.9), ("hedge", 0.4), ("adaptive", 0.3)):
        for load in (0.3, 0.6):
            open_loop = about | {"offered": "open", "load": load}
            rows += [row(policy, seed, p99 + load, 0.1, **open_loop) for seed in SEEDS]
    rows += [row("collage", 0, n=16, **about), row("none", 0, source="real", regime="off")]
    rows += [
        {
            **{"workers": 1000, "redundant": 100, "frontends": 4, "policy": "none", "load": 0.5, "requests": 900_000},
            **{"cpu_s": 30.0, "us_per_request": 33.3, "p50_s": 0.14, "p99_s": 0.7, "collage_load": 0.1},
            **{"replica_load": 0.02, "coded_share": 0.0},
        }
    ]
    records = [
        {
            **{"simulated": True, "regime": "transient", "n": 16, "policy": "collage", "seed": 0, "group": group},
            **{"latency_s": 0.2 + 0.001 * group, "slow": group < 20, "coded": group < 10, "coded_right": group < 5},
        }
        for group in range(50)
    ]
    return write(tmp_path / "sim.json", rows, records)


def test_the_report_has_every_section_with_its_origin(experiment: Path, simulated: Path, tmp_path: Path) -> None:
    out = tmp_path / "docs" / "full"
    assert main([str(experiment), str(simulated), "--out", str(out)]) == 0
    text = (tmp_path / "docs" / "full.md").read_text()
    sections = text.split("\n## ")[1:]
    assert len(sections) == 11
    assert "Left out" not in text
    *sections, runs = sections
    for section in sections[1:]:
        assert "*Runs: " in section
    assert "1. `make " in runs
    assert "Abacus, 2 cores" in runs
    names = {"figure-2", "figure-7", "tails", "extra-load", "patience", "offered-load"}
    assert {file.stem for file in out.iterdir()} == names
    for name in names:
        assert f"({out.name}/{name}.png)" in text
        assert len(np.unique(np.asarray(Image.open(out / f"{name}.png")))) > 20
    assert "|  | paper, 9 + 1 | collage, 9 + 1, real | paper, 16 + 1 | collage, 16 + 1, sim |" in text
    assert "| groups | 8310 | 6 | 4680 | 50 |" in text, "of all seeds together"
    assert "| of these all coded answers right | 1119 | 0 | 563 | 5 |" in text
    assert "| accuracy of coded answers one by one | 87.4 % | 50.0 % | 81.7 % | 50.0 % |" in text
    assert "9 + 1: p50 140.0 ms, p99 700.0 ms" in text  # the calibration
    assert "| 900 + 100 | 4 | none | 50% | 900,000 | 33 | 140 | 700 | 12.0 | 0.0 |" in text
    assert "Patience of 1.1, 2 deadlines" in text
    assert "| transient, 9 + 1, 2 closed groups | collage | 140 ± 0 | 140 ± 0 | 0.0 ± 0.0 | 220 ± 0 |" in text
    assert (
        "| 9 + 1 | sim | 30% | 600 ± 0 | 10.0 ± 0.0 | 1.0 ± 0.0 | 700 ± 0 | 10.0 ± 0.0 | 1.0 ± 0.0 | hedge | - |"
        in text
    )


def test_the_report_is_written_again_without_its_records(experiment: Path, simulated: Path, tmp_path: Path) -> None:
    out = tmp_path / "docs" / "full"
    assert main([str(experiment), str(simulated), "--out", str(out)]) == 0
    text = (tmp_path / "docs" / "full.md").read_text()
    drawn = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    rows, runs = read([experiment, simulated, tmp_path / "docs" / "full-usage.json"], [])
    assert runs == []
    assert Report(rows, [], out, drawn=False).text() + "\n" == text
    assert {file: file.stat().st_mtime_ns for file in out.iterdir()} == drawn
    (used,) = (row for row in rows if row.get("answers_right") == 1 and row["policy"] == "collage" and row["seed"] == 2)
    assert {key: used[key] for key in ("groups", "slow", "available", "right", "answers")} == {
        "groups": 2, "slow": 1, "available": 1, "right": 0, "answers": 2,
    }  # fmt: skip
    assert (used["command"], used["commit"], used["machine"]) == ("make full", "0123456789", "Abacus, 2 cores")


def test_rows_keep_their_own_origin_within_one_file(tmp_path: Path) -> None:
    rows = [row("none", 0), row("none", 1, command="make again", commit="fedcba9876", machine="Slide rule, 1 core")]
    found, _ = read([write(tmp_path / "full.json", rows, [])], [])
    assert [entry["made"] for entry in found] == [
        "`make full` on Abacus, 2 cores, commit 0123456",
        "`make again` on Slide rule, 1 core, commit fedcba9",
    ]


def test_sections_without_data_are_left_out_and_told(experiment: Path, tmp_path: Path) -> None:
    assert main([str(experiment), "--records", "--out", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report.md").read_text()
    assert main([str(tmp_path), "--records", "--out", str(tmp_path / "of" / "folder")]) == 0
    assert (tmp_path / "of" / "folder.md").read_text().count("\n") == text.count("\n")
    assert "## Policies compared" in text
    assert "Left out for want of data: Group latency by policy and N (figure 7); Use of the collage-cnn" in text


def test_records_get_the_time_scale_of_their_row(experiment: Path, simulated: Path) -> None:
    files = [experiment, simulated]
    _, runs = read(files, [file.with_suffix(".jsonl") for file in files])
    real = next(run for run in runs if run.policy == "none")
    assert real.requests_s == pytest.approx([0.2] * 18)  # recorded as 0.1
    assert (real.n, real.source, len(real.groups_s)) == (9, "real", 2)
    collage = next(run for run in runs if run.policy == "collage")
    assert collage.groups_s[1] / collage.groups_s[0] == pytest.approx(1.5)
    assert collage.usage == Usage(groups=2, slow=1, available=1, right=0, answers=2, answers_right=1)
    assert (runs[-1].n, runs[-1].source) == (16, "sim")
    assert runs[-1].usage == Usage(groups=50, slow=20, available=10, right=5, answers=10, answers_right=5)
    assert runs[-1].groups_s[-1] == pytest.approx(0.249)


def test_of_equal_runs_the_first_counts(experiment: Path, tmp_path: Path) -> None:
    again = write(tmp_path / "again.json", [row("none", 0, 0.9), row("hedge", 0)], [])
    rows, _ = read([experiment, again], [])
    assert [found["p99_s"] for found in rows if found["policy"] == "none" and found["source"] == "real"] == [0.7] * 3
    assert rows[-1]["policy"] == "hedge"
    assert rows[-1]["made"].startswith("`make again`")


def test_usage_counts_groups_and_answers() -> None:
    sources = np.array(
        [["S_CNN", "S_CNN"], ["COLLAGE", "S_CNN"], ["COLLAGE", "REPLICA"], ["S_CNN", None], ["COLLAGE"] * 2]
    )
    rights = np.array([False, True, True, False, True, False, True, False, False, True])
    assert count_usage(sources, rights) == Usage(groups=5, slow=4, available=3, right=2, answers=4, answers_right=3)


def test_a_group_is_right_if_all_its_coded_answers_are() -> None:
    slow, coded, right = np.array([True, True, False]), np.array([2, 2, 0]), np.array([1, 2, 0])
    counted = Usage(groups=3, slow=2, available=2, right=1, answers=4, answers_right=3)
    assert _usage_of_groups(slow, coded, right) == counted


def test_a_ratio_is_of_means_with_a_paired_interval() -> None:
    above = [{"seed": seed, "x": 2.0 * (1 + seed)} for seed in (0, 1, 2, 7)]
    below = [{"seed": seed, "x": 1.0 + seed} for seed in SEEDS]
    value, spread = ratio(above, below, "x") or (0, 1)
    assert value == pytest.approx(2)  # of the seeds that both have
    assert spread == pytest.approx(0)  # not two wide ones divided by each other
    below[0]["x"] = 1.3
    value, spread = ratio(above, below, "x") or (0, 0)
    assert value == pytest.approx(12 / 6.3)
    errors = np.array([2, 4, 6]) - value * np.array([1.3, 2, 3])
    assert spread == pytest.approx(4.303 * errors.std(ddof=1) / 3**0.5 / 2.1)
    assert np.isnan((ratio(above[:1], below[:1], "x") or (0, 0))[1])
    assert ratio(above, [{"seed": 0, "x": None}], "x") is None
    assert ratio(above, [{"seed": 0, "x": 0.0}], "x") is None


def test_the_best_rival_may_send_little_more_than_the_collages() -> None:
    rows: list[FoundRow] = [
        {**row("replicate", seed, 0.4), "sent": 0.119, "setting": None, "value": None} for seed in SEEDS
    ]
    rows += [{**row("hedge", seed, 0.5), "sent": 0.05, "setting": None, "value": None} for seed in SEEDS]
    rows += [{**row("hedge", seed, 0.3), "sent": 0.13, "setting": "quantile", "value": 0.87} for seed in SEEDS]
    rows += [{**row("collage", seed, 0.2), "sent": 0.11, "setting": None, "value": None} for seed in SEEDS]
    assert {found["policy"] for found in best_rival(rows)} == {"replicate"}
    assert {found["policy"] for found in best_rival([{**found, "n": 16} for found in rows])} == {"hedge"}
    assert best_rival([]) == []


def test_below_means_beyond_the_interval_of_the_ratio_seed_by_seed() -> None:
    def values(*numbers: float) -> list[FoundRow]:
        return [{"seed": seed, "x": number} for seed, number in enumerate(numbers)]

    base = values(10, 20, 30)
    assert below(values(9, 18, 27), base, "x")  # far less than seeds differ, but always a tenth
    assert not below(values(8, 22, 27), base, "x")
    assert not below(base, values(9, 18, 27), "x")
    assert below(values(9), base[:1], "x")  # one seed: no interval


@pytest.mark.parametrize(
    ("content", "told"), [(None, "No such file"), ("{}", "holds no rows"), ("not JSON", "Expecting")]
)
def test_what_cannot_be_read_is_told_in_one_line(
    content: str | None, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    if content is not None:
        file.write_text(content)
    assert main([str(file), "--out", str(tmp_path / "report")]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_records_without_a_row_are_refused(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = experiment.with_name("others.jsonl")
    records.write_text(json.dumps(record("hedge", 0, 0, 0)) + "\n")
    assert main([str(experiment), "--records", str(records), "--out", str(experiment.with_suffix(""))]) == 2
    assert "there is no row of" in capsys.readouterr().err


def test_what_sweeps_record_is_drawn_and_every_policy_has_a_colour() -> None:
    assert sweep.RECORDED == DENSITY
    assert tuple(pictures.POLICY_COLOURS)[: len(COMPARED)] == COMPARED, "curves come in this order"
    assert set(pictures.POLICY_COLOURS) == {*KNOWN, "envoy"}
    assert len(set(pictures.POLICY_COLOURS.values())) == len(pictures.POLICY_COLOURS)
