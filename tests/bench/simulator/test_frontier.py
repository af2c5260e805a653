"""The table of tails against extra load: what is planned, chosen, kept, made again and written."""

from __future__ import annotations

import json
import sys
from itertools import count
from pathlib import Path

import pytest

from bench.measured import FOR_P999
from bench.offer import FAMILIES, REGIMES
from bench.simulator.frontier import (
    KEYS,
    Found,
    Pace,
    Table,
    chosen,
    fill,
    key,
    main,
    simulate,
    taken,
    which,
)
from bench.simulator.plans import (
    BUDGETS,
    LARGE,
    MIDDLE,
    PLANS,
    SMALL,
    TRIAL_SEEDS,
    TUNED,
    FrontierCase,
    Grid,
    Place,
    Plan,
    limits,
)
from bench.simulator.replay import KNOWN
from collage.figures import in_words, machine, read_figures, write_figures
from frontend.policy.rules import Rules
from tests.bench.columns import COLUMNS

TINY = Place("transient", Grid(4, 1, 2), 0.5)


def row(case: FrontierCase, commit: str = "now", **figures: object) -> Found:
    usual = dict.fromkeys(KEYS, 0.5)
    return {**usual, **which(case), "requests": case.requests, "commit": commit, **figures}


def table_in(folder: Path, commit: str = "now") -> Table:
    return Table(folder / "frontier.json", folder / "journal.jsonl", commit)


@pytest.mark.parametrize("reduced", [False, True])
def test_every_planned_run_can_be_simulated_and_is_planned_once(reduced: bool) -> None:
    plan = PLANS[reduced]
    cases, trials = list(plan.cases({})), list(plan.trials())
    for case in (*cases, *trials):
        assert case.place.family in REGIMES
        assert case.policy in KNOWN
        assert all(hasattr(Rules, name) for name in limits(case.setting))
        assert case.place.cluster.setup.n % case.place.cluster.setup.redundant == 0
    assert len({key(which(case)) for case in cases}) == len(cases)
    assert {case.seed for case in trials} == set(TRIAL_SEEDS)
    assert {case.seed for case in cases}.isdisjoint(TRIAL_SEEDS)


def test_both_plans_have_transient_slowness_at_half_load_in_full_and_every_place() -> None:
    whole, reduced = ({case[:4] for case in PLANS[kind].cases({})} for kind in (False, True))
    assert reduced < whole
    transient = {case for case in whole if case[0].family == "transient" and case[0].together == 1}
    half = {case for case in transient if case[0].load == 0.5}
    assert half <= reduced
    assert {case[3] for case in half} == {0, 1, 2, 3, 4}
    places = {case[0] for case in whole}
    assert {case[0] for case in reduced} == places, "others in short"
    assert {(place.family, place.cluster, place.load) for place in places} == {
        (family, cluster, load) for family in FAMILIES for cluster in (SMALL, MIDDLE, LARGE) for load in (0.3, 0.5, 0.8)
    }
    assert {place.family for place in places if place.together == 20} == set(FAMILIES)
    for budget in BUDGETS:
        assert any(case[1] == "adaptive" and limits(case[2]) == {"extra_load": budget} for case in transient)


def test_a_run_has_the_figures_of_its_cluster() -> None:
    case = FrontierCase(Place("transient", SMALL, 0.5), "collage", "", 1, FOR_P999)
    found = simulate(case)
    assert tuple(found) == KEYS[:-1]
    assert key(found) == key(which(case))
    assert found["offered"] == "poisson"
    assert FOR_P999 <= found["requests"] < FOR_P999 + 36
    assert found["p50_s"] < found["p99_s"] < found["p999_s"]
    assert found["p99_s"] <= found["group_p99_s"], "the slowest of four"
    assert 0.15 < found["extra_load"] < 0.3, "a collage for every four requests"
    assert found["ejections"] == 0
    none = simulate(case._replace(policy="none", requests=2000))
    assert 1.05 * none["p99_s"] < none["group_p99_s"]
    bursts = simulate(case._replace(place=Place("transient", SMALL, 0.5, 20), requests=500))
    assert (bursts["offered"], bursts["p999_s"]) == ("bursts of 20", None)
    assert bursts["p99_s"] > found["p99_s"]


def test_ejections_are_counted() -> None:
    case = FrontierCase(Place("mixture", Grid(9, 1, 3), 0.8), "ejection", "", 0, 6000)
    assert simulate(case)["ejections"] > 0


def test_the_setting_of_lowest_p99_within_the_budget_is_chosen(tmp_path: Path) -> None:
    table, plan = table_in(tmp_path), Plan([TINY], [], trial_requests=100)
    (policy, *_), budget = TUNED, BUDGETS[3]
    tried = [case for case in plan.trials() if (case.policy, case.budget) == (policy, budget)]
    settings = list(dict.fromkeys(case.setting for case in tried))
    assert len(settings) > 1
    assert len(tried) == len(settings) * len(TRIAL_SEEDS)
    for number, setting in enumerate(settings):
        for case in (case for case in tried if case.setting == setting):
            load = budget * (1.2 if number == 0 else 1.04)
            table.add(row(case, p99_s=0.3 + 0.01 * number, extra_load=load))
    assert chosen(plan, table) == {(TINY, policy, budget): settings[1]}, "the first costs too much"
    table = Table(table.file, table.journal, "later")
    assert chosen(plan, table) == {}, "trials of another commit do not count"


def test_runs_of_this_commit_that_are_long_enough_are_not_made_again(tmp_path: Path) -> None:
    case = FrontierCase(TINY, "none", "", 0, 500)
    table = table_in(tmp_path)
    assert not table.has(case)
    table.add(row(case))
    assert table.has(case)
    assert table_in(tmp_path).has(case), "the journal knows it where nothing was written"
    assert not table_in(tmp_path, "later").has(case)
    assert not table.has(case._replace(requests=501))
    assert not table.has(case._replace(seed=1))
    table.write(complete=False)
    table.journal.unlink()
    assert table_in(tmp_path).has(case)


def test_rows_have_the_keys_of_the_table_and_old_ones_go_when_it_is_complete(tmp_path: Path) -> None:
    table = table_in(tmp_path)
    old, new, trial = (FrontierCase(TINY, "none", "", seed, 500) for seed in (0, 1, TRIAL_SEEDS[0]))
    for case in (new, trial):
        table.add(row(case))
    real = row(old, "earlier", source="real")
    for known in (row(old, "earlier"), real):
        table.rows[key(known)] = known
    for complete, expected in ((False, 3), (True, 2)):
        table.write(complete=complete)
        content = json.loads(table.file.read_text())
        assert len(content["rows"]) == expected
        assert all(tuple(found) == KEYS for found in content["rows"])
        assert real in content["rows"], "the simulator's commit says nothing of real runs"
        assert {"command", "machine"} < set(content)
        assert all(found["machine"] for found in read_figures(table.file))


def test_a_plan_is_filled_and_goes_on_where_it_was(tmp_path: Path) -> None:
    plan = Plan([], [TINY], few_requests=60, trial_requests=40, few_seeds=1, warm_up=20)
    table = table_in(tmp_path)
    assert not fill(table, plan, 1, minutes=0), "no time"
    assert not table.rows
    assert fill(table, plan, 2)
    known = dict(table.rows)
    assert {found["policy"] for found in known.values()} >= {"adaptive", "none", "collage", *TUNED}
    assert {found["requests"] for found in known.values() if found["seed"] not in TRIAL_SEEDS} == {60}
    assert fill(table_in(tmp_path), plan, 1, minutes=0), "nothing is left to do"
    assert table.rows == known


def test_the_time_left_is_told_now_and_then() -> None:
    clock, said = count(0, 10.0), list[str]()
    pace = Pace(10_000, said.append, lambda: next(clock))
    for _ in range(4):
        pace.done(1000)
    assert said == ["2 runs done, 20% of the work, 1 minutes left", "4 runs done, 40% of the work, 1 minutes left"]


def test_a_plan_says_how_long_it_takes_and_bad_arguments_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "frontier.json")
    assert main(["--reduced", "--families", "constant", "--processes", "2", "--plan", "--out", out]) == 0
    told = capsys.readouterr().out
    assert "runs to choose settings and about" in told
    assert "minutes for 2 processes at" in told
    assert not Path(out).exists()
    for flags, text in (
        (["--families", "calm"], "no family 'calm'"),
        (["--processes", "0"], "at least 1"),
        (["--minutes", "0"], "minutes above 0"),
    ):
        assert main([*flags, "--out", out]) == 2
        assert text in capsys.readouterr().err


def test_rows_of_real_processes_are_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {**dict.fromkeys(COLUMNS, 0.25), "source": "real", "regime": "transient", "offered": "open", "load": 0.5}
    columns |= {"n": 36, "redundant": 4, "policy": "adaptive", "seed": 2, "groups": 10, "group_p99_s": 0.4}
    rows = [{**columns, "setting": "extra_load", "value": 0.05}, {**columns, "source": "sim"}]
    file, out = write_figures("real", rows, directory=tmp_path), tmp_path / "frontier.json"
    assert main(["--take", str(file), "--grid", "2", "--out", str(out)]) == 0
    (found,) = json.loads(out.read_text())["rows"]
    out.write_text(out.read_text().replace(in_words(machine()), "another machine"))
    monkeypatch.setattr(sys, "orig_argv", ["python", "again"])
    table = Table(out, tmp_path / "journal.jsonl", "now")
    table.write(complete=True)
    assert json.loads(out.read_text())["command"].endswith("; python again"), "all commands that made the table"
    assert json.loads(out.read_text())["rows"] == [{**found, "machine": "another machine"}]
    assert {row["machine"] for row in read_figures(out)} == {"another machine"}
    assert tuple(found) == KEYS
    assert key(found) == ("real", "transient", 36, 4, "2x2", "poisson", 0.5, "adaptive", "extra_load=0.05", 2)
    assert (found["requests"], found["extra_load"], found["group_p99_s"]) == (360, 0.5, None)
    assert taken({**columns, "n": 4, "commit": "c", "machine": "m"}, 2)["group_p99_s"] == 0.4
    assert taken({**columns, "n": 4, "offered": "closed", "commit": "c", "machine": "m"}, 2)["offered"] == "closed"
