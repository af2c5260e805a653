"""The linear code, with a linear base model: decoding is then exact, so that every loss can be checked."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoder.code import GroupShape, Outputs
from encoder.linear import KEYS, LinearCode, mean_weights, turned

SHAPES = [(members, inputs) for members in (2, 3, 4) for inputs in (1, 2)]
EXACT = {(2, 1): 2, (3, 1): 3, (4, 1): 4, (2, 2): 6, (3, 2): 6, (4, 2): 20}
"""Inputs that are multiples of this have means that are whole numbers."""
MODEL = np.random.default_rng(0).integers(-8, 9, (5, 12)).astype(np.float32)


def base(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A linear model with five outputs: also its own parity model."""
    return MODEL @ pixels.reshape(-1).astype(np.float32)


def inputs_of(members: int, inputs: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    step = EXACT[members, inputs]
    random = np.random.default_rng(seed)
    return [(random.integers(0, 255 // step + 1, (2, 2, 3)) * step).astype(np.uint8) for _ in range(members)]


@pytest.mark.parametrize(("members", "inputs"), SHAPES)
def test_every_loss_of_up_to_r_answers_is_decoded_from_every_choice_of_redundant_outputs(
    members: int, inputs: int
) -> None:
    code = LinearCode(mean_weights(members, inputs))
    group = inputs_of(members, inputs)
    coded: dict[int, Outputs] = {row: (base(each),) for row, each in enumerate(code.encode(group))}
    for lost_count in range(1, inputs + 1):
        for lost in combinations(range(members), lost_count):
            for used in (rows for n in range(lost_count, inputs + 1) for rows in combinations(range(inputs), n)):
                own = {place: base(each) for place, each in enumerate(group) if place not in lost}
                decoded = code.decode(own, {row: coded[row] for row in used}, range(members))
                assert decoded.keys() == set(lost)
                for place in lost:
                    np.testing.assert_allclose(decoded[place].output, base(group[place]), atol=0.05, rtol=1e-4)
                    assert decoded[place].output.dtype == np.float32
                    assert decoded[place].confidence is None


@pytest.mark.parametrize(("members", "inputs"), SHAPES)
def test_more_losses_than_redundant_outputs_are_not_decoded(members: int, inputs: int) -> None:
    code = LinearCode(mean_weights(members, inputs))
    group = inputs_of(members, inputs)
    coded: dict[int, Outputs] = {row: (base(each),) for row, each in enumerate(code.encode(group))}
    own = {place: base(each) for place, each in enumerate(group)}
    lost = members - inputs - 1
    assert code.decode(dict(list(own.items())[: max(lost, 0)]), coded, range(members)) == {} or lost < 0
    assert code.decode(own, coded, range(members)) == {}
    assert code.decode(dict(list(own.items())[1:]), {}, range(members)) == {}


def test_the_weights_of_the_paper_as_shares() -> None:
    np.testing.assert_allclose(mean_weights(3, 3), [[1 / 3] * 3, [1 / 6, 2 / 6, 3 / 6], [1 / 14, 4 / 14, 9 / 14]])


@pytest.mark.parametrize(("members", "inputs"), SHAPES)
def test_groups_are_full_and_any_n_outputs_are_enough(members: int, inputs: int) -> None:
    assert LinearCode(mean_weights(members, inputs)).shape == GroupShape(members, inputs, members, members)


def test_a_redundant_output_beyond_those_needed_lessens_the_noise() -> None:
    code = LinearCode([[0.5, 0.5], [0.4, 0.6]])
    own, lost, noise = np.ones(3, np.float32), np.full(3, 2.0, np.float32), np.float32(0.1)
    exact = [np.float32(weights[0]) * own + np.float32(weights[1]) * lost for weights in code.weights]
    found = code.decode({0: own}, {0: (exact[0] + noise,), 1: (exact[1] - noise,)}, [0, 1])
    assert np.abs(found[1].output - lost).max() < 0.05
    assert np.abs(code.decode({0: own}, {0: (exact[0] + noise,)}, [0, 1])[1].output - lost).min() > 0.15


def test_only_places_with_a_member_are_told() -> None:
    code = LinearCode(mean_weights(2, 1))
    first, second = inputs_of(2, 1)
    (parity,) = code.encode([first, second])
    assert code.decode({0: base(first)}, {0: (base(parity),)}, [0]) == {}
    assert code.decode({0: base(first)}, {0: (base(parity),)}, [1]).keys() == {1}


@pytest.mark.parametrize(("members", "inputs", "condition"), [(2, 1, 2.6), (2, 2, 6.2), (3, 2, 15.4), (4, 2, 27.6)])
def test_how_much_noise_grows_when_answers_are_lost(members: int, inputs: int, condition: float) -> None:
    """The worst system of N outputs; a second redundant input helps less the larger the group."""
    rows = np.vstack([np.eye(members), mean_weights(members, inputs)])
    worst = max(np.linalg.cond(rows[list(kept)]) for kept in combinations(range(len(rows)), members))
    assert worst == pytest.approx(condition, abs=0.05)


@pytest.mark.parametrize("weights", [(1 / 256, 255 / 256), (1 / 257, 256 / 257), (0.5**0.5, 1 - 0.5**0.5)])
def test_the_largest_bytes_do_not_run_over(weights: tuple[float, float]) -> None:
    (encoded,) = LinearCode([weights]).encode([np.full((2, 2, 3), 255, np.uint8)] * 2)
    assert (encoded == 255).all()


def test_keys_turn_every_member_in_its_own_way() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)
    views = [turned(image, key) for key in range(KEYS)]
    assert len({view.tobytes() for view in views}) == 8
    for key, view in enumerate(views):
        np.testing.assert_array_equal(view, np.rot90(image if key < 4 else np.flipud(image), key))
    other = np.random.default_rng(1).integers(0, 256, (5, 5, 3), np.uint8)
    (keyed,) = LinearCode([[0.25, 0.75]], keys=(0, 5)).encode([image, other])
    (plain,) = LinearCode([[0.25, 0.75]]).encode([image, turned(other, 5)])
    np.testing.assert_array_equal(keyed, plain)


@pytest.mark.parametrize("keys", [(0,), (0, 1, 2), (0, 8), (-1, 0)])
def test_keys_are_one_for_each_member_and_known(keys: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a key from 0 to 7 for each of its 2 members, or none"):
        LinearCode([[0.5, 0.5]], keys=keys)


@settings(deadline=None)
@given(st.data())
def test_a_redundant_input_is_the_rounded_mean(data: st.DataObject) -> None:
    members = data.draw(st.integers(2, 6))
    group = [
        np.array(data.draw(st.lists(st.integers(0, 255), min_size=6, max_size=6)), np.uint8) for _ in range(members)
    ]
    weights = mean_weights(members, 2)
    if data.draw(st.booleans()):
        weights[1] = np.sqrt(weights[1]) / np.sqrt(weights[1]).sum()  # no small whole numbers
    code = LinearCode(weights)
    for row, redundant in zip(code.weights, code.encode(group), strict=True):
        exact = sum(weight * each.astype(float) for weight, each in zip(row, group, strict=True))
        assert redundant.dtype == np.uint8
        assert np.abs(redundant - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ([0.5, 0.5], "one row"),
        ([[1.0]], "2 to 16 members"),
        ([[0.5, 0.5]] * 3, "at most as many"),
        ([[0.5, 0.6]], "sum is 1"),
        ([[1.5, -0.5]], "none below 0"),
        ([[float("nan"), 1.0]], "none below 0"),
        ([[1.0, 0.0]], "told apart"),
        ([[0.5, 0.5], [0.5, 0.5]], "told apart"),
        ([[0.5, 0.5], [0.50001, 0.49999]], "told apart"),
        ([[1.0, 0.0], [0.5, 0.5]], "told apart"),
    ],
)
def test_weights_that_cannot_be_decoded_are_refused(weights: list[list[float]], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        LinearCode(weights)


def test_a_group_must_be_full_and_of_one_shape() -> None:
    code = LinearCode(mean_weights(2, 1))
    small, large = np.zeros((2, 2, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    for group in ([small, None], [small], [small, large]):
        with pytest.raises(ValueError, match="2 inputs of one shape"):
            code.encode(group)


def test_small_groups_are_encoded_at_once() -> None:
    code = LinearCode(mean_weights(2, 1))
    assert code.quick([np.zeros((32, 32, 3), np.uint8)] * 2)
    assert code.quick([np.zeros((128, 128, 3), np.uint8), None])
    assert not LinearCode(mean_weights(2, 2)).quick([np.zeros((128, 128, 3), np.uint8), None]), "two inputs take twice"
    assert not code.quick([np.zeros((224, 224, 3), np.uint8)] * 2)


@pytest.mark.parametrize("lost", [-np.inf, np.inf, np.nan, 3e38])
def test_an_output_that_would_not_be_finite_is_not_decoded(lost: float) -> None:
    code = LinearCode([[0.1, 0.9]])
    own, coded = {1: np.array([1.0, lost], np.float32)}, {0: [np.array([1.0, -3e38], np.float32)]}
    assert code.decode(own, coded, [0, 1]) == {}
    assert code.decode({1: np.ones(2, np.float32)}, {0: [np.ones(2, np.float32)]}, [0, 1]).keys() == {0}
