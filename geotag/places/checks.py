"""What only the whole of a list of places shows: doubles, two names of one thing, cycles."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from geotag.geo import distance_m
from geotag.places.countries import Spelling
from geotag.places.gazetteer import CONTINENTS
from geotag.places.join import SAME_CITY_KM, fold_name
from geotag.places.sheets import error, warning

if TYPE_CHECKING:
    from collections.abc import Iterable

    from geotag.places.atlas import Atlas
    from geotag.places.sheets import Finding, SheetRow


def drop_doubles(
    lines: list[int], rows: list[dict[str, str]]
) -> tuple[list[dict[str, str]], list[Finding]]:
    """Rows with every path once, the first that has it."""
    first_of: dict[tuple[str, ...], int] = {}
    kept, findings = [], []
    for at, row in enumerate(rows):
        path = tuple(fold_name(row[level]) for level in ("city", "state", "country", "continent"))
        first = first_of.setdefault(path, at)
        if first == at:
            kept.append(row)
            continue
        away_km = distance_m(_point(rows[first]), _point(row)) / 1000
        where = f"{row['city']}, {row['state']}, {row['country']} is listed in line {lines[first]}"
        if away_km > SAME_CITY_KM:
            text = (
                f"{where} too, {away_km:.0f} km away; give one of the two another name or state, "
                "or take it out."
            )
            findings.append(error(lines[at], text))
        else:
            findings.append(warning(lines[at], f"{where} already; this line is left out."))
    return kept, findings


def _point(row: dict[str, str]) -> tuple[float, float]:
    return float(row["lat_deg"]), float(row["lon_deg"])


def check_tree(lines: list[int], rows: list[dict[str, str]], atlas: Atlas) -> list[Finding]:
    """Countries on two continents or not on the gazetteer's, and codes with two names."""
    continents: dict[str, dict[str, int]] = {}
    names: dict[str, dict[str, int]] = {}
    moved: dict[tuple[str, str], tuple[int, str]] = {}
    for line, row in zip(lines, rows, strict=True):
        continents.setdefault(row["country"], {}).setdefault(row["continent"], line)
        spelling = atlas.find_country(row["country"])
        # England and Scotland are two names of one code, and rightly so; so is a territory's owner.
        if spelling is None or spelling == Spelling(code=row["country_code"]):
            names.setdefault(row["country_code"], {}).setdefault(row["country"], line)
        codes = atlas.continents(row["country_code"])
        if row["continent_code"] not in codes:
            moved.setdefault((row["country"], row["continent"]), (line, codes[0]))
    findings = [
        warning(
            line,
            f"the continent given for {country!r} is {continent}, the gazetteer has "
            f"{CONTINENTS[code]}. Correct it if that is not meant; the one given counts.",
        )
        for (country, continent), (line, code) in moved.items()
    ]
    for country, found in continents.items():
        if len(found) > 1:
            listed = " and ".join(f"{name} (line {line})" for name, line in found.items())
            findings.append(
                warning(
                    max(found.values()),
                    f"the country {country!r} is on two continents, {listed}: it becomes two "
                    "classes. Give one of them everywhere if that is not meant.",
                )
            )
    for code, found in names.items():
        if len(found) > 1:
            listed = " and ".join(f"{name!r} (line {line})" for name, line in found.items())
            findings.append(
                warning(
                    max(found.values()),
                    f"the country code {code} has two names, {listed}: they become two classes. "
                    "Use one of them everywhere if that is not meant.",
                )
            )
    return findings


def find_cycles(given: Iterable[SheetRow], filled: dict[int, dict[str, str]]) -> list[Finding]:
    """Places that lie within themselves, each cycle once; rows with other errors count as given."""
    parents: dict[str, dict[str, int]] = {}
    words: dict[str, str] = {}
    for row in given:
        cells = filled.get(row.line, row.cells)
        chain = [cells["state"], cells["country"], cells["continent"]]
        for child, parent in pairwise(chain):
            below, above = fold_name(child), fold_name(parent)
            if below and above and below != above:
                words.setdefault(below, child)
                words.setdefault(above, parent)
                parents.setdefault(below, {}).setdefault(above, row.line)
    findings = []
    for cycle in _cycles(parents):
        steps = pairwise(cycle)
        line = max(parents[child][parent] for child, parent in steps)
        path = " in ".join(words[name] for name in cycle)
        findings.append(
            error(line, f"{words[cycle[0]]} lies within itself: {path}. Correct one of the rows.")
        )
    return findings


def _cycles(parents: dict[str, dict[str, int]]) -> Iterable[list[str]]:
    """Paths from a name up to itself; one for each way back that a walk upwards meets."""
    done: set[str] = set()
    for start in parents:
        path, at = [start], {start: 0}
        ways = [iter(parents[start])]
        if start in done:
            continue
        while path:
            above = next(ways[-1], None)
            if above is None:
                done.add(path[-1])
                del at[path.pop()]
                ways.pop()
            elif above in at:
                yield [*path[at[above] :], above]
            elif above not in done:
                at[above] = len(path)
                path.append(above)
                ways.append(iter(parents.get(above, ())))
