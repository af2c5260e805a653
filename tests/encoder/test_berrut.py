"""Berrut's interpolation, held against the formula of the papers term by term."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest

from encoder.berrut import ApproxIferCode, BerrutCode, berrut_weights, chebyshev
from encoder.code import GroupShape, Outputs, Source

MODEL = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)


def formula(nodes: Sequence[float], values: Sequence[float], at: float) -> float:
    """Berrut's first interpolant, sum of (-1)^i / (at - x_i) f_i over the sum of the same without f_i."""
    pairs = sorted(zip(nodes, values, strict=True))
    above = sum((-1) ** i / (at - node) * value for i, (node, value) in enumerate(pairs))
    return above / sum((-1) ** i / (at - node) for i, (node, _) in enumerate(pairs))


def test_the_weights_are_those_of_the_formula() -> None:
    nodes, values, at = [0.9, -0.3, 0.1, -0.8, 0.5], [3.0, -1.0, 4.0, 1.0, -5.0], [-0.95, 0.0, 0.7]
    weights = berrut_weights(np.array(nodes), np.array(at))
    expected = [formula(nodes, values, point) for point in at]
    np.testing.assert_allclose(weights @ np.array(values), expected, rtol=1e-12)
    np.testing.assert_allclose(weights.sum(1), 1)


def test_at_a_node_the_interpolant_is_the_value_there() -> None:
    nodes = np.array([0.4, -0.2, 0.9])
    np.testing.assert_array_equal(berrut_weights(nodes, nodes), np.eye(3))


def test_the_points_of_chebyshev() -> None:
    np.testing.assert_allclose(chebyshev(2), [math.sqrt(0.5), -math.sqrt(0.5)])
    np.testing.assert_allclose(chebyshev(3), [math.sqrt(0.75), 0, -math.sqrt(0.75)], atol=1e-15)
    code = ApproxIferCode(2, 3)
    np.testing.assert_allclose(code.member_points, chebyshev(2))
    np.testing.assert_allclose(code.coded_points, [1, 0, -1], atol=1e-15)


def test_two_members_and_one_redundant_input_are_the_mean_and_its_inverse() -> None:
    code = BerrutCode(2)
    np.testing.assert_allclose(code.weights, [[0.5, 0.5]])
    first, second = np.full((2, 2, 3), 10, np.uint8), np.full((2, 2, 3), 31, np.uint8)
    (mean,) = code.encode([first, second])
    assert set(mean.flat) <= {20, 21}
    decoded = code.decode({0: np.float32([1, 5])}, {0: [np.float32([2, 2])]}, [0, 1])
    np.testing.assert_allclose(decoded[1].output, [3, -1], rtol=1e-6)
    assert decoded[1].output.dtype == np.float32
    assert decoded[1].confidence is None


@pytest.mark.parametrize(("members", "inputs"), [(2, 1), (3, 1), (3, 2), (4, 1), (4, 2), (8, 2)])
def test_redundant_inputs_lie_among_the_members(members: int, inputs: int) -> None:
    code = BerrutCode(members, inputs, "v1")
    points = sorted([*code.member_points, *code.coded_points], reverse=True)
    np.testing.assert_allclose(points, chebyshev(members + inputs), atol=1e-15)
    assert code.member_points.min() < code.coded_points.min() <= code.coded_points.max() < code.member_points.max()
    assert code.shape == GroupShape(members, inputs, needed=members, fewest=members)
    assert (code.base, code.source) == ("v1", Source.CODED)


@pytest.mark.parametrize(("members", "inputs"), [(2, 1), (3, 2), (4, 2)])
def test_every_loss_is_interpolated_through_all_that_is_there(members: int, inputs: int) -> None:
    code = BerrutCode(members, inputs)
    outputs = np.random.default_rng(1).normal(size=(members + inputs, 3)).astype(np.float32)
    for lost in combinations(range(members), inputs):
        own = {place: outputs[place] for place in range(members) if place not in lost}
        coded: dict[int, Outputs] = {row: [outputs[members + row]] for row in range(inputs)}
        decoded = code.decode(own, coded, range(members))
        assert decoded.keys() == set(lost)
        nodes = [code.member_points[place] for place in own] + list(code.coded_points)
        for place in lost:
            for label in range(3):
                values = [*(own[other][label] for other in own), *(coded[row][0][label] for row in coded)]
                expected = formula(nodes, values, code.member_points[place])
                assert decoded[place].output[label] == pytest.approx(expected, rel=1e-4)


def test_a_redundant_input_is_the_interpolated_image_cut_off_at_a_byte() -> None:
    code = BerrutCode(4)
    group = list(np.random.default_rng(2).integers(0, 256, (4, 2, 2, 3), np.uint8))
    (encoded,) = code.encode(group)
    nodes, at = list(code.member_points), float(code.coded_points[0])
    exact = np.array([formula(nodes, values, at) for values in np.array(group).reshape(4, -1).T.astype(float)])
    assert (exact < 0).any() or (exact > 255).any()
    np.testing.assert_allclose(encoded.ravel(), exact.clip(0, 255), atol=0.51)
    assert (encoded.shape, encoded.dtype) == ((2, 2, 3), np.uint8)


def test_a_base_model_without_members_of_its_own_answers_about_right() -> None:
    """ApproxIFER with a linear model: right for members that are alike, about right for those along a line."""
    code, random = ApproxIferCode(8, 10), np.random.default_rng(3)
    assert code.shape == GroupShape(8, 10, needed=8, fewest=8)
    start, end = random.integers(60, 190, (2, 12))
    for spread, error in ((0.0, 1e-3), (1.0, 0.12)):
        group = [start + spread * (1 + point) / 2 * (end - start) for point in code.member_points]
        exact = np.array([MODEL @ np.rint(each).astype(np.float32) for each in group])
        encoded = code.encode([np.rint(each).astype(np.uint8).reshape(2, 2, 3) for each in group])
        coded: dict[int, Outputs] = {
            row: [MODEL @ each.ravel().astype(np.float32)] for row, each in enumerate(encoded) if row not in (3, 6)
        }
        decoded = code.decode({}, coded, range(8))
        assert decoded.keys() == set(range(8))
        found = np.array([decoded[place].output for place in range(8)])
        scale = np.abs(exact - exact.mean(0)).max() if spread else np.abs(exact).max()
        assert np.abs(found - exact).max() <= error * scale, spread


def test_an_own_answer_at_the_point_of_a_redundant_one_counts_once() -> None:
    code = ApproxIferCode(3, 5)
    assert code.member_points[1] == pytest.approx(code.coded_points[2], abs=1e-12)
    coded: dict[int, Outputs] = {row: [np.float32([row])] for row in range(5)}
    decoded = code.decode({1: np.float32([2])}, coded, [0, 1, 2])
    rest = [0, 1, 3, 4]
    nodes = [code.member_points[1], *(code.coded_points[row] for row in rest)]
    for place in (0, 2):
        expected = formula(nodes, [2.0, *map(float, rest)], code.member_points[place])
        assert decoded[place].output[0] == pytest.approx(expected, rel=1e-5)


def test_too_few_outputs_decode_nothing() -> None:
    code, one = BerrutCode(3, 2), np.ones(2, np.float32)
    assert code.decode({0: one}, {0: [one]}, [0, 1, 2]) == {}
    assert code.decode({0: one, 1: one, 2: one}, {0: [one]}, [0, 1, 2]) == {}
    assert code.decode({0: one, 1: one, 2: one}, {}, [0, 1, 2]) == {}
    assert code.decode({0: one, 1: one}, {1: [one]}, [0, 1]) == {}
    assert code.decode({0: one, 1: one}, {1: [one * np.float32(np.inf)]}, [0, 1, 2]) == {}


@pytest.mark.parametrize(
    ("code", "members", "inputs", "told"),
    [
        (BerrutCode, 1, 1, "2 or more members"),
        (BerrutCode, 2, 0, "1 or more redundant"),
        (BerrutCode, 60, 5, "at most 64"),
        (ApproxIferCode, 4, 4, "need more redundant inputs, not 4"),
    ],
)
def test_groups_that_cannot_be_are_refused(code: type[BerrutCode], members: int, inputs: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        code(members, inputs)
    with pytest.raises(ValueError, match="3 inputs of one shape"):
        BerrutCode(3).encode([np.zeros((2, 2, 3), np.uint8)] * 2)
