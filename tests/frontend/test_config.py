"""The frontend's settings become the rules of the policy and of ejection."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from frontend.__main__ import check_targets, connection_age, dispatching
from frontend.config import FrontendSettings
from frontend.policy.ejection import Ejection
from frontend.policy.rules import POLICIES, Rules
from frontend.workers import TargetError


def settings(**chosen: Any) -> FrontendSettings:
    return FrontendSettings(s_cnn_workers="127.0.0.1:1", **chosen)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_not_set_is_as_the_policy_has_it(policy: Any) -> None:
    rules = settings(policy=policy).rules()
    named = Rules.named(policy, longest=10.0)
    assert rules == named
    assert rules.group_wait == (math.inf if policy == "adaptive" else 0.05)


def test_limits_are_passed_on() -> None:
    rules = settings(policy="collage", group_wait_s=0.1, accept_threshold=0.4, deadline_s=0.3, patience=2.0).rules()
    assert (rules.group_wait, rules.accept, rules.deadline) == (0.1, 0.4, 0.3)
    tracked = settings(policy="hedge", extra_load=0.125, deadline_quantile=0.75, audit_share=0.5).rules()
    assert (tracked.extra_load, tracked.quantile, tracked.audit) == (0.125, 0.75, 0.5)
    assert settings(accuracy_budget=0.001).rules().accuracy == 0.001
    assert settings().rules().accuracy is None
    assert rules.patience == math.inf  # adaptive's only
    assert settings(patience=2.0).rules().patience == 2.0


def test_only_policies_that_eject_have_limits_of_ejection() -> None:
    assert [policy for policy in POLICIES if settings(policy=policy).ejection()] == ["ejection", "adaptive"]
    assert settings().ejection() == Ejection()
    chosen = settings(
        eject_factor=3.0, eject_evidence=9.0, eject_failures=5, eject_most=0.1, eject_rest_s=1.0,
        eject_longest_s=60.0, eject_probes=1,
    )  # fmt: skip
    assert chosen.ejection() == Ejection(
        factor=3.0, evidence=9.0, failures=5, share=0.1, rest=1.0, longest=60.0, probes=1
    )


@pytest.mark.parametrize(
    "unsafe",
    [
        {"eject_factor": 1.0},
        {"eject_most": 0.6},
        {"eject_evidence": 0.0},
        {"eject_failures": 0},
        {"eject_rest_s": 0.0},
        {"eject_probes": 0},
        {"patience": 0.9},
        {"extra_load": 3.0},
        {"deadline_quantile": 0.3},
        {"group_wait_s": -1.0},
        {"grid": 1},
        {"policy": "hedge", "deadline_s": 20.0},
        {"shortest_deadline_s": 0.3},
        {"longest_deadline_s": 0.2},
        {"eject_rest_s": 10.0, "eject_longest_s": 5.0},
    ],
)
def test_unsafe_limits_are_refused(unsafe: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**unsafe)


def test_workers_get_the_token_and_certificates_come_with_their_keys(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("swordfish\nolder")
    security = settings(worker_token_file=tmp_path / "tokens").worker_security()
    assert security.metadata() == (("authorization", "Bearer swordfish"),)
    with pytest.raises(ValidationError, match="--worker-cert and --worker-key belong together"):
        settings(worker_ca=tmp_path / "ca.pem", worker_cert=tmp_path / "cert.pem")


def test_connections_live_as_long_as_the_operator_says_and_a_request_more() -> None:
    assert connection_age(settings()) == []
    assert connection_age(settings(max_connection_age_s=3, timeout_s=2)) == [
        ("grpc.max_connection_age_ms", 3000),
        ("grpc.max_connection_age_grace_ms", 5000),
    ]


def test_what_the_operator_says_reaches_the_dispatcher_and_lists_are_checked() -> None:
    told = dispatching(
        settings(max_in_flight=3, max_bytes_in_flight=7, default_label="bag", grid=3, accuracy_budget=0.001)
    )
    assert (told.max_in_flight, told.max_bytes, told.default_label, told.grid) == (3, 7, "bag", 3)
    assert told.accuracy_budget == 0.001
    check_targets(settings(coded_workers="127.0.0.1:1 127.0.0.1:2"))
    with pytest.raises(TargetError, match=r"--coded-workers: expected host:port, got '127.0.0.1'"):
        check_targets(settings(coded_workers="127.0.0.1:1 127.0.0.1"))
