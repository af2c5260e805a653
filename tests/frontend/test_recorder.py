"""The ring of events: what is kept, written and read back, and that a policy does the same with it again."""

import json
import math
from pathlib import Path

import pytest

from encoder.code import GroupShape
from frontend.policy import Policy, Rules
from frontend.policy.accuracy import ErrorStep
from frontend.policy.events import (
    Answered,
    Arrived,
    Audited,
    CodedWorkers,
    Decoded,
    Due,
    Event,
    Failed,
    Gone,
    Returned,
    Timer,
)
from frontend.recorder import Recorder, read, write
from tests.frontend.referee import exact

BATCHES: list[list[Event]] = [
    [CodedWorkers(0.0, 1, GroupShape(2, 1, 1, 1), 0.5, (ErrorStep(0.0, 0.25, 0.125, 0.5),))],
    [Arrived(0.0, 1, 4.0), Arrived(0.0, 2, 4.0)],
    [Failed(0.125, 1, 0, unreachable=False)],
    [Returned(0.25, 1), Decoded(0.25, 1, {0: 0.75, 1: 0.25})],
    [Answered(0.5, 2, 0), Due(0.5, Timer.LATE, 2)],
    [Gone(0.75, 3), Audited(0.75, 0.5, agrees=False)],
]


def recorded(tmp_path: Path, kept: int = 100) -> Path:
    recorder = Recorder(kept)
    for batch in BATCHES:
        recorder.add(batch)
    path = tmp_path / "events.jsonl"
    assert write(path, recorder.batches(), Rules.named("adaptive"), workers=9, coded_workers=1) == len(recorder)
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    header, batches = read(recorded(tmp_path))
    assert (header["workers"], header["coded_workers"]) == (9, 1)
    assert header["rules"]["await_coded"] is True
    assert batches == BATCHES
    coded = batches[0][0]
    assert isinstance(coded, CodedWorkers)
    assert isinstance(coded.errors[0], ErrorStep)
    assert [type(event) for batch in batches for event in batch] == [type(event) for each in BATCHES for event in each]


def test_a_policy_does_the_same_with_recorded_events(tmp_path: Path) -> None:
    _, batches = read(recorded(tmp_path))
    first, again = Policy(Rules.named("collage")), Policy(Rules.named("collage"))
    for batch, same in zip(BATCHES, batches, strict=True):
        assert exact(first.handle(batch)) == exact(again.handle(same))


def test_the_ring_keeps_the_last_events_in_whole_batches(tmp_path: Path) -> None:
    _, batches = read(recorded(tmp_path, kept=4))
    assert batches == BATCHES[-2:]


def test_writing_again_takes_the_place_of_what_the_file_held(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    recorder = Recorder()
    recorder.add(BATCHES[0])
    write(path, recorder.batches(), Rules(), 0, 0)
    assert read(path)[1] == BATCHES[:1]
    assert [each.name for each in tmp_path.iterdir()] == ["events.jsonl"]


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    whole = path.read_text()
    with pytest.raises(TypeError):
        write(path, [(1, [Gone(0.0, object())])], Rules(), 0, 0)  # type: ignore[arg-type]
    assert path.read_text() == whole


def test_every_line_is_json_though_times_may_be_infinite(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, [(1, [Arrived(0.0, 1, math.inf)])], Rules.named("adaptive"), 0, 0)

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    header, event = (json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines())
    assert header["rules"]["group_wait"] is None
    assert event["expires"] is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no events"),
        ("[]\n", "line 1, is no event"),
        ('{"format": 9}\n', "line 1, is no event: its format is 9, expected 1"),
        ('{"format": 1}\n{"batch": 1, "event": "Nonsense"}\n', "line 2, is no event"),
        ('{"format": 1}\n{"batch": 1, "event": "Gone", "at": 1.0}\n', "line 2, is no event"),
        ('{"format": 1}\nnonsense\n', "line 2, is no event"),
    ],
)
def test_files_that_are_none_are_refused_by_line(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=told):
        read(path)
