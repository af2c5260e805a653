"""Runs on a small cluster of real processes: what they are called, what is kept and what is resumed."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bench.cluster.answers import Drawn
from bench.measured import Records, RequestRecord
from bench.offer import LATENCY_TABLE, REGIMES, Regime, TypicalModels, read_arrivals
from bench.runs import experiment
from bench.runs.experiment import calibrate, collect, compare, main
from bench.runs.trial import WARM_UP_GROUPS, Case, Overhead, Trial, cases
from bench.simulator.replay import Setup
from collage.figures import MADE
from tests.bench.columns import COLUMNS
from worker.slowdown import COLLAGE_FACTOR

FAST = 0.02  # time scale


def drawn_trial(folder: Path, regime: Regime = REGIMES["transient"], groups: int = 5, *flags: str) -> Trial:
    return Trial(regime, Drawn(4), groups, FAST, flags, folder)


def record(latency: float, total: float, queue: float, inference: float, error: str | None = None) -> RequestRecord:
    return RequestRecord(
        "g0000-0", 0, 0, "a", "bag", "bag", "S_CNN", None, None, error, 0.0, latency, total, queue, inference
    )


def test_the_overhead_is_what_is_left_of_a_request() -> None:
    records = Records(
        [record(0.012, 0.009, 0.001, 0.002), record(0.012, 0.009, 0.001, 0.002), record(9, 9, 9, 9, "late")]
    )
    overhead = Overhead.of(records)
    assert overhead == Overhead(inference_s=0.002, overhead_s=pytest.approx(0.006), caller_s=pytest.approx(0.003))
    setup = overhead.on(Setup(36, 4), scale=0.5)
    assert (setup.n, setup.redundant) == (36, 4)
    assert (setup.inference_s, setup.overhead_s, setup.caller_s) == pytest.approx((0.004, 0.012, 0.006))


def test_runs_have_names_of_their_own(tmp_path: Path) -> None:
    trial = drawn_trial(tmp_path)
    names = {trial.name(case) for case in cases(["none", "adaptive", "equal-resources"], range(3), [None, 0.5])}
    assert len(names) == 18
    assert trial.name(Case("none", 0)).startswith("transient-4-closed-none-seed0-")
    others = (
        drawn_trial(tmp_path, groups=6),
        drawn_trial(tmp_path, REGIMES["mixture"]),
        drawn_trial(tmp_path, REGIMES["transient"], 5, "--patience", "2"),
        Trial(REGIMES["transient"], Drawn(4, TypicalModels(sure=0.5)), 5, FAST, (), tmp_path),
        Trial(REGIMES["transient"], Drawn(4), 5, FAST, (), tmp_path, np.arange(500.0)),
        Trial(REGIMES["transient"], Drawn(4), 5, FAST, (), tmp_path, np.arange(0.0, 1000.0, 2.0)),
    )
    assert len({other.name(Case("none", 0)) for other in (trial, *others)}) == 7
    assert trial.seconds(Case("none", 0, 0.1)) > trial.seconds(Case("none", 0, 0.8))


def test_larger_clusters_get_as_many_requests_at_once_as_they_have_workers(tmp_path: Path) -> None:
    drawn = Drawn(4, TypicalModels(factor=0.6))
    trial = Trial(REGIMES["transient"], drawn, 5, FAST, (), tmp_path, None, 8, 2)
    prepared = trial.prepare(0)
    assert [len(group) for group in prepared.groups] == [8] * (WARM_UP_GROUPS + 5)
    assert len(prepared.models.images.confidence) == 8 * (WARM_UP_GROUPS + 5)
    assert trial.setup.shape.members == 4
    assert trial.name(Case("none", 0)).startswith("transient-8+2-closed-none-")
    cluster = trial.cluster(0, equal_resources=False)
    assert (len(cluster.s_cnn), len(cluster.coded)) == (8, 2)
    scales = [float(child.command[child.command.index("--slowdown-scale") + 1]) for child in cluster.workers]
    assert scales == pytest.approx([FAST] * 8 + [FAST * 0.6 / COLLAGE_FACTOR] * 2), "of which the worker makes 0.6"
    assert len(trial.cluster(0, equal_resources=True).s_cnn) == 10
    twin = trial.simulate(Case("collage", 0, 0.5), prepared, Overhead(0, 0, 0))
    assert (twin["n"], twin["redundant"], twin["groups"]) == (8, 2, 5)


def test_a_run_keeps_its_name_where_the_repository_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = drawn_trial(tmp_path).name(Case("none", 0))
    elsewhere = Path(shutil.copy(LATENCY_TABLE, tmp_path))
    monkeypatch.setattr("bench.runs.trial.LATENCY_TABLE", elsewhere)
    moved = replace(REGIMES["transient"], specification=f"quantiles:{elsewhere}")
    assert drawn_trial(tmp_path, moved).name(Case("none", 0)) == here


def test_those_who_share_a_cluster_come_together() -> None:
    found = list(cases(["none", "equal-resources", "hedge"], range(2), [0.1, 0.5]))
    keys = [(case.policy == "equal-resources", case.seed) for case in found]
    assert len(found) == 12
    assert sum(a != b for a, b in pairwise(keys)) == 3


def test_times_are_shortened_and_defaults_are_the_policy_s(tmp_path: Path) -> None:
    trial = drawn_trial(tmp_path, REGIMES["transient"], 5, "--audit-share", "0.1")
    flags = trial.frontend_flags(Case("collage", 0))
    assert flags[:4] == ("--policy", "collage", "--deadline-s", f"{trial.deadline * FAST:.4f}")
    assert flags[-4:] == ("--group-wait-s", "0.0010", "--audit-share", "0.1")
    assert "--group-wait-s" not in trial.frontend_flags(Case("adaptive", 0))
    assert trial.frontend_flags(Case("equal-resources", 0))[1] == "none"
    varied = trial.frontend_flags(Case("adaptive", 0, None, "patience", 2.0))
    assert varied[-4:] == ("--patience", "2.0", "--audit-share", "0.1")
    assert "0.0100" in trial.frontend_flags(Case("replicate", 0, None, "deadline", 0.5))


@pytest.mark.timeout(300)
async def test_a_comparison_keeps_every_run_and_goes_on_where_it_was(tmp_path: Path) -> None:
    trial, runs, console = drawn_trial(tmp_path), tmp_path / "runs", Console(file=io.StringIO())
    chosen = [Case("none", 0), Case("adaptive", 0, None, "patience", 2.0), Case("adaptive", 0, 0.5)]
    await compare(trial, chosen[:2], runs, console)
    kept = {file: file.stat().st_mtime_ns for file in runs.iterdir()}
    await compare(trial, chosen, runs, console)
    assert all(file.stat().st_mtime_ns == modified for file, modified in kept.items())
    for case in chosen:
        content = json.loads((runs / f"{trial.name(case)}.json").read_text())
        real, simulated = content["rows"]
        assert [list(row) for row in (real, simulated)] == [[*COLUMNS, *case.varied, *MADE]] * 2
        assert (real["source"], simulated["source"]) == ("real", "sim")
        assert all(real[key] == simulated[key] for key in COLUMNS[1:9])
        assert (real["groups"], real["n"], real["load"]) == (5, 4, case.load)
        assert real["accuracy_available"] == simulated["accuracy_available"]  # the same images
        lines = [json.loads(line) for line in (runs / f"{trial.name(case)}.jsonl").read_text().splitlines()]
        assert len(lines) == 20
        assert {(line["policy"], line["load"], line["n"]) for line in lines} == {(case.policy, case.load, 4)}
    overhead = await calibrate(trial, runs, console)
    assert 0 < overhead.overhead_s < 1
    assert "without injected slowness: p50" in console.file.getvalue()  # type: ignore[attr-defined]
    experiment.OUT, out = tmp_path, experiment.OUT
    try:
        content = json.loads(collect("all", runs).read_text())
    finally:
        experiment.OUT = out
    assert len(content["rows"]) == 7
    assert {row["regime"] for row in content["rows"]} == {"transient", "off"}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--policies", "magic"], "there is no policy 'magic'"),
        (["--regimes", "calm"], "there is no regime 'calm'"),
        (["--policies", "hedge:colour=2"], "a limit is one of quantile, patience"),
        (["--policies", "hedge:quantile=high"], "could not convert"),
        (["--drawn", "10"], "--drawn takes a square"),
        (["--loads", "0.01"], "loads at least 0.1"),
        (["--workers", "10"], "a multiple of 9"),
        (["--drawn", "16", "--workers", "4"], "a multiple of 16"),
        (["--collage-workers", "0"], "at least 1 collage worker"),
        (["--scale", "0"], "must be above 0"),
        (["--data", "/absent"], "/absent holds no data set"),
        (["--arrivals", "/absent.csv"], "/absent.csv"),
        (["--arrivals", "a.csv", "--loads", "0.5"], "--arrivals are the load, of one regime"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_arrivals_are_those_of_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    trace = tmp_path / "trace.csv"
    command = f"--arrivals {trace} --drawn 4 --policies none --seeds 0 --plan".split()
    trace.write_text("\n".join(str(5 + 0.25 * i) for i in range(399)))
    assert main(command) == 2
    assert "too short: 100 groups of 4 are to warm up" in capsys.readouterr().err
    slow_at_first = [5 + 0.25 * i for i in range(408)]
    trace.write_text("\n".join(map(str, [*slow_at_first, *(200 + 0.001 * i for i in range(9))])))
    command += ["--groups", "2"]
    assert main(command) == 0
    assert "1 of 1 runs to do, about 1 minutes" in capsys.readouterr().out, "at the rate of those that are sent"
    trial = Trial(REGIMES["transient"], Drawn(4), 2, FAST, (), tmp_path, read_arrivals(trace)[:408])
    np.testing.assert_allclose(trial.times(Case("none", 0, 0.2)), 0.25 * np.arange(408))
    trace.write_text("2\n1\n")
    assert main(command) == 2
    assert "the times do not rise" in capsys.readouterr().err


def test_a_plan_says_how_long_it_takes_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = "--drawn 16 --groups 2000 --scale 1 --policies none,adaptive --plan".split()
    assert main(command) == 0
    assert "6 of 6 runs to do, about" in capsys.readouterr().out
    assert not list(tmp_path.glob("out/*/runs"))
