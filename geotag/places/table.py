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
    "states": 2,
    "geonameids": 4,
    "population_digits": 2,
    "population_tens": 1,
    "kinds": 1,
}
_WITNESS_PLANES = {name: _PLANES[name] for name in list(_PLANES)[:4]}


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
class Witnesses:
    """Nameless points beside borders that say which state it is there.  All arrays [W]."""

    lats_deg: NDArray[np.float64]
    lons_deg: NDArray[np.float64]
    states: NDArray[np.int64]


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
    witnesses: Witnesses
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
    at, count = 4 + length, header["places"]
    columns, at = _read_columns(content, at, count, _PLANES)
    sides, at = _read_columns(content, at, header["witnesses"], _WITNESS_PLANES)
    blob, name_starts = _split_names(content[at:])
    if len(name_starts) != count + 1:
        raise ValueError(f"{source}: {len(name_starts) - 1} names for {count} places.")
    lats_deg, lons_deg = _read_points(columns)
    witness_lats_deg, witness_lons_deg = _read_points(sides)
    return Table(
        countries=tuple(Country(**entry) for entry in header["countries"]),
        states=tuple(State(**entry) for entry in header["states"]),
        zones={zone: tuple(rows) for zone, rows in header["zones"].items()},
        zone_states={zone: tuple(rows) for zone, rows in header["zone_states"].items()},
        lats_deg=lats_deg,
        lons_deg=lons_deg,
        geonameids=columns["geonameids"],
        place_states=columns["states"],
        populations=columns["population_digits"] * 10 ** columns["population_tens"],
        kinds=columns["kinds"],
        names_blob=blob,
        name_starts=name_starts,
        witnesses=Witnesses(
            lats_deg=witness_lats_deg, lons_deg=witness_lons_deg, states=sides["states"]
        ),
        sources=header["sources"],
    )


def pack(table: Table) -> bytes:
    """The content of the file before compression; the same table gives the same bytes.

    The places must be in the order of the file.
    """
    tens = np.maximum(np.floor(np.log10(np.maximum(table.populations, 1))).astype(int) - 2, 0)
    columns = _to_points(table.lats_deg, table.lons_deg) | {
        "geonameids": table.geonameids,
        "states": table.place_states,
        "population_digits": table.populations // 10**tens,
        "population_tens": tens,
        "kinds": table.kinds,
    }
    sides = _to_points(table.witnesses.lats_deg, table.witnesses.lons_deg)
    sides["states"] = table.witnesses.states
    header = {
        "schema": SCHEMA,
        "places": len(table.lats_deg),
        "witnesses": len(table.witnesses.states),
        "sources": table.sources,
        "countries": [asdict(country) for country in table.countries],
        "states": [asdict(state) for state in table.states],
        "zones": table.zones,
        "zone_states": table.zone_states,
    }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    names = "\n".join(table.name(place) for place in range(len(table.lats_deg))).encode()
    planes = [_to_planes(columns[name], count) for name, count in _PLANES.items()]
    planes += [_to_planes(sides[name], count) for name, count in _WITNESS_PLANES.items()]
    return b"".join([len(text).to_bytes(4, "little"), text, *planes, names])


def compress(content: bytes) -> bytes:
    """As the file holds it."""
    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)


def _read_columns(
    content: bytes, at: int, count: int, planes_of: dict[str, int]
) -> tuple[dict[str, NDArray[np.int64]], int]:
    """The columns that begin at an offset, and the offset behind them."""
    columns: dict[str, NDArray[np.int64]] = {}
    for name, planes in planes_of.items():
        raw = np.frombuffer(content, dtype=np.uint8, count=planes * count, offset=at)
        columns[name] = np.zeros(count, dtype=np.int64)
        for plane, values in enumerate(raw.reshape(planes, count)):
            columns[name] |= values.astype(np.int64) << 8 * plane
        at += planes * count
    return columns, at


def _read_points(
    columns: dict[str, NDArray[np.int64]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitudes and longitudes, degrees."""
    cells = np.cumsum(columns["cell_steps"])
    lats_units = cells // COLUMNS * _UNITS_PER_CELL + columns["lats_units"]
    lons_units = cells % COLUMNS * _UNITS_PER_CELL + columns["lons_units"]
    return (
        (lats_units - 90 * UNITS_PER_DEG) / UNITS_PER_DEG,
        (lons_units - 180 * UNITS_PER_DEG) / UNITS_PER_DEG,
    )


def _to_points(
    lats_deg: NDArray[np.float64], lons_deg: NDArray[np.float64]
) -> dict[str, NDArray[np.int64]]:
    """The inverse of `_read_points`."""
    lats_units = np.round((lats_deg + 90) * UNITS_PER_DEG).astype(np.int64)
    lons_units = np.round((lons_deg + 180) * UNITS_PER_DEG).astype(np.int64)
    lons_units %= 360 * UNITS_PER_DEG
    lats_units = np.minimum(lats_units, 180 * UNITS_PER_DEG - 1)
    cells = lats_units // _UNITS_PER_CELL * COLUMNS + lons_units // _UNITS_PER_CELL
    if (np.diff(cells) < 0).any():
        raise ValueError("the points are not sorted by cell")
    return {
        "cell_steps": np.diff(cells, prepend=0),
        "lats_units": lats_units % _UNITS_PER_CELL,
        "lons_units": lons_units % _UNITS_PER_CELL,
    }


def _to_planes(values: NDArray[np.int64], count: int) -> bytes:
    if values.min() < 0 or values.max() >= 256**count:
        raise ValueError(f"values {values.min()} to {values.max()} do not fit {count} bytes")
    return b"".join(((values >> 8 * k) & 255).astype(np.uint8).tobytes() for k in range(count))


def _split_names(text: bytes) -> tuple[bytes, NDArray[np.int64]]:
    """Names joined by line feeds, and where each begins.  The line feeds go."""
    breaks = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n"))
    starts = np.concatenate([[0], breaks - np.arange(len(breaks)), [len(text) - len(breaks)]])
    return text.replace(b"\n", b""), starts.astype(np.int64)
