"""Who is below whom in the table of tails against extra load, and what the documents say of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.report.findings import FoundRow
from bench.report.frontier import best, compared, draw, losses
from bench.report.frontier_passages import PASSAGES
from bench.report.stored import Stored
from bench.simulator.frontier import KEYS


def runs(policy: str, setting: str, spent: float, p99: Sequence[float], **other: object) -> list[FoundRow]:
    about = {
        **dict.fromkeys(KEYS, 0.5),
        **{"source": "sim", "family": "transient", "workers": 36, "redundant": 4, "grid": "2x2"},
        **{"offered": "poisson", "load": 0.5, "policy": policy, "setting": setting, "extra_load": spent},
        **{"requests": 20_000, "p50_s": 0.14, "coded_share": 0.02, "commit": "c" * 40},
    }
    return [{**about, "seed": seed, "p99_s": value, "p999_s": 2 * value, **other} for seed, value in enumerate(p99)]


OURS = runs("adaptive", "extra_load=0.05", 0.05, (0.300, 0.302, 0.304))


def test_a_rival_wins_below_the_interval_at_no_more_extra_load() -> None:
    def lost(rival: list[FoundRow]) -> list[str]:
        return [loss.tail for loss in losses([*OURS, *rival])]

    assert lost(runs("hedge", "", 0.05, (0.280, 0.281, 0.282))) == ["p99_s", "p999_s"]
    assert lost(runs("hedge", "", 0.0505, (0.280, 0.281, 0.282))) == ["p99_s", "p999_s"], "as good as equal"
    assert lost(runs("hedge", "", 0.056, (0.280, 0.281, 0.282))) == [], "it costs more"
    assert lost(runs("hedge", "", 0.01, (0.310, 0.28, 0.29))) == [], "within the interval"
    assert lost(runs("hedge", "", 0.01, (0.320, 0.321, 0.322))) == []
    assert lost(runs("hedge", "", 0.01, (0.280, 0.281, 0.282), p999_s=None)) == ["p99_s"], "too few requests"
    elsewhere = runs("hedge", "", 0.01, (0.280, 0.281, 0.282), load=0.8)
    assert lost(elsewhere) == []


def test_the_best_of_several_rivals_is_named() -> None:
    rivals = [
        *runs("hedge", "quantile=0.9", 0.04, (0.280, 0.281, 0.282)),
        *runs("single-r", "extra_load=0.03", 0.03, (0.270, 0.271, 0.272)),
    ]
    (loss, _) = losses([*OURS, *rivals])
    assert loss.rival[0]["policy"] == "single-r"
    assert loss.place == ("transient", 36, 4, "2x2", "poisson", 0.5)
    assert compared([*OURS, *rivals]) == 2


def test_each_policy_is_shown_at_its_best_setting_within_the_load() -> None:
    rows = [
        *runs("hedge", "quantile=0.9", 0.1, (0.30, 0.30)),
        *runs("hedge", "quantile=0.95", 0.05, (0.35, 0.35)),
        *runs("hedge", "quantile=0.8", 0.2, (0.25, 0.25)),
    ]
    assert {policy: same[0]["setting"] for policy, same in best(rows, "p99_s", 0.125).items()} == {
        "hedge": "quantile=0.9"
    }
    assert best(rows, "p99_s", 0.01) == {}


@pytest.fixture
def found(tmp_path: Path) -> Stored:
    rows = [
        *OURS,
        *runs("none", "", 0.0, (0.700, 0.701, 0.702)),
        *runs("hedge", "quantile=0.9,extra_load=0.05", 0.049, (0.350, 0.351, 0.352)),
        *runs("adaptive", "extra_load=0.05", 0.05, (0.12, 0.121, 0.122), family="constant"),
        *runs("equal-resources", "", 0.0, (0.1, 0.1001, 0.1002), family="constant"),
    ]
    content = {"command": "python -m bench frontier", "machine": "a CPU, 2 cores, Linux", "rows": rows}
    (tmp_path / "frontier.json").write_text(json.dumps(content))
    return Stored(tmp_path)


def test_passages_tell_curves_families_and_losses(found: Stored) -> None:
    curve = PASSAGES["frontier-curve"](found)
    assert (
        "| 36 + 4, 2x2 | 5.0 ± 0.0 | 140 ± 0 | 302 ± 5 | 604 ± 10 | 2.0 ± 0.0 | hedge, quantile 0.9, extra_load 0.05 |"
        in curve
    )
    families = PASSAGES["frontier-families"](found)
    assert "| transient | **302 ± 5 (5.0 %)** | 351 ± 2 (4.9 %) | 701 ± 2 (0.0 %) |  |" in families
    assert "| constant | 121 ± 2 (5.0 %) |  |  | **100 ± 0 (0.0 %)** |" in families
    assert "**604 ± 10 (5.0 %)**" in PASSAGES["frontier-families-p999"](found)
    told = PASSAGES["frontier-losses"](found)
    assert "at 4 settings, places and tails" in told
    assert "in 2." in told
    assert (
        "| constant | 36 + 4, 2x2 | poisson, 50% | p99 | 5.0 ± 0.0 | 121 ± 2 | equal-resources | 0.0 ± 0.0 | 100 ± 0 |"
        in told
    )


def test_real_processes_have_a_table_of_their_own(tmp_path: Path) -> None:
    real = {"source": "real", "offered": "closed", "workers": 9, "redundant": 1, "requests": 900}
    rows = [*runs("envoy", "per_try_timeout=0.2", 0.1, (0.35, 0.37), **real, ejections=1), *OURS]
    rows += runs("hedge", "", 0.1, (0.35, 0.37), **{**real, "offered": "poisson"})
    (tmp_path / "frontier.json").write_text(json.dumps({"command": "c", "machine": "m, 2 cores", "rows": rows}))
    told = PASSAGES["frontier-real"](Stored(tmp_path))
    assert "| transient, 9 + 1: envoy, per_try_timeout 0.2 | 140 ± 0 | 360 ± 127 | 10.0 ± 0.0 | 1.0 |" in told
    assert "900 for each of 2 seeds" in told
    assert "adaptive" not in told
    assert "hedge" not in told, "requests that come one after another have a table of their own"


def test_the_picture_has_a_diagram_for_each_tail(found: Stored, tmp_path: Path) -> None:
    draw(tmp_path / "frontier.png", found.rows("frontier"))
    assert (tmp_path / "frontier.png").stat().st_size > 10_000
    draw(tmp_path / "none.png", found.rows("frontier"), family="pareto-1.6")
    assert not (tmp_path / "none.png").exists()
