"""What is admitted, by the estimates alone."""

from __future__ import annotations

import random

import pytest

from frontend.policy.admission import Admission


def knowing(service: float, calls: int = 200, spread: float = 0.0) -> Admission:
    admission = Admission()
    draw = random.Random(0)
    for _ in range(calls):
        admission.served(service + draw.uniform(-spread, spread))
    return admission


def test_nothing_is_refused_before_anything_is_known() -> None:
    assert Admission().excess(5, 50, 0.001) == 0


def test_whoever_finds_an_idle_worker_is_admitted() -> None:
    assert knowing(0.1).excess(0, 0, 0.01) == 0
    assert knowing(0.1).excess(0, 0.9, 0.01) == 0


@pytest.mark.parametrize(("queue", "remaining", "excess"), [(1, 0.3, 0), (2, 0.3, 0), (3, 0.3, 0.1), (9, 0.5, 0.5)])
def test_a_queue_is_weighed_against_the_time_that_remains(queue: int, remaining: float, excess: float) -> None:
    assert knowing(0.1).excess(0, queue, remaining + 1e-9) == pytest.approx(excess, abs=1e-6)


def test_uncertain_service_times_are_allowed_for() -> None:
    calm, wild = knowing(0.1), knowing(0.1, 2000, spread=0.09)
    assert wild.expected(0, 3) > calm.expected(0, 3) + 2 * 0.04
    assert wild.service == pytest.approx(0.1, rel=0.2)


def test_images_that_wait_to_be_decoded_count() -> None:
    admission = Admission()
    for before in range(20):
        admission.prepared(0.01 * (before + 1), before)
    assert admission.excess(0, 0, 0.001) == 0
    assert admission.excess(49, 0, 0.6) == 0
    assert admission.excess(49, 0, 0.4) == pytest.approx(0.1)


def test_estimates_follow_changes() -> None:
    admission = knowing(1.0)
    for _ in range(100):
        admission.served(0.1)
    assert admission.service == pytest.approx(0.1, rel=0.1)
