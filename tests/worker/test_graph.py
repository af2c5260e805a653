"""A model's graph as a worker runs it: its threads, its pixels, and the order of its outputs."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests import onnx_models
from tests.onnx_models import solid
from worker.model import ServedModel


@pytest.mark.parametrize("threads", [1, 3])
def test_an_inference_has_the_threads_that_it_was_given(tmp_path: Path, threads: int) -> None:
    model = ServedModel(onnx_models.save_s_cnn(tmp_path / "m.onnx"), threads)
    options = model._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    model.close()


async def test_outputs_are_told_by_their_names_whatever_their_order_in_the_graph(tmp_path: Path) -> None:
    path = onnx_models.save_collage_cnn(tmp_path / "collage.onnx")
    graph = onnx.load(path)
    turned = list(graph.graph.output)[::-1]
    del graph.graph.output[:]
    graph.graph.output.extend(turned)
    onnx.save(graph, path)
    model = ServedModel(path)
    await model.warm_up()
    assert [spec.name for spec in model.info.outputs] == ["boxes", "confidences", "class_probabilities"]
    outputs = await model.run(solid("red", 8))
    assert [output.shape for output in outputs] == [(4, 4), (4,), (4, 3)]
    model.close()
