"""The measurement of sums of gradients: limited links, a short run on real processes, and simulated workers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from bench.cluster.network import Network, missing
from bench.runs.allreduce import main, parser
from bench.runs.allreduce_rank import Bucket, transmitted
from bench.runs.simulated_workers import train
from models.distributed.links import MemoryLink
from models.steps import Recipe
from tests.models.datasets import write_idx

needs_namespaces = pytest.mark.skipif(bool(missing()), reason=missing() or "there are namespaces")


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_a_bucket_lets_as_much_through_as_its_rate_allows() -> None:
    clock, (link,) = Clock(), MemoryLink.ring(1)
    link._in = link._out
    bucket = Bucket(link, 8.0, clock, clock.sleep)  # a million bytes in a second
    for count in (250, 500):
        bucket.send(torch.ones(count), 0).wait()
    assert clock.slept == pytest.approx([0.001, 0.002])
    clock.now += 10  # a pause is not saved up
    bucket.send(torch.ones(250), 0).wait()
    assert clock.slept[-1] == pytest.approx(0.001)
    received = torch.zeros(250)
    bucket.receive(received, 0).wait()
    assert received.equal(torch.ones(250))


def test_a_short_run_on_real_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--nodes", "2", "--bandwidth", "1000", "--batch", "4", "--additions", "gloo", "none", "powersgd-1"]
    assert main([*flags, "--out", str(tmp_path)]) == 0
    rows = {row["compressor"]: row for row in json.loads((tmp_path / "allreduce.json").read_text())["rows"]}
    assert rows.keys() == {"gloo", "none", "powersgd-1"}
    for row in rows.values():
        assert (row["model"], row["nodes"], row["mbit_s"], row["top1"], row["epochs"]) == (
            "resnet32",
            2,
            1000,
            None,
            None,
        )
        assert 0 < row["compute_s"] < row["step_s"]
        assert row["communication_s"] > 0
        if not missing():
            assert row["bytes"] < row["bytes_kernel"] < 1.15 * row["bytes"] + 2000, "headers"
            assert row["shaped"] == "tc tbf"
    assert rows["none"]["bytes"] == rows["none"]["bytes_plain"] == 466_906 * 4
    assert rows["powersgd-1"]["bytes"] < rows["none"]["bytes"] / 20
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in printed if line.startswith("resnet32")] == ["gloo", "none", "powersgd-1"]


@needs_namespaces
def test_namespaces_are_limited_and_disappear() -> None:
    with Network(2, 100) as network:
        shown = subprocess.run(
            [*network.inside(1), "tc", "qdisc", "show", "dev", "eth0"], capture_output=True, text=True, check=True
        ).stdout
        assert "rate 100Mbit" in shown
        subprocess.run([*network.inside(1), "ping", "-c1", "-W2", network.addresses[0]], check=False)
        network.cut(1, off=True)
        link = subprocess.run(
            [*network.inside(1), "ip", "link", "show", "eth0"], capture_output=True, text=True, check=True
        ).stdout
        assert "state DOWN" in link
        names = network.names
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert not any(name in left for name in names)


def test_what_the_kernel_counts_is_of_the_limited_link_only() -> None:
    assert transmitted() is None or transmitted() >= 0  # type: ignore[operator]


def test_simulated_workers_train_and_are_tested(tmp_path: Path) -> None:
    write_idx(tmp_path, train=80, test=20)
    recipe = Recipe(epochs=1, batch=24, muon_lr=0.0, sgd_lr=0.1)
    row = train(tmp_path, "resnet32", {}, 2, "powersgd-1", recipe)
    assert (row["dataset"], row["images"], row["epochs"], row["steps"]) == ("fashion-mnist", 20, 1, 3)
    assert 0 <= float(row["top1"] or 0) <= 1
    assert float(row["bytes"] or 0) < float(row["bytes_plain"] or 0) / 20


def test_usual_settings() -> None:
    args = parser().parse_args([])
    assert (args.nodes, args.bandwidth, args.models, args.seeds) == ([4], [100.0], ["resnet32"], [0])
