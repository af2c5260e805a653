"""Stand-ins answer as they are told to, and workers fail on a schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.cluster.answers import Drawn, Parities, Shipped, png
from bench.cluster.local import Child, Cluster, Metrics, ProcessError
from bench.cluster.standins import GroupAnswers, failing, save_models
from bench.offer import Outage, Sample, TypicalModels
from collage.model_info import ModelInfo, ModelKind
from encoder.image import decode
from encoder.linear import LinearCode, mean_weights
from models.measure import OnnxModel
from tests import onnx_models

LABELS = tuple(f"class {i}" for i in range(10))
S_CNN = ModelInfo.make("s", ModelKind.S_CNN, LABELS, 32)
COLLAGE = ModelInfo.collage("c", LABELS, 96, 3, 0.2, accept_threshold=0.7)


def test_stand_ins_say_what_was_painted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    said = GroupAnswers(rng.integers(0, 10, 9), rng.integers(-1, 10, 9), rng.uniform(0.3, 1, 9))
    s_cnn, collage = (OnnxModel(path) for path in save_models(tmp_path, S_CNN, COLLAGE))
    assert (collage.info.labels, collage.info.k, collage.info.accept_threshold) == (LABELS, 3, 0.7)
    pictures = said.pictures()
    (scores,) = s_cnn(np.stack(pictures))
    np.testing.assert_array_equal(scores.argmax(-1), said.s_cnn)
    (picture,) = collage.code.encode(pictures)  # nothing is resized: pictures are as large as cells
    found = collage.code.decode({}, {0: [output[0] for output in collage(picture[None])]}, range(9))
    for place, (index, confidence) in enumerate(zip(said.collage, said.confidence, strict=True)):
        cell = found.get(place)
        if index < 0:
            assert cell is None
        else:
            assert cell is not None
            assert cell.output.argmax() == index
            assert abs(cell.confidence - confidence) < 1 / 255


def test_drawn_answers_are_painted_and_known_to_the_simulator() -> None:
    prepared = Drawn(9, TypicalModels(empty=0.1)).prepare(groups=40, seed=1)
    images = prepared.models.images
    assert [len(group) for group in prepared.groups] == [9] * 40
    flat = [sample for group in prepared.groups for sample in group]
    colours = np.array([decode(sample.data, 8)[0, 0] for sample in flat])
    truth = np.array([int(sample.label.removeprefix("class-")) for sample in flat])
    s_cnn, coded = colours[:, 0] // 5 - 1, colours[:, 1] // 5 - 1
    np.testing.assert_array_equal(s_cnn == truth, images.s_cnn_right)
    seen = colours[:, 2] > 0
    np.testing.assert_array_equal(seen, ~np.isnan(images.confidence))
    np.testing.assert_array_equal((coded == truth)[seen], images.coded_right[seen])
    np.testing.assert_allclose(colours[seen, 2] / 255, images.confidence[seen], atol=1 / 255)
    assert prepared.groups != Drawn(9).prepare(groups=40, seed=2).groups
    few = prepared.models.draw(18, seed=0)
    np.testing.assert_array_equal(few.s_cnn_right, images.s_cnn_right[:18])
    with pytest.raises(ValueError, match="361 images are needed, 360 are known"):
        prepared.models.draw(361, seed=0)


@pytest.mark.parametrize("members", [2, 3, 4])
def test_what_a_parity_stand_in_gives_back_is_the_lost_answer(members: int, tmp_path: Path) -> None:
    source = Parities(members)
    base, parity = (OnnxModel(path) for path in source.save(tmp_path))
    prepared, code = source.prepare(groups=30, seed=1), LinearCode(mean_weights(members, 1))
    right = iter(prepared.models.images.s_cnn_right)
    for group in prepared.groups:
        pictures = [decode(sample.data, 8) for sample in group]
        (own,) = base(np.stack(pictures))
        (picture,) = code.encode(pictures)
        coded = {0: [output[0] for output in parity(picture[None])]}
        for lost, sample in enumerate(group):
            others = {place: output for place, output in enumerate(own) if place != lost}
            found = code.decode(others, coded, range(members))[lost].output
            assert found.argmax() == own[lost].argmax(), "however the mean was rounded"
            assert (f"class-{found.argmax()}" == sample.label) == next(right)


def test_what_shipped_models_say_is_painted_and_known_to_the_simulator(tmp_path: Path) -> None:
    samples = [Sample(colour, colour, png(onnx_models.solid(colour, 8))) for colour in onnx_models.COLOURS]
    models = onnx_models.save_s_cnn(tmp_path / "s.onnx"), onnx_models.save_collage_cnn(tmp_path / "c.onnx")
    prepared = Shipped(*models, samples).prepare(groups=6, seed=0)
    assert len(prepared.groups) == 6
    assert prepared.models.images.s_cnn_right.all()
    assert prepared.models.images.coded_right.all()
    assert prepared.models.images.confidence.shape == (24,)


@pytest.mark.timeout(300)
async def test_workers_fail_on_schedule_and_are_all_back_in_the_end(tmp_path: Path) -> None:
    cluster = Cluster(
        onnx_models.save_s_cnn(tmp_path / "s-cnn.onnx"),
        onnx_models.save_collage_cnn(tmp_path / "collage.onnx"),
        s_cnn_workers=3,
        coded_workers=0,
        logs=tmp_path / "logs",
    )
    second_killed = asyncio.Event()

    def outages() -> Iterator[Outage]:
        yield Outage(0.0, 0.2, 0)
        yield Outage(0.0, 0.1, 1, frozen=True)
        yield Outage(0.0, 600.0, 2)  # cut short
        second_killed.set()
        yield Outage(600.0, 601.0, 0)

    async with cluster:
        pids = [worker.pid for worker in cluster.s_cnn]
        async with failing(cluster.s_cnn, outages()) as lost_s:
            await second_killed.wait()
            await asyncio.wait_for(cluster.s_cnn[2].wait(), 60)
            assert not cluster.s_cnn[2].running
        back = [worker.pid for worker in cluster.s_cnn]
        assert [a == b for a, b in zip(pids, back, strict=True)] == [False, True, False]
        assert len(lost_s) == 2
        for worker in cluster.s_cnn:
            assert (await worker.metrics()).value("collage_worker_busy_seconds_total") >= 0


class Restarted(Child):
    """No process: it is killed at once, and started again when ``ready`` is set, if it is not ``broken``."""

    def __init__(self, broken: bool) -> None:
        super().__init__("s-cnn", "restarted", [], Path())
        self.broken, self.ready, self.kills = broken, asyncio.Event(), 0

    async def metrics(self) -> Metrics:
        return Metrics()

    async def kill(self) -> None:
        self.kills += 1

    async def start(self, timeout_s: float = 60.0) -> None:
        await self.ready.wait()
        if self.broken:
            self.broken = False
            raise ProcessError("it does not start")


async def others_are_done() -> None:
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})


async def test_a_worker_that_is_not_back_yet_is_spared() -> None:
    worker = Restarted(broken=False)

    def outages() -> Iterator[Outage]:
        yield Outage(0.0, 0.0, 0)
        yield Outage(0.0, 0.0, 0)
        yield Outage(0.0, 0.0, 0, frozen=True)
        worker.ready.set()

    async with failing([worker], outages()) as lost_s:
        await others_are_done()
        assert (worker.kills, len(lost_s)) == (1, 1)


async def test_a_worker_that_does_not_start_again_is_told_as_such() -> None:
    worker = Restarted(broken=True)
    worker.ready.set()
    with pytest.raises(ProcessError, match="it does not start"):
        async with failing([worker], [Outage(0.0, 0.0, 0)]):
            await others_are_done()
