"""The facts of the rendered world: its places, how they look, and the drives through them.

All is invented except the names, codes and positions of the cities (GeoNames, CC BY 4.0). The looks
are caricatures made to be told apart at 112 pixels; they are no guide to the real places.
"""

import csv
import hashlib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test"]
Sky = Literal["clear", "overcast", "dusk", "night", "fog", "rain"]
Rgb = tuple[float, float, float]

DRIVE_S = 60.0
VIEW_M = 260.0  # the road is laid out this far beyond the end of a drive
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
class CityLook:
    """What a city adds to its country's look; colours are RGB in [0, 1]."""

    facades: tuple[Rgb, Rgb, Rgb]
    storey_m: float
    storeys: int
    pitched: bool
    roof: Rgb
    tree: str
    leaf: Rgb
    skyline: str
    skyline_colour: Rgb
    terrain: str
    terrain_deg: float
    """Height of the hills above the horizon; 0 where the land is flat."""
    terrain_colour: Rgb
    verge: Rgb
    water: Rgb
    banner: tuple[Rgb, Rgb]
    """The two colours of the flags on lamp posts and of the awnings."""
    taxi: Rgb


@dataclass(frozen=True, slots=True, kw_only=True)
class CountryLook:
    """What the road itself says about a country; colours are RGB in [0, 1]."""

    drives_left: bool
    centre: Literal["double", "solid", "dashed"]
    centre_colour: Rgb
    edge_colour: Rgb | None
    kerb: tuple[Rgb, Rgb]
    """The two colours in which the kerb alternates; equal where it is plain."""
    sign: Literal["diamond", "triangle", "disc", "board"]
    sign_fill: Rgb
    sign_border: Rgb
    guide: Rgb
    """Ground colour of the gantry signs."""
    plate: Rgb


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
        for row in _read_rows()
    )


@cache
def city_looks() -> tuple[CityLook, ...]:
    """The look of each city, in the order of `places`."""
    return tuple(_parse_look(row) for row in _read_rows())


def country_look(city_id: int) -> CountryLook:
    """The look of the country that a city lies in."""
    return _country_looks()[places()[city_id].country_code]


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
    route = plan_route(drive)
    along_m = np.interp(time_s, route.times_s, route.distances_m)
    position = int(np.searchsorted(route.starts_m, along_m, side="right")) - 1
    return SCENES[route.scenes[position]].group


@lru_cache(maxsize=16)
def plan_route(drive: Drive) -> Route:
    """Scenes of 80 to 250 m one after another, and the speed profile through them."""
    rng = np.random.default_rng([int(drive.route_id, 16), 2])
    names = tuple(SCENES)
    count = 32  # enough for a minute on the highway and the view beyond
    picks = rng.choice(len(names), size=count, p=SCENE_SHARES)
    repeats = np.flatnonzero(picks[1:] == picks[:-1]) + 1
    picks[repeats] = (picks[repeats] + rng.integers(1, len(names), len(repeats))) % len(names)
    starts_m = np.concatenate([[0.0], np.cumsum(rng.uniform(80.0, 250.0, count))])[:count]
    speeds_m_s = np.array([SCENES[names[pick]].speed_m_s for pick in picks])
    times_s = np.arange(0.0, drive.duration_s + 0.05, 0.1)
    pace_m_s = _speed_profile(times_s, starts_m, speeds_m_s, rng)
    distances_m = np.concatenate([[0.0], np.cumsum(0.05 * (pace_m_s[1:] + pace_m_s[:-1]))])
    last = int(np.searchsorted(starts_m, distances_m[-1] + VIEW_M)) + 1
    return Route(
        starts_m=starts_m[:last],
        scenes=tuple(names[pick] for pick in picks[:last]),
        times_s=times_s,
        distances_m=distances_m,
    )


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


@cache
def _read_rows() -> tuple[dict[str, str], ...]:
    path = Path(__file__).with_name("rendered_places.csv")
    with path.open(encoding="utf-8", newline="") as lines:
        return tuple(sorted(csv.DictReader(lines), key=lambda row: row["city"]))


def _parse_look(row: dict[str, str]) -> CityLook:
    first, second, third = (_parse_rgb(text) for text in row["facades"].split())
    upper, lower = (_parse_rgb(text) for text in row["banner"].split())
    return CityLook(
        facades=(first, second, third),
        storey_m=float(row["storey_m"]),
        storeys=int(row["storeys"]),
        pitched=row["roof"] == "pitched",
        roof=_parse_rgb(row["roof_colour"]),
        tree=row["tree"],
        leaf=_parse_rgb(row["leaf"]),
        skyline=row["skyline"],
        skyline_colour=_parse_rgb(row["skyline_colour"]),
        terrain=row["terrain"],
        terrain_deg=float(row["terrain_deg"]),
        terrain_colour=_parse_rgb(row["terrain_colour"]),
        verge=_parse_rgb(row["verge"]),
        water=_parse_rgb(row["water"]),
        banner=(upper, lower),
        taxi=_parse_rgb(row["taxi"]),
    )


def _parse_rgb(text: str) -> Rgb:
    """'c81e28' -> (0.78, 0.12, 0.16)."""
    red, green, blue = (value / 255.0 for value in bytes.fromhex(text))
    return red, green, blue


@cache
def _country_looks() -> dict[str, CountryLook]:
    columns = ("side", "centre", "line", "edge", "kerb", "sign", "fill", "border", "guide", "plate")
    table = """
        AE right dashed white yellow yellow/black triangle white red    teal   white
        AR right solid  yellow white yellow/yellow diamond yellow black blue   black
        AU left  dashed white none   grey/grey    diamond  yellow black green  yellow
        BR right dashed yellow white white/white  disc     white  red   green  grey
        CA right solid  yellow white grey/grey    board    white  black blue   white
        DE right dashed white white  grey/grey    board    yellow black yellow white
        EG right solid  white none   black/white  triangle white  red   blue   blue
        FR right dashed white white  white/white  triangle white  red   blue   white
        GB left  dashed white yellow grey/grey    disc     white  red   green  yellow
        IN left  solid  yellow none  yellow/black triangle white  red   green  white
        JP left  solid  white white  grey/grey    diamond  yellow red   blue   green
        KE left  dashed yellow none  black/white  triangle yellow red   green  yellow
        MX right double yellow none  yellow/yellow board   orange black green  green
        NZ left  solid  yellow white grey/grey    diamond  orange black blue   black
        US right double yellow white red/grey     diamond  yellow black green  white
        ZA left  dashed white yellow red/white    triangle white  red   teal   white
    """
    looks = {}
    for line in table.split("\n"):
        if line.strip():
            code, *values = line.split()
            looks[code] = _parse_country(dict(zip(columns, values, strict=True)))
    return looks


def _parse_country(row: dict[str, str]) -> CountryLook:
    inner, outer = (PAINTS[name] for name in row["kerb"].split("/"))
    return CountryLook(
        drives_left=row["side"] == "left",
        centre=row["centre"],  # type: ignore[arg-type]  # the table above is the only source
        centre_colour=PAINTS[row["line"]],
        edge_colour=PAINTS.get(row["edge"]),
        kerb=(inner, outer),
        sign=row["sign"],  # type: ignore[arg-type]
        sign_fill=PAINTS[row["fill"]],
        sign_border=PAINTS[row["border"]],
        guide=PAINTS[row["guide"]],
        plate=PAINTS[row["plate"]],
    )


PAINTS: dict[str, Rgb] = {
    "white": (0.92, 0.92, 0.90),
    "yellow": (0.96, 0.76, 0.08),
    "orange": (0.96, 0.48, 0.08),
    "red": (0.82, 0.12, 0.12),
    "blue": (0.10, 0.28, 0.68),
    "green": (0.05, 0.45, 0.25),
    "teal": (0.10, 0.42, 0.52),
    "black": (0.08, 0.08, 0.08),
    "grey": (0.62, 0.61, 0.59),
}
