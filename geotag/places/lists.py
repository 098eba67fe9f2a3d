"""Lists of places that a model can be made for: built in, by population, or a person's own file."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geotag.errors import ConfigError
from geotag.places.fill import degrees_text, fill_rows
from geotag.places.gazetteer import CONTINENTS, read_gazetteer
from geotag.places.join import fold_name
from geotag.places.sheets import COLUMNS, read_sheet
from geotag.places.sheets import Finding as Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from geotag.places.gazetteer import Gazetteer
    from geotag.places.nearest import Ints

BUILT_IN = ("166", "world")
"""Names of lists that need no file; a file of such a name is reached with `./` before it."""
WORLD_PEOPLE = 200_000
"""Cities of `world` have more people than this: about 2,800, from every larger country."""
MOST_ERRORS_TOLD = 10
_LEVELS = {"city": "cities", "state": "states", "country": "countries", "continent": "continents"}
_TABLE166 = Path(__file__).with_name("places166.csv")
_EMPTY = Finding(None, "error", "no place is in the list; allow smaller ones.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceList:
    """Places that a model is to tell apart, and what was found wrong with them."""

    source: str
    """Where they come from, without any folder."""
    rows: tuple[dict[str, str], ...]
    """The columns of COLUMNS, complete; only rows that have no error, and no path twice."""
    findings: tuple[Finding, ...]
    """In the order of their lines."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that forbid making a model."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def make_places(given: str | None = None, *, cities_over: int | None = None) -> PlaceList:
    """Make a list of places.

    Args:
        given: `166`, `world`, or the path of a CSV file that has at least a column `city`.
        cities_over: in place of it, take every city of the gazetteer with more people.

    Returns:
        The list; errors inside a file are in its findings.

    Raises:
        ConfigError: none or both are given, or the file cannot be read.
    """
    if (given is None) == (cities_over is None):
        raise ConfigError(
            "making a list of places: give a list (166, world or a CSV file) or a population "
            "that its cities exceed, one of the two."
        )
    if cities_over is not None:
        return _cities_over(cities_over)
    if given == "166":
        return PlaceList(source="the 166 cities of CityGuessr68k", rows=_read166(), findings=())
    if given == "world":
        return _world()
    return _from_file(given or "")


def need_places(given: str | None = None, *, cities_over: int | None = None) -> PlaceList:
    """Make a list of places that has no errors; see `make_places`.

    Raises:
        ConfigError: as there, and for errors inside the list: the first ten are told.
    """
    places = make_places(given, cities_over=cities_over)
    errors = places.errors
    if errors:
        told = "\n".join(f"  {finding}" for finding in errors[:MOST_ERRORS_TOLD])
        more = len(errors) - MOST_ERRORS_TOLD
        raise ConfigError(
            f"reading the list of places {places.source!r}: {len(errors)} "
            f"{'error' if len(errors) == 1 else 'errors'}.\n{told}"
            + (f"\n  and {more} more" if more > 0 else "")
        )
    return places


def places_text(rows: Iterable[Mapping[str, str]]) -> str:
    """The list as CSV, ended by line feeds; the same rows give the same text."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def describe_places(places: PlaceList) -> str:
    """A few lines for a person: how much of what, and the findings."""
    paths = {level: list(_LEVELS)[at:] for at, level in enumerate(_LEVELS)}
    counts = {
        level: len({tuple(row[name] for name in names) for row in places.rows})
        for level, names in paths.items()
    }
    numbers = ", ".join(
        f"{count:,} {level if count == 1 else _LEVELS[level]}" for level, count in counts.items()
    )
    lines = [f"{places.source}: {numbers}"]
    lines += [f"  {finding.severity}: {finding}" for finding in places.findings[:MOST_ERRORS_TOLD]]
    more = len(places.findings) - MOST_ERRORS_TOLD
    if more > 0:
        lines.append(f"  and {more} more, of {len(places.findings)} findings in all")
    return "\n".join(lines)


def _read166() -> tuple[dict[str, str], ...]:
    with _TABLE166.open(encoding="utf-8", newline="") as stream:
        return tuple({name: row[name] for name in COLUMNS} for row in csv.DictReader(stream))


def _from_file(given: str) -> PlaceList:
    path = Path(given)
    if not given or not _is_file(path):
        raise ConfigError(
            f"reading the list of places {given!r}: there is no such file. Built in are "
            f"{' and '.join(BUILT_IN)}; a list of your own is a CSV file with a column city."
        )
    rows, findings = fill_rows(read_sheet(path))
    return PlaceList(source=path.name, rows=tuple(rows), findings=tuple(findings))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False  # a name that is too long, or holds a zero


def _cities_over(population: int) -> PlaceList:
    if population < 0:
        raise ConfigError(
            f"taking the cities over {population} people: give a whole number from 0 up."
        )
    gazetteer = read_gazetteer()
    places = _large_cities(gazetteer, population)
    return _from_gazetteer(places, gazetteer, source=f"cities over {population} people")


def _world() -> PlaceList:
    """The large cities, and the largest place of each country that has none.

    Antarctica and its islands are left out: nobody lives there, the people are staff of stations.
    """
    gazetteer = read_gazetteer()
    table = gazetteer.table
    continents = np.array([entry.continent_code for entry in table.countries])
    cities = _large_cities(gazetteer, WORLD_PEOPLE)
    covered = set(gazetteer.place_countries[cities].tolist())
    largest: dict[int, int] = {}
    # The last one written stays: the most populous, of equals the one of the lowest id.
    for place in np.lexsort((-table.geonameids, table.populations)).tolist():
        country = int(gazetteer.place_countries[place])
        if table.populations[place] > 0 and country not in covered:
            largest[country] = place
    added = [place for country, place in largest.items() if continents[country] != "AN"]
    return _from_gazetteer(
        np.concatenate([cities, np.array(added, dtype=np.int64)]), gazetteer, source="world"
    )


def _large_cities(gazetteer: Gazetteer, population: int) -> Ints:
    table = gazetteer.table
    return np.flatnonzero((table.populations > population) & (table.kinds == 0))


def _from_gazetteer(places: Ints, gazetteer: Gazetteer, *, source: str) -> PlaceList:
    """Rows by country code, state and name; of one name in a state only the most populous."""
    table = gazetteer.table
    largest = places[np.lexsort((table.geonameids[places], -table.populations[places]))]
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    left_out = []
    for place in largest.tolist():
        row = _row(place, gazetteer)
        path = tuple(fold_name(row[level]) for level in _LEVELS)
        if path in rows:
            left_out.append(f"{row['city']} ({row['state']}, {row['country']})")
        else:
            rows[path] = row
    findings = [_EMPTY] if not rows else []
    if left_out:
        findings.append(
            Finding(
                None,
                "warning",
                f"{len(left_out)} places have a larger one of their name in their state and are "
                f"left out, such as {'; '.join(left_out[:3])}.",
            )
        )
    ordered = sorted(
        rows.values(), key=lambda row: (row["country_code"], row["state"], row["city"])
    )
    return PlaceList(source=source, rows=tuple(ordered), findings=tuple(findings))


def _row(place: int, gazetteer: Gazetteer) -> dict[str, str]:
    table = gazetteer.table
    state = table.states[int(table.place_states[place])]
    country = table.countries[state.country]
    return {
        "city": table.name(place),
        "state": state.name or country.name,
        "country": country.name,
        "continent": CONTINENTS[country.continent_code],
        "state_code": state.code or "",
        "country_code": country.code,
        "continent_code": country.continent_code,
        "lat_deg": degrees_text(float(table.lats_deg[place])),
        "lon_deg": degrees_text(float(table.lons_deg[place])),
        "geonameid": str(int(table.geonameids[place])),
    }
