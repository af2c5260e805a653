"""A code that the project does not have, added as docs/codes.md says and served by the frontend as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from collage.model_info import CodeInfo, ModelInfo, ModelKind
from encoder import code as interface
from encoder import codes
from encoder.code import Code, Decoding, GroupShape, Source
from frontend.dispatch import Dispatcher, DispatchSettings
from frontend.metrics import FrontendMetrics
from frontend.policy import Rules
from tests.frontend.fakes import (
    LABELS,
    S_CNN,
    SIZE,
    FakeTransport,
    InlineExecutor,
    image,
    pool,
    s_cnn_after,
)


class Mirrored:
    """One request a group; a second worker gets its input mirrored, and its output is the answer."""

    name = "mirrored"
    shape = GroupShape(1, 1, needed=1, fewest=1)
    source = Source.CODED
    base = ""

    def quick(self, inputs: Sequence[NDArray[np.uint8] | None]) -> bool:
        """Always: it only copies."""
        return True

    def encode(self, inputs: Sequence[NDArray[np.uint8] | None]) -> list[NDArray[np.uint8]]:
        """The mirror image."""
        return [each[:, ::-1] for each in inputs if each is not None]

    def decode(
        self, own: Mapping[int, NDArray[np.float32]], coded: Mapping[int, interface.Outputs], filled: Sequence[int]
    ) -> Mapping[int, Decoding]:
        """The redundant output itself."""
        return {place: Decoding(coded[0][0], 0.8) for place in filled if place not in own}


@pytest.fixture
def mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Step 2: the code's line in the registry."""
    make: Code = Mirrored()
    monkeypatch.setattr(codes, "CODES", {**codes.CODES, "mirrored": lambda its: make})


@pytest.mark.looptime
@pytest.mark.usefixtures("mirrored")
async def test_a_new_code_is_served_without_a_change_to_the_frontend() -> None:
    base = [FakeTransport(S_CNN, s_cnn_after(lambda call: 3.0 if call.request_id == "r1" else 0.1)) for _ in range(2)]
    info = ModelInfo.make("m", ModelKind.PARITY, LABELS, SIZE, code=CodeInfo("mirrored", 1), version="1")
    redundant = FakeTransport(info, s_cnn_after(0.05))
    base_pool = await pool("s_cnn", {"s0": base[0], "s1": base[1]})
    coded = await pool("coded", {"c0": redundant})
    dispatcher = Dispatcher(
        Rules.named("collage", deadline=0.2, extra_load=1.0),
        base_pool,
        [coded],
        FrontendMetrics(CollectorRegistry()),
        InlineExecutor(),
        InlineExecutor(),
        DispatchSettings(),
    )
    await base_pool.start()
    await coded.start()
    await asyncio.sleep(0.01)
    first, second = await asyncio.gather(
        *(dispatcher.predict(lambda size, n=n: image(n), f"r{n}", 5.0) for n in range(2))
    )
    assert (first.answered.source, int(first.answer.argmax())) == (Source.S_CNN, 0)
    assert (second.answered.source, int(second.answer.argmax())) == (Source.CODED, 1)
    assert second.answered.confidence == 0.8
    assert second.total_s == pytest.approx(0.2)
    await dispatcher.close()
    await base_pool.close()
    await coded.close()
