"""A person's table of places: a CSV file in any common dialect, read into cells by column."""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from geotag.errors import ConfigError
from geotag.places.join import fold_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLUMNS = (
    "city",
    "state",
    "country",
    "continent",
    "state_code",
    "country_code",
    "continent_code",
    "lat_deg",
    "lon_deg",
    "geonameid",
)
"""The columns of a list of places, in the order in which it is written."""

MOST_BYTES = 256 * 2**20
"""Of a file; a thousand times what every city on earth takes would still be some mistake."""
MOST_ROWS = 1_000_000
"""Four times as many as the gazetteer has places."""

_SPELLINGS = {fold_name(column): column for column in COLUMNS} | {
    "lat": "lat_deg",
    "latitude": "lat_deg",
    "lon": "lon_deg",
    "lng": "lon_deg",
    "longitude": "lon_deg",
}
_DELIMITERS = (",", ";", "\t")
# Those that `str.split` takes for blanks are let through: they become blanks.
_CONTROL = re.compile("[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong or doubtful in a list of places."""

    line: int | None
    """Of the file, from 1; None where it is about the whole list."""
    severity: Literal["error", "warning"]
    text: str
    """What it is, the value, what is allowed, what to do."""

    def __str__(self) -> str:
        """For a person, on one line."""
        return self.text if self.line is None else f"line {self.line}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetRow:
    """One place as a person wrote it."""

    line: int
    """Where it begins in the file, from 1."""
    cells: dict[str, str]
    """By the names of COLUMNS, '' where nothing is given; blanks at the ends are gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A file's rows and what is wrong with its form."""

    rows: tuple[SheetRow, ...]
    has_decimal_commas: bool
    """A comma in a number can only be a decimal one: the cells are not parted by commas."""
    findings: tuple[Finding, ...]


def error(line: int | None, text: str) -> Finding:
    """Something that forbids using the list."""
    return Finding(line, "error", text)


def warning(line: int | None, text: str) -> Finding:
    """Something that a person should look at."""
    return Finding(line, "warning", text)


def read_sheet(path: Path) -> Sheet:
    """Read a file.

    Raises:
        ConfigError: it cannot be read; what is wrong inside is in the findings.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as exc:
        raise ConfigError(
            f"reading the list of places {str(path)!r}: {exc.strerror or exc}; give a CSV file "
            "that you may read."
        ) from exc
    return parse_sheet(content)


def parse_sheet(content: bytes) -> Sheet:
    """Take a file's content apart; the header is its first line that is not empty."""
    text, finding = _decode(content)
    if finding is not None:
        return Sheet(rows=(), has_decimal_commas=False, findings=(finding,))
    delimiter = _find_delimiter(text)
    findings: list[Finding] = []
    records = _records(text, delimiter, findings)
    columns = _find_columns(next(records, (1, []))[1], findings)
    rows: list[SheetRow] = []
    for line, cells in records if columns else ():
        if len(rows) == MOST_ROWS:
            findings.append(error(line, f"more than {MOST_ROWS:,} rows; give a shorter list."))
            break
        if any(cells[len(columns) :]):
            findings.append(
                error(
                    line,
                    f"{len(cells)} cells, {cells[-1][:40]!r} the last; the header has "
                    f"{len(columns)}. Put a cell that holds {delimiter!r} in double quotes.",
                )
            )
            continue
        given = {
            column: cell for column, cell in zip(columns, cells, strict=False) if column is not None
        }
        rows.append(SheetRow(line=line, cells=dict.fromkeys(COLUMNS, "") | given))
    if not rows and not findings:
        findings.append(error(None, "no rows; below the header, give one line for each city."))
    return Sheet(rows=tuple(rows), has_decimal_commas=delimiter != ",", findings=tuple(findings))


def _decode(content: bytes) -> tuple[str, Finding | None]:
    if len(content) > MOST_BYTES:
        return "", error(None, f"more than {MOST_BYTES >> 20} MB; give a shorter list.")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as exc:
        return "", error(
            content.count(b"\n", 0, exc.start) + 1,
            f"not UTF-8 text: the byte {content[exc.start]:#04x}. Save the file as UTF-8; a "
            'spreadsheet calls it "CSV UTF-8".',
        )
    control = _CONTROL.search(text)
    if control is not None:
        return "", error(
            text.count("\n", 0, control.start()) + 1,
            f"not text: the control character {control[0]!r}. Give a CSV file, saved as UTF-8.",
        )
    return text, None


def _find_delimiter(text: str) -> str:
    """The one that makes the most columns of the header known; a comma if in doubt."""
    header = re.match(r"\s*([^\r\n]*)", text)
    line = header[1] if header is not None else ""
    known = {
        delimiter: len({_SPELLINGS.get(fold_name(cell)) for cell in line.split(delimiter)} - {None})
        for delimiter in _DELIMITERS
    }
    return max(_DELIMITERS, key=lambda delimiter: known[delimiter])


def _records(text: str, delimiter: str, findings: list[Finding]) -> Iterator[tuple[int, list[str]]]:
    """Line and cells of every record that is not empty; what is no CSV goes to the findings."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    line = 1
    try:
        for record in reader:
            cells = [" ".join(cell.split()) for cell in record]
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as exc:
        findings.append(
            error(
                line,
                f"no CSV from here on ({exc}). A cell that begins with a double quote ends with "
                "one, and one inside it is written twice.",
            )
        )


def _find_columns(header: list[str], findings: list[Finding]) -> list[str | None]:
    """For each cell of the header the column that it names; [] where it cannot be used."""
    columns = [_SPELLINGS.get(fold_name(cell)) for cell in header]
    twice = [
        f"{header[at]!r}"
        for at, column in enumerate(columns)
        if column is not None and column in columns[:at]
    ]
    if twice:
        findings.append(
            error(None, f"two columns of one meaning: {', '.join(twice)} is one too many.")
        )
    elif "city" not in columns and not findings:
        found = ", ".join(repr(cell[:40]) for cell in header[:12]) or "nothing"
        findings.append(
            error(
                None,
                f"no column city; the header holds {found}. The first line names the columns: "
                f"city, and any of {', '.join(COLUMNS[1:-3])}, lat, lon, geonameid.",
            )
        )
    return [] if findings else columns
