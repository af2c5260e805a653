from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.cluster.standins import Answers, save_models
from collage.model_info import ModelInfo, ModelKind
from models.measure import OnnxModel

LABELS = tuple(f"class {i}" for i in range(10))
S_CNN = ModelInfo.make("s", ModelKind.S_CNN, LABELS, 32)
COLLAGE = ModelInfo.collage("c", LABELS, 96, 3, 0.2, accept_threshold=0.7)


def test_stand_ins_say_what_was_painted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    said = Answers(rng.integers(0, 10, 9), rng.integers(-1, 10, 9), rng.uniform(0.3, 1, 9))
    s_cnn, collage = (OnnxModel(path) for path in save_models(tmp_path, S_CNN, COLLAGE))
    assert (collage.info.labels, collage.info.k, collage.info.accept_threshold) == (LABELS, 3, 0.7)
    pictures = said.pictures()
    (scores,) = s_cnn(np.stack(pictures))
    np.testing.assert_array_equal(scores.argmax(-1), said.s_cnn)
    (picture,) = collage.code.encode(pictures)  # nothing is resized: pictures are as large as cells
    found = collage.code.decode({}, {0: [output[0] for output in collage(picture[None])]}, range(9))
    cells = [found.get(cell) for cell in range(9)]
    for cell, index, confidence in zip(cells, said.collage, said.confidence, strict=True):
        if index < 0:
            assert cell is None
        else:
            assert cell is not None
            assert cell.output.argmax() == index
            assert cell.confidence is not None
            assert abs(cell.confidence - confidence) < 1 / 255
