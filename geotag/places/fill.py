"""Rows of places as a person gives them, completed from the gazetteer and checked.

A row that gives coordinates is where they are; one that gives a GeoNames id is that place; any
other is the most populous place of its name in what is given of country and state. What a person
wrote is kept, and only what is missing is filled in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from geotag.config import suggest
from geotag.geo import distance_m, distances_m
from geotag.places.atlas import city_key, open_atlas
from geotag.places.checks import check_tree, drop_doubles, find_cycles
from geotag.places.countries import belongs
from geotag.places.gazetteer import CONTINENTS
from geotag.places.join import SAME_CITY_KM, fold_name
from geotag.places.nearest import nearest_places
from geotag.places.sheets import error, warning

if TYPE_CHECKING:
    from collections.abc import Iterable

    from geotag.places.atlas import Atlas
    from geotag.places.countries import Spelling
    from geotag.places.gazetteer import Geocode
    from geotag.places.sheets import Finding, Sheet, SheetRow

MOST_HOMONYMS = 3
"""Other places of a name that a warning tells of."""
BORDER_KM = 5.0
"""A point this near to a place of the country given is in that country: the borders that the
gazetteer looks points up in are those of time zones, and some towns lie astride one."""
_MOST_SUGGESTIONS = 100
"""Of a name that is close: each takes a millisecond, and nobody reads more."""
_MOST_ASTRAY_KM = 300.0
"""A point this far from every place of its country is no matter of a border."""
_MOST_MEASURED = 100
"""Ways to the country that was given: each takes a millisecond too."""
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_CONTINENT_CODES = {fold_name(name): code for code, name in CONTINENTS.items()} | {
    fold_name(code): code for code in CONTINENTS
}
_CONTINENTS_ALLOWED = ", ".join(f"{name} ({code})" for code, name in CONTINENTS.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """A row whose every cell is understood."""

    line: int
    cells: dict[str, str]
    country: Spelling | None
    continent_code: str
    """'' where none is given."""
    point_deg: tuple[float, float] | None
    """As given."""
    place: int | None
    """Row of the place whose GeoNames id is given and known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the gazetteer says of a row."""

    point_deg: tuple[float, float]
    country_code: str
    """'' where no country is."""
    state: str
    state_code: str
    geonameid: str
    note: str = ""
    """The disputed area that the place lies in."""


def fill_rows(sheet: Sheet) -> tuple[list[dict[str, str]], list[Finding]]:
    """Complete and check the rows of a file.

    Returns:
        The rows without an error, each place once, in the order of the file; all findings, those
        of the form included, in the order of their lines.
    """
    atlas = open_atlas()
    findings = list(sheet.findings)
    wishes = []
    for row in sheet.rows:
        wish = _read_wish(row, atlas, findings, decimal_commas=sheet.has_decimal_commas)
        if wish is not None:
            wishes.append(wish)
    lines, rows = [], []
    misplaced: list[Finding] = []
    for wish, found in _find_all(wishes, atlas, findings):
        filled = _fill(wish, found, atlas)
        if not filled["country"]:
            findings.append(error(wish.line, _NOWHERE.format(*found.point_deg)))
            continue
        _check_country(wish, found, atlas, misplaced)
        lines.append(wish.line)
        rows.append(filled)
    kept, doubles = drop_doubles(lines, rows)
    findings += misplaced + doubles
    findings += check_tree(lines, rows, atlas)
    findings += find_cycles(sheet.rows, dict(zip(lines, rows, strict=True)))
    return kept, sorted(findings, key=lambda finding: finding.line or 0)


_NOWHERE = "the coordinates {:g}, {:g} lie in no country, and none is given; give the country."


def degrees_text(value_deg: float) -> str:
    """Four decimals, which is 11 m, or six where more is known."""
    text = f"{round(value_deg, 6) + 0.0:.6f}"
    return text.removesuffix("00")


def _read_wish(
    row: SheetRow, atlas: Atlas, findings: list[Finding], *, decimal_commas: bool
) -> _Wish | None:
    """Understand the cells of a row; None where there is an error, which is then in the list."""
    cells = row.cells
    errors: list[str] = []
    if not fold_name(cells["city"]):
        errors.append(
            f"the city is {cells['city']!r}; give its name."
            if cells["city"]
            else "the city is empty; give its name, or take the line out."
        )
    words = atlas.words if len(findings) < _MOST_SUGGESTIONS else []
    country = _read_country(cells, atlas, words, errors)
    continent_code = _read_continent(cells, errors)
    point_deg = _read_point(cells, errors, decimal_commas=decimal_commas)
    place = _read_id(cells, point_deg, atlas, errors)
    findings += [error(row.line, text) for text in errors]
    if errors:
        return None
    return _Wish(
        line=row.line,
        cells=cells,
        country=country,
        continent_code=continent_code,
        point_deg=point_deg,
        place=place,
    )


def _read_country(
    cells: dict[str, str], atlas: Atlas, words: list[str], errors: list[str]
) -> Spelling | None:
    name, code = cells["country"], cells["country_code"]
    by_name = atlas.find_country(name) if name else None
    by_code = atlas.find_country(code) if code else None
    if code and by_code is None:
        errors.append(f"unknown country_code {code!r}; give a code of ISO 3166-1, such as DE.")
    elif name and by_name is None and by_code is None:
        errors.append(
            f"unknown country {name!r}.{suggest(name, words, closeness=0.75)} Give its English "
            "name or its ISO 3166-1 code; a name of your own needs the code in the column "
            "country_code."
        )
    elif by_name is not None and by_code is not None and not belongs(by_code.code, by_name.code):
        errors.append(
            f"the country {name!r} has the code {by_name.code}, not {code!r}; correct one of them."
        )
    elif by_name is not None and by_code is not None and by_name.code != by_code.code:
        return by_code
    return by_name or by_code


def _read_continent(cells: dict[str, str], errors: list[str]) -> str:
    """Its code, '' for none."""
    codes = []
    for column in ("continent", "continent_code"):
        given = cells[column]
        if not given:
            continue
        code = _CONTINENT_CODES.get(fold_name(given))
        if code is None:
            errors.append(f"unknown {column} {given!r}; allowed are {_CONTINENTS_ALLOWED}.")
        else:
            codes.append(code)
    if len(set(codes)) > 1:
        errors.append(
            f"the continent {cells['continent']!r} has the code {codes[0]}, not "
            f"{cells['continent_code']!r}; correct one of them."
        )
    return codes[0] if codes else ""


def _read_point(
    cells: dict[str, str], errors: list[str], *, decimal_commas: bool
) -> tuple[float, float] | None:
    texts = [cells["lat_deg"], cells["lon_deg"]]
    if not any(texts):
        return None
    if not all(texts):
        missing, given = ("latitude", "longitude") if not texts[0] else ("longitude", "latitude")
        errors.append(
            f"the {missing} is missing, the {given} is {texts[0] or texts[1]!r}; give both or none."
        )
        return None
    if decimal_commas:
        texts = [text.replace(",", ".") for text in texts]
    wrong = [text for text in texts if _NUMBER.fullmatch(text) is None]
    if wrong:
        errors.append(f"the coordinate {wrong[0]!r} is no number; give degrees, such as 48.137.")
        return None
    lat_deg, lon_deg = float(texts[0]), float(texts[1])
    if not (abs(lat_deg) <= 90 and abs(lon_deg) <= 180):
        hint = (
            " Are the two in the wrong order?" if abs(lon_deg) <= 90 < abs(lat_deg) <= 180 else ""
        )
        errors.append(
            f"latitude {lat_deg:g}, longitude {lon_deg:g}; allowed are -90 to 90 and -180 to 180 "
            f"degrees.{hint}"
        )
        return None
    return lat_deg, lon_deg


def _read_id(
    cells: dict[str, str],
    point_deg: tuple[float, float] | None,
    atlas: Atlas,
    errors: list[str],
) -> int | None:
    """The place that has the GeoNames id; None where none is given or the gazetteer lacks it."""
    given = cells["geonameid"]
    if not given:
        return None
    if re.fullmatch(r"\d{1,12}", given, re.ASCII) is None:
        errors.append(f"the geonameid {given!r} is no number; give that of GeoNames, or nothing.")
        return None
    place = atlas.ids.get(int(given))
    if place is None and point_deg is None and (cells["lat_deg"] or cells["lon_deg"]) == "":
        errors.append(
            f"the geonameid {given} is not in the gazetteer, which has the places of 500 people "
            "or more; give the coordinates."
        )
    return place


def _find_all(
    wishes: list[_Wish], atlas: Atlas, findings: list[Finding]
) -> Iterable[tuple[_Wish, _Found]]:
    """Look every row up; the points in one batch."""
    asked = [(wish, wish.point_deg, wish.country) for wish in wishes if wish.point_deg is not None]
    points = [point_deg for _, point_deg, _ in asked]
    geocodes = atlas.gazetteer.locate([lat for lat, _ in points], [lon for _, lon in points])
    strayed = [
        (wish.line, point_deg, country)
        for (wish, point_deg, country), geocode in zip(asked, geocodes, strict=True)
        if country is not None
        and not _is_inside(country, geocode.country_code or "", geocode.state_code or "")
    ]
    beside = _find_beside(strayed, atlas)
    found = {
        wish.line: _found_at(wish, point_deg, geocode, beside.get(wish.line), atlas, findings)
        for (wish, point_deg, _), geocode in zip(asked, geocodes, strict=True)
    }
    for wish in wishes:
        if wish.line in found:
            yield wish, found[wish.line]
            continue
        place = wish.place if wish.place is not None else _find_by_name(wish, atlas, findings)
        if place is not None:
            yield wish, _found_place(place, atlas)


def _is_inside(country: Spelling, country_code: str, state_code: str) -> bool:
    return belongs(country_code, country.code) and country.part in (None, state_code)


def _find_beside(
    strayed: list[tuple[int, tuple[float, float], Spelling]], atlas: Atlas
) -> dict[int, int]:
    """By line, the place that is at a point, in the country given; none for most.

    Args:
        strayed: line, point and country given, where the point lies in another country.
        atlas: the gazetteer.
    """
    wanted = {country: row for row, country in enumerate({country for _, _, country in strayed})}
    table = atlas.table
    allowed = np.array(
        [
            [
                _is_inside(country, table.countries[state.country].code, state.code or "")
                for state in table.states
            ]
            for country in wanted
        ],
        dtype=bool,
    ).reshape(len(wanted), len(table.states))
    places, kms = nearest_places(
        atlas.gazetteer.grid,
        np.array([point_deg[0] for _, point_deg, _ in strayed]),
        np.array([point_deg[1] for _, point_deg, _ in strayed]),
        place_groups=table.place_states,
        sets=np.array([wanted[country] for _, _, country in strayed], dtype=np.int64),
        allowed_ZG=allowed,
        near_only=np.ones(len(wanted), dtype=bool),
    )
    return {
        line: int(place)
        for (line, _, _), place, km in zip(strayed, places, kms, strict=True)
        if km <= BORDER_KM
    }


def _found_place(place: int, atlas: Atlas) -> _Found:
    return _Found(
        point_deg=atlas.point(place),
        country_code=atlas.country_code(place),
        state=atlas.table.states[int(atlas.table.place_states[place])].name or "",
        state_code=atlas.state_code(place),
        geonameid=str(int(atlas.table.geonameids[place])),
    )


def _found_at(
    wish: _Wish,
    point_deg: tuple[float, float],
    geocode: Geocode,
    beside: int | None,
    atlas: Atlas,
    findings: list[Finding],
) -> _Found:
    """What is at the coordinates: the place of the id or of the country given if it is there."""
    here = beside
    if wish.place is not None:
        away_km = distance_m(point_deg, atlas.point(wish.place)) / 1000
        if away_km <= SAME_CITY_KM:
            here = wish.place
        else:
            findings.append(
                warning(
                    wish.line,
                    f"the coordinates {point_deg[0]:g}, {point_deg[1]:g} are {away_km:.0f} km from "
                    f"GeoNames {wish.cells['geonameid']}, {atlas.label(wish.place)}; correct one "
                    "of them. The coordinates count.",
                )
            )
    if here is not None:
        found = replace(_found_place(here, atlas), point_deg=point_deg)
    else:
        found = _Found(
            point_deg=point_deg,
            country_code=geocode.country_code or "",
            state=geocode.state or "",
            state_code=geocode.state_code or "",
            geonameid="",
            note=f" ({geocode.disputed})" if geocode.disputed else "",
        )
    if wish.cells["geonameid"]:
        return found
    place = _near_namesake(wish.cells["city"], point_deg, found.country_code, atlas)
    geonameid = "" if place is None else str(int(atlas.table.geonameids[place]))
    return replace(found, geonameid=geonameid)


def _near_namesake(
    city: str, point_deg: tuple[float, float], country_code: str, atlas: Atlas
) -> int | None:
    """The most populous place of a name in the country of a point and near it."""
    for place in atlas.places.get(city_key(city), ()):
        if (
            atlas.country_code(place) == country_code
            and distance_m(point_deg, atlas.point(place)) / 1000 <= SAME_CITY_KM
        ):
            return place
    return None


def _find_by_name(wish: _Wish, atlas: Atlas, findings: list[Finding]) -> int | None:
    """The most populous place of a row's name that fits what is given."""
    named = atlas.places.get(city_key(wish.cells["city"]), [])
    fitting = _in_state(_in_country(named, wish, atlas), wish, atlas)
    if not fitting:
        given = ", ".join(
            wish.cells[column] or wish.cells[f"{column}_code"]
            for column in ("state", "country", "continent")
            if wish.cells[column] or wish.cells[f"{column}_code"]
        )
        elsewhere = f" The gazetteer has {atlas.label(named[0])}." if named else ""
        findings.append(
            error(
                wish.line,
                f"the city {wish.cells['city']!r} is not in the gazetteer"
                f"{f' in {given}' if given else ''}.{elsewhere} Give its coordinates (lat, lon), "
                "or the name that GeoNames has for it.",
            )
        )
        return None
    others = _homonyms(fitting, atlas)
    if others:
        named_others = "; ".join(atlas.label(place) for place in others[:MOST_HOMONYMS])
        more = len(others) - MOST_HOMONYMS
        findings.append(
            warning(
                wish.line,
                f"{wish.cells['city']!r} is taken for {atlas.label(fitting[0])}, the most "
                f"populous of that name. There is also {named_others}"
                f"{f' and {more} more' if more > 0 else ''}. Give the country and the state if "
                "that is wrong.",
            )
        )
    return fitting[0]


def _in_country(places: list[int], wish: _Wish, atlas: Atlas) -> list[int]:
    """Those in the country that is given, else in a territory of it; else in the continent."""
    if wish.country is None:
        if not wish.continent_code:
            return places
        return [
            place
            for place in places
            if wish.continent_code in atlas.continents(atlas.country_code(place))
        ]
    code, part = wish.country.code, wish.country.part
    inside = [
        place
        for place in places
        if atlas.country_code(place) == code and part in (None, atlas.state_code(place))
    ]
    if inside or part is not None:
        return inside
    return [place for place in places if belongs(atlas.country_code(place), code)]


def _in_state(places: list[int], wish: _Wish, atlas: Atlas) -> list[int]:
    """Those in the state that is given; all where the gazetteer has no such state."""
    states = _given_states(wish, atlas)
    if not states:
        return places
    return [place for place in places if int(atlas.table.place_states[place]) in states]


def _given_states(wish: _Wish, atlas: Atlas) -> set[int]:
    """Rows of the states that a row can mean, by code before name; a name may be a code, too."""
    country_code = wish.country.code if wish.country is not None else ""
    named, code = wish.cells["state"], wish.cells["state_code"]
    states = _states_of_code(code, country_code, atlas)
    if not states and named:
        states = atlas.states.get(fold_name(named), set()) | _states_of_code(
            named, country_code, atlas
        )
    countries = atlas.table.countries
    return {
        state
        for state in states
        if not country_code
        or belongs(countries[atlas.table.states[state].country].code, country_code)
    }


def _states_of_code(code: str, country_code: str, atlas: Atlas) -> set[int]:
    """The state of an ISO 3166-2 code, whose country may be left out where it is known."""
    codes = (code.upper(), f"{country_code}-{code.upper()}")
    return {atlas.state_codes[code] for code in codes if code in atlas.state_codes}


def _homonyms(places: list[int], atlas: Atlas) -> list[int]:
    """The most populous place of each other state than the first place's."""
    first_of: dict[int, int] = {}
    for place in places:
        first_of.setdefault(int(atlas.table.place_states[place]), place)
    return list(first_of.values())[1:]


def _fill(wish: _Wish, found: _Found, atlas: Atlas) -> dict[str, str]:
    """The finished row; without a country where neither the row nor the place has one."""
    cells, given = wish.cells, wish.country
    code = given.code if given is not None else found.country_code
    country = cells["country"]
    spelling = atlas.find_country(country)
    if code and (not country or (spelling is not None and spelling.is_code)):
        country = atlas.countries[code].name
    continent_code = wish.continent_code or (atlas.countries[code].continent_code if code else "")
    state, state_code = _fill_state(wish, found, country, code, atlas)
    return {
        "city": cells["city"],
        "state": state,
        "country": country,
        "continent": CONTINENTS.get(continent_code, ""),
        "state_code": state_code,
        "country_code": code,
        "continent_code": continent_code,
        "lat_deg": degrees_text(found.point_deg[0]),
        "lon_deg": degrees_text(found.point_deg[1]),
        "geonameid": cells["geonameid"].lstrip("0") or found.geonameid,
    }


def _fill_state(
    wish: _Wish, found: _Found, country: str, country_code: str, atlas: Atlas
) -> tuple[str, str]:
    """Name and code of the state: as given, else of the place, else the country's name.

    A state that the gazetteer has under no such name gets no code: it may be a part of one.
    """
    named, code = wish.cells["state"], wish.cells["state_code"]
    states = [atlas.table.states[row] for row in sorted(_given_states(wish, atlas))]
    known = [
        state
        for state in states
        if belongs(atlas.table.countries[state.country].code, country_code)
    ]
    if not named:
        if known:
            return known[0].name or country, known[0].code or code
        if found.state and belongs(found.country_code, country_code):
            return found.state, code or found.state_code
        return country, code
    codes = [state.code for state in known if state.code is not None]
    if found.state_code in codes:
        code = found.state_code
    elif len(codes) == 1:
        code = codes[0]
    if len(known) == 1 and fold_name(named) not in atlas.states:
        whole = known[0].code or ""
        if fold_name(named) in (fold_name(whole), fold_name(whole.partition("-")[2])):
            named = known[0].name or named
    return named, code


def _check_country(wish: _Wish, found: _Found, atlas: Atlas, misplaced: list[Finding]) -> None:
    """Whether a row lies in the country that it gives."""
    given = wish.country
    if given is None or (wish.point_deg is None and wish.place is None):
        return
    if _is_inside(given, found.country_code, found.state_code):
        return
    here = atlas.countries[found.country_code].name if found.country_code else "no country"
    if belongs(found.country_code, given.code) and found.state:
        here = f"{found.state}, {here}"
    what = "the coordinates" if wish.point_deg is not None else "the coordinates of the geonameid"
    name = wish.cells["country"] or atlas.countries[given.code].name
    is_measured = len(misplaced) < _MOST_MEASURED
    nearest, km = _away(found.point_deg, given, atlas) if is_measured else ("", 0.0)
    away = f", whose nearest place, {nearest}, is {km:.0f} km away" if nearest else ""
    text = (
        f"{what} {found.point_deg[0]:g}, {found.point_deg[1]:g} lie in {here}{found.note}, "
        f"the country given is {name!r}{away}. "
    )
    if km > _MOST_ASTRAY_KM:
        text += "Are latitude and longitude in the wrong order? "
    misplaced.append(warning(wish.line, f"{text}Correct one of them; the country given counts."))


def _away(point_deg: tuple[float, float], given: Spelling, atlas: Atlas) -> tuple[str, float]:
    """The nearest place of the country given, and how far it is, km."""
    table, codes = atlas.table, [entry.code for entry in atlas.table.countries]
    places = np.flatnonzero(atlas.gazetteer.place_countries == codes.index(given.code))
    if given.part is not None:
        state = atlas.state_codes.get(given.part, -1)
        places = places[table.place_states[places] == state]
    if not len(places):
        return "", 0.0
    away_m = distances_m(point_deg, table.lats_deg[places], table.lons_deg[places])
    nearest = int(places[int(away_m.argmin())])
    return table.name(nearest), float(away_m.min()) / 1000
