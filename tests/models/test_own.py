"""Own images: mistakes are told before training, and what came of it at the end."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from collage.model_info import ModelInfo, ModelKind
from models import own, train, zoo
from models.data import load
from models.lineage import of_checkpoint
from models.progress import Building, cost, multiplications
from models.recipes import OWN_PHOTOS, OWN_SMALL
from models.steps import Protection, Recipe, Step, TeacherRecipe, TeacherStep
from tests.models.datasets import write_folders
from tests.models.runs import trainer


def sized(folder: Path, sides: list[int], classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """One image of each size for each class."""
    for name in classes:
        (folder / "train" / name).mkdir(parents=True)
        for number, side in enumerate(sides):
            Image.new("RGB", (side + 7, side)).save(folder / "train" / name / f"{number}.png")
    return folder


def test_a_sample_decides_the_size_and_not_the_first_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pets = sized(tmp_path / "pets", [90, 300, 310, 320, 330])
    assert own.family(pets) is OWN_PHOTOS
    printed = capsys.readouterr().out
    assert "pets: 10 images of 2 classes, the shorter side is 310 px in the middle: photos, served at 224 px" in printed
    assert "WARNING: few images of cat (5), dog (5): at least 20 of each class, better 200, are needed" in printed
    assert own.family(sized(tmp_path / "icons", [300, 32, 32, 32, 48])) is OWN_SMALL
    assert "small images, served at 32 px" in capsys.readouterr().out


def test_what_is_wrong_with_a_folder_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one/train holds images of one class, cat: at least 2 are needed"):
        own.family(sized(tmp_path / "one", [40], ("cat",)))
    broken = sized(tmp_path / "broken", [40])
    (broken / "train" / "dog" / "0.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"dog/0\.png is no image that can be read: repair or remove it"):
        own.family(broken)
    (tmp_path / "nothing").mkdir()
    for folder, told in (("nothing", "no data set in "), ("nowhere", "there is no folder ")):
        with pytest.raises(SystemExit) as caught:
            zoo.main(["--data", str(tmp_path / folder)])
        assert str(caught.value).startswith(told)
        assert "\n" not in str(caught.value)


def s_cnn(right: float, classes: int = 4) -> ModelInfo:
    labels = [str(number) for number in range(classes)]
    return ModelInfo.make("pets-s-cnn", ModelKind.S_CNN, labels, 32, extra={"validation_accuracy": right})


@pytest.mark.parametrize(
    ("info", "images", "words"),
    [
        (s_cnn(0.97), 400, ["right in 97% of 400 validation images (4 classes)"]),
        (s_cnn(0.58), 400, ["right in 58%", "WARNING: pets-s-cnn is no good yet: wrong in 42 of 100 images"]),
        (s_cnn(0.58, 1000), 400, ["right in 58%"]),
        (
            s_cnn(0.97),
            25,
            ["right in 97%", "WARNING: 25 validation images are few: these shares may be off by 20 points"],
        ),
        (
            s_cnn(1.0),
            0,
            ["right in 100%", "WARNING: 0 validation images are few: these shares may be off by 100 points"],
        ),
    ],
)
def test_the_summary_says_when_an_s_cnn_is_no_good(info: ModelInfo, images: int, words: list[str]) -> None:
    found = list(own.summary(info, images))
    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))


@pytest.mark.parametrize(("coverage", "lines"), [(0.93, 1), (0.3, 2)])
def test_the_summary_says_when_a_collage_cnn_is_no_good(coverage: float, lines: int) -> None:
    seen = {"coverage": coverage, "agreement": 0.95, "target": 0.94}
    info = ModelInfo.collage("pets-collage-3x3", ["cat", "dog"], 96, 3, extra={"calibration": seen})
    first, *others = own.summary(info, 400)
    assert first == (
        f"pets-collage-3x3: sure of {coverage:.0%} of its answers in 400 validation images, of which 95% are those of "
        "the s-cnn"
    )
    assert len(others) == lines - 1
    assert all("WARNING: pets-collage-3x3 is no good yet: 70 of 100 late requests will be" in text for text in others)


def test_few_images_are_seen_in_as_many_steps_as_many(tmp_path: Path) -> None:
    data = load(write_folders(tmp_path / "pets", {"train": 15, "test": 1}), 16)
    few = trainer(data, "resnet32", epochs=1, batch=9, least_steps=7)
    assert (few.steps_per_epoch, few.steps) == (3, 7)
    shares: list[float] = []
    few.told = shares.append
    while not few.finished:
        few.run_epoch()
    assert len(few.log) == 3
    assert shares == pytest.approx(np.arange(1, 8) / 7)
    few.save(tmp_path / "run.pt")
    entry = zoo.Entry(tmp_path / "pets", "s-cnn", Step("resnet32"), str(tmp_path / "x"), tmp_path / "x.onnx")
    (tmp_path / "run.pt").rename(entry.checkpoint)
    assert entry.finished
    content = {"log": few.log, "recipe": {"epochs": 1, "least_steps": 7}, "spec": {"architecture": "resnet32"}}
    assert of_checkpoint("run", content)[0].epochs == 3
    assert trainer(data, "resnet32", epochs=9, batch=9, least_steps=7).steps == 27


def test_ctrl_c_ends_in_one_line_that_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(own, "family", interrupted)
    with pytest.raises(SystemExit, match=r"^stopped: the same command goes on after the last epoch that was finished$"):
        zoo.main(["--data", str(write_folders(tmp_path / "pets", {"train": 1}))])


def test_a_folder_that_is_missing_is_one_line_for_the_steps_as_well(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no data set"):
        train.main(["--data", str(tmp_path), "--model", "resnet32", "--out", str(tmp_path / "x.pt")])


def test_a_run_costs_what_is_multiplied_for_each_of_its_images() -> None:
    """A convolution's numbers: outputs times weights. The large maps of a network make up most of it."""
    small = Step("resnet18", size=32, options={"widths": [4, 4, 4, 4], "stem": "small"}, recipe=Recipe(epochs=3))
    stem, first = 16 * 16 * 4 * 3 * 9, 4 * 16 * 16 * 4 * 4 * 9
    assert stem + first < multiplications(small) < 2 * (stem + first)
    assert cost(small) == 9 * multiplications(small)
    collage = Step("collage-vgg", size=32, k=3, options={"widths": [4, 4, 4, 4]})
    assert multiplications(collage) == pytest.approx(multiplications(replace(collage, k=1)))
    parity = replace(small, protects=Protection("addition", 2), base="b")
    assert multiplications(parity) == multiplications(small) / 2
    teacher = TeacherStep(32, {"widths": [8, 8, 8], "views": 2}, TeacherRecipe(epochs=2))
    assert cost(teacher) == 6 * multiplications(teacher)
    assert cost(small, [teacher]) == cost(small) + 3 * 2 * multiplications(teacher), "of both views"
    code = Step("learned-conv", size=16, protects=Protection("learned", 2), base="b")
    assert multiplications(code) > 0


def test_progress_is_of_all_models_together() -> None:
    screen = io.StringIO()
    with Building({"a": 3.0, "b": 1.0}, Console(file=screen, force_terminal=True, width=100)) as building:
        assert building.begin("a") == "model 1 of 2, a"
        assert building.part == pytest.approx(0.75)
        building.advance(0.5)
        assert building.share == pytest.approx(0.375)
        assert building.begin("b") == "model 2 of 2, b"
        assert building.part == 1
        assert building.share == pytest.approx(0.75)
        building.advance(1.0)
        assert building.share == 1
    assert "model 1 of 2, a" in screen.getvalue()
    silent = io.StringIO()
    with Building({"a": 3.0}, Console(file=silent, force_terminal=False)) as building:
        building.begin("a")
    assert not silent.getvalue()
