"""Envoy's configuration."""

from __future__ import annotations

from typing import Any

import pytest

from bench.cluster.envoy import configuration

WORKERS = ["127.0.0.1:5001", "127.0.0.1:5002"]


def route_of(content: Any) -> Any:
    (listener,) = content["static_resources"]["listeners"]
    (connections,) = listener["filter_chains"][0]["filters"]
    (host,) = connections["typed_config"]["route_config"]["virtual_hosts"]
    assert host["include_request_attempt_count"] is True, "or a hedge draws the slowness of its first copy"
    (route,) = host["routes"]
    return route["route"]


def cluster_of(content: Any) -> Any:
    (cluster,) = content["static_resources"]["clusters"]
    return cluster


def test_a_hedge_goes_to_another_worker_after_the_timeout_while_the_first_copy_goes_on() -> None:
    route = route_of(configuration(WORKERS, 0.0931, 2.5))
    assert route["hedge_policy"] == {"hedge_on_per_try_timeout": True}
    assert (route["retry_policy"]["per_try_timeout"], route["retry_policy"]["num_retries"]) == ("0.0931s", 1)
    (avoid,) = route["retry_policy"]["retry_host_predicate"]
    assert avoid["name"] == "previous_hosts"
    assert route["timeout"] == "10.0s"


def test_without_a_timeout_nothing_is_sent_twice() -> None:
    assert route_of(configuration(WORKERS, None, 2.5)).keys() == {"cluster", "timeout"}


def test_all_workers_are_compared_and_outliers_ejected() -> None:
    cluster = cluster_of(configuration(WORKERS, None, 2.5))
    (policy,) = cluster["load_balancing_policy"]["policies"]
    assert policy["typed_extension_config"]["typed_config"]["selection_method"] == "FULL_SCAN"
    (endpoints,) = cluster["load_assignment"]["endpoints"]
    ports = [each["endpoint"]["address"]["socket_address"]["port_value"] for each in endpoints["lb_endpoints"]]
    assert ports == [5001, 5002]
    assert cluster["outlier_detection"]["base_ejection_time"] == "2.500s"
    (limits,) = cluster["circuit_breakers"]["thresholds"]
    assert min(limits.values()) >= 1_000_000, "no limit holds a hedge back"


@pytest.mark.parametrize("hedge_s", [None, 0.1])
def test_ports_are_left_to_whoever_starts_it(hedge_s: float | None) -> None:
    content = configuration(WORKERS, hedge_s, 2.5)
    assert content["admin"] == {}
    assert "address" not in content["static_resources"]["listeners"][0]
