"""Points that say which state a stretch of border country is in, for the United States.

The nearest place is in the wrong state for one point in eight within 11 km of a state's border.
Along every border between two states, pairs of points are laid out, one on either side: nearer to
the one means this state, nearer to the other that. Every 2 km and 0.8 km from the line, 0.8 % of
points 400 m from it and 0.1 % of those 1.5 km from it are still wrong; 3 km and 1 km: 1.8 %, 0.3 %.
Polygons: the Census Bureau's of 2017 (public domain), as the npm package us-atlas has them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

from geotag.places.nearest import KM_PER_DEG
from geotag.places.table import UNITS_PER_DEG, cells_of

SPACING_KM = 2.0
OFFSET_KM = 0.8


def find_witnesses(
    topology: dict[str, Any], rows: dict[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Witnesses: latitudes, longitudes, states, sorted by cell.

    Args:
        topology: `states-10m.json` of us-atlas.
        rows: state's row by its name.
    """
    arcs = decode_topology(topology)
    owners: dict[int, set[str]] = {}
    polygons, states = [], []
    for entry in topology["objects"]["states"]["geometries"]:
        name = entry["properties"]["name"]
        if name not in rows:
            continue
        for shape in entry["arcs"] if entry["type"] == "MultiPolygon" else [entry["arcs"]]:
            for ring in shape:
                for arc in ring:
                    owners.setdefault(arc if arc >= 0 else ~arc, set()).add(name)
            ring = _ring(shape[0], arcs)
            # A ring over the date line is an island of Alaska's, which borders on nothing.
            if len(ring) >= 4 and np.ptp(ring[:, 0]) < 180:
                polygons.append(shapely.make_valid(shapely.Polygon(ring)))
                states.append(rows[name])
    shared = [arcs[arc] for arc, names in sorted(owners.items()) if len(names) == 2]
    lats, lons = (np.concatenate(part) for part in zip(*map(_beside, shared), strict=True))
    lats, lons = (np.round(angles * UNITS_PER_DEG) / UNITS_PER_DEG for angles in (lats, lons))
    points, found = shapely.STRtree(polygons).query(shapely.points(lons, lats), predicate="within")
    points, firsts = np.unique(points, return_index=True)
    lats, lons, truth = lats[points], lons[points], np.array(states)[found[firsts]]
    order = np.lexsort((lons, lats, cells_of(lats, lons)))
    return lats[order], lons[order], truth[order]


def decode_topology(topology: dict[str, Any]) -> list[np.ndarray]:
    """Arcs in degrees, (lon, lat).  Source: TopoJSON 1.0, sections 2.1.2 and 2.1.4."""
    scale, shift = topology["transform"]["scale"], topology["transform"]["translate"]
    return [
        np.cumsum(np.array(arc, dtype=float), axis=0) * scale + shift for arc in topology["arcs"]
    ]


def _ring(indices: list[int], arcs: list[np.ndarray]) -> np.ndarray:
    """Arcs end to end; ~k is arc k the other way round."""
    return np.concatenate([arcs[k] if k >= 0 else arcs[~k][::-1] for k in indices])


def _beside(arc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points on both sides of a line: latitudes, longitudes."""
    shrink = np.cos(np.radians(arc[:, 1].mean()))
    flat = arc * [shrink * KM_PER_DEG, KM_PER_DEG]
    steps = np.hypot(*np.diff(flat, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.arange(SPACING_KM / 2, along[-1], SPACING_KM)
    segments = np.clip(np.searchsorted(along, wanted, "right") - 1, 0, len(steps) - 1)
    share = (wanted - along[segments]) / np.maximum(steps[segments], 1e-9)
    ways = np.diff(flat, axis=0)[segments]
    base = flat[segments] + share[:, None] * ways
    normals = (
        np.column_stack([-ways[:, 1], ways[:, 0]]) / np.maximum(steps[segments], 1e-9)[:, None]
    )
    moved = np.concatenate([base + OFFSET_KM * normals, base - OFFSET_KM * normals])
    return moved[:, 1] / KM_PER_DEG, moved[:, 0] / (shrink * KM_PER_DEG)
