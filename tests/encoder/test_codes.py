"""The registry of codes, and what every code in it must keep."""

import numpy as np
import pytest

from encoder.code import Code, GroupShape, Source
from encoder.codes import CODES, CodeParameters, build
from encoder.learned import Networks

NETWORKS = Networks(3, 2, lambda images: images[:2], lambda outputs: outputs[:3])
EXAMPLES = {
    "collage": CodeParameters("collage", size=8, k=2, detection_threshold=0.3, base="v1"),
    "linear": CodeParameters("linear", size=4, weights=((0.5, 0.5),), keys=(0, 4), base="v1"),
    "concatenation": CodeParameters("concatenation", size=4, members=4, base="v1"),
    "stacked": CodeParameters("stacked", size=4, members=3, base="v1"),
    "berrut": CodeParameters("berrut", size=4, members=4, inputs=2, base="v1"),
    "learned": CodeParameters("learned", size=4, members=3, inputs=2, networks=NETWORKS, base="v1"),
    "approxifer": CodeParameters("approxifer", size=4, members=4, inputs=5, base="v1"),
}


@pytest.mark.parametrize("name", sorted(CODES))
def test_a_code_has_what_its_interface_says(name: str) -> None:
    """A new code needs an entry in ``EXAMPLES``, and nothing else in this file."""
    code: Code = build(EXAMPLES[name])
    assert code.name == name
    assert code.base == "v1"
    assert code.source in Source
    inputs = [np.full((4, 4, 3), 10 * place, np.uint8) for place in range(code.shape.members)]
    encoded = code.encode(inputs)
    assert len(encoded) == code.shape.inputs
    assert all(each.dtype == np.uint8 for each in encoded)
    assert code.quick(inputs) in (True, False)
    assert code.decode({}, {}, range(code.shape.members)) == {}


def test_the_parameters_reach_the_codes() -> None:
    collage, linear = build(EXAMPLES["collage"]), build(EXAMPLES["linear"])
    assert collage.detection_threshold == 0.3  # type: ignore[attr-defined]
    assert (collage.shape.members, collage.shape.needed, collage.shape.fewest) == (4, 1, 2)
    assert (linear.shape.members, linear.shape.needed, linear.shape.fewest) == (2, 2, 2)
    assert linear.keys == (0, 4)  # type: ignore[attr-defined]
    for name, members, inputs in (
        ("concatenation", 4, 1),
        ("stacked", 3, 1),
        ("berrut", 4, 2),
        ("approxifer", 4, 5),
        ("learned", 3, 2),
    ):
        shape = build(EXAMPLES[name]).shape
        assert (shape.members, shape.inputs) == (members, inputs)
    assert GroupShape.collage(9) == GroupShape(9, 1, needed=1, fewest=5)


def test_weights_that_nobody_tells_are_those_of_the_paper() -> None:
    code = build(CodeParameters("linear", size=4, members=3, inputs=2))
    np.testing.assert_allclose(code.weights, [[1 / 3] * 3, [1 / 6, 2 / 6, 3 / 6]])  # type: ignore[attr-defined]


def test_a_learned_code_without_networks_says_how_to_give_them() -> None:
    with pytest.raises(ValueError, match="its encoder and decoder: give the frontend --code learned:FOLDER"):
        build(CodeParameters("learned", size=4, members=2))


def test_an_unknown_code_is_named_with_those_there_are() -> None:
    with pytest.raises(
        ValueError, match="no code 'raptor', only collage, linear, concatenation, stacked, berrut, approxifer, learned"
    ):
        build(CodeParameters("raptor", size=8))
