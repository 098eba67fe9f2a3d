"""When and where a container says that it was made."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOCATION_KEYS = ("com.apple.quicktime.location.iso6709", "location", "\xa9xyz")
"""QuickTime's metadata key, ffmpeg's name for the box "\xa9xyz", and that box itself; ffmpeg adds
the language, as in "location-eng"."""
_MOST_CHARACTERS = 256
_FIRST_YEAR = 1971
"""Clocks that were never set count from 1904 (MP4) or 1970 (Unix)."""


def read_created_utc_s(metadata: Mapping[str, str]) -> float | None:
    """Time of the tag `creation_time`, seconds since 1970; None where there is none to believe."""
    text = _find(metadata, ("creation_time",))
    if text is None:
        return None
    try:
        # Python 3.10 knows neither the Z nor more or fewer digits than six.
        whole, _, fraction = text.strip().removesuffix("Z").partition(".")
        moment = datetime.fromisoformat(whole)
        digits = float(f"0.{fraction}") if fraction.isdigit() else 0.0
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return moment.timestamp() + digits if moment.year >= _FIRST_YEAR else None
    except (ValueError, OverflowError):
        return None


def read_location(metadata: Mapping[str, str]) -> str | None:
    """The position tag as it stands, ISO 6709; None where there is none."""
    text = _find(metadata, _LOCATION_KEYS)
    return text.strip()[:_MOST_CHARACTERS] or None if text else None


def _find(metadata: Mapping[str, str], keys: tuple[str, ...]) -> str | None:
    """The first of some tags that there is, in any language."""
    by_key = {key.lower(): text for key, text in metadata.items()}
    for wanted in keys:
        for key in sorted(by_key):
            if key == wanted or key.startswith(f"{wanted}-"):
                return by_key[key]
    return None
