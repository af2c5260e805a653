import numpy as np
import pytest

from encoder.grid import Grid


@pytest.mark.parametrize(("k", "size"), [(1, 7), (2, 416), (3, 416), (4, 416), (5, 416), (3, 96), (7, 50)])
def test_cells_tile_the_collage_exactly_once(k: int, size: int) -> None:
    grid = Grid(k, size)
    covered = np.zeros((size, size), int)
    for cell in range(grid.cells):
        left, top, right, bottom = grid.box(cell)
        covered[top:bottom, left:right] += 1
    assert (covered == 1).all()


def test_edges_are_rounded() -> None:
    assert Grid(3, 416).edges == (0, 139, 277, 416)
    assert Grid(5, 416).edges == (0, 83, 166, 250, 333, 416)


def test_cells_are_numbered_row_by_row() -> None:
    grid = Grid(3, 9)
    assert [grid.box(cell)[:2] for cell in range(9)] == [(column, row) for row in (0, 3, 6) for column in (0, 3, 6)]
    np.testing.assert_allclose(grid.boxes[5], [6 / 9, 3 / 9, 1, 6 / 9], rtol=1e-6)


@pytest.mark.parametrize(("k", "size"), [(0, 10), (5, 4)])
def test_impossible_grids_are_refused(k: int, size: int) -> None:
    with pytest.raises(ValueError, match="1 <= k <= size"):
        Grid(k, size)


def test_cells_outside_the_grid_are_refused() -> None:
    with pytest.raises(IndexError):
        Grid(2, 8).box(4)
