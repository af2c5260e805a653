from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import readme_picture
from models.measure import OnnxModel
from models.readme_picture import COLLAGE_CNN, GROUP, PHOTOS, S_CNN, STRAGGLER, PictureAnswers, answer, draw, main

FILES = [PHOTOS / f"{name}.jpg" for name in GROUP]


@pytest.fixture(scope="module")
def s_cnn() -> OnnxModel:
    return OnnxModel(S_CNN)


@pytest.fixture(scope="module")
def collage_cnn() -> OnnxModel:
    return OnnxModel(COLLAGE_CNN)


@pytest.fixture(scope="module")
def answers(s_cnn: OnnxModel, collage_cnn: OnnxModel) -> PictureAnswers:
    return answer(s_cnn, collage_cnn, FILES)


def test_models_recognise_every_photo(answers: PictureAnswers) -> None:
    classes = [name.partition("-")[0] for name in GROUP]
    assert answers.own == classes
    assert [found and found[0] for found in answers.coded] == classes
    assert all(found and 0 < found[1] <= 1 for found in answers.coded)


def test_a_cell_without_a_detection_has_no_coded_answer(s_cnn: OnnxModel, collage_cnn: OnnxModel) -> None:
    class BlindInOneCell(OnnxModel):
        def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
            boxes, confidences, probabilities = super().__call__(pixels)
            first = boxes[0, :, :2].sum(-1).argmin()
            confidences[0, first] = 0
            return [boxes, confidences, probabilities]

    found = answer(s_cnn, BlindInOneCell(COLLAGE_CNN), FILES)
    assert found.coded[0] is None
    assert all(found.coded[1:])
    assert len(found.boxes) == len(GROUP) - 1
    picture = draw(FILES, found, collage_cnn.code.grid, STRAGGLER)
    assert picture.size == (readme_picture.WIDTH, readme_picture.HEIGHT)


def test_the_command_draws_the_picture_in_docs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn, shown = tmp_path / "new" / "collage.png", readme_picture.PICTURE
    main(["--out", str(drawn)])
    assert "dog-retriever: s-cnn dog, collage dog " in capsys.readouterr().out
    assert drawn.stat().st_size < 400_000
    with Image.open(drawn) as new, Image.open(shown) as old:
        assert new.size == old.size
        difference = np.abs(np.asarray(new.convert("RGB"), float) - np.asarray(old.convert("RGB"), float))
    # A Pillow of another version may choose other colours for its palette, but not other labels or boxes.
    assert difference.mean() < 2


def test_every_photo_is_small_and_has_a_licence() -> None:
    rows = re.findall(
        r"^\| (\S+\.jpg) \| [^|]+ \| [^|]+ \| ([^|]+) \| [^|]+ \|$", (PHOTOS / "LICENSES.md").read_text(), re.M
    )
    assert sorted(name for name, _ in rows) == sorted(file.name for file in PHOTOS.iterdir() if file.suffix != ".md")
    assert {licence for _, licence in rows} <= {"PD", "CC0 1.0", "CC BY 2.5"}
    for name, _ in rows:
        file = PHOTOS / name
        assert file.stat().st_size <= 40_000, name
        with Image.open(file) as photo:
            assert photo.size == (288, 288), name
            assert photo.format == "JPEG", name
