"""Which of the models that workers serve is in use, pure."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.policy.elect import Offer, elect


@pytest.mark.parametrize(
    ("offers", "in_use", "elected"),
    [
        ([], None, None),
        ([], "a", None),
        ([("a", 1, True)], None, "a"),
        ([("a", 1, False)], "a", None),
        ([("a", 2, True), ("b", 1, True)], "b", "a"),
        ([("a", 2, True), ("b", 2, True)], "b", "b"),
        ([("a", 2, True), ("b", 2, True)], "a", "a"),
        ([("a", 2, True), ("b", 2, True)], None, "a"),
        ([("a", 9, False), ("b", 1, True)], "a", "b"),
        ([("a", 2, True), ("b", 3, True), ("c", 3, True)], "a", "b"),
    ],
)
def test_most_workers_decide_and_at_a_tie_the_model_in_use(
    offers: list[tuple[str, int, bool]], in_use: str | None, elected: str | None
) -> None:
    index = elect([Offer(*offer) for offer in offers], in_use)
    assert (None if index is None else offers[index][0]) == elected


def serving(workers: list[str], unfit: set[str]) -> list[Offer[str]]:
    """What workers offer whose models these are; an empty name is a worker that starts."""
    return [Offer(name, workers.count(name), name not in unfit) for name in dict.fromkeys(workers) if name]


@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_a_rolling_update_moves_the_traffic_once(count: int, random: Random) -> None:
    """One worker after the other stops, and serves the new model: in any order, all calls go to one model at a time."""
    workers = ["old"] * count
    in_use, used = "old", ["old"]
    order = list(range(count))
    random.shuffle(order)
    for worker in order:
        for state in ("", "new"):
            workers[worker] = state
            offers = serving(workers, set())
            index = elect(offers, in_use)
            if index is not None:
                in_use = offers[index].model
                used.append(in_use)
    assert used == sorted(used, reverse=True)
    assert used[-1] == "new"


@given(
    st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=9), st.sets(st.sampled_from("abc")), st.sampled_from("abc")
)
def test_the_model_in_use_fits_and_no_fitting_one_has_more_workers(
    workers: list[str], unfit: set[str], in_use: str
) -> None:
    offers = serving(workers, unfit)
    index = elect(offers, in_use)
    fitting = [offer for offer in offers if offer.fits]
    assert (index is None) == (not fitting)
    if index is not None:
        elected = offers[index]
        assert elected.fits
        assert elected.workers == max(offer.workers for offer in fitting)
        assert elected.model == in_use or all(
            offer.model != in_use or offer.workers < elected.workers for offer in fitting
        )
        assert elect(offers, elected.model) == index, "an election changes nothing by being repeated"


def test_what_is_preferred_comes_before_what_most_workers_serve() -> None:
    offers = [Offer("a", 3, True), Offer("b", 1, True), Offer("c", 1, False)]
    assert elect(offers, "a", preferred=[1, 2]) == 1
