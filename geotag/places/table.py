"""The gazetteer's file: every place of GeoNames with 500 people or more, in under three megabytes.

The file is LZMA over: the length of a JSON header (4 bytes, little endian), the header, then the
columns. A column of integers is stored byte plane by byte plane, all the low bytes first, which
is what makes it small. Places are sorted by grid cell, row by row from the south-west, then by
id. Shape suffix: N places.
"""

from __future__ import annotations

import json
import lzma
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SCHEMA = 1
CELLS_PER_DEG = 4
"""Cells of a quarter of a degree: 28 km high, some 20 places in one where people live close."""
ROWS = 180 * CELLS_PER_DEG
COLUMNS = 360 * CELLS_PER_DEG
UNITS_PER_DEG = 10_000
"""Coordinates are kept to 11 m."""
SECTION = 1
"""A quarter or a suburb of a city: feature code PPLX of GeoNames."""
PART = 2
"""A place in the municipality of a larger one."""
_UNITS_PER_CELL = UNITS_PER_DEG // CELLS_PER_DEG
_PLANES = {
    "cell_steps": 3,
    "lats_units": 2,
    "lons_units": 2,
    "geonameids": 4,
    "states": 2,
    "population_digits": 2,
    "population_tens": 1,
    "kinds": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Country:
    """A country or territory with a code of its own."""

    code: str
    """ISO 3166-1 alpha-2; XK, which ISO leaves to users, for Kosovo."""
    code3: str
    numeric: int | None
    """ISO 3166-1 numeric, the code of UN M49; None for Kosovo."""
    name: str
    continent_code: str
    """As GeoNames has it: AF AS EU NA SA OC AN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The first level below a country."""

    country: int
    """Row of its country."""
    name: str | None
    """None for the places of a country that are in no state."""
    code: str | None
    """ISO 3166-2; None where ISO gives none."""
    geonameid: int | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """What the file holds.  All arrays [N]."""

    countries: tuple[Country, ...]
    states: tuple[State, ...]
    zones: dict[str, tuple[int, ...]]
    """Rows of the countries that an IANA time zone lies in."""
    zone_states: dict[str, tuple[int, ...]]
    """Rows of the states that have places in a time zone."""
    lats_deg: NDArray[np.float64]
    lons_deg: NDArray[np.float64]
    geonameids: NDArray[np.int64]
    place_states: NDArray[np.int64]
    populations: NDArray[np.int64]
    """To three digits."""
    kinds: NDArray[np.int64]
    """SECTION, PART or 0 for a place of its own."""
    names_blob: bytes
    """All names, UTF-8, one after the other."""
    name_starts: NDArray[np.int64]
    """[N + 1]"""
    sources: dict[str, str]
    """What it was built from: file name and SHA-256."""

    def name(self, place: int) -> str:
        """Name of a place, in English where GeoNames has one in its main name."""
        start, end = self.name_starts[place], self.name_starts[place + 1]
        return self.names_blob[start:end].decode()


def cells_of(lats_deg: NDArray[np.float64], lons_deg: NDArray[np.float64]) -> NDArray[np.int64]:
    """Grid cell of each point: row times COLUMNS plus column."""
    rows = np.clip(((lats_deg + 90) * CELLS_PER_DEG).astype(np.int64), 0, ROWS - 1)
    columns = ((lons_deg + 180) * CELLS_PER_DEG).astype(np.int64) % COLUMNS
    return np.asarray(rows * COLUMNS + columns, dtype=np.int64)


def read_table(path: Path) -> Table:
    """Read the file.

    Raises:
        OSError, lzma.LZMAError, ValueError: it is missing, damaged or of another schema.
    """
    return unpack(lzma.decompress(path.read_bytes()), source=str(path))


def unpack(content: bytes, *, source: str = "gazetteer") -> Table:
    """The inverse of `pack`."""
    length = int.from_bytes(content[:4], "little")
    header: dict[str, Any] = json.loads(content[4 : 4 + length])
    if header["schema"] != SCHEMA:
        raise ValueError(f"{source}: schema {header['schema']}, this version reads {SCHEMA}.")
    columns, at, count = {}, 4 + length, header["places"]
    for name, planes in _PLANES.items():
        raw = np.frombuffer(content, dtype=np.uint8, count=planes * count, offset=at)
        weights = 256 ** np.arange(planes, dtype=np.int64)
        columns[name] = (raw.reshape(planes, count) * weights[:, None]).sum(axis=0)
        at += planes * count
    blob, name_starts = _split_names(content[at:])
    if len(name_starts) != count + 1:
        raise ValueError(f"{source}: {len(name_starts) - 1} names for {count} places.")
    cells = np.cumsum(columns["cell_steps"])
    return Table(
        countries=tuple(Country(**entry) for entry in header["countries"]),
        states=tuple(State(**entry) for entry in header["states"]),
        zones={zone: tuple(rows) for zone, rows in header["zones"].items()},
        zone_states={zone: tuple(rows) for zone, rows in header["zone_states"].items()},
        lats_deg=(_units(cells // COLUMNS, columns["lats_units"]) - 90 * UNITS_PER_DEG)
        / UNITS_PER_DEG,
        lons_deg=(_units(cells % COLUMNS, columns["lons_units"]) - 180 * UNITS_PER_DEG)
        / UNITS_PER_DEG,
        geonameids=columns["geonameids"],
        place_states=columns["states"],
        populations=columns["population_digits"] * 10 ** columns["population_tens"],
        kinds=columns["kinds"],
        names_blob=blob,
        name_starts=name_starts,
        sources=header["sources"],
    )


def pack(table: Table) -> bytes:
    """The content of the file before compression; the same table gives the same bytes.

    The places must be in the order of the file.
    """
    lats_units = np.round((table.lats_deg + 90) * UNITS_PER_DEG).astype(np.int64)
    lons_units = np.round((table.lons_deg + 180) * UNITS_PER_DEG).astype(np.int64)
    lons_units %= 360 * UNITS_PER_DEG
    lats_units = np.minimum(lats_units, 180 * UNITS_PER_DEG - 1)
    cells = lats_units // _UNITS_PER_CELL * COLUMNS + lons_units // _UNITS_PER_CELL
    if (np.diff(cells) < 0).any():
        raise ValueError("the places are not sorted by cell")
    tens = np.maximum(np.floor(np.log10(np.maximum(table.populations, 1))).astype(int) - 2, 0)
    columns = {
        "cell_steps": np.diff(cells, prepend=0),
        "lats_units": lats_units % _UNITS_PER_CELL,
        "lons_units": lons_units % _UNITS_PER_CELL,
        "geonameids": table.geonameids,
        "states": table.place_states,
        "population_digits": table.populations // 10**tens,
        "population_tens": tens,
        "kinds": table.kinds,
    }
    header = {
        "schema": SCHEMA,
        "places": len(cells),
        "sources": table.sources,
        "countries": [asdict(country) for country in table.countries],
        "states": [asdict(state) for state in table.states],
        "zones": table.zones,
        "zone_states": table.zone_states,
    }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    names = "\n".join(table.name(place) for place in range(len(cells))).encode()
    planes = [_to_planes(columns[name], count) for name, count in _PLANES.items()]
    return b"".join([len(text).to_bytes(4, "little"), text, *planes, names])


def compress(content: bytes) -> bytes:
    """As the file holds it."""
    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)


def _units(cells: NDArray[np.int64], units: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(cells * _UNITS_PER_CELL + units, dtype=np.float64)


def _to_planes(values: NDArray[np.int64], count: int) -> bytes:
    if values.min() < 0 or values.max() >= 256**count:
        raise ValueError(f"values {values.min()} to {values.max()} do not fit {count} bytes")
    return b"".join(((values >> 8 * k) & 255).astype(np.uint8).tobytes() for k in range(count))


def _split_names(text: bytes) -> tuple[bytes, NDArray[np.int64]]:
    """Names joined by line feeds, and where each begins.  The line feeds go."""
    breaks = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n"))
    starts = np.concatenate([[0], breaks - np.arange(len(breaks)), [len(text) - len(breaks)]])
    return text.replace(b"\n", b""), starts.astype(np.int64)
