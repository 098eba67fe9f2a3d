"""The rows of a training manifest, as `geotag label` writes it, and the class tree they make.

Everything about a row is checked when the manifest is opened, and every error names file and line:
a manifest may have been joined, filtered or written by other programs.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TextIO, cast, get_args

import numpy as np

from geotag.geo import mean_point_deg
from geotag.places.fill import degrees_text
from geotag.places.gazetteer import read_gazetteer
from geotag.places.lists import places_text
from train.data.dataset import Split
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

COLUMNS = (
    "video",
    "start_s",
    "end_s",
    "lat_deg",
    "lon_deg",
    "city_geonameid",
    "state_code",
    "country_code",
    "continent_code",
    "city",
    "state",
    "country",
    "continent",
    "drive_id",
    "split",
)
"""What is read of the columns of `geotag label`; others may stand beside them, in any order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The place of a row: its city, and everything above."""

    city: str
    geonameid: str
    """"" where the manifest gives none."""
    state: str
    """That of the country where the city lies in no state, as in the lists of `geotag`."""
    state_code: str
    country: str
    country_code: str
    continent: str
    continent_code: str

    @property
    def key(self) -> str:
        """What makes it one city: its id, or where there is none its whole path."""
        return self.geonameid or "/".join((self.city, self.state, self.country, self.continent))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A stretch of a video, [start_s, end_s), and where it was recorded."""

    line: int
    video: str
    """Path below the folder of the footage, with forward slashes."""
    start_s: float
    end_s: float
    lat_deg: float
    lon_deg: float
    drive_id: str
    split: Split
    home: Home | None
    """None: no city is known."""


def read_rows(path: Path) -> list[Row]:
    """Read a manifest.

    Raises:
        DatasetError: the file cannot be read, a column is missing, or a row is wrong.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return list(_read(stream, str(path)))
    except (OSError, UnicodeDecodeError) as exc:
        raise DatasetError(
            f"reading the manifest {path}: {exc}. It must be a CSV file in UTF-8, as "
            "`geotag label` writes it."
        ) from exc


def class_tree(rows: Sequence[Row], *, source: str) -> tuple[str, dict[str, int]]:
    """The class tree of the rows of all splits, so that every split has the same classes.

    Cities are in the order of country code, state, name and id. A city's point is that of the
    gazetteer; one that it does not know has the mean of its rows. Of two cities with one name in
    one state the one with the greater id has it added to its name.

    Returns:
        The text of a `places.csv`, and the class of each `Home.key`.

    Raises:
        DatasetError: no row has a city, a city lies in two places, or a name has two codes.
    """
    rows = [row for row in rows if row.home is not None]
    if not rows:
        raise DatasetError(
            f"reading the manifest {source}: no row names a city, so there is nothing to learn. "
            "Footage must be recorded in or near a city."
        )
    _check_tree(rows, source)
    by_city: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_city[_home(row).key].append(row)
    ordered = sorted(by_city.items(), key=lambda item: _order(_home(item[1][0])))
    points = _known_points([key for key, _ in ordered])
    seen: set[tuple[str, ...]] = set()
    table: list[dict[str, str]] = []
    for key, own in ordered:
        table.append(_place(_home(own[0]), points.get(key) or _mean_point(own), seen))
    return places_text(table), {key: number for number, (key, _) in enumerate(ordered)}


def _read(stream: TextIO, source: str) -> Iterator[Row]:
    reader = csv.reader(stream, strict=True)
    try:
        yield from _parse_all(reader, lambda: reader.line_num, source)
    except csv.Error as exc:
        raise DatasetError(
            f"reading the manifest {source}, line {reader.line_num}: {exc}. It must be a CSV file, "
            "as `geotag label` writes it."
        ) from exc


def _parse_all(
    lines: Iterator[list[str]], line_number: Callable[[], int], source: str
) -> Iterator[Row]:
    header = next(lines, [])
    missing = [name for name in COLUMNS if name not in header]
    if missing or len(set(header)) != len(header):
        raise DatasetError(
            f"reading the manifest {source}, line 1: "
            + (f"the columns {', '.join(missing)} are missing" if missing else "a column is double")
            + ". `geotag label FOLDER --out FILE` writes them all."
        )
    seen: dict[tuple[str, float], int] = {}
    homes: dict[Home, Home] = {}  # one object a city: a manifest has many rows
    for fields in lines:
        if not fields:
            continue
        line = line_number()
        where = f"reading the manifest {source}, line {line}"
        if len(fields) != len(header):
            raise DatasetError(
                f"{where}: {len(fields)} fields; the header has {len(header)} columns."
            )
        row = _parse(dict(zip(header, fields, strict=True)), line, where, homes)
        first = seen.setdefault((row.video, row.start_s), line)
        if first != line:
            raise DatasetError(
                f"{where}: {row.video!r} from {row.start_s:g} s is in line {first} already."
            )
        yield row


def _parse(fields: dict[str, str], line: int, where: str, homes: dict[Home, Home]) -> Row:
    numbers = {name: _number(fields, name, where) for name in COLUMNS[1:5]}
    start_s, end_s = numbers["start_s"], numbers["end_s"]
    if not 0.0 <= start_s < end_s:
        raise DatasetError(
            f"{where}: start_s {start_s:g}, end_s {end_s:g}; a stretch begins at 0 or later and "
            "ends after it begins."
        )
    if abs(numbers["lat_deg"]) > 90 or abs(numbers["lon_deg"]) > 180:
        raise DatasetError(
            f"{where}: latitude {numbers['lat_deg']:g}, longitude {numbers['lon_deg']:g}; allowed "
            "are -90..90 and -180..180."
        )
    split = fields["split"]
    if split not in get_args(Split):
        raise DatasetError(f"{where}: split {split!r}; allowed are {', '.join(get_args(Split))}.")
    video = _checked_video(fields["video"], where)
    home = _parse_home(fields, where)
    return Row(
        line=line,
        video=video,
        drive_id=fields["drive_id"] or video,
        split=cast("Split", split),
        home=None if home is None else homes.setdefault(home, home),
        **numbers,
    )


def _number(fields: dict[str, str], name: str, where: str) -> float:
    try:
        value = float(fields[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DatasetError(f"{where}: {name} is {fields[name]!r}; a number is needed.")
    return value


def _checked_video(video: str, where: str) -> str:
    path = PurePosixPath(video)
    if not video or path.is_absolute() or ".." in path.parts or "\0" in video:
        raise DatasetError(
            f"{where}: video {video!r}; it must be a path below the folder of the footage."
        )
    return video


def _parse_home(fields: dict[str, str], where: str) -> Home | None:
    given = {name: fields[name].strip() for name in COLUMNS[5:13]}
    if not given["city"]:
        return None
    orphan = [name for name in ("country", "continent") if not given[name]]
    if orphan:
        raise DatasetError(
            f"{where}: the city {given['city']!r} has no {' and no '.join(orphan)}; a class needs "
            "its whole path. Fill it in, or leave the city empty."
        )
    geonameid = given.pop("city_geonameid")
    if geonameid and not (geonameid.isascii() and geonameid.isdecimal() and len(geonameid) < 12):
        raise DatasetError(f"{where}: city_geonameid {geonameid!r}; a whole number is needed.")
    given["state"] = given["state"] or given["country"]
    return Home(geonameid=geonameid, **given)


def _check_tree(rows: Iterable[Row], source: str) -> None:
    """Every name has one place above it and one code, wherever it stands."""
    first: dict[tuple[str, ...], tuple[tuple[str, ...], int]] = {}
    for row in rows:
        home = _home(row)
        above = (home.state, home.country, home.continent)
        claims = {
            ("city", home.key): (home.city, *above),
            ("state", *above): (home.state_code,),
            ("country", home.country): (home.country_code, home.continent),
            ("continent", home.continent): (home.continent_code,),
        }
        for name, claim in claims.items():
            there, line = first.setdefault(name, (claim, row.line))
            if there != claim:
                raise DatasetError(
                    f"reading the manifest {source}, line {row.line}: the {name[0]} "
                    f"{home.city if name[0] == 'city' else name[1]!r} is {_told(claim)}; in line "
                    f"{line} it is {_told(there)}. A place lies in one place."
                )


def _home(row: Row) -> Home:
    assert row.home is not None
    return row.home


def _told(claim: tuple[str, ...]) -> str:
    return ", ".join(part or "(nothing)" for part in claim)


def _order(home: Home) -> tuple[str | int, ...]:
    return (home.country_code, home.country, home.state, home.city, int(home.geonameid or 0))


def _known_points(keys: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Reference points of those cities that the gazetteer has."""
    ids = {int(key): key for key in keys if key.isascii() and key.isdecimal()}
    if not ids:
        return {}
    table = read_gazetteer().table
    found = np.flatnonzero(np.isin(table.geonameids, np.array(list(ids), dtype=np.int64)))
    return {
        ids[int(table.geonameids[at])]: (float(table.lats_deg[at]), float(table.lons_deg[at]))
        for at in found.tolist()
    }


def _mean_point(rows: Sequence[Row]) -> tuple[float, float]:
    lats_deg = np.array([row.lat_deg for row in rows])
    lons_deg = np.array([row.lon_deg for row in rows])
    return mean_point_deg(lats_deg, lons_deg, np.ones(len(rows)))


def _place(
    home: Home, point_deg: tuple[float, float], seen: set[tuple[str, ...]]
) -> dict[str, str]:
    path = (home.city, home.state, home.country, home.continent)
    city = home.city if path not in seen else f"{home.city} ({home.geonameid})"
    seen.add(path)
    return {
        "city": city,
        "state": home.state,
        "country": home.country,
        "continent": home.continent,
        "state_code": home.state_code,
        "country_code": home.country_code,
        "continent_code": home.continent_code,
        "lat_deg": degrees_text(point_deg[0]),
        "lon_deg": degrees_text(point_deg[1]),
        "geonameid": home.geonameid,
    }
