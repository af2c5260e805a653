"""A recorded time of production, from a file of events to every policy's figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.simulator.production import recorded
from bench.simulator.replay import replay_command
from encoder.code import GroupShape
from frontend.policy import Rules
from frontend.policy.events import Answered, Arrived, CodedWorkers, Decoded, Event
from frontend.recorder import Recorder, write

SHAPE = GroupShape(4, 1, 1, 2)


def file_of(tmp_path: Path, requests: int = 200) -> Path:
    """One request every 50 ms; every tenth is answered by its second copy after 0.3 s, every 25th after 0.7 s."""
    recorder = Recorder()
    recorder.add([CodedWorkers(0.0, 1, SHAPE, 0.5)])
    for number in range(requests):
        at = 5.0 + number / 20
        events: list[Event] = [Arrived(at, number, at + 4)]
        if number % 10 == 0:
            events.append(Answered(at + 0.3, number, 1))
        else:
            events.append(Answered(at + (0.7 if number % 25 == 1 else 0.1), number, 0))
        recorder.add(events)
    recorder.add([Decoded(20.0, 1, {0: 0.9, 1: 0.9, 2: 0.9, 3: 0.1})])
    path = tmp_path / "events.jsonl"
    write(path, recorder.batches(), Rules(), workers=4, coded_workers=1)
    return path


def test_arrivals_latencies_confidences_and_the_cluster_are_those_recorded(tmp_path: Path) -> None:
    found = recorded(file_of(tmp_path))
    np.testing.assert_allclose(found.arrivals, np.arange(200) / 20)
    assert (found.setup.n, found.setup.redundant, found.setup.shape) == (4, 1, SHAPE)
    assert found.models.sure == pytest.approx(0.75)
    values, counts = np.unique(np.asarray(found.regime.latencies).round(6), return_counts=True)
    assert values.tolist() == [0.1, 0.7]
    assert counts.tolist() == [172, 28], "those cut off at 0.3 s took longer: 0.7 s"


def test_too_few_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="10 arrivals and 9 own answers: 20 are needed"):
        recorded(file_of(tmp_path, 10))


def test_the_command_feeds_them_to_every_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file_of(tmp_path)
    assert (
        replay_command(["--events", str(path), "--policies", "none,adaptive", "--seeds", "1", "--out", str(tmp_path)])
        == 0
    )
    printed = capsys.readouterr().out
    assert "events.jsonl: 4 + 1 workers" in printed
    assert "adaptive" in printed


@pytest.mark.parametrize(("requests", "told"), [(10, "20 are needed"), (60, "too few")])
def test_the_command_says_what_is_wrong_with_a_file(
    requests: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay_command(["--events", str(file_of(tmp_path, requests)), "--out", str(tmp_path)]) == 2
    assert told in capsys.readouterr().err
