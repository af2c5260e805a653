"""Who may talk to whom, by what the NetworkPolicies say."""

from typing import Literal

import pytest

from tests.k8s.conftest import Document, Rendered, render

Labels = dict[str, str]
FRONTEND, LOAD, *WORKERS = (
    {"app.kubernetes.io/component": role, "app.kubernetes.io/part-of": "collage", **tier}
    for tier, roles in (({}, ("frontend", "load")), ({"tier": "worker"}, ("s-cnn", "collage-cnn", "parity-0")))
    for role in roles
)
S_CNN, COLLAGE, PARITY = WORKERS
PROMETHEUS, STRANGER = {"app.kubernetes.io/name": "prometheus"}, {"app": "stranger"}


def _matches(selector: Document, labels: Labels) -> bool:
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(term["key"]) in term["values"] for term in selector.get("matchExpressions", [])
    )


def _allowed(rendered: Rendered, way: Literal["Ingress", "Egress"], pod: Labels, peer: Labels, port: str | int) -> bool:
    """Whether the policies of ``pod`` let it be called by (Ingress) or call (Egress) a peer on a port."""
    policies = [
        policy["spec"]
        for policy in rendered.of("NetworkPolicy").values()
        if way in policy["spec"]["policyTypes"] and _matches(policy["spec"]["podSelector"], pod)
    ]
    side = {"Ingress": "from", "Egress": "to"}[way]
    return not policies or any(
        any(item["port"] == port for item in rule["ports"])
        and (side not in rule or any(_matches(to["podSelector"], peer) for to in rule[side] if "podSelector" in to))
        for policy in policies
        for rule in policy.get(way.lower(), [])
    )


def _may_call(rendered: Rendered, caller: Labels, called: Labels, port: str) -> bool:
    return _allowed(rendered, "Egress", caller, called, port) and _allowed(rendered, "Ingress", called, caller, port)


@pytest.mark.parametrize("name", ["load", "local", "everything"])
def test_only_what_is_needed(name: str) -> None:
    rendered = render(name)
    pods = {"frontend": FRONTEND, "s-cnn": S_CNN, "collage-cnn": COLLAGE, "load": LOAD, "prometheus": PROMETHEUS}
    pods["stranger"] = STRANGER
    ours = ("frontend", "s-cnn", "collage-cnn", "load")
    assert {(a, b) for a in pods for b in ours if _may_call(rendered, pods[a], pods[b], "grpc")} == {
        ("load", "frontend"),
        ("stranger", "frontend"),
        ("prometheus", "frontend"),
        ("frontend", "s-cnn"),
        ("frontend", "collage-cnn"),
    }
    metrics = {(a, b) for a in pods for b in ours if _may_call(rendered, pods[a], pods[b], "metrics")}
    assert metrics == {("prometheus", role) for role in ours}
    for role in ours:
        assert not _allowed(rendered, "Egress", pods[role], STRANGER, "grpc")


def test_parity_workers_are_called_by_the_frontend_only() -> None:
    rendered = render("parity")
    callers = {"frontend": FRONTEND, "s-cnn": S_CNN, "parity-0": PARITY, "prometheus": PROMETHEUS, "stranger": STRANGER}
    assert [name for name, pod in callers.items() if _may_call(rendered, pod, PARITY, "grpc")] == ["frontend"]
    assert [name for name, pod in callers.items() if _may_call(rendered, pod, PARITY, "metrics")] == ["prometheus"]
    assert not any(_allowed(rendered, "Egress", PARITY, pod, "grpc") for pod in callers.values())


def test_http_is_open_to_callers_where_it_is_served() -> None:
    served, not_served = render("http"), render("load")
    assert _may_call(served, STRANGER, FRONTEND, "http")
    assert _may_call(served, STRANGER, FRONTEND, "grpc")
    assert not _may_call(served, STRANGER, S_CNN, "http")
    assert not _may_call(not_served, STRANGER, FRONTEND, "http")
    names = {port["name"] for port in served.of("Service")["frontend"]["spec"]["ports"]}
    assert names == {"grpc", "http"}


def test_pods_carry_the_labels_that_policies_go_by(rendered: Rendered) -> None:
    for name, pod in rendered.pods().items():
        labels = pod["metadata"]["labels"]
        if name == "prometheus":
            assert PROMETHEUS.items() <= labels.items()
        else:
            assert any(known.items() <= labels.items() for known in (FRONTEND, LOAD, *WORKERS))


def test_who_looks_up_names_may(base: Rendered) -> None:
    (policy,) = (item["spec"] for name, item in base.of("NetworkPolicy").items() if name == "dns")
    assert [labels["app.kubernetes.io/component"] for labels in (FRONTEND, LOAD, *WORKERS)
            if _matches(policy["podSelector"], labels)] == ["frontend", "load"]  # fmt: skip
    (rule,) = policy["egress"]
    assert rule.keys() == {"ports"}, "a cache on the node is in no namespace, and has the address of the DNS Service"
    ports = {(item["port"], item["protocol"]) for item in rule["ports"]}
    assert ports == {(port, protocol) for port in (53, 5353) for protocol in ("UDP", "TCP")}
