"""Nearest places and the cities around a point, for many points at once, with numpy alone.

The places lie sorted by grid cell, row by row, so that the places of a row of cells between two
meridians are one slice. A search takes the slices of a window; where the nearest place found is
nearer than the window is wide, it is the nearest of all. The few points that two windows leave
are compared with every place that is allowed. Shape suffixes: Q points asked for,
N places, M candidates, Z sets of groups, G groups (states).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geotag.places.table import CELLS_PER_DEG, COLUMNS, ROWS, cells_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Slices = tuple[Ints, Ints, Ints]

KM_PER_DEG = 6_371.0088 * np.pi / 180
"""Along a great circle of the sphere of the IUGG's mean radius."""
_WINDOWS_DEG = (0.125, 0.5)
_MOST_CANDIDATES = 1_000_000
"""Compared at a time: bounds the memory of a look-up to some tens of megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Places on the sphere, sorted by cell."""

    units: Floats
    """[N, 3] unit vectors."""
    starts: NDArray[np.int32]
    """[cells + 1]: first place of each cell."""


def build_grid(lats_deg: Floats, lons_deg: Floats) -> Grid:
    """Index places that are sorted by `cells_of`."""
    cells = cells_of(lats_deg, lons_deg)
    starts = np.zeros(ROWS * COLUMNS + 1, dtype=np.int32)
    np.cumsum(np.bincount(cells, minlength=ROWS * COLUMNS), out=starts[1:])
    return Grid(units=unit_vectors(lats_deg, lons_deg), starts=starts)


def unit_vectors(lats_deg: Floats, lons_deg: Floats) -> Floats:
    """[Q], [Q] -> [Q, 3]."""
    lats, lons = np.radians(lats_deg), np.radians(lons_deg)
    return np.stack([np.cos(lats) * np.cos(lons), np.cos(lats) * np.sin(lons), np.sin(lats)], 1)


def chords_to_km(chords2: Floats) -> Floats:
    """Squared straight distance between unit vectors -> distance along the sphere."""
    angles = 2 * np.arcsin(np.clip(np.sqrt(chords2) / 2, 0, 1))
    return np.asarray(np.degrees(angles) * KM_PER_DEG)


def nearest_places(
    grid: Grid,
    lats_deg: Floats,
    lons_deg: Floats,
    *,
    place_groups: Ints,
    sets: Ints,
    allowed_ZG: NDArray[np.bool_],
    near_only: NDArray[np.bool_],
) -> tuple[Ints, Floats]:
    """The nearest place to each point among those of the groups allowed for it.

    Args:
        grid: the places.
        lats_deg: [Q].
        lons_deg: [Q].
        place_groups: [N] group of each place.
        sets: [Q] row of `allowed_ZG` for each point.
        allowed_ZG: which groups belong to which set.
        near_only: [Z] sets for which nothing further away than some 50 km matters.

    Returns:
        [Q] place, -1 where there is none, and [Q] km, infinite there.
    """
    found = np.full(len(lats_deg), -1, dtype=np.int64)
    chords2 = np.full(len(lats_deg), np.inf)
    points = unit_vectors(lats_deg, lons_deg)
    left = np.arange(len(lats_deg))
    for window_deg in _WINDOWS_DEG:
        if not len(left):
            break
        slices = _window(grid.starts, lats_deg[left], lons_deg[left], window_deg)
        for asked, places in _candidates(slices):
            queries = left[asked]
            keep = allowed_ZG[sets[queries], place_groups[places]]
            _keep_nearest(points, grid.units, queries[keep], places[keep], found, chords2)
        left = left[chords2[left] > 4 * np.sin(np.radians(window_deg) / 2) ** 2]
    left = left[~near_only[sets[left]]]
    for row in np.unique(sets[left]):
        queries = left[sets[left] == row]
        places = np.flatnonzero(allowed_ZG[row, place_groups])
        if not len(places):
            continue
        for some in np.array_split(queries, len(queries) * len(places) // _MOST_CANDIDATES + 1):
            dots = points[some] @ grid.units[places].T
            found[some] = places[dots.argmax(axis=1)]
            chords2[some] = ((points[some] - grid.units[found[some]]) ** 2).sum(axis=1)
    return found, chords_to_km(chords2)


def _window(starts: NDArray[np.int32], lats_deg: Floats, lons_deg: Floats, deg: float) -> Slices:
    """Slices of places that hold all within `deg` of each point: (query, start, end)."""
    reach = np.where(
        np.abs(lats_deg) + deg < 90,
        np.degrees(
            np.arcsin(
                np.clip(np.sin(np.radians(deg)) / np.cos(np.radians(lats_deg)).clip(1e-9), 0, 1)
            )
        ),
        180.0,
    )
    low = np.clip(np.floor((lats_deg - deg + 90) * CELLS_PER_DEG), 0, ROWS - 1).astype(np.int64)
    high = np.clip(np.floor((lats_deg + deg + 90) * CELLS_PER_DEG), 0, ROWS - 1).astype(np.int64)
    west = np.floor((lons_deg - reach + 180) * CELLS_PER_DEG).astype(np.int64)
    east = np.floor((lons_deg + reach + 180) * CELLS_PER_DEG).astype(np.int64)
    whole = east - west >= COLUMNS - 1
    west, east = np.where(whole, 0, west), np.where(whole, COLUMNS - 1, east)
    queries, rows = ragged(low, high - low + 1)
    west, east = west[queries], east[queries]
    if not whole.any() and west.min() >= 0 and east.max() < COLUMNS:
        begin, end = starts[rows * COLUMNS + west], starts[rows * COLUMNS + east + 1]
        filled = end > begin
        return queries[filled], begin[filled].astype(np.int64), end[filled].astype(np.int64)
    # A window over the date line falls apart into the part on either side of it.
    parts = [
        (queries, rows, np.maximum(west, 0), np.minimum(east, COLUMNS - 1)),
        (queries, rows, west + COLUMNS, np.full_like(east, COLUMNS - 1)),
        (queries, rows, np.zeros_like(west), east - COLUMNS),
    ]
    chosen = [np.full(len(queries), True), west < 0, east >= COLUMNS]
    asked, row, first, last = (
        np.concatenate([part[k][mask] for part, mask in zip(parts, chosen, strict=True)])
        for k in range(4)
    )
    begin, end = starts[row * COLUMNS + first], starts[row * COLUMNS + last + 1]
    filled = end > begin
    order = np.argsort(asked[filled], kind="stable")
    return (
        asked[filled][order],
        begin[filled][order].astype(np.int64),
        end[filled][order].astype(np.int64),
    )


def ragged(starts: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """starts[k], starts[k] + 1, .. counts[k] of them, for every k: (k, value), flat."""
    owners = np.repeat(np.arange(len(starts)), counts)
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return owners, np.repeat(starts, counts) + offsets


def _candidates(slices: Slices) -> Iterator[tuple[Ints, Ints]]:
    """(query, place) pairs of the slices, so many at a time that memory stays bounded."""
    asked, begin, end = slices
    totals = np.cumsum(end - begin)
    at = 0
    while at < len(asked):
        done = totals[at - 1] if at else 0
        stop = max(int(np.searchsorted(totals, done + _MOST_CANDIDATES, "right")), at + 1)
        owners, places = ragged(begin[at:stop], end[at:stop] - begin[at:stop])
        yield asked[at:stop][owners], places
        at = stop


def _keep_nearest(
    points: Floats, units: Floats, queries: Ints, places: Ints, found: Ints, chords2: Floats
) -> None:
    """Lower `found` and `chords2` where a candidate is nearer.  `queries` is sorted."""
    if not len(queries):
        return
    away = np.zeros(len(queries))
    for axis in range(3):
        away += (points[queries, axis] - units[places, axis]) ** 2
    firsts = np.flatnonzero(np.diff(queries, prepend=-1))
    least = np.repeat(np.minimum.reduceat(away, firsts), np.diff(firsts, append=len(queries)))
    ties = np.flatnonzero(away == least)
    best = ties[np.flatnonzero(np.diff(queries[ties], prepend=-1))]
    owners = queries[firsts]
    nearer = away[best] < chords2[owners]
    found[owners[nearer]] = places[best[nearer]]
    chords2[owners[nearer]] = away[best[nearer]]


def cover_cells(
    lats_deg: Floats, lons_deg: Floats, radii_km: Floats
) -> tuple[NDArray[np.int32], Ints]:
    """Which places' discs may reach into which cell.

    Returns:
        [cells + 1] starts and [M] rows of the arguments, in the order of the cells.
    """
    deg = radii_km / KM_PER_DEG
    reach = np.minimum(deg / np.cos(np.radians(np.minimum(np.abs(lats_deg) + deg, 89.0))), 179.0)
    low = np.clip(np.floor((lats_deg - deg + 90) * CELLS_PER_DEG), 0, ROWS - 1).astype(np.int64)
    high = np.clip(np.floor((lats_deg + deg + 90) * CELLS_PER_DEG), 0, ROWS - 1).astype(np.int64)
    west = np.floor((lons_deg - reach + 180) * CELLS_PER_DEG).astype(np.int64)
    east = np.floor((lons_deg + reach + 180) * CELLS_PER_DEG).astype(np.int64)
    owners, rows = ragged(low, high - low + 1)
    lines, columns = ragged(west[owners], (east - west)[owners] + 1)
    cells = rows[lines] * COLUMNS + columns % COLUMNS
    order = np.argsort(cells, kind="stable")
    starts = np.zeros(ROWS * COLUMNS + 1, dtype=np.int32)
    np.cumsum(np.bincount(cells, minlength=ROWS * COLUMNS), out=starts[1:])
    return starts, owners[lines][order]
