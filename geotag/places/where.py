"""`geotag where`: what the gazetteer says of one point, for a person and for a program."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geotag.places.gazetteer import Geocode

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_ANGLE = re.compile(
    rf"""\s*(?P<before>[NSEW])?\s*
    (?P<sign>[+-])?\s*(?P<degrees>{_NUMBER})\s*
    (?:°|deg)?\s*
    (?:(?P<minutes>{_NUMBER})\s*['\u2032\u2019]\s*)?
    (?:(?P<seconds>{_NUMBER})\s*(?:["\u2033\u201d]|'')\s*)?
    (?P<after>[NSEW])?\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_LONGEST = 200
_ALLOWED = (
    'write latitude, then longitude: "48.137,11.575", "48.137 11.575", "48.137N 11.575E" or '
    '"48°08\'14\\"N 11°34\'31\\"E"; south and west '
    "are negative: -33.87,151.21"
)


def parse_lat_lon(text: str) -> tuple[float, float]:
    """Read a point: decimal degrees, or degrees with minutes and seconds; signs or letters.

    Returns:
        (lat_deg, lon_deg).

    Raises:
        ValueError: it is no point, or one that is not on earth.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"reading a place of {len(text)} characters: {_ALLOWED}.")
    angles = [_angle(part) for part in _split(text)]
    if len(angles) != 2 or any(angle is None for angle in angles):
        raise ValueError(f"{text!r} is no place: {_ALLOWED}.")
    (first_deg, first_axis), (second_deg, second_axis) = (angle for angle in angles if angle)
    if (first_axis, second_axis) in (("lon", "lat"), ("lon", None), (None, "lat")):
        first_deg, second_deg = second_deg, first_deg
    elif first_axis is not None and first_axis == second_axis:
        raise ValueError(f"{text!r} gives the {_LONG_NAMES[first_axis]} twice: {_ALLOWED}.")
    if not abs(first_deg) <= 90:
        hint = "; are the two in the wrong order?" if abs(second_deg) <= 90 else "."
        raise ValueError(f"{text!r}: latitude {first_deg:g}; allowed are -90 to 90 degrees{hint}")
    if not abs(second_deg) <= 180:
        raise ValueError(f"{text!r}: longitude {second_deg:g}; allowed are -180 to 180 degrees.")
    return first_deg, second_deg


def describe_where(code: Geocode) -> str:
    """A few lines for a person, finest place first."""
    lines = [_headline(code)]
    if code.nearest_place is not None and code.nearest_km is not None:
        lines.append(_row("nearest place", f"{code.nearest_place}, {code.nearest_km:.1f} km"))
    if code.city is not None and code.city_km is not None:
        lines.append(
            _row("city", f"{code.city}, {code.city_km:.1f} km (GeoNames {code.city_geonameid})")
        )
    if code.state is not None:
        lines.append(_row("state", _with_code(code.state, code.state_code)))
    if code.country is not None:
        lines.append(_row("country", _with_code(code.country, code.country_code)))
    if code.continent is not None:
        lines.append(_row("continent", _with_code(code.continent, code.continent_code)))
    if code.time_zone is not None:
        lines.append(_row("time zone", code.time_zone))
    if code.disputed is not None:
        lines.append(_row("disputed", code.disputed))
    return "\n".join(lines)


def where_json(code: Geocode) -> dict[str, object]:
    """All fields, None where nothing is known; for `json.dumps`."""
    return asdict(code)


_LONG_NAMES = {"lat": "latitude", "lon": "longitude"}


def _split(text: str) -> list[str]:
    """The two halves: at a comma or semicolon, behind a letter, else at the only blank."""
    parts = re.split(r"[,;]", text.strip())
    if len(parts) > 1:
        return parts
    lettered = re.fullmatch(r"(.*?[NSns])\s*(.+)|(.*?[EWew])\s*(.+)", text.strip())
    if lettered is not None and not re.match(r"\s*[NSEWnsew]", text):
        return [part for part in lettered.groups() if part is not None]
    leading = re.fullmatch(r"\s*([NSEWnsew][^NSEWnsew]*)([NSEWnsew][^NSEWnsew]*)", text)
    if leading is not None:
        return list(leading.groups())
    return text.split()


def _angle(text: str) -> tuple[float, str | None] | None:
    """Degrees, and which of the two a letter says they are; None where it is no angle."""
    found = _ANGLE.fullmatch(text)
    if found is None or (found["before"] and found["after"]):
        return None
    letter = (found["before"] or found["after"] or "").upper()
    minutes, seconds = float(found["minutes"] or 0), float(found["seconds"] or 0)
    if minutes >= 60 or seconds >= 60 or (letter and found["sign"]):
        return None
    degrees = float(found["degrees"]) + minutes / 60 + seconds / 3600
    if found["sign"] == "-" or letter in ("S", "W"):
        degrees = -degrees
    return degrees + 0.0, {"N": "lat", "S": "lat", "E": "lon", "W": "lon"}.get(letter)


def _headline(code: Geocode) -> str:
    names = [code.city or code.nearest_place, code.state, code.country]
    known = [name for name in names if name is not None]
    kept = [name for k, name in enumerate(known) if k == 0 or name != known[k - 1]]
    return ", ".join(kept) or "At sea, or where no country is: no place is known here."


def _with_code(name: str, code: str | None) -> str:
    return f"{name} ({code})" if code else name


def _row(head: str, text: str) -> str:
    return f"  {head:14}{text}"
