"""The README's picture: nine photos, the collage made of them, what a collage-cnn finds in it, and one late s-cnn.

``python -m models.readme_picture`` writes docs/collage.png. Every label, box and confidence in it comes from the models
of the zoo. It needs ONNX Runtime and Pillow, but no torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from encoder.collage import overlaps
from encoder.grid import Grid
from encoder.image import Pixels, decode
from models.measure import OnnxModel
from models.measure import decode as decode_detections

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "samples" / "photos"
PICTURE = ROOT / "docs" / "collage.png"
S_CNN = ROOT / "models" / "zoo" / "cifar10-jpeg-s-cnn.onnx"
COLLAGE_CNN = ROOT / "models" / "zoo" / "cifar10-jpeg-collage-3x3.onnx"
GROUP = (
    *("deer-moose", "bird-parrot", "automobile-sports-car"),
    *("cat-kitten", "horse-band", "bird-duck"),
    *("truck-fire-engine", "dog-retriever", "cat-tabby"),
)
"""The photos' names without ``.jpg``, in the order of the cells. A name begins with the class."""
STRAGGLER = 7
"""The cell whose s-cnn is drawn as late."""

WIDTH, HEIGHT, MARGIN, SIDE, TOP = 1200, 736, 20, 540, 88
LEFT, RIGHT, BOTTOM = MARGIN, WIDTH - MARGIN - SIDE, TOP + SIDE
TAG_SIZE, TAG_HEIGHT, THICK, HEAD = 28, 36, 9, 30
"""In pixels: the letters and height of labels, the thickness and head of arrows."""
COLOURS = 256
"""Of the file's palette. More would double its size, and nobody would see them."""
PAPER, INK, SOFT, TAG, LATE, TAKEN = "#ffffff", "#111111", "#555555", "#111111", "#e00000", "#00a040"
BOXES = ("#ffd400", "#00e5ff", "#ff7ac8")
"""Colours of boxes by row plus column, so that neighbours in a row or column differ."""


class PictureAnswers(NamedTuple):
    """What the models say of one full group.

    ``collage`` is uint8 ``[size, size, 3]``; ``own`` has the s-cnn's label of every cell; ``boxes`` float32 ``[M, 4]``
    are the detections above the threshold (left, top, right, bottom in shares of the side); ``coded`` has label and
    confidence of every cell as decoded from the collage, None where nothing was found.
    """

    collage: Pixels
    own: list[str]
    boxes: NDArray[np.float32]
    coded: list[tuple[str, float] | None]


def answer(s_cnn: OnnxModel, collage_cnn: OnnxModel, files: Sequence[Path]) -> PictureAnswers:
    """Classify one photo per cell, each by itself and all in one collage, with the encoder and decoder that serve."""
    images = [decode(file.read_bytes(), s_cnn.info.size) for file in files]
    own = [s_cnn.info.labels[int(s_cnn(image[None])[0][0].argmax())] for image in images]
    (collage,) = collage_cnn.code.encode(images)
    detections = collage_cnn.detect(collage)
    decoded = decode_detections(collage_cnn.code, detections)
    coded: list[tuple[str, float] | None] = [None] * len(images)
    for cell, found in decoded.items():
        coded[cell] = (collage_cnn.info.labels[int(found.output.argmax())], found.confidence or 0.0)
    boxes = detections.boxes[detections.confidences >= collage_cnn.info.detection_threshold]
    return PictureAnswers(collage, own, boxes, coded)


def draw(files: Sequence[Path], answers: PictureAnswers, grid: Grid, straggler: int) -> Image.Image:
    """The photos with the s-cnn's labels on the left, the collage with what was found in it on the right.

    The straggler is crossed out, and an arrow leads to it from its cell of the collage.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen = ImageDraw.Draw(image)
    size = grid.size
    _heading(pen, LEFT, f"{grid.cells} requests, one s-cnn each", "s-cnn: a classifier for single images")
    _heading(pen, RIGHT, "one collage, one collage-cnn", f"{size} x {size} pixels, {grid.cells} answers in one shot")
    shown = Grid(grid.k, SIDE)
    for cell, file in enumerate(files):
        _request(image, pen, _place(shown, cell, LEFT), file, None if cell == straggler else answers.own[cell])
    collage = Image.fromarray(answers.collage).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    image.paste(collage, (RIGHT, TOP))
    cells = overlaps(answers.boxes, grid.boxes).argmax(-1).tolist()
    for box, cell in sorted(zip(answers.boxes, cells, strict=True), key=lambda drawn: drawn[1] == straggler):
        left, top, right, bottom = (float(share) * (SIDE - 1) for share in box.clip(0, 1))
        outline = TAKEN if cell == straggler else BOXES[sum(divmod(cell, grid.k)) % len(BOXES)]
        pen.rectangle((RIGHT + left, TOP + top, RIGHT + right, TOP + bottom), outline=outline, width=7)
    for cell, found in enumerate(answers.coded):
        left, top, right, bottom = _place(shown, cell, RIGHT)
        colour = TAKEN if cell == straggler else TAG
        label, confidence = found or ("nothing", 0.0)
        _tag(pen, left + 12, bottom - 12, label, colour)
        text = f"{100 * confidence:.0f} %"
        _tag(pen, right - 12 - _tag_width(text), top + 12 + TAG_HEIGHT, text, colour)
    _arrow(pen, (LEFT + SIDE + 12, TOP + SIDE / 2), (RIGHT - 12, TOP + SIDE / 2), SOFT)
    _rescue(pen, _place(shown, straggler, RIGHT), _place(shown, straggler, LEFT))
    return image


def _place(shown: Grid, cell: int, start: int) -> tuple[int, int, int, int]:
    """Where a cell lies in the picture: left, top, right, bottom."""
    left, top, right, bottom = shown.box(cell)
    return start + left, TOP + top, start + right, TOP + bottom


def _heading(pen: ImageDraw.ImageDraw, left: int, title: str, below: str) -> None:
    pen.text((left, 8), title, INK, _font(37), stroke_width=0.6, stroke_fill=INK)
    pen.text((left, 50), below, SOFT, _font(26))


def _request(
    image: Image.Image, pen: ImageDraw.ImageDraw, place: tuple[int, int, int, int], file: Path, label: str | None
) -> None:
    """One photo and its s-cnn's label; dark and crossed out if there is no label yet."""
    left, top, right, bottom = place
    gap = 3
    with Image.open(file) as photo:
        shown = ImageOps.fit(photo.convert("RGB"), (right - left - 2 * gap, bottom - top - 2 * gap))
    if label is None:
        shown = Image.blend(ImageOps.grayscale(shown).convert("RGB"), Image.new("RGB", shown.size, "white"), 0.35)
    image.paste(shown, (left + gap, top + gap))
    if label is None:
        inset = 26
        for start, end in ((left, right), (right, left)):
            step = 1 if end > start else -1
            ends = (start + step * inset, top + inset, end - step * inset, bottom - inset)
            pen.line(ends, PAPER, 20)
            pen.line(ends, LATE, 12)
    _tag(pen, left + 10, bottom - 10, label or "late", TAG if label else LATE)


def _rescue(pen: ImageDraw.ImageDraw, source: tuple[int, int, int, int], target: tuple[int, int, int, int]) -> None:
    """An arrow from a cell of the collage, below everything, to its request."""
    start, end = (source[0] + source[2]) // 2, (target[0] + target[2]) // 2
    level = BOTTOM + 58
    pen.rectangle((target[0], target[1], target[2] - 1, target[3] - 1), outline=TAKEN, width=7)
    pen.line((start, BOTTOM - 4, start, level), TAKEN, THICK)
    pen.line((start + THICK // 2, level, end - THICK // 2, level), TAKEN, THICK)
    _arrow(pen, (end, level), (end, BOTTOM + 4), TAKEN)
    text = "This s-cnn is late: the collage answers for it"
    pen.text(((start + end) / 2, level + 12), text, INK, _font(31), anchor="ma", stroke_width=0.5, stroke_fill=INK)


def _arrow(pen: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    """A straight arrow, horizontal or vertical."""
    along = np.sign(np.subtract(end, start))
    across = along[::-1] * HEAD * 0.6
    neck = np.array(end) - along * HEAD
    pen.line((*start, *neck), colour, THICK)
    pen.polygon((end, tuple(neck + across), tuple(neck - across)), colour)


def _tag(pen: ImageDraw.ImageDraw, left: float, bottom: float, text: str, colour: str) -> None:
    """White text on a dark box whose lower left corner is given."""
    pen.rectangle((left, bottom - TAG_HEIGHT, left + _tag_width(text), bottom), colour)
    middle = (left + 7, bottom - TAG_HEIGHT / 2)
    pen.text(middle, text, "white", _font(TAG_SIZE), anchor="lm", stroke_width=0.5, stroke_fill="white")


def _tag_width(text: str) -> float:
    return _font(TAG_SIZE).getlength(text) + 14


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("this Pillow was built without FreeType, which draws the labels: install a wheel from PyPI")
    return font


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the picture from the samples and the zoo, and print every label."""
    parser = argparse.ArgumentParser(prog="python -m models.readme_picture", description="Draw the README's picture.")
    parser.add_argument("--out", type=Path, default=PICTURE, help="the PNG file to write (%(default)s)")
    args = parser.parse_args(arguments)
    files = [PHOTOS / f"{name}.jpg" for name in GROUP]
    collage_cnn = OnnxModel(COLLAGE_CNN)
    answers = answer(OnnxModel(S_CNN), collage_cnn, files)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    picture = draw(files, answers, collage_cnn.code.grid, STRAGGLER)
    picture.quantize(COLOURS, dither=Image.Dither.FLOYDSTEINBERG).save(args.out, optimize=True)
    for name, own, coded in zip(GROUP, answers.own, answers.coded, strict=True):
        print(f"{name}: s-cnn {own}, collage {'-' if coded is None else f'{coded[0]} {100 * coded[1]:.0f} %'}")


if __name__ == "__main__":
    main()
