"""ParM's experiment on real processes: its clusters and policies. No process is started here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.runs.parm import main, real_cases, trial
from bench.runs.trial import Case, Overhead
from bench.simulator.parm import RATE, ParmCase


def test_real_runs_are_parms_code_by_its_policy_and_collages_by_ours() -> None:
    chosen = list(real_cases(seeds=1))
    assert len(chosen) == 9
    assert {(case.k, case.pairs) for case in chosen} == {(2, 4), (3, 4), (4, 4)}
    assert {(case.policy, case.code) for case in chosen} == {
        ("equal-resources", None), ("first-come", "linear"), ("adaptive", "collage"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "code", "s_cnn", "coded"),
    [("equal-resources", None, 16, 0), ("first-come", "linear", 12, 4), ("adaptive", "collage", 12, 4)],
)
def test_twelve_workers_and_a_third_more_get_270_queries_per_second_four_times_slower(
    policy: str, code: str | None, s_cnn: int, coded: int, tmp_path: Path
) -> None:
    case = ParmCase(3, 4, policy, code, 0)
    one = trial(case, 2400, tmp_path)
    assert one.groups == 200
    assert one.scale == 1
    assert len(one.arrivals) == (200 + 100) * 12  # type: ignore[arg-type]
    assert len(one.arrivals) / one.arrivals[-1] == pytest.approx(RATE, rel=0.05)  # type: ignore[arg-type,index]
    cluster = one.cluster(0, equal_resources=code is None)
    assert (len(cluster.s_cnn), len(cluster.coded)) == (s_cnn, coded)
    (spec,) = {child.command[child.command.index("--slowdown") + 1].split(":")[0] for child in cluster.workers}
    assert spec == "transfers"
    flags = one.frontend_flags(Case(policy, 0, one.load, *(("extra_load", case.extra_load) if code else ())))
    assert flags[1] == ("none" if code is None else policy)
    assert code is None or float(flags[flags.index("--extra-load") + 1]) == pytest.approx(1.05 / case.shape.members)


def test_a_real_run_has_a_simulated_twin_with_its_code(tmp_path: Path) -> None:
    case = ParmCase(2, 4, "first-come", "linear", 0)
    one = trial(case, 1200, tmp_path)
    prepared = one.prepare(0)
    assert np.array_equal(prepared.models.images.coded_right, prepared.models.images.s_cnn_right)
    twin = one.simulate(Case("first-come", 0, one.load, "extra_load", case.extra_load), prepared, Overhead(0, 0, 0))
    assert (twin["n"], twin["redundant"], twin["groups"]) == (12, 6, 100)
    assert twin["collage_load"] == pytest.approx(0.5, abs=0.05)
    assert twin["accuracy"] == twin["accuracy_available"]


def test_too_few_queries_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for how in ([], ["--real"]):
        with pytest.raises(SystemExit, match="2"):
            main([*how, "--queries", "9999", "--out", str(tmp_path / "parm.json")])
        assert "at least 10,000 queries" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
