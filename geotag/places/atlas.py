"""The gazetteer as a list of places asks it: by name, by id, by how people write a country."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from geotag.places.countries import Spelling, country_words, find_country, read_spellings
from geotag.places.gazetteer import read_gazetteer
from geotag.places.join import TWO_CONTINENTS, fold_name

if TYPE_CHECKING:
    from geotag.places.gazetteer import Gazetteer
    from geotag.places.table import Country, Table

_SAINT = re.compile(r"^st\b\.?", re.IGNORECASE)
CITY_ALIASES = {
    ("AT", "Vienna"): ("Wien",),
    ("BD", "Chattogram"): ("Chittagong",),
    ("BE", "Antwerp"): ("Antwerpen", "Anvers"),
    ("BE", "Brugge"): ("Bruges",),
    ("BE", "Brussels"): ("Bruxelles", "Brussel"),
    ("BE", "Gent"): ("Ghent",),
    ("CA", "Québec"): ("Quebec City",),
    ("CH", "Geneva"): ("Genève", "Genf"),
    ("CH", "Luzern"): ("Lucerne",),
    ("CN", "Beijing"): ("Peking",),
    ("CZ", "Prague"): ("Praha",),
    ("DE", "Frankfurt am Main"): ("Frankfurt", "Frankfurt/Main"),
    ("DE", "Hannover"): ("Hanover",),
    ("DE", "Köln"): ("Cologne",),
    ("DE", "Munich"): ("München",),
    ("DE", "Nuremberg"): ("Nürnberg",),
    ("DK", "Copenhagen"): ("København",),
    ("ES", "Donostia / San Sebastián"): ("San Sebastián", "Donostia"),
    ("ES", "Sevilla"): ("Seville",),
    ("GB", "Kingston upon Hull"): ("Hull",),
    ("GB", "Newcastle upon Tyne"): ("Newcastle",),
    ("IN", "Bengaluru"): ("Bangalore",),
    ("IN", "Chennai"): ("Madras",),
    ("IN", "Gurugram"): ("Gurgaon",),
    ("IN", "Kolkata"): ("Calcutta",),
    ("IN", "Mangaluru"): ("Mangalore",),
    ("IN", "Mumbai"): ("Bombay",),
    ("IN", "Mysuru"): ("Mysore",),
    ("IN", "Prayagraj"): ("Allahabad",),
    ("IN", "Vadodara"): ("Baroda",),
    ("IT", "Florence"): ("Firenze",),
    ("IT", "Genoa"): ("Genova",),
    ("IT", "Milan"): ("Milano",),
    ("IT", "Naples"): ("Napoli",),
    ("IT", "Padua"): ("Padova",),
    ("IT", "Rome"): ("Roma",),
    ("IT", "Turin"): ("Torino",),
    ("IT", "Venice"): ("Venezia",),
    ("KZ", "Astana"): ("Nur-Sultan",),
    ("LU", "Luxembourg"): ("Luxembourg City",),
    ("MA", "Marrakesh"): ("Marrakech",),
    ("MM", "Yangon"): ("Rangoon",),
    ("MN", "Ulan Bator"): ("Ulaanbaatar",),
    ("NL", "The Hague"): ("Den Haag",),
    ("PH", "Cebu City"): ("Cebu",),
    ("PH", "Davao"): ("Davao City",),
    ("PL", "Kraków"): ("Cracow",),
    ("PL", "Warsaw"): ("Warszawa",),
    ("PT", "Lisbon"): ("Lisboa",),
    ("RS", "Belgrade"): ("Beograd",),
    ("SE", "Gothenburg"): ("Göteborg",),
    ("UA", "Kyiv"): ("Kiev",),
    ("UA", "Odesa"): ("Odessa",),
    ("US", "New York City"): ("New York", "NYC"),
    ("US", "Washington"): ("Washington, D.C.",),
    ("VN", "Ho Chi Minh City"): ("Saigon",),
    ("ZA", "Gqeberha"): ("Port Elizabeth",),
}
"""Names of large cities that the gazetteer, which has one name a place, does not know: without
them New York is unknown, and Cologne a village of Lombardy."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Atlas:
    """The gazetteer with the indices that completing a list takes."""

    gazetteer: Gazetteer
    table: Table
    countries: dict[str, Country]
    """By ISO 3166-1 alpha-2."""
    spellings: dict[str, Spelling]
    words: list[str]
    """Names of countries to suggest from."""
    states: dict[str, set[int]]
    """Rows of states by folded name."""
    state_codes: dict[str, int]
    """Rows of states by ISO 3166-2."""
    places: dict[str, list[int]]
    """Rows of places by `city_key`, most populous first."""
    ids: dict[int, int]
    """Rows of places by GeoNames id."""

    def country_code(self, place: int) -> str:
        """Of a place."""
        return self.table.countries[int(self.gazetteer.place_countries[place])].code

    def state_code(self, place: int) -> str:
        """Of a place, '' where there is none."""
        return self.table.states[int(self.table.place_states[place])].code or ""

    def point(self, place: int) -> tuple[float, float]:
        """Of a place, (lat_deg, lon_deg)."""
        return float(self.table.lats_deg[place]), float(self.table.lons_deg[place])

    def label(self, place: int) -> str:
        """A place as findings name it."""
        state = self.table.states[int(self.table.place_states[place])].name
        country = self.countries[self.country_code(place)].name
        names = dict.fromkeys((self.table.name(place), state, country))
        return ", ".join(name for name in names if name is not None)

    def continents(self, country_code: str) -> tuple[str, ...]:
        """Codes of the continents that a country may be counted to, the gazetteer's first."""
        usual = self.countries[country_code].continent_code
        return tuple(dict.fromkeys((usual, *TWO_CONTINENTS.get(country_code, ()))))

    def find_country(self, text: str) -> Spelling | None:
        """What a person means by a country, None where nobody knows."""
        return find_country(text, self.spellings)


def city_key(name: str) -> str:
    """What is compared of a city's name: letters and digits, and Saint however it is written."""
    return fold_name(_SAINT.sub("saint", name))


@lru_cache(maxsize=1)
def open_atlas() -> Atlas:
    """Index the gazetteer; once, then shared."""
    gazetteer = read_gazetteer()
    table = gazetteer.table
    states: dict[str, set[int]] = {}
    for row, state in enumerate(table.states):
        states.setdefault(fold_name(state.name or ""), set()).add(row)
    places: dict[str, list[int]] = {}
    aliases = {
        (code, name): {city_key(other) for other in others}
        for (code, name), others in CITY_ALIASES.items()
    }
    for row in np.lexsort((table.geonameids, -table.populations)).tolist():
        name = table.name(row)
        code = table.countries[int(gazetteer.place_countries[row])].code
        keys = {city_key(name)}
        if code == "JP":
            keys.add(city_key(name.removesuffix("-shi")))  # which is "city"
        # Only the most populous place of the name: it comes first.
        for key in keys | aliases.pop((code, name), set()):
            places.setdefault(key, []).append(row)
    return Atlas(
        gazetteer=gazetteer,
        table=table,
        countries={entry.code: entry for entry in table.countries},
        spellings=read_spellings(table.countries),
        words=country_words(table.countries),
        states=states,
        state_codes={s.code: row for row, s in enumerate(table.states) if s.code is not None},
        places=places,
        ids={geonameid: row for row, geonameid in enumerate(table.geonameids.tolist())},
    )
