"""The upright flat things beside and over the road: trees, lamps, flags, signs and gantries."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from train.data.areas import Floats, add_alpha, paint_box
from train.data.looks import PAINTS, country_look, draw_sources, palettes
from train.data.plots import Plots
from train.data.route import SCENES, STEP_M
from train.data.sprites import SPRITES, sprite_sums
from train.data.view import EYE_M, FAR_M, HALF_HEIGHT_SLOPE, HALF_WIDTH_SLOPE, SEEN_M, View


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Things:
    """Upright flat things along the road, one row each."""

    along_m: Floats
    """Place at time 0."""
    speed_m_s: Floats
    """Pace against the drive: 0 for what stands, positive for what comes towards the camera."""
    lateral_m: Floats
    width_m: Floats
    height_m: Floats
    sprite: NDArray[np.intp]
    colours: Floats
    """[N, 3, 3]: the RGB of each sprite's three materials."""


def join_things(groups: list[Things]) -> Things:
    """The rows of all groups, one after another."""
    names = [field.name for field in fields(Things)]
    return Things(
        **{name: np.concatenate([getattr(group, name) for group in groups]) for name in names}
    )


def raise_things(
    *,
    along_m: NDArray[np.floating],
    lateral_m: ArrayLike,
    width_m: ArrayLike,
    height_m: ArrayLike,
    sprite: ArrayLike,
    colours: Floats,
    speed_m_s: float = 0.0,
    present: NDArray[np.bool_] | None = None,
) -> Things:
    """Things from one value a row or one for all, without the rows that are not present."""
    kept = np.ones(len(along_m), bool) if present is None else present

    def column(values: ArrayLike) -> Floats:
        return np.broadcast_to(np.asarray(values, np.float32), kept.shape)[kept]

    return Things(
        along_m=column(along_m),
        speed_m_s=column(speed_m_s),
        lateral_m=column(lateral_m),
        width_m=column(width_m),
        height_m=column(height_m),
        sprite=np.broadcast_to(np.asarray(sprite, np.intp), kept.shape)[kept],
        colours=colours[kept],
    )


def place_trees(
    rng: np.random.Generator, city_id: int, plots: Plots, side: float, share: float
) -> Things:
    """One row of trees along a side, at a share of each plot's length."""
    looks, count = palettes(), len(plots.source)
    present = rng.random(count) < np.minimum(plots.trees * 0.6, 0.95)
    source = draw_sources(rng, city_id, count)
    leaf = looks.leaf[source] * rng.uniform(0.9, 1.1, (count, 1))
    trunk = np.broadcast_to(np.array([0.34, 0.27, 0.21], np.float32), leaf.shape)
    sprite = looks.tree[source]
    tall = np.array([6.0, 8.5, 8.0, 7.5, 7.0, 2.6, 4.6, 1.2])[sprite] * rng.uniform(0.8, 1.2, count)
    slim = np.array([0.85, 0.6, 0.5, 0.26, 1.05, 1.15, 1.0, 1.4])[sprite]
    return raise_things(
        along_m=plots.start_m + share * plots.length_m,
        lateral_m=side * rng.uniform(5.4, 6.1, count),
        width_m=tall * slim,
        height_m=tall,
        sprite=sprite,
        colours=np.stack([leaf * 1.18, leaf * 0.78, trunk], axis=1).astype(np.float32),
        present=present,
    )


def place_posts(rng: np.random.Generator, city_id: int, plots: Plots, side: float) -> Things:
    """Signs of the country and flags of the city, or plain lamps and signs of nowhere."""
    looks, country, count = palettes(), country_look(city_id), len(plots.source)
    roll, own = rng.random(count), rng.random(count) < 0.6
    steel = np.array([0.5, 0.51, 0.53], np.float32)
    flags = looks.banner[draw_sources(rng, city_id, count)]
    flagged = (roll < 0.42) & (flags.max(axis=(1, 2)) != np.float32(0.6))
    is_sign = roll > 0.6
    blank = np.array([[0.75, 0.75, 0.73], [0.5, 0.52, 0.55]], np.float32)
    plates = np.where(
        own[:, None, None], np.array([country.sign_fill, country.sign_border], np.float32), blank
    )
    colours = np.empty((count, 3, 3), np.float32)
    colours[:, :2] = np.where(
        is_sign[:, None, None], plates, np.where(flagged[:, None, None], flags, steel)
    )
    colours[:, 2] = steel
    sign = np.where(own, SPRITES.index(country.sign), SPRITES.index("board"))
    post = np.where(flagged, SPRITES.index("banner"), SPRITES.index("lamp"))
    return raise_things(
        along_m=plots.start_m + 0.45 * plots.length_m,
        lateral_m=side * rng.uniform(4.7, 5.2, count),
        width_m=np.where(is_sign, 1.7, np.where(flagged, 2.2, 1.6)),
        height_m=np.where(is_sign, 3.4, 5.6),
        sprite=np.where(is_sign, sign, post),
        colours=colours,
        present=roll < 0.95,
    )


def place_gantries(rng: np.random.Generator, city_id: int, scene: NDArray[np.intp]) -> Things:
    """Signs over the road in the country's colours, or plain ones of nowhere."""
    along_m = np.arange(30.0, len(scene) * STEP_M, 55.0)
    along_m += rng.uniform(-15.0, 15.0, len(along_m))
    count = len(along_m)
    shares = np.array([kind.gantries for kind in SCENES.values()])
    cell = np.minimum((along_m / STEP_M).astype(np.intp), len(scene) - 1)
    own = rng.random(count) < 0.65
    guide, text = country_look(city_id).guide, PAINTS["white"]
    if max(guide) > 0.9:  # a light ground carries dark letters
        text = PAINTS["black"]
    blank = np.array([[0.3, 0.31, 0.33], [0.55, 0.55, 0.5]], np.float32)
    colours = np.empty((count, 3, 3), np.float32)
    colours[:, :2] = np.where(own[:, None, None], np.array([guide, text], np.float32), blank)
    colours[:, 2] = (0.52, 0.53, 0.55)
    return raise_things(
        along_m=along_m,
        lateral_m=0.0,
        width_m=10.6,
        height_m=7.4,
        sprite=SPRITES.index("gantry"),
        colours=colours,
        present=rng.random(count) < shares[scene[cell]],
    )


def paint_things(
    canvas: Floats, view: View, things: Things, along_m: Floats, wall_depth_m: Floats
) -> None:
    """Paints things from far to near, hidden where a bend puts a facade before them.

    Args:
        canvas: The frame, in place.
        view: Where it is seen from.
        things: All of a drive.
        along_m: Where each of them is at this moment.
        wall_depth_m: Depth of the facade in each column.
    """
    pose, camera = view.pose, view.camera
    ahead_m = along_m - np.float32(pose.along_m)
    pick = np.flatnonzero((ahead_m > 1.3) & (ahead_m < SEEN_M))
    pick = pick[np.argsort(-ahead_m[pick], kind="stable")]
    depth_m = ahead_m[pick]
    seen = view.air.light(things.colours[pick], np.repeat(depth_m[:, None], 3, axis=1))
    fade = np.clip((SEEN_M - depth_m) / 20.0, 0.0, 1.0) * np.clip((depth_m - 1.2) / 0.8, 0.0, 1.0)
    weights = add_alpha(seen) * fade[:, None, None].astype(np.float32)
    per_m = 1.0 / depth_m
    slope = (things.lateral_m[pick] - pose.lateral_m) * per_m + 0.5 * pose.bend_per_m * depth_m
    slope -= np.float32(pose.yaw)
    x_px = (slope + HALF_WIDTH_SLOPE) / camera.x_step
    half_px = 0.5 * things.width_m[pick] * per_m / camera.x_step
    level = -pose.pitch + pose.roll * slope + HALF_HEIGHT_SLOPE
    low_px = (level + EYE_M * per_m) / camera.y_step
    high_px = low_px - things.height_m[pick] * per_m / camera.y_step
    boxes = np.stack([x_px - half_px, x_px + half_px, high_px, low_px], axis=1).tolist()
    sprites, depths = things.sprite[pick].tolist(), depth_m.tolist()
    farthest_m = float(wall_depth_m.min()) if pose.bend_per_m else FAR_M
    for item, box in enumerate(boxes):
        hidden = wall_depth_m < depths[item] if depths[item] > farthest_m else None
        sums = sprite_sums(SPRITES[sprites[item]])
        paint_box(canvas, sums, box, weights[item], hidden=hidden)
