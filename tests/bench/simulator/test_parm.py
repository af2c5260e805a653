"""ParM's experiment: which machines and policies there are, and what its rows tell."""

from __future__ import annotations

import pytest

from bench.simulator.parm import BASE, ParmCase, cases, parm, simulate


def test_every_code_is_compared_on_the_same_machines() -> None:
    chosen = list(cases(seeds=2))
    assert len(set(chosen)) == len(chosen)
    assert {(case.k, case.machines) for case in chosen} == {(2, 18), (3, 16), (4, 15)}
    assert {case.pairs for case in chosen if case.k == 2} == {1, 2, 3, 4, 5}
    for key in {case[:2] for case in chosen}:
        assert {case[2:4] for case in chosen if case[:2] == key} == {
            ("equal-resources", None),
            *((policy, code) for policy in ("first-come", "adaptive") for code in ("linear", "collage")),
        }


def test_a_parity_model_protects_k_queries_and_a_collage_four() -> None:
    linear, collage = (ParmCase(3, 4, "adaptive", code, 0) for code in ("linear", "collage"))
    assert (linear.shape.members, linear.shape.needed) == (3, 3)
    assert (collage.shape.members, collage.shape.needed) == (4, 1)
    assert linear.models.factor == 1.0, "a parity model is as large as the base model"
    assert collage.models.factor < 1
    assert linear.extra_load == pytest.approx(0.35)


def test_codes_shorten_the_tail_of_equal_resources_and_their_share_is_told() -> None:
    def run(policy: str, code: str | None) -> dict[str, float]:
        return dict(simulate((ParmCase(2, 4, policy, code, 0), 2500)))  # type: ignore[arg-type]

    equal, linear, collage = run("equal-resources", None), run("first-come", "linear"), run("first-come", "collage")
    assert (equal["extra_load"], equal["coded_share"]) == (0, 0)
    assert linear["extra_load"] == pytest.approx(0.5, abs=0.04)
    assert collage["extra_load"] == pytest.approx(0.25, abs=0.04)
    assert collage["p99_s"] < linear["p99_s"] < 0.8 * equal["p99_s"]
    assert 0.02 < linear["coded_share"] < collage["coded_share"]
    assert linear["p50_s"] == pytest.approx(equal["p50_s"], rel=0.05)
    assert BASE == 12


def test_rows_are_the_same_side_by_side() -> None:
    chosen = [ParmCase(4, 2, "equal-resources", None, seed) for seed in range(2)]
    assert parm(chosen, 500, processes=2) == parm(chosen, 500)
