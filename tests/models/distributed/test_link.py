"""Training over a link that is cut, for a while and for good. In network namespaces, so as root only."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench.cluster.network import DEVICE, Network, missing
from tests.models.distributed.waiting import until

TIMEOUT_S = 10


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_cut_of_5_s_is_outlived_and_a_longer_one_ends_the_run_in_time(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "run.pt"
    command = [sys.executable, "-m", "models.train", "--data", str(folder), "--model", "resnet32", "--out", str(out)]
    command += ["--size", "8", "--batch", "8", "--epochs", "5000", "--timeout-s", str(TIMEOUT_S)]
    log = tmp_path / "log"
    with Network(2, 1000) as network, log.open("w") as file:
        shared = {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": DEVICE}
        shared |= {"MASTER_ADDR": network.addresses[0], "MASTER_PORT": "29500"}
        ranks = [
            subprocess.Popen(
                [*network.inside(rank), *command],
                env={**os.environ, **shared, "RANK": str(rank)},
                stdout=file,
                stderr=file,
            )
            for rank in range(2)
        ]
        try:
            until(lambda: _epochs(log) >= 1, *ranks)
            network.cut(1, off=True)
            time.sleep(5)
            done = _epochs(log)
            network.cut(1, off=False)
            until(lambda: _epochs(log) >= done + 3, *ranks)
            assert all(rank.poll() is None for rank in ranks)
            network.cut(1, off=True)
            assert all(rank.wait(TIMEOUT_S + 30) for rank in ranks), "both end, with an error"
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
    assert f"rank 1 did not answer within {TIMEOUT_S} s" in log.read_text()
    content = torch.load(out, weights_only=True)
    assert len(content["log"]) >= done + 3
    assert all(bool(weight.isfinite().all()) for weight in content["model"].values())


def _epochs(log: Path) -> int:
    return log.read_text().count("epoch ")
