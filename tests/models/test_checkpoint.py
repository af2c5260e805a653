from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models import checkpoint
from models.checkpoint import ModelSpec

SMALL: dict[str, tuple[int, int, dict[str, Any]]] = {
    "resnet18": (32, 1, {"stem": "small"}),
    "resnet32": (32, 1, {}),
    "collage-resnet": (64, 2, {"widths": [8, 16, 16]}),
    "collage-vgg": (64, 2, {"widths": [8, 16, 16]}),
    "mobilenetv2": (32, 1, {"stem": "small"}),
    "vgg11": (32, 1, {"widths": [8, 8, 8, 8, 8]}),
    "collage-tiny": (96, 3, {}),
    "collage-yolo": (96, 3, {"pools": 4}),
}


@pytest.mark.parametrize("architecture", SMALL)
def test_a_checkpoint_rebuilds_its_model_alone(tmp_path: Path, architecture: str) -> None:
    torch.manual_seed(0)
    size, k, options = SMALL[architecture]
    spec = ModelSpec(architecture, "pets", ("cat", "dog"), size, k, (0.5,) * 3, (0.25,) * 3, dict(options))
    model = spec.build()
    images = torch.randn(2, 3, size, size)
    model(images)  # moves the running statistics
    checkpoint.save(tmp_path / "model.pt", spec, model, recipe={"seed": 7}, log=[])
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    found, rebuilt, content = checkpoint.load(tmp_path / "model.pt")
    assert found == spec
    assert found.kind == ("collage-cnn" if k > 1 else "s-cnn")
    assert content["recipe"] == {"seed": 7}
    assert not rebuilt.training
    with torch.inference_mode():
        torch.testing.assert_close(rebuilt(images), model.eval()(images), rtol=0, atol=0)


def test_labels_that_an_older_file_tells_by_numbers_are_words() -> None:
    spec = ModelSpec("resnet32", "imagenette-224", ("n01440764", "zebra"), 32, 1, (0.5,) * 3, (0.25,) * 3)
    assert spec.labels == ("tench", "zebra")


def test_a_crash_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(b"whole")

    def crash() -> None:
        with checkpoint.written(path) as partial:
            partial.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert path.read_bytes() == b"whole"
