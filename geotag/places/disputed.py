"""Areas that more than one side claims, named as such: the gazetteer takes no side.

`disputed.json` says for each area what it is and who claims it, and where it is: whole countries,
states (GeoNames ids) or time zones, and outlines drawn by hand from maps in the public domain. An
outline is good to some ten kilometres, which is enough for a warning and for nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_FILE = Path(__file__).with_name("disputed.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """One disputed area: in any of the places named, or inside any of the outlines."""

    area: str
    claims: str
    """Who administers and who claims it, in neutral words."""
    countries: tuple[str, ...] = ()
    states: tuple[int, ...] = ()
    """GeoNames ids of first-level divisions."""
    zones: tuple[str, ...] = ()
    outlines: tuple[tuple[tuple[float, float], ...], ...] = ()
    """Closed rings of (lat_deg, lon_deg); none crosses the date line."""

    def __str__(self) -> str:
        """As the answer has it."""
        return f"{self.area}: {self.claims}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Areas:
    """All areas, the more particular first."""

    areas: tuple[Area, ...]
    boxes: Floats
    """[outlines, 4] of all areas in turn: lowest and highest latitude, then longitude."""

    def find(
        self,
        lats_deg: Floats,
        lons_deg: Floats,
        zones: Sequence[str],
        codes: Sequence[tuple[object, object]],
    ) -> list[str | None]:
        """The area of each point, or None.

        Args:
            lats_deg: [Q].
            lons_deg: [Q].
            zones: time zone of each.
            codes: country code and state's GeoNames id of each.
        """
        found: list[str | None] = [None] * len(zones)
        low_lat, high_lat, low_lon, high_lon = self.boxes.T[:, :, None]
        near = (lats_deg >= low_lat) & (lats_deg <= high_lat)
        near &= (lons_deg >= low_lon) & (lons_deg <= high_lon)
        at = len(self.boxes)
        for area in reversed(self.areas):
            text = str(area)
            if area.countries or area.states or area.zones:
                countries, states = frozenset(area.countries), frozenset(area.states)
                for k, (zone, (country, state)) in enumerate(zip(zones, codes, strict=True)):
                    if country in countries or state in states or zone in area.zones:
                        found[k] = text
            at -= len(area.outlines)
            for number, outline in enumerate(area.outlines, start=at):
                asked = np.flatnonzero(near[number])
                if len(asked):
                    inside = _inside(lats_deg[asked], lons_deg[asked], outline)
                    for k in asked[inside].tolist():
                        found[k] = text
        return found


def read_areas(path: Path = _FILE) -> Areas:
    """Read the areas.

    Raises:
        ValueError, KeyError, TypeError: the file is not what it should be.
    """
    entries = json.loads(path.read_text(encoding="utf-8"))
    areas = tuple(
        Area(
            area=entry["area"],
            claims=entry["claims"],
            countries=tuple(entry.get("countries", ())),
            states=tuple(entry.get("states", ())),
            zones=tuple(entry.get("zones", ())),
            outlines=tuple(
                tuple((float(lat), float(lon)) for lat, lon in outline)
                for outline in entry.get("outlines", ())
            ),
        )
        for entry in entries
    )
    boxes = [
        [bound for axis in zip(*outline, strict=True) for bound in (min(axis), max(axis))]
        for area in areas
        for outline in area.outlines
    ]
    return Areas(areas=areas, boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4))


def _inside(
    lats_deg: Floats, lons_deg: Floats, outline: tuple[tuple[float, float], ...]
) -> NDArray[np.bool_]:
    """[Q] whether a point is inside a ring.  Source: even-odd rule, Shimrat, CACM 5(8), 1962."""
    inside = np.zeros(len(lats_deg), dtype=bool)
    for (lat_a, lon_a), (lat_b, lon_b) in zip(outline, (*outline[1:], outline[0]), strict=True):
        if lat_a == lat_b:
            continue
        crosses = (lat_a > lats_deg) != (lat_b > lats_deg)
        share = (lats_deg - lat_a) / (lat_b - lat_a)
        inside ^= crosses & (lons_deg < lon_a + share * (lon_b - lon_a))
    return inside
