"""Training by a team: the results of one process, checkpoints of rank 0, and ranks that are lost."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.checkpoint import ARCHITECTURES
from models.data import Dataset
from models.distributed import ADDITIONS, launch
from models.distributed.ring import Ring
from models.distributed.team import Team
from models.steps import Recipe, Step
from models.train import describe, run
from models.trainer import Trainer
from tests.models.distributed.rings import rings, together
from tests.models.distributed.waiting import until


class Plain(nn.Module):
    """A network without batch norm, whose gradient is the mean over images whatever the batch they come in."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, bias=False)
        self.fc = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(torch.relu(self.conv(x)).mean((2, 3)))
        return out


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(ARCHITECTURES, "plain", Plain)
    return "plain"


STILL = {"shift": 0, "flip": False}
"""Images as they are: ranks vary theirs each in their own way."""


def _trainer(
    data: Dataset, architecture: str, ring: Ring | None = None, name: str = "none", **changes: float
) -> Trainer:
    recipe = Recipe(**{"epochs": 2, "batch": 24, **STILL, **changes})  # type: ignore[arg-type]
    team = Team(ring, ADDITIONS[name]) if ring else None
    return Trainer(describe(data, architecture, 16, 1, {}), data, recipe, "cpu", "fp32", team=team)


def _trained(runs: list[Trainer], epochs: int = 2) -> list[Trainer]:
    def train(run: Trainer) -> Trainer:
        for _ in range(epochs):
            run.run_epoch()
        return run

    with ThreadPoolExecutor(len(runs)) as pool:
        return list(pool.map(train, runs))


def test_a_team_has_no_clock(data: Dataset, plain: str) -> None:
    (ring, *_) = rings(2)
    with pytest.raises(ValueError, match="no clock in common: give epochs, no minutes"):
        _trainer(data, plain, ring, minutes=1)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("muon_lr", [0.0, 0.06])
def test_a_team_ends_with_the_weights_of_one_process_with_the_same_batch(
    data: Dataset, plain: str, size: int, muon_lr: float
) -> None:
    (alone,) = _trained([_trainer(data, plain, muon_lr=muon_lr)])
    team = _trained([_trainer(data, plain, ring, muon_lr=muon_lr) for ring in rings(size)])
    for member in team:
        assert member.log[-1]["loss"] == pytest.approx(alone.log[-1]["loss"], rel=1e-4)
        assert member.log[-1]["validation"] == alone.log[-1]["validation"]
        for name, weight in alone.model.state_dict().items():
            torch.testing.assert_close(member.model.state_dict()[name], weight, rtol=1e-3, atol=1e-5, msg=name)


def test_ranks_have_the_same_weights_and_statistics_after_every_epoch(data: Dataset) -> None:
    first, second = _trained([_trainer(data, "resnet32", ring, "fp16", shift=2) for ring in rings(2)], epochs=1)
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], tensor), name


def test_a_batch_is_whole_inputs_for_every_rank(data: Dataset) -> None:
    sizes = {size: _trainer(data, "resnet32", rings(size)[0], batch=25).images_per_step for size in (1, 2, 3, 8)}
    assert sizes == {1: 25, 2: 24, 3: 24, 8: 24}
    with pytest.raises(ValueError, match="72 training images are too few: one step takes 100"):
        _trainer(data, "resnet32", rings(100)[0])


def test_the_file_of_rank_0_is_everybodys() -> None:
    def told(ring: Ring) -> list[bytes]:
        team = Team(ring, ADDITIONS["none"])
        return [team.told(content if ring.rank == 0 else b"x") for content in (b"a checkpoint", b"")]

    assert together(3, told) == [[b"a checkpoint", b""]] * 3


def test_a_run_of_a_team_goes_on_from_the_file_of_rank_0(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run.pt"
    step = Step("resnet32", size=8, recipe=Recipe(epochs=1, batch=24))

    def begin(ring: Ring) -> int:
        mine = out if ring.rank == 0 else tmp_path / "elsewhere.pt"
        run(step, folder, mine, device="cpu", precision="fp32", team=Team(ring, ADDITIONS["none"]))
        return ring.sent

    weights = 2 * 466_906 * 4
    assert min(together(2, begin)) > 3 * weights / 2, "a sum for each of three steps"
    first = torch.load(out, weights_only=True)
    assert len(first["log"]) == 1
    assert "elsewhere.pt" not in {file.name for file in tmp_path.rglob("*.pt")}
    sent = together(2, begin)  # nothing is left to be done
    assert sent[0] > out.stat().st_size, "the file goes to the others"
    assert max(sent) < 3 * weights / 2 + out.stat().st_size
    assert capsys.readouterr().out.count("resuming after 1 epochs") == 1
    again = torch.load(out, weights_only=True)
    assert all(torch.equal(weight, first["model"][name]) for name, weight in again["model"].items())


def test_a_rank_that_is_killed_ends_the_run_and_leaves_a_checkpoint(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "run.pt"
    command = [sys.executable, "-m", "models.train", "--data", str(folder), "--model", "resnet32", "--out", str(out)]
    command += ["--size", "8", "--batch", "8", "--epochs", "5000", "--workers", "2", "--addition", "gradiveq-8"]
    log = tmp_path / "log"
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as run:
        until(lambda: log.read_text().count("epoch ") >= 1, run)
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        (killed,) = (pid for pid in children if b"RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
        os.kill(int(killed), 9)
        assert run.wait(30) != 0
    assert "rank 1 ended: the same command goes on after the last epoch that was finished" in log.read_text()
    assert all(not Path(f"/proc/{pid}").exists() for pid in children)
    content = torch.load(out, weights_only=True)
    assert content["log"]
    assert all(bool(weight.isfinite().all()) for weight in content["model"].values())


def test_a_rank_that_is_frozen_is_named_in_time_and_the_processes_are_ended(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "GRACE_S", 0.1)
    assert launch.start(["-m", "tests.models.distributed.frozen"], 2) == 1
    assert "lost: rank 1 did not answer within 0.5 s" in capfd.readouterr().err
