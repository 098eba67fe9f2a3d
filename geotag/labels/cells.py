"""A grid of cells on the sphere, none less than 10 km across.

Rows of equal height; each row has as many columns as fit into it where it is narrowest. Cells
that do not touch, nor lie within a width of each other, are therefore at least 10 km apart: see
`neighbours`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from geotag.geo import EARTH_RADIUS_M

if TYPE_CHECKING:
    from collections.abc import Iterator

CELL_M = 10_000.0

_ROWS = int(math.pi * EARTH_RADIUS_M / CELL_M)
_HEIGHT_DEG = 180.0 / _ROWS
_HALF_CHORD = math.sin(CELL_M / (2 * EARTH_RADIUS_M))
_TOLERANCE_DEG = 1e-9


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """Row from the south pole, column from the date line eastwards."""

    row: int
    column: int

    def __str__(self) -> str:
        """`1543-2071`: the same cell in every manifest."""
        return f"{self.row}-{self.column}"


def cell_of(lat_deg: float, lon_deg: float) -> Cell:
    """The cell of a point."""
    row = min(int((lat_deg + 90.0) / _HEIGHT_DEG), _ROWS - 1)
    width_deg = _width_deg(row)
    # Rounding may put the easternmost point beyond the last column.
    column = min(int(((lon_deg + 180.0) % 360.0) / width_deg), round(360.0 / width_deg) - 1)
    return Cell(row, column)


def neighbours(cell: Cell) -> Iterator[Cell]:
    """The cells that hold points less than CELL_M from points of this one, and a few more.

    Points that are two rows apart are at least a row's height apart. Of points in one row, or in
    rows that touch, at latitudes a and b and D degrees of longitude apart, the distance d has
    sin^2(d / 2R) = sin^2((a - b) / 2) + cos a cos b sin^2(D / 2), and a column is so wide that
    cos(a) sin(D / 2) >= sin(CELL_M / 2R) for a width D at any latitude a of its row. So where D
    is at least the greater width of the two rows, d >= CELL_M.
    """
    west_deg = cell.column * _width_deg(cell.row)
    east_deg = west_deg + _width_deg(cell.row)
    for row in range(max(cell.row - 1, 0), min(cell.row + 1, _ROWS - 1) + 1):
        width_deg = _width_deg(row)
        columns = round(360.0 / width_deg)
        gap_deg = max(width_deg, _width_deg(cell.row)) - _TOLERANCE_DEG
        first = math.floor((west_deg - gap_deg) / width_deg)
        last = math.floor((east_deg + gap_deg) / width_deg)
        for column in range(first, min(last, first + columns - 1) + 1):
            if (row, column % columns) != (cell.row, cell.column):
                yield Cell(row, column % columns)


def _width_deg(row: int) -> float:
    """Width of the columns of a row: 360 degrees over a whole number."""
    edge_deg = max(abs(-90.0 + row * _HEIGHT_DEG), abs(-90.0 + (row + 1) * _HEIGHT_DEG))
    narrowness = math.cos(math.radians(min(edge_deg, 90.0)))
    if narrowness <= _HALF_CHORD:
        return 360.0
    return 360.0 / int(math.pi / math.asin(_HALF_CHORD / narrowness))
