"""Everything along one drive, laid out once and painted from any pose on the way.

Every edge is anti-aliased by the share of the pixel it covers, so that a small frame looks like a
large one averaged down. M is the number of steps of STEP_M along the road; colours are in [0, 1].
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from train.data.areas import Floats
from train.data.ground import Ground, lay_ground, paint_ground
from train.data.horizon import draw_panorama, paint_panorama, paint_sky
from train.data.plots import draw_plots, lay_fences, lay_walls, paint_fences, paint_walls
from train.data.route import STEP_M, plan_route, tabulate_scenes
from train.data.things import (
    Things,
    join_things,
    paint_things,
    place_gantries,
    place_posts,
    place_trees,
)
from train.data.traffic import Traffic, move_things, place_parked, plan_traffic
from train.data.view import HALF_HEIGHT_SLOPE, SEEN_M, Camera, Pose, View, open_view
from train.data.world import Drive, Weather


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scenery:
    """What stands along one drive, tabulated as running sums for exact averages."""

    walls: NDArray[np.float64]
    """[13, 2 * (M + 1)]: sums of `lay_walls` along the left, then the right side."""
    fences: NDArray[np.float64]
    """[6, 2 * (M + 1)]: sums of `lay_fences`, likewise."""
    ground: Ground
    haze_m: Floats
    """[M]: how far one sees."""
    things: Things
    traffic: Traffic
    bridges_m: Floats
    """Where bridges cross the road."""
    panorama: Floats


@lru_cache(maxsize=4)
def lay_scenery(drive: Drive) -> Scenery:
    """Everything along a drive, a pure function of it: the order of the draws is part of it."""
    rng = np.random.default_rng([drive.seed, 3])
    city_id = drive.city_id
    scene = tabulate_scenes(plan_route(drive.route_id, drive.duration_s))
    water_side = int(rng.integers(0, 2))
    walls, fences, things = [], [], []
    for number, side in enumerate((-1.0, 1.0)):
        plots = draw_plots(rng, city_id, scene)
        walls.append(lay_walls(rng, plots, dry=number != water_side))
        fences.append(lay_fences(rng, plots))
        things += [place_trees(rng, city_id, plots, side, share) for share in (0.2, 0.7)]
        things.append(place_posts(rng, city_id, plots, side))
        things.append(place_parked(rng, city_id, plots, side))
    things.append(place_gantries(rng, city_id, scene))
    ground = lay_ground(rng, city_id, scene, water_side)
    traffic, vehicles = plan_traffic(drive)
    bridges_m = np.arange(90.0, len(scene) * STEP_M, 210.0)
    bridges_m += rng.uniform(-80.0, 80.0, len(bridges_m))
    return Scenery(
        walls=np.concatenate(walls, axis=1),
        fences=np.concatenate(fences, axis=1),
        ground=ground,
        haze_m=_draw_haze(rng, drive.weather, len(scene)),
        things=join_things([*things, vehicles]),  # `move_things` finds the traffic in the last rows
        traffic=traffic,
        bridges_m=bridges_m[rng.random(len(bridges_m)) < 0.4].astype(np.float32),
        panorama=draw_panorama(city_id),
    )


def paint_scenery(drive: Drive, camera: Camera, pose: Pose) -> tuple[Floats, View]:
    """The world seen from one pose, [3, H, W] in about [0, 1] and before any lens, and the view."""
    scenery = lay_scenery(drive)
    here = min(max(int(pose.along_m / STEP_M), 0), len(scenery.haze_m) - 1)
    view = open_view(drive, camera, pose, float(scenery.haze_m[here]))
    along_m = move_things(scenery.things, scenery.traffic, pose)
    canvas = paint_sky(view)
    paint_panorama(canvas, view, scenery.panorama, drive.city_id)
    paint_ground(canvas, view, scenery.ground)
    wall_depth_m = paint_walls(canvas, view, scenery.walls)
    paint_fences(canvas, view, scenery.fences)
    paint_things(canvas, view, scenery.things, along_m, wall_depth_m)
    _paint_bridges(canvas, view, scenery.bridges_m)
    return canvas, view


def _draw_haze(rng: np.random.Generator, weather: Weather, steps: int) -> Floats:
    """Visibility along the road: the weather's own, with a short bank of fog here and there."""
    along_m = np.arange(steps) * STEP_M
    clear = np.ones(steps)
    for centre_m in rng.uniform(0.0, steps * STEP_M, max(int(steps * STEP_M / 300.0), 1)):
        bank = np.exp(-(((along_m - centre_m) / rng.uniform(8.0, 16.0)) ** 2))
        clear = np.minimum(clear, 1.0 - bank * rng.uniform(0.3, 0.95))
    return np.maximum(weather.visibility_m * clear, 9.0).astype(np.float32)


def _paint_bridges(canvas: Floats, view: View, bridges_m: Floats) -> None:
    """A bridge over the road: a dark band on the way to it, near darkness beneath it."""
    pose, camera = view.pose, view.camera
    for bridge_m in bridges_m.tolist():
        ahead_m = bridge_m - pose.along_m
        if 1.0 < ahead_m < SEEN_M:
            level = HALF_HEIGHT_SLOPE - pose.pitch
            top_px = (level - 6.2 / ahead_m) / camera.y_step
            bottom_px = (level - 3.6 / ahead_m) / camera.y_step
            rows = np.arange(camera.height_px, dtype=np.float32)
            cover = np.clip(bottom_px - rows, 0.0, 1.0) * np.clip(rows + 1.0 - top_px, 0.0, 1.0)
            cover *= min((SEEN_M - ahead_m) / 20.0, 1.0)
            canvas += (np.float32(0.22) - canvas) * cover[:, None].astype(np.float32)
        elif -16.0 < ahead_m <= 1.0:
            depth = min(1.0 - ahead_m, ahead_m + 16.0, 2.0) / 2.0
            canvas *= np.float32(1.0 - 0.86 * depth)
