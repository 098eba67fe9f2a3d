"""Where a drive goes: the scenes that follow one another along its road, and its pace."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

STEP_M = 0.25  # resolution of everything tabulated along the road
VIEW_M = 260.0  # the road is laid out this far beyond the end of a drive


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A kind of surroundings: its Places group and what stands in it."""

    group: int
    speed_m_s: float
    built: float
    """Share of the roadside with a facade."""
    storeys: float
    """Storeys as a share of the city's own count; at least one is built."""
    trees: float
    fence: str
    """One of none, rail, hedge, balustrade and mesh."""
    paved: bool
    gantries: float
    parked: float
    water: bool = False


def _scene(text: str) -> Scene:
    group, speed_m_s, built, storeys, trees, fence, paved, gantries, parked, water = text.split()
    return Scene(
        group=int(group),
        speed_m_s=float(speed_m_s),
        built=float(built),
        storeys=float(storeys),
        trees=float(trees),
        fence=fence,
        paved=paved == "yes",
        gantries=float(gantries),
        parked=float(parked),
        water=water == "yes",
    )


SCENES: dict[str, Scene] = {
    # group, speed m/s, built, storeys, trees, fence, paved, gantries, parked, water
    "street": _scene("15 10 0.92 1.0 0.35 none yes 0.25 0.5 no"),
    "old town": _scene("11 9 0.85 0.7 0.4 balustrade yes 0.1 0.2 no"),
    "residential": _scene("14 10 0.7 0.35 0.8 hedge no 0.1 0.4 no"),
    "highway": _scene("10 21 0.12 0.8 0.4 rail no 0.8 0.0 no"),
    "park": _scene("12 11 0.0 0.0 1.0 balustrade no 0.15 0.15 no"),
    "waterfront": _scene("6 12 0.6 1.0 0.6 balustrade yes 0.2 0.15 yes"),
    "industrial": _scene("13 12 0.6 0.5 0.3 mesh no 0.3 0.25 no"),
    "forest": _scene("8 16 0.0 0.0 1.6 none no 0.2 0.0 no"),
    "hills": _scene("7 17 0.06 0.3 0.6 rail no 0.3 0.0 no"),
}
"""Surroundings by name; groups are 0-based, so 15 is the sixteenth."""


SCENE_SHARES = (0.24, 0.08, 0.16, 0.14, 0.08, 0.1, 0.08, 0.06, 0.06)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Route:
    """The way a drive goes: scenes along the road and the distance covered by each moment."""

    starts_m: NDArray[np.float64]
    """Where each scene begins, from 0 upwards; the last one reaches beyond the view."""
    scenes: tuple[str, ...]
    times_s: NDArray[np.float64]
    distances_m: NDArray[np.float64]


@lru_cache(maxsize=16)
def plan_route(route_id: str, duration_s: float) -> Route:
    """Scenes of 80 to 250 m one after another, and the speed profile through them.

    Args:
        route_id: Hexadecimal; all that the route depends on.
        duration_s: Length of the drive.
    """
    rng = np.random.default_rng([int(route_id, 16), 2])
    names = tuple(SCENES)
    count = 32  # enough for a minute on the highway and the view beyond
    picks = rng.choice(len(names), size=count, p=SCENE_SHARES)
    repeats = np.flatnonzero(picks[1:] == picks[:-1]) + 1
    picks[repeats] = (picks[repeats] + rng.integers(1, len(names), len(repeats))) % len(names)
    starts_m = np.concatenate([[0.0], np.cumsum(rng.uniform(80.0, 250.0, count))])[:count]
    speeds_m_s = np.array([SCENES[names[pick]].speed_m_s for pick in picks])
    times_s = np.arange(0.0, duration_s + 0.05, 0.1)
    pace_m_s = _speed_profile(times_s, starts_m, speeds_m_s, rng)
    distances_m = np.concatenate([[0.0], np.cumsum(0.05 * (pace_m_s[1:] + pace_m_s[:-1]))])
    last = int(np.searchsorted(starts_m, distances_m[-1] + VIEW_M)) + 1
    return Route(
        starts_m=starts_m[:last],
        scenes=tuple(names[pick] for pick in picks[:last]),
        times_s=times_s,
        distances_m=distances_m,
    )


def group_at(route: Route, time_s: float) -> int:
    """Index into `world.SCENE_GROUPS` of the surroundings at a moment."""
    along_m = np.interp(time_s, route.times_s, route.distances_m)
    position = int(np.searchsorted(route.starts_m, along_m, side="right")) - 1
    return SCENES[route.scenes[position]].group


def tabulate_scenes(route: Route) -> NDArray[np.intp]:
    """Index into `SCENES` of every step of STEP_M, to the end of what can be seen."""
    names = list(SCENES)
    steps = int((route.distances_m[-1] + VIEW_M) / STEP_M)
    segment = np.searchsorted(route.starts_m, np.arange(steps) * STEP_M, side="right") - 1
    return np.array([names.index(name) for name in route.scenes])[segment]


def _speed_profile(
    times_s: NDArray[np.float64],
    starts_m: NDArray[np.float64],
    speeds_m_s: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Speed at each time, [0, 25] m/s: the pace of each scene, a slow wander and short stops."""
    lengths_m = np.append(np.diff(starts_m), 250.0)
    reached_s = np.concatenate([[0.0], np.cumsum(lengths_m / speeds_m_s)])[:-1]
    pace = speeds_m_s[np.searchsorted(reached_s, times_s, side="right") - 1]
    width = 25  # 2.5 s of speeding up or slowing down between scenes
    padded = np.pad(pace, (width // 2, width - 1 - width // 2), mode="edge")
    pace = np.convolve(padded, np.full(width, 1.0 / width), mode="valid")
    phases = rng.uniform(0.0, 2.0 * np.pi, 3)
    for period_s, phase in zip((7.0, 13.0, 29.0), phases, strict=True):
        pace = pace * (1.0 + 0.08 * np.sin(2.0 * np.pi * times_s / period_s + phase))
    half_s = 0.5 * times_s[-1]
    for number in np.flatnonzero(rng.random(2) < 0.5):  # at most one stop in each half of a drive
        stop_s = half_s * number + rng.uniform(5.0, half_s - 5.0)
        hold_s = rng.uniform(0.3, 1.4)
        away_s = np.maximum(np.abs(times_s - stop_s) - 0.5 * hold_s, 0.0)
        pace = pace * np.clip(away_s / 3.0, 0.0, 1.0)  # three seconds of braking and of starting
    return np.clip(pace, 0.0, 25.0)
