"""Groups: every member in a cell of its own, the first free one."""

from hypothesis import given
from hypothesis import strategies as st

from encoder.code import GroupShape
from frontend.policy.groups import Group, Groups


def groups_of(cells: int) -> Groups:
    groups = Groups()
    groups.shape = GroupShape.collage(cells)
    return groups


def test_members_take_the_cells_in_order_until_the_group_is_full() -> None:
    groups = groups_of(4)
    places = [groups.join(request, at=0.5) for request in (10, 11, 12, 13)]
    group = places[0][0]
    assert [cell for _, cell in places] == [0, 1, 2, 3]
    assert all(other is group for other, _ in places)
    assert group.members == {0: 10, 1: 11, 2: 12, 3: 13}
    assert group.full
    assert group.opened_at == 0.5
    assert not group.closed


def test_a_group_is_open_until_it_is_closed_and_the_next_one_has_a_new_id() -> None:
    groups = groups_of(2)
    first, _ = groups.join(10, 0.0)
    groups.close(first)
    assert first.closed
    assert groups.open is None
    second, cell = groups.join(11, 1.0)
    assert (second.id > first.id, cell, second.opened_at) == (True, 0, 1.0)
    assert first.members == {0: 10}


def test_closing_an_old_group_again_leaves_the_open_one_alone() -> None:
    groups = groups_of(2)
    first, _ = groups.join(10, 0.0)
    groups.close(first)
    second, _ = groups.join(11, 0.0)
    groups.close(first)
    assert groups.open is second


def test_a_freed_cell_is_taken_next() -> None:
    groups = groups_of(4)
    for request in (10, 11, 12):
        group, _ = groups.join(request, 0.0)
    groups.leave(group, 1)
    assert groups.join(13, 0.0) == (group, 1)
    assert group.members == {0: 10, 1: 13, 2: 12}


def test_the_last_one_to_leave_takes_the_group_with_it() -> None:
    groups = groups_of(4)
    group, cell = groups.join(10, 0.0)
    groups.leave(group, cell)
    assert group.closed
    assert groups.open is None
    assert groups.join(11, 0.0)[0].id != group.id


@given(
    cells=st.integers(1, 25),
    moves=st.lists(st.tuples(st.sampled_from(["join", "join", "leave", "close"]), st.integers(0, 24)), max_size=80),
)
def test_cells_hold_what_joined_and_did_not_leave(cells: int, moves: list[tuple[str, int]]) -> None:
    groups = groups_of(cells)
    sits: dict[int, int] = {}  # in the open group: request by cell
    ids: list[int] = []
    for request, (move, which) in enumerate(moves):
        group: Group | None = groups.open
        if move == "join":
            joined, cell = groups.join(request, 0.0)
            assert cell == min(set(range(cells)) - sits.keys())
            assert joined is group or (group is None and joined.id not in ids)
            ids.append(joined.id)
            sits[cell] = request
            assert joined.members == sits
            assert joined.full == (len(sits) == cells)
            if joined.full:
                groups.close(joined)
                sits = {}
        elif move == "leave" and group and sits:
            cell = sorted(sits)[which % len(sits)]
            del sits[cell]
            groups.leave(group, cell)
            assert group.members == sits
        elif move == "close" and group:
            groups.close(group)
            sits = {}
        assert (groups.open is None) == (not sits)
