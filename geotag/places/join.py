"""The classes of a model and the places of the gazetteer, joined: whether two answers agree.

Names are never compared as they stand: cities are joined by GeoNames id, states by the ids of the
states that their cities are in, countries by ISO code. The tables below say what no code does:
that England is a country to CityGuessr68k and a part of GB to ISO, which territories belong to
which country, and which countries lie on two continents.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.bundle import LEVELS
from geotag.geo import distance_m, distances_m
from geotag.places.gazetteer import CONTINENTS, KM_PER_ROOT_PERSON, read_gazetteer

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.bundle import Level
    from geotag.locate import Agreement
    from geotag.places.gazetteer import Gazetteer, Geocode
    from geotag.places.hierarchy import Hierarchy, Place
    from geotag.sight import Sight

COUNTRY_PARTS = {
    "England": ("GB", "GB-ENG"),
    "Northern Ireland": ("GB", "GB-NIR"),
    "Scotland": ("GB", "GB-SCT"),
    "Wales": ("GB", "GB-WLS"),
}
"""Countries of a class tree that ISO 3166 has as a part of one: code, and ISO 3166-2 code."""

STATE_PARTS = {
    ("South Korea", "Seoul Capital Area"): ("KR-11", "KR-28", "KR-41"),
}
"""States of a class tree that are several of ISO 3166-2, by country and name."""

SUBSTATE_COUNTRIES = frozenset(COUNTRY_PARTS)
"""Their states (Greater London, Glasgow City) lie below what the gazetteer calls a state, so a
measured state cannot tell one from another: only the cities can."""

TERRITORIES = {
    "AU": ("CC", "CX", "NF"),
    "CN": ("HK", "MO"),
    "DK": ("FO", "GL"),
    "FI": ("AX",),
    "FR": ("BL", "GF", "GP", "MF", "MQ", "NC", "PF", "PM", "RE", "WF", "YT"),
    "GB": ("GG", "GI", "IM", "JE"),
    "NL": ("AW", "BQ", "CW", "SX"),
    "NO": ("BV", "SJ"),
    "NZ": ("CK", "NU", "TK"),
    "US": ("AS", "GU", "MP", "PR", "UM", "VI"),
}
"""Territories with an ISO code of their own, by the country they belong to. They agree with that
country, unless the class tree has a class for the territory itself."""

TWO_CONTINENTS = {
    "AM": ("AS", "EU"),
    "AZ": ("AS", "EU"),
    "CY": ("AS", "EU"),
    "EG": ("AF", "AS"),
    "GE": ("AS", "EU"),
    "ID": ("AS", "OC"),
    "KZ": ("AS", "EU"),
    "PA": ("NA", "SA"),
    "RU": ("EU", "AS"),
    "TL": ("AS", "OC"),
    "TR": ("AS", "EU"),
}
"""Countries that lie on two continents, or are counted to either: any of the two agrees."""

SAME_CITY_KM = 50.0
"""A class without a GeoNames id is joined to a place of its name at most this far away."""

_PLAIN_LETTERS = str.maketrans(
    {
        "æ": "ae",
        "đ": "d",
        "ð": "d",
        "ħ": "h",
        "\u0131": "i",
        "ł": "l",
        "œ": "oe",
        "ø": "o",
        "þ": "th",
    }
)
"""Letters that Unicode does not take apart, as people write them who lack the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedCity:
    """A city class and the gazetteer's place for it."""

    name: str
    geonameid: int | None
    """None where none was found."""
    country_code: str | None
    state_code: str | None
    state_geonameid: int | None
    km: float | None
    """From the class's reference point to the place."""
    reach_km: float
    """How far the city reaches from there."""
    point_deg: tuple[float, float] | None


class Join:
    """A class tree and what its classes are in the gazetteer, each looked up when it is asked for.

    A tree may have tens of thousands of classes, and a scan asks for a handful.
    """

    def __init__(self, hierarchy: Hierarchy, gazetteer: Gazetteer) -> None:
        """Keep both; nothing is looked up yet."""
        self._hierarchy = hierarchy
        self._gazetteer = gazetteer
        self._order = np.argsort(gazetteer.table.geonameids, kind="stable")
        self._joined: dict[int, JoinedCity] = {}
        self.country_codes = frozenset(place.code for place in hierarchy.places["country"])
        """Codes of all countries of the tree."""
        self.state_ids: dict[str, int] = {
            state.code: state.geonameid
            for state in gazetteer.table.states
            if state.code is not None and state.geonameid is not None
        }
        """GeoNames id of a state by its ISO 3166-2 code."""

    def city(self, city: int) -> JoinedCity:
        """What a city class is in the gazetteer."""
        if city not in self._joined:
            hierarchy = self._hierarchy
            place = hierarchy.places["city"][city]
            country = hierarchy.places["country"][hierarchy.ancestors["country"][city]]
            row = self._row(place.geonameid)
            self._joined[city] = _join_city(place, country, row, self._gazetteer)
        return self._joined[city]

    def below(self, names: tuple[str, ...]) -> list[JoinedCity]:
        """The cities of a class, which is given by its names from its own level upwards.

        Raises:
            KeyError: the tree has no such class.
        """
        levels = LEVELS[len(LEVELS) - len(names) :]
        parents = np.array([-1])
        for level, name in zip(reversed(levels), reversed(names), strict=True):
            parents = np.array(
                [
                    number
                    for number, place in enumerate(self._hierarchy.places[level])
                    if place.name == name and place.parent in parents
                ],
                dtype=np.intp,
            )
        if not len(parents):
            raise KeyError(names)
        inside = np.isin(self._hierarchy.ancestors[levels[0]], parents)
        return [self.city(int(city)) for city in np.flatnonzero(inside)]

    @property
    def cities(self) -> list[JoinedCity]:
        """Every city class, in order."""
        return [self.city(city) for city in range(self._hierarchy.size("city"))]

    @property
    def mismatches(self) -> list[str]:
        """What cannot be joined, or only with a doubt; empty for `places166.csv`."""
        places = self._hierarchy.places
        owners = self._hierarchy.ancestors["country"]
        return [
            doubt
            for city, place in enumerate(places["city"])
            for doubt in _doubts(place, places["country"][owners[city]], self.city(city))
        ]

    def _row(self, geonameid: int | None) -> int | None:
        """The place of the gazetteer that has an id."""
        if geonameid is None:
            return None
        ids = self._gazetteer.table.geonameids
        at = int(np.searchsorted(ids, geonameid, sorter=self._order))
        if at == len(ids) or ids[self._order[at]] != geonameid:
            return None
        return int(self._order[at])


def join_hierarchy(hierarchy: Hierarchy, gazetteer: Gazetteer | None = None) -> Join:
    """Join the classes of a tree with the gazetteer."""
    return Join(hierarchy, gazetteer or read_gazetteer())


def compare(geocode: Geocode, join: Join, names: tuple[str, ...]) -> Level | None:
    """The finest level at which a measured place and an answered class agree.

    Args:
        geocode: what was measured.
        join: the class tree.
        names: of the class and its parents, from its level to the continent's.

    Returns:
        A level that is not finer than the class; None where not even the continent agrees.

    Raises:
        KeyError: the tree has no such class.
    """
    for depth, level in enumerate(LEVELS[len(LEVELS) - len(names) :]):
        if _agrees(level, names[depth:], geocode, join):
            return level
    return None


def compare_with(hierarchy: Hierarchy) -> Callable[[Geocode, Sight], Agreement]:
    """A function that says how far a measured place and a model's answer agree.

    match: the same city; state, country: the same down to there; conflict: another country, or
    another continent where the answer is no finer; none: there is nothing to compare.
    """
    joined: list[Join] = []

    def agreement(geocode: Geocode, sight: Sight) -> Agreement:
        if not joined:
            joined.append(join_hierarchy(hierarchy))
        names = tuple(place.name for place in sight.places)
        if not names or geocode.country_code is None:
            return "none"
        level = compare(geocode, joined[0], names)
        if level == "city":
            return "match"
        if level == "state" or level == "country":
            return level
        return "none" if level == "continent" and len(names) == 1 else "conflict"

    return agreement


def fold_name(name: str) -> str:
    """Letters and digits only, without accents and case."""
    if name.isascii():
        letters = name.lower()
    else:
        letters = unicodedata.normalize("NFKD", name.casefold()).translate(_PLAIN_LETTERS)
    return "".join(letter for letter in letters if letter.isalnum())


def _agrees(level: Level, path: tuple[str, ...], geocode: Geocode, join: Join) -> bool:
    cities = join.below(path)
    ids = {city.geonameid for city in cities if city.geonameid is not None}
    is_same_city = bool(ids & {geocode.city_geonameid, geocode.nearest_geonameid}) or any(
        _takes_in(city, geocode) for city in cities
    )
    if level == "city" or is_same_city:
        return is_same_city
    if level == "state":
        return _agrees_state(path, cities, geocode, join)
    if level == "country":
        return _agrees_country(path[0], cities, geocode, join)
    return _agrees_continent(path[0], cities, geocode, join)


def _takes_in(city: JoinedCity, geocode: Geocode) -> bool:
    """Whether what was measured is a smaller place of the same state within the city's reach.

    Jette is to the gazetteer a city of its own; to a model whose class is Brussels it is Brussels.
    """
    if (
        city.point_deg is None
        or city.state_geonameid is None
        or city.state_geonameid != geocode.state_geonameid
        or geocode.city_lat_deg is None
        or geocode.city_lon_deg is None
    ):
        return False
    away_m = distance_m(city.point_deg, (geocode.city_lat_deg, geocode.city_lon_deg))
    return away_m / 1000 <= city.reach_km


def _agrees_state(
    path: tuple[str, ...], cities: list[JoinedCity], geocode: Geocode, join: Join
) -> bool:
    state, country = path[0], path[1]
    if country in SUBSTATE_COUNTRIES or geocode.state_geonameid is None:
        return False
    parts = {join.state_ids.get(code) for code in STATE_PARTS.get((country, state), ())}
    return geocode.state_geonameid in parts | {city.state_geonameid for city in cities}


def _agrees_country(name: str, cities: list[JoinedCity], geocode: Geocode, join: Join) -> bool:
    code = geocode.country_code
    if code is None:
        return False
    if name in COUNTRY_PARTS:
        return (code, geocode.state_code) == COUNTRY_PARTS[name]
    codes = {city.country_code for city in cities if city.country_code is not None}
    if code in codes:
        return True
    return code not in join.country_codes and any(
        code in TERRITORIES.get(owner, ()) for owner in codes
    )


def _agrees_continent(name: str, cities: list[JoinedCity], geocode: Geocode, join: Join) -> bool:
    if geocode.continent is None:
        return False
    if fold_name(name) == fold_name(geocode.continent):
        return True
    code = geocode.country_code or ""
    # The tree may count a country to another continent than GeoNames does.
    if code in {city.country_code for city in cities}:
        return True
    continents = {
        part
        for part in TWO_CONTINENTS.get(code, ())
        if fold_name(CONTINENTS[part]) == fold_name(name)
    }
    return bool(continents)


def _join_city(place: Place, country: Place, row: int | None, gazetteer: Gazetteer) -> JoinedCity:
    if row is None:
        row = _find(place, country, gazetteer)
    if row is None:
        return JoinedCity(
            name=place.name,
            geonameid=None,
            country_code=country.code or None,
            state_code=None,
            state_geonameid=None,
            km=None,
            reach_km=0.0,
            point_deg=None,
        )
    table = gazetteer.table
    state = table.states[int(table.place_states[row])]
    return JoinedCity(
        name=place.name,
        geonameid=int(table.geonameids[row]),
        country_code=table.countries[state.country].code,
        state_code=state.code,
        state_geonameid=state.geonameid,
        km=_away_km(place, row, gazetteer),
        reach_km=KM_PER_ROOT_PERSON * float(table.populations[row]) ** 0.5,
        point_deg=(float(table.lats_deg[row]), float(table.lons_deg[row])),
    )


def _find(place: Place, country: Place, gazetteer: Gazetteer) -> int | None:
    """The most populous place of a class's name and country near its reference point."""
    if place.lat_deg is None or place.lon_deg is None:
        return None
    table = gazetteer.table
    codes = np.array([entry.code for entry in table.countries])
    away_km = distances_m((place.lat_deg, place.lon_deg), table.lats_deg, table.lons_deg) / 1000
    near = np.flatnonzero(
        (away_km <= SAME_CITY_KM) & (codes[gazetteer.place_countries] == country.code)
    ).tolist()
    same = [row for row in near if fold_name(table.name(row)) == fold_name(place.name)]
    return max(same, key=lambda row: int(table.populations[row]), default=None)


def _away_km(place: Place, row: int, gazetteer: Gazetteer) -> float | None:
    if place.lat_deg is None or place.lon_deg is None:
        return None
    table = gazetteer.table
    point = (place.lat_deg, place.lon_deg)
    away_m = distances_m(point, table.lats_deg[row : row + 1], table.lons_deg[row : row + 1])
    return round(float(away_m[0]) / 1000, 3)


def _doubts(place: Place, country: Place, joined: JoinedCity) -> list[str]:
    where = f"{place.name} ({country.name})"
    if joined.geonameid is None:
        return [f"{where}: no place of the gazetteer is it"]
    doubts = []
    expected = COUNTRY_PARTS.get(country.name, (country.code, None))[0]
    if expected and joined.country_code != expected:
        doubts.append(f"{where}: the gazetteer has it in {joined.country_code}, not {expected}")
    if joined.km is not None and joined.km > SAME_CITY_KM:
        doubts.append(f"{where}: the gazetteer has it {joined.km:.0f} km away")
    return doubts
