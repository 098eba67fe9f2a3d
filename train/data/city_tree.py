"""The class tree of a dataset whose folders are cities.

City ids are the places of the folders in alphabetical order; the coarser levels are numbered by
first appearance. This numbers the 166 cities of CityGuessr68k as its release does.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engines.base import BundleError
from geotag.errors import ConfigError
from geotag.places.fill import fill_rows
from geotag.places.hierarchy import build_hierarchy
from geotag.places.join import fold_name
from geotag.places.lists import places_text
from geotag.places.sheets import COLUMNS, Sheet, SheetRow, parse_sheet
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from geotag.places.hierarchy import Hierarchy
    from geotag.places.sheets import Finding

LABELS_LIST = "labels_list.csv"
LIST_COLUMNS = ("City", "State", "Country", "Continent")
CITYGUESSR_CITIES = 166
_MOST_TOLD = 5
_TABLE166 = Path(__file__).parents[2] / "geotag" / "places" / "places166.csv"
_SPELLINGS = {"bangalore": "Banglore", "malmo": "Malm", "makka": "Makkah"}
"""Of cities whose folders are spelled in a way of their own, by folded name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CityTree:
    """A class tree and the folders of its cities."""

    hierarchy: Hierarchy
    places_csv: str
    city_ids: dict[str, int]
    """By name of the folder."""
    is_cityguessr: bool = False
    """Whether these are the 166 classes of CityGuessr68k."""


def make_tree(rows: Mapping[str, Mapping[str, str]], *, source: str) -> CityTree:
    """A tree from the rows of places, by folder.

    Args:
        rows: the columns of `places.csv` for every folder, in any order.
        source: named in errors.

    Raises:
        DatasetError: no rows, an incomplete one, or one city for two folders.
    """
    folders = sorted(rows)
    places = [{name: rows[folder][name] for name in COLUMNS} for folder in folders]
    try:
        hierarchy = build_hierarchy(places, source=source)
    except BundleError as exc:
        raise DatasetError(f"making the class tree: {exc}") from exc
    return CityTree(
        hierarchy=hierarchy,
        places_csv=places_text(places),
        city_ids={folder: number for number, folder in enumerate(folders)},
    )


def read_folder_table(path: Path) -> dict[str, dict[str, str]]:
    """A checked-in table of places that has a column `folder`: its rows by folder."""
    with path.open(encoding="utf-8", newline="") as stream:
        return {row.pop("folder"): row for row in csv.DictReader(stream)}


def cityguessr_tree() -> CityTree:
    """The 166 cities, 157 states, 91 countries and 6 continents of CityGuessr68k."""
    tree = make_tree(read_folder_table(_TABLE166), source=_TABLE166.name)
    return replace(tree, is_cityguessr=True)


def cityguessr_folders() -> frozenset[str]:
    """The folders of CityGuessr68k, in its own spelling (`Banglore`, `Malm`, `Talinn`)."""
    return frozenset(read_folder_table(_TABLE166))


def read_labels_list(path: Path, folders: Iterable[str]) -> CityTree:
    """The tree of a dataset of one's own, from its `labels_list.csv`.

    Columns are City, State, Country and Continent, and if wanted latitude, longitude and
    geonameid; a file without a header has the first four. What is missing comes from the
    gazetteer. City is the folder's name, where an underscore may be a blank, and capitals and
    accents do not count.

    Args:
        path: the file.
        folders: of the cities on disk: each needs a row; a row needs no folder.

    Raises:
        DatasetError: the file cannot be read, a row is wrong or unknown to the gazetteer, a
            folder has no row.
    """
    sheet = _read_list(path)
    lines = _lines_by_folder(sheet, set(folders), path)
    rows, findings = fill_rows(sheet)
    wrong = {finding.line for finding in findings if finding.severity == "error"}
    if wrong:
        sheet = _with_known_points(sheet, lines, wrong)
        rows, findings = fill_rows(sheet)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors or len(rows) != len(sheet.rows):
        raise _list_error(path, errors or list(findings))
    by_line = {row.line: filled for row, filled in zip(sheet.rows, rows, strict=True)}
    return make_tree({folder: by_line[line] for line, folder in lines.items()}, source=str(path))


def count_listed(path: Path) -> int:
    """How many lines a `labels_list.csv` has, whatever is in them.

    Raises:
        DatasetError: it cannot be read.
    """
    return sum(1 for line in _read_bytes(path).splitlines() if line.strip())


def _read_list(path: Path) -> Sheet:
    content = _read_bytes(path)
    sheet = parse_sheet(content)
    if any("no column city" in finding.text for finding in sheet.findings):
        sheet = parse_sheet(",".join(LIST_COLUMNS).encode() + b"\n" + content)
        sheet = replace(
            sheet,
            rows=tuple(replace(row, line=row.line - 1) for row in sheet.rows),
            findings=tuple(
                replace(finding, line=finding.line and finding.line - 1)
                for finding in sheet.findings
            ),
        )
    errors = [finding for finding in sheet.findings if finding.severity == "error"]
    if errors:
        raise _list_error(path, errors)
    spaced = [
        replace(row, cells={name: cell.replace("_", " ") for name, cell in row.cells.items()})
        for row in sheet.rows
    ]
    return replace(sheet, rows=tuple(spaced))


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise DatasetError(
            f"reading {str(path)!r}: {exc.strerror or exc}; give a CSV file that you may read"
        ) from exc


def _lines_by_folder(sheet: Sheet, folders: set[str], path: Path) -> dict[int, str]:
    """The folder of every row; one that is not on disk is called as the row calls it."""
    on_disk: dict[str, str] = {}
    for folder in sorted(folders):
        on_disk[fold_name(folder)] = folder
    for spelling, folder in _SPELLINGS.items():
        if folder in folders:
            on_disk.setdefault(spelling, folder)
    lines = {
        row.line: on_disk.get(fold_name(row.cells["city"]), row.cells["city"].replace(" ", "_"))
        for row in sheet.rows
    }
    missing = sorted(folders - set(lines.values()))
    if missing:
        raise DatasetError(
            f"reading {str(path)!r}: no row for the folder{'s' * (len(missing) > 1)} "
            f"{_some(missing)}; add a row with {', '.join(LIST_COLUMNS)} for each, or take the "
            "folder away"
        )
    twice = [folder for folder in set(lines.values()) if list(lines.values()).count(folder) > 1]
    if twice:
        raise DatasetError(
            f"reading {str(path)!r}: more than one row for the city {_some(sorted(twice))}; "
            "cities need names of their own, with folders called so"
        )
    return lines


def _with_known_points(sheet: Sheet, lines: Mapping[int, str], wrong: set[int | None]) -> Sheet:
    """The rows in question with the coordinates of CityGuessr68k's city of that folder.

    Its folders have spellings that no gazetteer knows.
    """
    known = read_folder_table(_TABLE166)
    rows: list[SheetRow] = []
    for row in sheet.rows:
        cells = row.cells
        if row.line in wrong and lines[row.line] in known and not cells["lat_deg"]:
            place = known[lines[row.line]]
            cells = {**cells, **{name: place[name] for name in ("lat_deg", "lon_deg", "geonameid")}}
        rows.append(replace(row, cells=cells))
    return replace(sheet, rows=tuple(rows))


def _list_error(path: Path, findings: Sequence[Finding]) -> ConfigError:
    told = "\n".join(f"  {finding}" for finding in findings[:_MOST_TOLD])
    more = len(findings) - _MOST_TOLD
    return DatasetError(
        f"reading {str(path)!r}, which names the classes ({', '.join(LIST_COLUMNS)}):\n{told}"
        + (f"\n  and {more} more" if more > 0 else "")
    )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_TOLD
    return ", ".join(map(repr, names[:_MOST_TOLD])) + (f" and {more} more" if more > 0 else "")
