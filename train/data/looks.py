"""How cities and countries look: caricatures made to be told apart at 112 pixels.

They are no guide to the real places.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from train.data.areas import Floats
from train.data.sprites import SPRITES
from train.data.world import Rgb, places, read_place_rows

OWN_SHARE = 0.55
DECOY_SHARE = 0.1

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Palettes:
    """The looks of all cities as arrays, with one more at the end: the look of nowhere."""

    facades: Floats
    roof: Floats
    leaf: Floats
    verge: Floats
    banner: Floats
    storey_m: Floats
    storeys: Floats
    pitched: Floats
    tree: NDArray[np.intp]


@cache
def city_looks() -> tuple[CityLook, ...]:
    """The look of each city, in the order of `places`."""
    return tuple(_parse_look(row) for row in read_place_rows())


def country_look(city_id: int) -> CountryLook:
    """The look of the country that a city lies in."""
    return _country_looks()[places()[city_id].country_code]


@cache
def palettes() -> Palettes:
    """The looks of all cities, and of nowhere, in the order of `places`."""
    looks = city_looks()
    nowhere = ["9c948a", "b4b0a8", "8a7a70", "c4bcae", "7d7f82", "a89c90"]
    greys = [[value / 255.0 for value in bytes.fromhex(text)] for text in nowhere]

    def table(name: str, last: object) -> Floats:
        return np.array([*(getattr(look, name) for look in looks), last], np.float32)

    return Palettes(
        facades=np.array([*(look.facades * 2 for look in looks), greys], np.float32),
        roof=table("roof", (0.42, 0.38, 0.36)),
        leaf=table("leaf", (0.30, 0.44, 0.22)),
        verge=table("verge", (0.42, 0.52, 0.30)),
        banner=table("banner", ((0.6, 0.6, 0.6), (0.45, 0.45, 0.45))),
        storey_m=table("storey_m", 3.2),
        storeys=table("storeys", 4.0),
        pitched=table("pitched", 0.0),
        tree=np.array([*(SPRITES.index(look.tree) for look in looks), SPRITES.index("round")]),
    )


def draw_sources(rng: np.random.Generator, city_id: int, count: int) -> NDArray[np.intp]:
    """Whose look each of `count` pieces wears: mostly the city's own or that of nowhere.

    A share wears another city's, so that no single piece is proof.
    """
    nowhere = len(places())
    roll = rng.random(count)
    decoys = rng.integers(0, nowhere, count)
    return np.where(roll < OWN_SHARE, city_id, np.where(roll > 1.0 - DECOY_SHARE, decoys, nowhere))


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
