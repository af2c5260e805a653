"""The collage code, with the scenarios of figure 4 of the paper."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.code import Decoding
from encoder.collage import CollageCode, Detections, overlaps
from encoder.grid import Grid
from encoder.tasks import TASKS

A, B, C, D = range(4)
GRID = Grid(2, 64)
CODE = CollageCode(GRID)
G1, G2, G3, G4 = GRID.boxes


def detections(*found: tuple[object, float, int], classes: int = 4) -> Detections:
    """Detections from (box, confidence, class); the class gets probability 0.7."""
    probabilities = np.full((len(found), classes), 0.3 / (classes - 1), np.float32)
    for row, (_, _, label) in enumerate(found):
        probabilities[row, label] = 0.7
    boxes = np.array([box for box, _, _ in found], np.float32).reshape(-1, 4)
    return Detections(boxes, np.array([confidence for _, confidence, _ in found], np.float32), probabilities)


def outputs(found: Detections) -> tuple[np.ndarray, ...]:
    """As a collage-cnn gives them."""
    return found.boxes, found.confidences, found.class_probabilities


def labels(decoded: Mapping[int, Decoding], cells: int = 4) -> list[int | None]:
    return [int(decoded[cell].output.argmax()) if cell in decoded else None for cell in range(cells)]


def decode(found: Detections, code: CollageCode = CODE) -> list[int | None]:
    cells = code.shape.members
    return labels(code.decode({}, {0: outputs(found)}, range(cells)), cells)


def test_figure_4_scenario_1_every_box_in_its_own_cell() -> None:
    found = detections((G1 + 0.02, 0.9, A), (G2 - 0.03, 0.9, B), (G3 + 0.01, 0.9, C), (G4, 0.9, D))
    assert decode(found) == [A, B, C, D]


def test_figure_4_scenario_2_a_box_over_all_cells() -> None:
    # A square of side sqrt(9/7) cells that overlaps G1 by sqrt(4/7) each way; the paper prints the last as 1/17.
    side, inside = math.sqrt(9 / 7) / 2, math.sqrt(4 / 7) / 2
    corner = 0.5 - inside
    spread = np.array([corner, corner, corner + side, corner + side], np.float32)
    # The same square has equal overlaps with G2 and G3, as the paper's figures require.
    np.testing.assert_allclose(overlaps(spread[None], GRID.boxes)[0], [1 / 3, 1 / 7, 1 / 7, 1 / 15], rtol=1e-5)
    assert decode(detections((spread, 0.9, A), (G3, 0.8, C), (G4, 0.7, D))) == [A, None, C, D]


def test_figure_4_scenario_3_two_boxes_in_one_cell() -> None:
    found = detections(
        (G1, 0.9, A), (G2 + 0.04, 0.8, B), (G2 - 0.02, 0.7, D), (G3, 0.9, C), (G4, 0.9, D)
    )  # fmt: skip
    assert decode(found) == [A, B, C, D]


@given(st.permutations(range(5)))
def test_the_order_of_detections_does_not_matter(order: list[int]) -> None:
    found = [(G1, 0.9, A), (G2, 0.8, B), (G2, 0.7, D), (G3, 0.6, C), (G4, 0.5, D)]
    assert decode(detections(*(found[i] for i in order))) == [A, B, C, D]


def test_shifted_and_oversized_boxes_go_where_they_overlap_most() -> None:
    third = Grid(3, 96)
    middle = third.boxes[4]
    shifted = middle + np.float32(0.12)
    oversized = middle + np.array([-0.15, -0.15, 0.15, 0.15], np.float32)
    code = CollageCode(third)
    for box in (shifted, oversized):
        assert decode(detections((box, 0.5, C)), code) == [None] * 4 + [C] + [None] * 4
    outside = np.array([0.9, 0.9, 1.4, 1.4], np.float32)
    assert decode(detections((outside, 0.5, D)), code) == [None] * 8 + [D]


def test_detections_below_the_threshold_are_ignored() -> None:
    found = detections((G1, 0.1499, A), (G2, 0.15, B))
    assert decode(found) == [None, B, None, None]
    assert decode(found, CollageCode(GRID, detection_threshold=0.1)) == [A, B, None, None]


def test_an_unsure_detection_never_displaces_a_sure_one() -> None:
    assert decode(detections((G1, 0.2, D), (G1 + 0.1, 0.9, A), (G1, 0.3, B)))[0] == A


@pytest.mark.parametrize("box", [[2, 2, 3, 3], [0.5, 0.5, 0.2, 0.2], [math.nan, 0, 1, 1], [0, 0, math.inf, 1]])
def test_senseless_boxes_are_ignored(box: list[float]) -> None:
    assert decode(detections((box, 0.9, A), (G4, 0.5, D))) == [None, None, None, D]


def test_senseless_confidences_are_ignored() -> None:
    assert decode(detections((G1, math.nan, A))) == [None] * 4


def test_nothing_found_and_nothing_there() -> None:
    assert decode(detections()) == [None] * 4
    assert CODE.decode({}, {}, range(4)) == {}


def test_known_empty_cells_stay_empty() -> None:
    found = detections((G1, 0.9, A), (G2, 0.9, B))
    assert labels(CODE.decode({}, {0: outputs(found)}, [0])) == [A, None, None, None]


def test_members_with_an_answer_of_their_own_are_not_decoded() -> None:
    found = detections((G1, 0.9, A), (G2, 0.9, B))
    assert labels(CODE.decode({0: np.zeros(4, np.float32)}, {0: outputs(found)}, range(4))) == [None, B, None, None]


def test_confidence_is_detection_times_class() -> None:
    decoded = CODE.decode({}, {0: outputs(detections((G1, 0.5, A)))}, range(4))
    assert decoded[0].confidence == pytest.approx(0.35)


def test_probabilities_a_little_beyond_their_ends_count_as_the_ends() -> None:
    found = detections((G1, 0.9, A))
    found.confidences[0] = 1.009
    found.class_probabilities[0] = [1.009, -0.009, 0, 0]
    (decoded,) = CODE.decode({}, {0: outputs(found)}, range(4)).values()
    assert decoded.confidence == 1.0
    np.testing.assert_array_equal(decoded.output, [0, -np.inf, -np.inf, -np.inf])


def test_the_output_is_logits_whose_softmax_is_what_the_model_said() -> None:
    found = detections((G1, 0.5, A))
    found.class_probabilities[0] = [1, 0, 0, 0]
    (output,) = (each.output for each in CODE.decode({}, {0: outputs(found)}, range(4)).values())
    np.testing.assert_array_equal(TASKS["classification"].answer(output), [1, 0, 0, 0])
    found.class_probabilities[0] = [0.1, 0.2, 0.3, 0.4]
    (output,) = (each.output for each in CODE.decode({}, {0: outputs(found)}, range(4)).values())
    np.testing.assert_allclose(TASKS["classification"].answer(output), [0.1, 0.2, 0.3, 0.4], rtol=1e-6)


def test_an_image_goes_into_its_cell_by_a_box_filter() -> None:
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    grid = Grid(3, 416)
    (collage,) = CollageCode(grid).encode([None, image, *[None] * 7])
    expected = np.asarray(Image.fromarray(image).resize((138, 139), Image.Resampling.BOX))
    np.testing.assert_array_equal(collage[0:139, 139:277], expected)
    assert not collage[139:].any()
    assert not collage[:, :139].any()
    assert not collage[:, 277:].any()


def test_images_of_their_cells_sizes_are_encoded_at_once() -> None:
    code = CollageCode(Grid(3, 416))  # columns and rows of 139, 138 and 139
    images = [np.zeros((height, width, 3), np.uint8) for height in (139, 138, 139) for width in (139, 138, 139)]
    assert code.quick(images)
    assert code.quick([images[0], *[None] * 8])
    assert not code.quick([images[0], images[0], *[None] * 7])


def test_a_group_must_have_a_place_for_every_cell() -> None:
    with pytest.raises(ValueError, match="4 members"):
        CODE.encode([None] * 3)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_image_stays_in_its_cell(data: st.DataObject) -> None:
    """For all K and all subsets of members: encode, find each cell's colour as a perfect detector, decode."""
    k = data.draw(st.integers(1, 6))
    grid = Grid(k, data.draw(st.integers(4 * k, 60)))
    code = CollageCode(grid)
    filled = data.draw(st.lists(st.booleans(), min_size=grid.cells, max_size=grid.cells))
    images = [np.full((16, 16, 3), 10 + i, np.uint8) if used else None for i, used in enumerate(filled)]
    (collage,) = code.encode(images)
    found = []
    for value in np.unique(collage[collage > 0]):
        rows, columns, _ = np.nonzero(collage == value)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        found.append((np.array(box) / grid.size, 0.9, int(value) - 10))
    order = data.draw(st.permutations(found))
    members = [i for i, used in enumerate(filled) if used]
    decoded = code.decode({}, {0: outputs(detections(*order, classes=max(2, grid.cells)))}, members)
    assert labels(decoded, grid.cells) == [i if used else None for i, used in enumerate(filled)]
