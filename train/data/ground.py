"""The ground: the road with its country's markings and kerbs, and the verges beside it.

Its colour is tabulated across the road in cross-sections, of which a drive shows a few by turns.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from train.data.areas import Floats
from train.data.looks import PAINTS, CountryLook, city_looks, country_look, palettes
from train.data.route import SCENES, STEP_M
from train.data.view import BEAM_M, EYE_M, FAR_M, View, share_covered, share_on

BIN_M = 0.04  # resolution of a cross-section
HALF_SECTION_M = 12.0
BINS = int(2.0 * HALF_SECTION_M / BIN_M)
DASH_M = 5.0  # period of dashes and of kerb paint


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ground:
    """The cross-sections of one drive, and where it has which."""

    sums: Floats
    """[kinds * (BINS + 1), 8]: sums across the road of the colour on and off a dash, and two spare
    columns that make a row 32 bytes, which numpy fetches twice as fast."""
    kind: NDArray[np.intp]
    """[M]: which cross-section each step of the road has."""


def lay_ground(
    rng: np.random.Generator, city_id: int, scene: NDArray[np.intp], water_side: int
) -> Ground:
    """Draws the cross-sections of a drive and which of them each step has.

    A kind is paved (1), own markings (2), own verge (4), waterside (8), added up.
    """
    kinds = list(SCENES.values())
    paved = np.array([kind.paved for kind in kinds])[scene]
    water = np.array([kind.water for kind in kinds])[scene]
    zones = rng.integers(80, 180, len(scene) // 80 + 1)
    zone = np.repeat(np.arange(len(zones)), zones)[: len(scene)]
    marked = (rng.random(len(zones)) < 0.55)[zone]
    grown = (rng.random(len(zones)) < 0.55)[zone]
    kind = (paved * 1 + marked * 2 + grown * 4 + water * 8).astype(np.intp)
    tone = float(rng.choice((0.85, 0.93, 1.0, 1.08)))  # few, so that sections are drawn once
    used = np.unique(kind)
    sums = [_sum_section(city_id, number, water_side, tone) for number in used.tolist()]
    return Ground(sums=np.concatenate(sums), kind=np.searchsorted(used, kind))


def paint_ground(canvas: Floats, view: View, ground: Ground) -> None:
    """Paints all that lies below the horizon into a frame in place."""
    pose, camera = view.pose, view.camera
    top = max(int(np.searchsorted(view.down.max(axis=1), 0.25 * camera.y_step)), 0)
    down = view.down[top:]
    if down.size == 0:
        return
    depth_m = np.minimum(np.float32(EYE_M) / np.maximum(down, np.float32(0.003)), np.float32(FAR_M))
    bent = camera.x_slope + np.float32(pose.yaw) - np.float32(0.5 * pose.bend_per_m) * depth_m
    across_m = bent * depth_m + np.float32(pose.lateral_m)
    along_m = depth_m + np.float32(pose.along_m)
    foot_m = depth_m * depth_m * np.float32(camera.y_step / EYE_M / DASH_M)
    dash = share_on(along_m * np.float32(1.0 / DASH_M), foot_m)
    colours = _section_colours(ground, across_m, along_m, depth_m * np.float32(camera.x_step))
    paint = colours[:3] - colours[3:]
    paint *= dash
    paint += colours[3:]
    _light(paint, view, depth_m)
    mixed = int(np.searchsorted(down.min(axis=1), camera.y_step))  # rows the horizon runs through
    region = canvas[:, top : top + mixed]
    cover = share_covered(down[:mixed] / np.float32(camera.y_step))
    region += (paint[:, :mixed] - region) * cover
    canvas[:, top + mixed :] = paint[:, mixed:]


def _light(paint: Floats, view: View, depth_m: Floats) -> None:
    """Turns the colours [3, h, w] of the ground into what is seen of them, in place."""
    air, rain = view.air, np.float32(view.weather.rain)
    haze = air.haze[:, None, None]
    if rain > 0.0:  # a wet road mirrors the sky, more so far away
        mirror = np.float32(0.45) * rain * np.clip(depth_m * np.float32(0.025), 0.0, 1.0)
        paint += (haze - paint) * (mirror + np.float32(0.08))
    paint *= air.ambient[:, None, None]
    if air.headlight > 0.0:
        beam = np.exp(depth_m * np.float32(-1.0 / BEAM_M)) * (air.headlight / air.ambient.mean())
        paint *= np.float32(1.0) + beam
    paint -= haze
    paint *= air.clearness(depth_m)
    paint += haze


def _section_colours(ground: Ground, across_m: Floats, along_m: Floats, foot_m: Floats) -> Floats:
    """Mean colours on and off a dash, [6, h, w], over each pixel's width of road."""
    centre = (across_m + np.float32(HALF_SECTION_M)) * np.float32(1.0 / BIN_M)
    half = foot_m * np.float32(0.5 / BIN_M)
    low = np.clip(centre - half, 0.0, np.float32(BINS - 1)).astype(np.intp)
    high = np.clip(centre + half + 0.5, 1.0, np.float32(BINS)).astype(np.intp)
    np.maximum(high, low + 1, out=high)
    step = np.minimum((along_m * np.float32(1.0 / STEP_M)).astype(np.intp), len(ground.kind) - 1)
    start = ground.kind.take(step) * (BINS + 1)
    total = ground.sums.take(start + high, axis=0) - ground.sums.take(start + low, axis=0)
    colours = np.ascontiguousarray(total.transpose(2, 0, 1)[:6])
    colours *= np.float32(1.0) / (high - low).astype(np.float32)
    return colours


@lru_cache(maxsize=512)
def _sum_section(city_id: int, number: int, water_side: int, tone: float) -> Floats:
    """Running sums [B + 1, 8] of a cross-section; the last two columns are spare."""
    profile = _draw_section(city_id, number, water_side, tone)
    sums = np.zeros((len(profile) + 1, 8), np.float32)
    np.cumsum(profile, axis=0, out=sums[1:, :6])
    return sums


def _draw_section(city_id: int, number: int, water_side: int, tone: float) -> Floats:
    """Colours [B, 6] across the road, on and off a dash, from far left to far right."""
    city, country = city_looks()[city_id], country_look(city_id)
    paved, marked, grown, water = (bool(number & bit) for bit in (1, 2, 4, 8))
    x_m = (np.arange(BINS) + 0.5) * BIN_M - HALF_SECTION_M
    away_m = np.abs(x_m)
    verge = np.asarray(city.verge if grown else palettes().verge[-1])
    colours = np.broadcast_to(verge, (len(x_m), 3)).copy()
    if paved:
        colours[:] = (0.58, 0.57, 0.55)
    if water:
        colours[(x_m > 6.2) if water_side else (x_m < -6.2)] = (
            city.water if grown else (0.32, 0.4, 0.44)
        )
    colours[away_m < 4.05] = np.array(PAINTS["grey"])
    colours[away_m < 3.75] = np.array((0.34, 0.34, 0.35)) * tone
    on, off = colours.copy(), colours
    if marked:
        _mark_road(country, away_m, on, off)
    elif paved:
        on[away_m < 0.08] = (0.66, 0.66, 0.65)
    return np.concatenate([on, off], axis=1).astype(np.float32)


def _mark_road(
    country: CountryLook,
    away_m: NDArray[np.float64],
    on: NDArray[np.float64],
    off: NDArray[np.float64],
) -> None:
    """Paints the country's lines and kerbs into both cross-sections, in place."""
    line = {"double": (away_m > 0.12) & (away_m < 0.34)}.get(country.centre, away_m < 0.14)
    on[line] = country.centre_colour
    if country.centre != "dashed":
        off[line] = country.centre_colour
    if country.edge_colour is not None:
        edge = (away_m > 3.25) & (away_m < 3.5)
        on[edge] = off[edge] = country.edge_colour
    kerb = (away_m >= 3.75) & (away_m < 4.05)
    on[kerb], off[kerb] = country.kerb
