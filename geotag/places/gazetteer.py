"""Where on earth a measured point is: offline reverse geocoding that keeps to borders.

Rule: the time zone of the point (polygons of tzfpy) names the countries and states that it can be
in; the place is the nearest of GeoNames inside those; the state is that place's. Where states'
borders are known (the United States), witnesses on either side choose the state first. The nearest
place alone takes one point in eight near a border for the neighbour's: `benchmarks/gazetteer.py`.
Shape suffix: Q points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geotag.places.disputed import Areas, read_areas
from geotag.places.nearest import (
    Grid,
    build_grid,
    chords_to_km,
    cover_cells,
    nearest_places,
    ragged,
    unit_vectors,
)
from geotag.places.table import SECTION, Table, cells_of, read_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from geotag.places.nearest import Floats, Ints

CONTINENTS = {
    "AF": "Africa",
    "AN": "Antarctica",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
"""Names of the continents by their GeoNames code."""

CITY_RATIO = 20
"""A place inside a city this many times as populous belongs to it.
Source: the complaint that reverse geocoders name the suburb, immich discussion 15661; the ratio
keeps towns with a life of their own (Salford, Boulogne-Billancourt) apart."""
INNER_RATIO = 8
"""As CITY_RATIO, where the point is near the city's centre (INNER_SHARE), or deeper inside the city
than inside the place.
Source: some 70 places of GeoNames move into a city by this, nearly all of them its quarters (Konak
of İzmir, the 13th arrondissement of Paris), but for Frederiksberg, Ñuñoa, Ágios Dométios, Magas."""
INNER_SHARE = 1 / 3
"""Of a city's radius: a town with a life of its own does not lie there."""
KM_PER_ROOT_PERSON = 0.0084
"""A city of n people reaches 0.0084 sqrt(n) km from its centre: a disc of 4,500 people to the
square kilometre, which is London as it is (8.96 million people, 25 km)."""
SECTION_REACH = 2.0
"""A quarter of a city may lie this many times as far out."""
CITY_REACH_KM = 50.0
"""No city is named that is further away."""
STATE_REACH_KM = 150.0
"""No state is named after a place that is further away, unless the time zone has no other."""
SEA_REACH_KM = 22.224
"""Outside every country's zone a point takes the country of a place this near: the twelve
nautical miles of territorial waters (UN Convention on the Law of the Sea, article 3)."""
ANTARCTIC_LAT_DEG = -60.0
"""South of it the Antarctic Treaty holds (article VI) and all claims rest."""
_LEAST_CITY = 1000 * CITY_RATIO
_TABLE = Path(__file__).with_name("gazetteer.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Geocode:
    """What is known of a point; None where the honest answer is nothing."""

    continent: str | None = None
    """Of the country as GeoNames has it: all of Russia and Cyprus Europe, all of Turkey Asia."""
    continent_code: str | None = None
    """AF AN AS EU NA OC SA."""
    country: str | None = None
    country_code: str | None = None
    """ISO 3166-1 alpha-2; XK for Kosovo."""
    country_code3: str | None = None
    country_numeric: int | None = None
    """ISO 3166-1 numeric, which is the code of UN M49."""
    state: str | None = None
    state_code: str | None = None
    """ISO 3166-2."""
    state_geonameid: int | None = None
    city: str | None = None
    """The city that the point is in or near, where that is not the nearest place."""
    city_geonameid: int | None = None
    city_lat_deg: float | None = None
    city_lon_deg: float | None = None
    city_km: float | None = None
    """From the point to the city's reference point."""
    nearest_place: str | None = None
    """The nearest village, quarter or town in the country."""
    nearest_geonameid: int | None = None
    nearest_km: float | None = None
    time_zone: str | None = None
    """IANA name."""
    disputed: str | None = None
    """The area and who claims it, where the point lies in a disputed one; the country is then
    that of GeoNames, which takes no side either."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gazetteer:
    """Answers for points; nothing of it changes, so threads may share it."""

    table: Table
    grid: Grid
    place_countries: Ints
    zones: dict[str, int]
    """Row of `allowed` by time zone."""
    allowed_states: NDArray[np.bool_]
    """[zones + 1, states]; the last row, for the sea, is all true."""
    witness_grid: Grid
    witnessed: Ints
    """Countries that have witnesses of their states' borders."""
    cities: Ints
    """Places that may take in others."""
    cover: tuple[NDArray[np.int32], Ints]
    """Starts by cell, and rows of `cities`."""
    areas: Areas

    def locate(self, lats_deg: ArrayLike, lons_deg: ArrayLike) -> list[Geocode]:
        """Answer for many points.  [Q], [Q] -> Q answers.

        Raises:
            ValueError: the lengths differ, or a coordinate is no number or out of range.
        """
        lats, lons = _checked(lats_deg, lons_deg)
        if not len(lats):
            return []
        zones = _time_zones(lats, lons)
        sets = np.array([self.zones.get(zone, len(self.zones)) for zone in zones])
        places, kms = nearest_places(
            self.grid,
            lats,
            lons,
            place_groups=self.table.place_states,
            sets=sets,
            allowed_ZG=self.allowed_states,
            near_only=np.arange(len(self.zones) + 1) == len(self.zones),
        )
        self._heed_witnesses(lats, lons, sets, places, kms)
        cities, city_kms = self._cities(lats, lons, places, kms)
        countries = self._countries(lats, zones, sets, places, kms)
        codes = [
            self._answer(zones[k], int(countries[k]), int(places[k]), float(kms[k]))
            | self._city(int(cities[k]), float(city_kms[k]), int(countries[k]))
            for k in range(len(lats))
        ]
        disputes = self.areas.find(
            lats, lons, zones, [(code["country_code"], code["state_geonameid"]) for code in codes]
        )
        return [
            Geocode(**code, disputed=dispute)  # type: ignore[arg-type]
            for code, dispute in zip(codes, disputes, strict=True)
        ]

    def locate_one(self, lat_deg: float, lon_deg: float) -> Geocode:
        """Answer for one point; see `locate`."""
        return self.locate([lat_deg], [lon_deg])[0]

    def _heed_witnesses(
        self, lats: Floats, lons: Floats, sets: Ints, places: Ints, kms: Floats
    ) -> None:
        """Where a witness of another state is nearer than the place, take a place of that state."""
        states, witnesses = self.table.place_states, self.table.witnesses
        asked = np.flatnonzero(
            np.isin(self.place_countries[places], self.witnessed) & (places >= 0)
        )
        seen, seen_kms = nearest_places(
            self.witness_grid,
            lats[asked],
            lons[asked],
            place_groups=witnesses.states,
            sets=sets[asked],
            allowed_ZG=self.allowed_states,
            near_only=np.ones(len(self.allowed_states), dtype=bool),
        )
        other = (seen_kms < kms[asked]) & (witnesses.states[seen] != states[places[asked]])
        asked, wanted = asked[other], witnesses.states[seen[other]]
        rows, sets = np.unique(wanted, return_inverse=True)
        only = np.zeros((len(rows), len(self.table.states)), dtype=bool)
        only[np.arange(len(rows)), rows] = True
        places[asked], kms[asked] = nearest_places(
            self.grid,
            lats[asked],
            lons[asked],
            place_groups=states,
            sets=sets,
            allowed_ZG=only,
            near_only=np.zeros(len(rows), dtype=bool),
        )

    def _countries(
        self, lats: Floats, zones: Sequence[str], sets: Ints, places: Ints, kms: Floats
    ) -> Ints:
        """[Q] row of the country, -1 for none."""
        is_sea = sets == len(self.zones)
        countries = np.where(places >= 0, self.place_countries[places], -1)
        countries[is_sea & (kms > SEA_REACH_KM)] = -1
        for k in np.flatnonzero((places < 0) & ~is_sea).tolist():
            # Nobody lives in these countries; the first of the zone is the one it is named for.
            countries[k] = self.table.zones[zones[k]][0]
        treaty = (lats < ANTARCTIC_LAT_DEG) & np.array([bool(z) for z in zones])
        antarctica = next(
            row for row, entry in enumerate(self.table.countries) if entry.code == "AQ"
        )
        countries[treaty] = np.where(is_sea[treaty], -1, antarctica)
        return np.asarray(countries, dtype=np.int64)

    def _cities(self, lats: Floats, lons: Floats, places: Ints, kms: Floats) -> tuple[Ints, Floats]:
        """[Q] the city that each nearest place belongs to, often itself, and the way there.

        A quarter of a city or a part of its municipality belongs to the nearest larger city,
        measured in its radii, and so does a point outside its nearest place's disc and inside
        another's; a place inside a city CITY_RATIO times as populous belongs to that, and near its
        centre INNER_RATIO times is enough. Cities of other states are left alone, but for those
        that are in no state, such as Hong Kong among its districts.
        """
        cities, city_kms = places.copy(), kms.copy()
        starts, rows = self.cover
        cells = cells_of(lats, lons)
        queries = np.flatnonzero(places >= 0)
        lines, at = ragged(
            starts[cells[queries]].astype(np.int64),
            (starts[cells[queries] + 1] - starts[cells[queries]]).astype(np.int64),
        )
        queries, around = queries[lines], self.cities[rows[at]]
        states = self.table.place_states
        same = states[around] == states[places[queries]]
        stateless = np.array([state.name is None for state in self.table.states])[states[around]]
        keep = same | (
            stateless & (self.place_countries[around] == self.place_countries[places[queries]])
        )
        queries, around, same = queries[keep], around[keep], same[keep]
        points = unit_vectors(lats, lons)
        away = chords_to_km(((points[queries] - self.grid.units[around]) ** 2).sum(axis=1))
        people = self.table.populations
        shares = away / self._radii(around)
        kinds = self.table.kinds[places]
        loose = (kinds > 0) | (kms > self._radii(places))
        reach = np.where(kinds == SECTION, SECTION_REACH, 1.0)[queries]
        fits = (
            same & loose[queries] & (people[around] > people[places[queries]]) & (shares <= reach)
        )
        _choose(fits, queries, shares, around, away, cities, city_kms)
        own_shares = (city_kms / self._radii(cities))[queries]
        near = (shares <= INNER_SHARE) | (shares < own_shares)
        ratio = np.where(near, INNER_RATIO, CITY_RATIO)
        fits = (shares <= 1) & (people[around] >= ratio * people[cities[queries]])
        _choose(fits, queries, -people[around], around, away, cities, city_kms)
        return cities, city_kms

    def _radii(self, places: Ints) -> Floats:
        """How far places reach from their centres, km."""
        return np.asarray(
            KM_PER_ROOT_PERSON * np.sqrt(np.maximum(self.table.populations[places], 1))
        )

    def _answer(self, zone: str, country: int, place: int, km: float) -> dict[str, object]:
        """All but the city."""
        fields: dict[str, object] = dict.fromkeys(_PLAIN) | {"time_zone": zone or None}
        if country < 0:
            return fields
        entry = self.table.countries[country]
        fields |= {
            "continent": CONTINENTS[entry.continent_code],
            "continent_code": entry.continent_code,
            "country": entry.name,
            "country_code": entry.code,
            "country_code3": entry.code3,
            "country_numeric": entry.numeric,
        }
        if place < 0 or self.place_countries[place] != country:
            return fields
        fields |= {
            "nearest_place": self.table.name(place),
            "nearest_geonameid": int(self.table.geonameids[place]),
            "nearest_km": round(km, 3),
        }
        state = self.table.states[int(self.table.place_states[place])]
        is_only = zone in self.zones and int(self.allowed_states[self.zones[zone]].sum()) == 1
        if (km <= STATE_REACH_KM or is_only) and state.name is not None:
            fields["state"], fields["state_code"] = state.name, state.code
            fields["state_geonameid"] = state.geonameid
        return fields

    def _city(self, city: int, km: float, country: int) -> dict[str, object]:
        if city < 0 or km > CITY_REACH_KM or self.place_countries[city] != country:
            return dict.fromkeys(_CITY)
        return {
            "city": self.table.name(city),
            "city_geonameid": int(self.table.geonameids[city]),
            "city_lat_deg": float(self.table.lats_deg[city]),
            "city_lon_deg": float(self.table.lons_deg[city]),
            "city_km": round(km, 3),
        }


_CITY = ("city", "city_geonameid", "city_lat_deg", "city_lon_deg", "city_km")
_PLAIN = tuple(name for name in Geocode.__slots__ if name not in _CITY and name != "disputed")


@lru_cache(maxsize=1)
def read_gazetteer() -> Gazetteer:
    """The gazetteer that comes with this package; read once, then shared."""
    return build_gazetteer(read_table(_TABLE), read_areas())


def build_gazetteer(table: Table, areas: Areas) -> Gazetteer:
    """Index a table."""
    state_countries = np.array([state.country for state in table.states], dtype=np.int64)
    allowed = np.zeros((len(table.zones) + 1, len(table.states)), dtype=bool)
    for row, (zone, countries) in enumerate(table.zones.items()):
        states = table.zone_states.get(zone)
        allowed[row] = np.isin(state_countries, countries)
        if states is not None:
            allowed[row] &= np.isin(np.arange(len(table.states)), states)
    allowed[-1] = True
    cities = np.flatnonzero((table.populations >= _LEAST_CITY) & (table.kinds == 0))
    cover = cover_cells(
        table.lats_deg[cities],
        table.lons_deg[cities],
        SECTION_REACH * KM_PER_ROOT_PERSON * np.sqrt(table.populations[cities]),
    )
    return Gazetteer(
        table=table,
        grid=build_grid(table.lats_deg, table.lons_deg),
        place_countries=state_countries[table.place_states],
        witness_grid=build_grid(table.witnesses.lats_deg, table.witnesses.lons_deg),
        witnessed=np.unique(state_countries[table.witnesses.states]),
        zones={zone: row for row, zone in enumerate(table.zones)},
        allowed_states=allowed,
        cities=cities,
        cover=cover,
        areas=areas,
    )


def _choose(
    fits: NDArray[np.bool_],
    queries: Ints,
    costs: Floats | Ints,
    around: Ints,
    away: Floats,
    cities: Ints,
    city_kms: Floats,
) -> None:
    """Set the cheapest fitting candidate of each query."""
    queries, costs, around, away = queries[fits], costs[fits], around[fits], away[fits]
    order = np.lexsort((around, costs, queries))
    best = order[np.flatnonzero(np.diff(queries[order], prepend=-1))]
    cities[queries[best]] = around[best]
    city_kms[queries[best]] = away[best]


def _checked(lats_deg: ArrayLike, lons_deg: ArrayLike) -> tuple[Floats, Floats]:
    lats = np.atleast_1d(np.asarray(lats_deg, dtype=np.float64))
    lons = np.atleast_1d(np.asarray(lons_deg, dtype=np.float64))
    if lats.ndim != 1 or lats.shape != lons.shape:
        raise ValueError(f"latitudes {lats.shape} and longitudes {lons.shape} must be two lists")
    wrong = ~((np.abs(lats) <= 90) & (np.abs(lons) <= 180))
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"point {first}: latitude {lats[first]}, longitude {lons[first]}; allowed are "
            "-90 to 90 and -180 to 180 degrees."
        )
    return lats, lons


def _time_zones(lats: Floats, lons: Floats) -> list[str]:
    """IANA name for each point; "Etc/GMT.." at sea."""
    from tzfpy import get_tz

    return [get_tz(lon, lat) for lat, lon in zip(lats.tolist(), lons.tolist(), strict=True)]
