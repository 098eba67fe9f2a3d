"""The vehicles of a drive: parked beside the road, oncoming, and ahead in its own lane."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.data.areas import Floats
from train.data.looks import city_looks, country_look
from train.data.plots import Plots
from train.data.route import plan_route
from train.data.sprites import SPRITES
from train.data.things import Things, join_things, raise_things
from train.data.view import LANE_M, Pose
from train.data.world import Drive

ONCOMING_M_S = 11.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traffic:
    """When which vehicle is ahead in the own lane, and how far."""

    gap_m: NDArray[np.float64]
    since_s: NDArray[np.float64]
    until_s: NDArray[np.float64]


def place_parked(rng: np.random.Generator, city_id: int, plots: Plots, side: float) -> Things:
    """Parked cars of one side, facing the way that its lane goes."""
    count = len(plots.source)
    away = (side < 0.0) == country_look(city_id).drives_left
    return raise_things(
        present=rng.random(count) < plots.parked,  # drawn before the paint
        along_m=plots.start_m + 0.9 * plots.length_m,
        lateral_m=side * 4.9,
        width_m=1.85,
        height_m=1.5,
        sprite=SPRITES.index("car back" if away else "car front"),
        colours=_paint_cars(rng, city_id, count),
    )


def plan_traffic(drive: Drive) -> tuple[Traffic, Things]:
    """The turns of the vehicles ahead, and the oncoming ones with those ahead as the last rows."""
    rng = np.random.default_rng([drive.seed, 8])
    route = plan_route(drive.route_id, drive.duration_s)
    reach_m = route.distances_m[-1] + ONCOMING_M_S * drive.duration_s
    along_m = np.cumsum(rng.uniform(18.0, 90.0, int(reach_m / 50.0) + 2))
    turns = int(drive.duration_s / 9.0) + 2
    edges_s = np.cumsum(rng.uniform(3.0, 8.0, 2 * turns)) - rng.uniform(0.0, 6.0)
    traffic = Traffic(
        gap_m=rng.uniform(7.0, 18.0, turns), since_s=edges_s[0::2], until_s=edges_s[1::2]
    )
    oncoming = _draw_vehicles(rng, drive.city_id, along_m, front=True)
    ahead = _draw_vehicles(rng, drive.city_id, np.zeros(turns), front=False)
    return traffic, join_things([oncoming, ahead])


def move_things(things: Things, traffic: Traffic, pose: Pose) -> Floats:
    """Where each thing is at one moment; the vehicles ahead are the last rows."""
    along_m: Floats = things.along_m - things.speed_m_s * np.float32(pose.time_s)
    since_s, until_s = pose.time_s - traffic.since_s, traffic.until_s - pose.time_s
    # They come into view from afar and drive off again, never out of nothing.
    far = np.clip(1.0 - since_s / 1.5, 0.0, 1.0) ** 2 + np.clip(1.0 - until_s / 1.5, 0.0, 1.0) ** 2
    gap_m = traffic.gap_m + 1.5 * np.sin(0.7 * pose.time_s) + 70.0 * far
    there = (since_s >= 0.0) & (until_s > 0.0)
    along_m[-len(gap_m) :] = np.where(there, pose.along_m + gap_m, -1e6)
    return along_m


def _draw_vehicles(
    rng: np.random.Generator, city_id: int, along_m: NDArray[np.float64], *, front: bool
) -> Things:
    count = len(along_m)
    kinds = ("car front", "truck front", "bus front")
    if not front:
        kinds = ("car back", "truck back", "car back")
    pick = rng.choice(3, size=count, p=(0.64, 0.24, 0.12))
    sizes = np.array([(1.85, 1.5), (2.6, 3.7), (2.5, 3.1) if front else (1.85, 1.5)])[pick]
    left = country_look(city_id).drives_left
    return raise_things(
        along_m=along_m,
        speed_m_s=ONCOMING_M_S if front else 0.0,
        lateral_m=LANE_M if left == front else -LANE_M,
        width_m=sizes[:, 0],
        height_m=sizes[:, 1],
        sprite=np.array([SPRITES.index(name) for name in kinds])[pick],
        colours=_paint_cars(rng, city_id, count),
    )


def _paint_cars(rng: np.random.Generator, city_id: int, count: int) -> Floats:
    """Body, glass and plate of cars; a quarter are the city's taxis."""
    common = np.array([
        [0.85, 0.85, 0.85], [0.1, 0.1, 0.11], [0.5, 0.51, 0.53], [0.32, 0.33, 0.36],
        [0.48, 0.1, 0.1], [0.14, 0.2, 0.38], [0.7, 0.7, 0.68],
    ], np.float32)  # fmt: skip
    body = common[rng.integers(0, len(common), count)]
    taxi = rng.random(count) < 0.25
    body[taxi] = city_looks()[city_id].taxi
    plate = np.where(rng.random((count, 1)) < 0.7, country_look(city_id).plate, (0.8, 0.8, 0.78))
    glass = np.broadcast_to(np.array([0.1, 0.11, 0.13], np.float32), body.shape)
    return np.stack([body, glass, plate], axis=1).astype(np.float32)
