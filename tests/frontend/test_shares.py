"""Room for requests: no caller takes all of it, and everything that is taken comes back."""

from __future__ import annotations

import pytest

from frontend.policy import Shares


def test_a_caller_has_half_of_the_places_and_the_others_have_the_rest() -> None:
    shares = Shares(most=10, most_bytes=1000, share=0.5)
    assert shares.most_of_one == 5
    for _ in range(5):
        assert shares.refusal("a", 1, 0) is None
        shares.take("a", 1, 0)
    assert shares.refusal("a", 1, 0) == ("share", "this connection has 5 requests in flight already")
    for _ in range(5):
        assert shares.refusal("b", 1, 0) is None
        shares.take("b", 1, 0)
    assert shares.refusal("c", 1, 0) == ("count", "10 requests are in flight already")
    shares.leave("a", 1, 0)
    assert shares.refusal("b", 1, 0) == ("share", "this connection has 5 requests in flight already")
    assert shares.refusal("a", 1, 0) is None
    assert shares.refusal("c", 1, 0) is None


def test_a_caller_has_half_of_the_bytes_but_one_request_of_any_size() -> None:
    shares = Shares(most=10, most_bytes=1000, share=0.5)
    assert shares.refusal("a", 1, 5000) is None
    shares.take("a", 1, 400)
    assert shares.refusal("a", 1, 100) is None
    told = "this connection's requests in flight hold 400 bytes already"
    assert shares.refusal("a", 1, 101) == ("share", told)
    assert shares.refusal("b", 1, 600) is None
    assert shares.refusal("b", 1, 601) == ("bytes", "requests in flight hold 400 bytes already")
    shares.leave("a", 1, 400)
    assert shares.refusal("a", 1, 5000) is None


def test_bytes_that_several_requests_share_are_held_once() -> None:
    shares = Shares(most=10, most_bytes=1000, share=0.5)
    with shares.holding("a", 0, 2000):
        assert shares.refusal("a", 1, 0) is None, "a row of the batch"
        assert shares.refusal("b", 1, 1) == ("bytes", "requests in flight hold 2,000 bytes already")
    assert (shares.all.requests, shares.all.size) == (0, 0)
    assert shares.refusal("a", 1, 2000) is None


@pytest.mark.parametrize("share", [1.0, 0.01])
def test_a_share_is_at_least_one_request_and_at_most_all(share: float) -> None:
    shares = Shares(most=3, most_bytes=1000, share=share)
    assert shares.most_of_one == (3 if share == 1 else 1)


@pytest.mark.parametrize(
    ("share", "workers", "most"), [(0.5, 0, 100), (0.5, 9, 100), (0.5, 36, 288), (0.5, 900, 512), (1.0, 9, 1024)]
)
def test_a_caller_has_half_of_what_workers_queue_but_as_much_as_a_connection(
    share: float, workers: int, most: int
) -> None:
    shares = Shares(most=1024, most_bytes=1000, share=share)
    shares.resize(workers)
    assert shares.most_of_one == most


def test_a_caller_without_a_name_has_no_share_of_its_own() -> None:
    shares = Shares(most=4, most_bytes=1000, share=0.5)
    for _ in range(4):
        assert shares.refusal("", 1, 250) is None
        shares.take("", 1, 250)
    assert shares.refusal("", 1, 0) == ("count", "4 requests are in flight already")
