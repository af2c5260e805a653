"""How the rows of a batch take their turns, with a dispatcher that only counts and refuses."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from collage.errors import DeadlineExceeded, ResourceExhausted
from encoder.code import Source
from frontend.inference import FEWEST_ROWS, FrontendInference
from frontend.jobs import Outcome, WorkerAnswer
from inference.tensors import ImageRows
from tests.frontend.fakes import LABELS, S_CNN

pytestmark = pytest.mark.looptime
ROW_S = 0.1


class Counting:
    """Takes ``ROW_S`` for a row; ``refusals`` says how often each row finds no room."""

    most_of_one = 1000

    def __init__(self, ready: int, refusals: dict[str, float] | None = None) -> None:
        self.base = SimpleNamespace(ready=ready, info=S_CNN)
        self.running = self.most = 0
        self.refusals = refusals or {}

    def holding(self, size: int, caller: str) -> AbstractContextManager[None]:
        return nullcontext()

    async def predict(self, prepare: object, id: str, *_: object) -> Outcome:
        if self.refusals.get(id, 0) > 0:
            self.refusals[id] -= 1
            raise ResourceExhausted("full", 0.05)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(ROW_S)
        self.running -= 1
        answered = WorkerAnswer(np.zeros(len(LABELS), np.float32), S_CNN, Source.S_CNN)
        return Outcome(id, answered, S_CNN.task, LABELS, "", None, ROW_S)


async def ask(dispatcher: Counting, rows: int, timeout_s: float = 60.0) -> int:
    servicer = FrontendInference(None, dispatcher, 60.0, 10**6)  # type: ignore[arg-type]
    images = ImageRows(8, encoded=[b"x"] * rows, count=rows)
    return len(await servicer.run_rows(images, [f"{row}" for row in range(rows)], timeout_s, "caller"))


async def test_two_rows_for_each_worker_are_under_way_at_once() -> None:
    many = FEWEST_ROWS
    dispatcher = Counting(ready=many)
    assert await ask(dispatcher, 5 * many) == 5 * many
    assert dispatcher.most == 2 * many


async def test_a_row_that_finds_no_room_waits_for_its_turn() -> None:
    assert await ask(Counting(1, {"3": 2}), 10) == 10
    with pytest.raises(ResourceExhausted, match="row 0: full"):
        await ask(Counting(1, {"0": 1}), 10)


async def test_no_row_waits_beyond_the_callers_time() -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded, match="row 3: the time was over before its turn"):
        await ask(Counting(1, {"3": 10**9}), 10, timeout_s=1.0)
    assert asyncio.get_running_loop().time() - began <= 1.0
