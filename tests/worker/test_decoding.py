"""Images on a worker's thread are given up with their callers."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from collage.errors import DeadlineExceeded, ResourceExhausted
from encoder.image import GivenUp
from inference.tensors import ImageRows
from tests.encoder.pictures import encoded
from tests.executors import Full, Held
from tests.worker.conftest import Launch
from worker.inference import WorkerInference

PICTURE = ImageRows(8, encoded=[encoded(Image.new("RGB", (9, 9)))], count=1)


async def test_an_image_is_given_up_when_its_callers_time_is_over(launch: Launch, s_cnn: Path) -> None:
    client, held = await launch(s_cnn), Held()
    servicer = WorkerInference(client.worker.server, client.worker.engine, 10**6, held)
    with pytest.raises(DeadlineExceeded):
        await servicer.run_rows(PICTURE, ["id"], 0.01, "caller")
    (work,) = held.work
    with pytest.raises(GivenUp):
        work()


async def test_too_little_memory_means_try_again_later(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn)
    servicer = WorkerInference(client.worker.server, client.worker.engine, 10**6, Full())
    with pytest.raises(ResourceExhausted, match="not enough memory for this image now: try again later"):
        await servicer.run_rows(PICTURE, ["id"], 5.0, "caller")
