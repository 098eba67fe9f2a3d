"""The rendered world and the drives through it: its places, its kinds of scene, its weather.

All is invented except the names, codes and positions of the cities (GeoNames, CC BY 4.0).
"""

import csv
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from train.data.route import group_at, plan_route

Split = Literal["train", "val", "test"]
Sky = Literal["clear", "overcast", "dusk", "night", "fog", "rain"]
Rgb = tuple[float, float, float]

DRIVE_S = 60.0
SPLITS: tuple[Split, ...] = ("train", "val", "test")


SCENE_GROUPS: tuple[str, ...] = (
    "shopping and dining",
    "workplace",
    "home or hotel",
    "transportation (vehicle interiors, stations)",
    "sports and leisure",
    "cultural",
    "water, ice, snow",
    "mountains, hills, desert, sky",
    "forest, field, jungle",
    "man-made elements",
    "transportation (roads, parking, bridges, boats, airports)",
    "cultural or historical building/place",
    "sports fields, parks, leisure spaces",
    "industrial and construction",
    "houses, cabins, gardens, farms",
    "commercial buildings, shops, markets, cities, towns",
)
"""Level 2 of the Places365 scene hierarchy, in its own order; a scene is an index into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPlace:
    """A real city with its codes and position; only its look is invented."""

    city: str
    state: str
    country: str
    continent: str
    country_code: str
    """ISO 3166-1 alpha-2."""
    state_code: str
    """ISO 3166-2."""
    continent_code: str
    """One of AF AS EU NA SA OC."""
    lat_deg: float
    lon_deg: float
    geonameid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """Light and air of one drive, drawn from continuous ranges, so no two drives share one."""

    sky: Sky
    ambient: Rgb
    """Colour of the light that falls on everything; 1 is white daylight."""
    headlight: float
    """Strength of the car's own light on what is near, 0 by day."""
    zenith: Rgb
    haze: Rgb
    """Colour of the sky at the horizon, which distance fades to."""
    visibility_m: float
    rain: float
    """Density of streaks and wetness of the road, [0, 1]."""
    cloud: float
    sun_deg: float
    exposure: float
    noise: float
    """Standard deviation of the sensor noise of a 640-pixel frame, in steps of 8 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """One minute behind one windscreen: every pixel follows from these values."""

    split: Split
    index: int
    city_id: int
    seed: int
    duration_s: float
    route_id: str
    weather: Weather
    clock_s: int
    """Seconds since 2015-01-01 shown in the burnt-in line at time 0; says nothing of the place."""


@cache
def places() -> tuple[RenderedPlace, ...]:
    """The rendered cities sorted by name; the index is the city id."""
    return tuple(
        RenderedPlace(
            city=row["city"],
            state=row["state"],
            country=row["country"],
            continent=row["continent"],
            country_code=row["country_code"],
            state_code=row["state_code"],
            continent_code=row["continent_code"],
            lat_deg=float(row["lat_deg"]),
            lon_deg=float(row["lon_deg"]),
            geonameid=int(row["geonameid"]),
        )
        for row in read_place_rows()
    )


def draw_drive(split: Split, index: int) -> Drive:
    """Drive number `index` of a split; any index from 0, balanced over cities.

    Every block of `len(places())` consecutive indices holds each city once, in shuffled order.
    Seeds of different splits come from disjoint ranges, and route and weather follow from the seed.
    """
    if split not in SPLITS:
        raise ValueError(f"cannot draw a drive of split {split!r}: choose one of {SPLITS}")
    if index < 0:
        raise ValueError(f"cannot draw drive {index} of {split}: the index starts at 0")
    block, position = divmod(index, len(places()))
    order = np.random.default_rng(_hash_seed(split, "cities", block)).permutation(len(places()))
    seed = _hash_seed(split, "drive", index)
    rng = np.random.default_rng([seed, 1])
    return Drive(
        split=split,
        index=index,
        city_id=int(order[position]),
        seed=seed,
        duration_s=DRIVE_S,
        route_id=f"{_hash_seed(split, 'route', index):016x}",
        weather=_draw_weather(rng),
        clock_s=int(rng.integers(0, 10 * 365 * 86400)),
    )


def scene_group(drive: Drive, time_s: float) -> int:
    """Index (0..15) into `SCENE_GROUPS` of the surroundings at a moment of the drive."""
    return group_at(plan_route(drive.route_id, drive.duration_s), time_s)


@cache
def read_place_rows() -> tuple[dict[str, str], ...]:
    """The table of cities as it is written, sorted by name."""
    path = Path(__file__).with_name("rendered_places.csv")
    with path.open(encoding="utf-8", newline="") as lines:
        return tuple(sorted(csv.DictReader(lines), key=lambda row: row["city"]))


def _draw_weather(rng: np.random.Generator) -> Weather:
    skies: tuple[Sky, ...] = ("clear", "overcast", "dusk", "night", "fog", "rain")
    sky = skies[int(rng.choice(6, p=(0.32, 0.22, 0.13, 0.11, 0.08, 0.14)))]
    ambient, zenith, haze, visibility_m, headlight = {
        "clear": ((1.0, 0.98, 0.94), (0.32, 0.55, 0.86), (0.74, 0.83, 0.92), 420.0, 0.0),
        "overcast": ((0.84, 0.86, 0.88), (0.62, 0.66, 0.70), (0.78, 0.80, 0.81), 300.0, 0.0),
        "dusk": ((0.82, 0.66, 0.58), (0.28, 0.30, 0.52), (0.93, 0.62, 0.42), 300.0, 0.12),
        "night": ((0.38, 0.40, 0.48), (0.03, 0.04, 0.09), (0.13, 0.13, 0.19), 260.0, 0.45),
        "fog": ((0.82, 0.84, 0.85), (0.74, 0.76, 0.77), (0.80, 0.81, 0.82), 70.0, 0.0),
        "rain": ((0.66, 0.69, 0.73), (0.46, 0.50, 0.54), (0.62, 0.65, 0.68), 170.0, 0.06),
    }[sky]
    tint = rng.uniform(-0.05, 0.05, 3)
    return Weather(
        sky=sky,
        ambient=_tinted(ambient, tint),
        headlight=headlight * rng.uniform(0.7, 1.3),
        zenith=_tinted(zenith, tint + rng.uniform(-0.04, 0.04, 3)),
        haze=_tinted(haze, tint),
        visibility_m=visibility_m * rng.uniform(0.75, 1.35),
        rain=float(rng.uniform(0.35, 1.0)) if sky == "rain" else 0.0,
        cloud=float(rng.uniform(0.0, 0.9)),
        sun_deg=float(rng.uniform(0.0, 360.0)),
        exposure=float(rng.uniform(0.88, 1.12)),
        noise=float(rng.uniform(1.0, 4.0)),
    )


def _tinted(colour: Rgb, tint: NDArray[np.float64]) -> Rgb:
    red, green, blue = np.clip(np.asarray(colour) * (1.0 + tint), 0.0, 1.0).tolist()
    return red, green, blue


def _hash_seed(split: Split, purpose: str, index: int) -> int:
    """62 bits of which the top two name the split, so ranges never meet; no use of `hash()`."""
    digest = hashlib.blake2b(f"{split}/{purpose}/{index}".encode(), digest_size=8).digest()
    return (SPLITS.index(split) << 60) | (int.from_bytes(digest, "big") >> 4)
