"""The plots along both sides of the road, and the facades and fences at their front.

A facade is a plane beside the road, so that each column of a frame meets it at one depth and shows
the mean of a stretch of it: all facts are running sums along the road, one row a fact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.data.areas import Floats
from train.data.looks import draw_sources, palettes
from train.data.route import SCENES, STEP_M
from train.data.view import EYE_M, FAR_M, View, share_covered, share_on
from train.data.world import Rgb

WALL_M = 9.0  # facades stand this far from the middle of the road
FENCE_M = 6.2

_FENCES: dict[str, tuple[Rgb, float, float, float]] = {
    "none": ((0.5, 0.5, 0.5), 0.0, 0.0, 0.0),
    "rail": ((0.66, 0.67, 0.69), 0.42, 0.82, 0.95),
    "hedge": ((0.25, 0.38, 0.18), 0.0, 1.15, 1.0),
    "balustrade": ((0.78, 0.76, 0.71), 0.0, 0.95, 0.5),
    "mesh": ((0.45, 0.47, 0.48), 0.0, 1.9, 0.35),
}
"""Colour, lower and upper edge (m) and opacity."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plots:
    """Plots of 12 to 25 m along one side of the road, one row each, and the plot of each step."""

    start_m: Floats
    length_m: Floats
    source: NDArray[np.intp]
    built: Floats
    storeys: Floats
    trees: Floats
    parked: Floats
    paved: NDArray[np.bool_]
    water: NDArray[np.bool_]
    fence: NDArray[np.str_]
    of_step: NDArray[np.intp]
    into_step: NDArray[np.intp]
    """Steps since the plot began."""


def draw_plots(rng: np.random.Generator, city_id: int, scene: NDArray[np.intp]) -> Plots:
    """Divides one side of the road into plots, each with its scene and with one city's look."""
    steps = len(scene)
    lengths = rng.integers(48, 100, steps // 48 + 1)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    count = int(np.searchsorted(starts, steps))
    lengths, starts = lengths[:count], starts[:count]
    of_step = np.repeat(np.arange(count), lengths)[:steps]
    kinds = [list(SCENES.values())[number] for number in scene[starts]]
    return Plots(
        start_m=(starts * STEP_M).astype(np.float32),
        length_m=(lengths * STEP_M).astype(np.float32),
        source=draw_sources(rng, city_id, count),
        built=np.array([kind.built for kind in kinds], np.float32),
        storeys=np.array([kind.storeys for kind in kinds], np.float32),
        trees=np.array([kind.trees for kind in kinds], np.float32),
        parked=np.array([kind.parked for kind in kinds], np.float32),
        paved=np.array([kind.paved for kind in kinds]),
        water=np.array([kind.water for kind in kinds]),
        fence=np.array([kind.fence for kind in kinds]),
        of_step=of_step,
        into_step=np.arange(steps) - starts[of_step],
    )


def lay_walls(rng: np.random.Generator, plots: Plots, *, dry: bool) -> NDArray[np.float64]:
    """Sums of wall, roof and shop colour, window share, eave, top and storey height."""
    looks, count = palettes(), len(plots.source)
    source = plots.source
    wall = looks.facades[source, rng.integers(0, 6, count)] * rng.uniform(0.92, 1.08, (count, 1))
    has_awning = (rng.random(count) < 0.6) & plots.paved
    awning = looks.banner[source, rng.integers(0, 2, count)]
    shop = np.where(has_awning[:, None], awning, wall * 0.86)
    storeys = np.maximum(
        np.rint(looks.storeys[source] * plots.storeys * rng.uniform(0.7, 1.3, count)), 1.0
    )
    eave_m = storeys * looks.storey_m[source] + 0.4
    present = (rng.random(count) < plots.built) & (dry | ~plots.water)
    gable_m = looks.pitched[source] * 3.0
    period = rng.integers(9, 14, count)
    per_plot = np.concatenate([wall, looks.roof[source], shop], axis=1)
    rows = np.empty((13, len(plots.of_step)), np.float32)
    rows[:9] = per_plot[plots.of_step].T
    step, plot = plots.into_step, plots.of_step
    rows[9] = (step % period[plot] * 2 < period[plot]) * 0.85
    alley = np.where(rng.random(count) < 0.4, 8, 0)[plot]
    stands = present[plot] & (step >= alley)
    ridge = 1.0 - np.abs((step % 36) / 18.0 - 1.0)
    rows[10] = np.where(stands, eave_m[plot], -1.0)
    rows[11] = np.where(stands, eave_m[plot] + 0.5 + gable_m[plot] * ridge, -1.0)
    rows[12] = looks.storey_m[source][plot]
    return _running(rows)


def lay_fences(rng: np.random.Generator, plots: Plots) -> NDArray[np.float64]:
    """Sums of colour (3 rows), lower and upper edge and opacity along one side."""
    kinds = list(_FENCES)
    facts = np.array([[*colour, *rest] for colour, *rest in _FENCES.values()], np.float32)
    per_plot = facts[[kinds.index(name) for name in plots.fence]]
    leafy = plots.fence == "hedge"
    per_plot[leafy, :3] = palettes().leaf[plots.source[leafy]] * 0.85
    per_plot[rng.random(len(leafy)) < 0.3, 5] = 0.0
    rows = per_plot[plots.of_step].T.copy()
    rows[5, plots.into_step < 4] *= 0.3
    return _running(rows)


def paint_walls(canvas: Floats, view: View, walls: NDArray[np.float64]) -> Floats:
    """Paints the facades of `lay_walls`, and returns the depth (m) that each column ends at."""
    depth_m, facts = _meet_plane(view, WALL_M, walls)
    top_m = facts[11]
    solid_m: Floats = np.where(top_m > 2.0, depth_m, np.float32(FAR_M))
    if (top_m > 0.0).any():
        band = _cut_band(view, depth_m, facts, shown=top_m > 0.0, top_m=top_m, nearest_m=6.0)
        _paint_facades(canvas[:, band.rows, band.columns], view, band)
    return solid_m


def paint_fences(canvas: Floats, view: View, fences: NDArray[np.float64]) -> None:
    """Paints the fences of `lay_fences` into a frame in place."""
    depth_m, facts = _meet_plane(view, FENCE_M, fences)
    shown = facts[5] != 0.0
    if not shown.any():
        return
    band = _cut_band(view, depth_m, facts, shown=shown, top_m=facts[4], nearest_m=4.0)
    low_m, high_m, opacity = band.facts[3:]
    cover = share_covered((high_m - band.height_m) * band.per_m)
    cover *= share_covered((band.height_m - low_m) * band.per_m)
    cover *= opacity * (band.depth_m < FAR_M * 0.98)
    colour = np.ascontiguousarray(view.air.light(band.facts[:3].T, band.depth_m).T)[:, None, :]
    region = canvas[:, band.rows, band.columns]
    region += (colour - region) * cover


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Band:
    """The part of a frame, h by w, that may show a plane beside the road."""

    rows: slice
    columns: slice
    depth_m: Floats
    """[w]"""
    facts: Floats
    """[R, w]: mean of each tabulated row over the stretch that the column sees."""
    height_m: Floats
    """[h, w]: height above the ground of the plane at each pixel."""
    per_m: Floats
    """[w]: pixels a metre."""


def _running(rows: Floats) -> NDArray[np.float64]:
    """Running sums [R, M + 1] of rows [R, M]."""
    sums = np.zeros((rows.shape[0], rows.shape[1] + 1))
    np.cumsum(rows, axis=1, out=sums[:, 1:])
    return sums


def _meet_plane(view: View, offset_m: float, sums: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Per column, the depth [W] of the plane beside the road and the means [R, W] of its facts."""
    depth_m, right = _plane_depths(view, offset_m)
    return depth_m, _side_means(view, sums, depth_m, right)


def _cut_band(
    view: View,
    depth_m: Floats,
    facts: Floats,
    *,
    shown: NDArray[np.bool_],
    top_m: Floats,
    nearest_m: float,
) -> _Band:
    """The rows and columns around what is shown of a plane, never nearer than `nearest_m`."""
    where = np.flatnonzero(shown)
    columns = slice(int(where[0]), int(where[-1]) + 1)
    depth_m = depth_m[columns]
    upper = float(((EYE_M - top_m[columns]) / depth_m).min())
    down, lower, tilt = view.down[:, 0], EYE_M / nearest_m, abs(view.down[0, 0] - view.down[0, -1])
    first = int(np.searchsorted(down + tilt, upper - 0.02))
    last = int(np.searchsorted(down - tilt, lower + 0.02)) + 1
    rows = slice(min(max(first, 0), len(down) - 1), min(last, len(down)))
    return _Band(
        rows=rows,
        columns=columns,
        depth_m=depth_m,
        facts=facts[:, columns],
        height_m=np.float32(EYE_M) - view.down[rows, columns] * depth_m,
        per_m=1.0 / (np.float32(view.camera.y_step) * depth_m),
    )


def _paint_facades(region: Floats, view: View, band: _Band) -> None:
    height_m, depth_m, per_m = band.height_m, band.depth_m, band.per_m
    window, eave_m, top_m, storey_m = *band.facts[9:12], np.maximum(band.facts[12], 2.0)
    cover = share_covered((top_m - height_m) * per_m)
    cover *= share_covered(height_m * per_m) * (depth_m < FAR_M * 0.98)
    roof = share_covered((height_m - eave_m) * per_m)
    shop = share_covered((np.float32(3.0) - height_m) * per_m)
    pane = share_on(height_m / storey_m + np.float32(0.05), 1.0 / (per_m * storey_m))
    pane *= window * (1.0 - roof) * (1.0 - shop)
    seen = view.air.light(band.facts[:9].reshape(3, 3, -1).transpose(0, 2, 1), depth_m)
    wall, roofs, shops = np.ascontiguousarray(seen.transpose(0, 2, 1))[:, :, None, :]
    paint = (roofs - wall) * roof
    paint += (shops - wall) * shop
    paint += (_glass(view, depth_m)[:, None, :] - wall) * pane
    paint += wall
    paint -= region
    paint *= cover
    region += paint


def _glass(view: View, depth_m: Floats) -> Floats:
    """Colour of windows [3, w]: dark by day, lit at night."""
    night = view.weather.sky in ("night", "dusk")
    colour = np.array([1.0, 0.8, 0.42] if night else [0.20, 0.25, 0.31], np.float32)
    if night:
        seen = view.air.veil(colour * np.float32(0.85), depth_m)
    else:
        seen = view.air.light(np.broadcast_to(colour, (len(depth_m), 3)), depth_m)
    return np.ascontiguousarray(seen.T)


def _plane_depths(view: View, offset_m: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Depth of the nearer of two planes beside a bent road per column, and whether it is the right.

    Where x = (D - x0) / Z + bend * Z / 2, the depth is a root of a quadratic.
    """
    pose, x_slope = view.pose, view.camera.x_slope + np.float32(view.pose.yaw)
    depths = []
    for sign in (-1.0, 1.0):
        gap_m = max(offset_m - sign * pose.lateral_m, 0.5)
        outward, bend = x_slope * sign, pose.bend_per_m * sign
        inside = outward * outward - np.float32(2.0 * bend * gap_m)
        root = np.sqrt(np.maximum(inside, 0.0)) + outward
        hit = (inside >= 0.0) & (root > 2.0 * gap_m / FAR_M)
        depths.append(np.where(hit, 2.0 * gap_m / np.maximum(root, 1e-4), FAR_M).astype(np.float32))
    right = depths[1] < depths[0]
    return np.where(right, depths[1], depths[0]), right


def _side_means(
    view: View, sums: NDArray[np.float64], depth_m: Floats, right: NDArray[np.bool_]
) -> Floats:
    """Mean of each tabulated row [R, W] over the stretch of roadside that each column sees."""
    count, along_m = sums.shape[1] // 2, view.pose.along_m
    half_m = 0.5 * depth_m * depth_m * np.float32(view.camera.x_step / WALL_M)
    low = np.clip((along_m + depth_m - half_m) / STEP_M, 0, count - 2).astype(np.intp)
    high = np.clip((along_m + depth_m + half_m) / STEP_M + 0.5, 1, count - 1).astype(np.intp)
    np.maximum(high, low + 1, out=high)
    side = right * count
    total = sums.take(high + side, axis=1) - sums.take(low + side, axis=1)
    return (total / (high - low)).astype(np.float32)
