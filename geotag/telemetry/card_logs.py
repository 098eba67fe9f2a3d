"""The one position log of a 70mai card, `GPSData000001.txt`, which all its videos share.

Lines: seconds, A or V, latitude, longitude (degrees), heading (1/100 degree), speed (cm/s), three
accelerations, and on newer models the name of the video being recorded. A line `$V02` begins each
session. The seconds are Unix time less eight hours, whatever zone the camera is set to, so they
are put right here, and left to be checked against the camera's clock.

Source: three descriptions that agree, all public on GitHub: the format of a converter to GPX, of
    a viewer that corrects by eight hours, and of a tool for cards with the name in each line.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from geotag.telemetry.track import Fix, Reading, track_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CLOCK_ERROR_S = 8 * 3600
"""To be added to the seconds of a line."""

_LINE = re.compile(
    r"^(\d{9,11}),([AV]),([+-]?[\d.]+),([+-]?[\d.]+),([\d.-]*),([\d.-]*)((?:,[^,\r\n]*)*)\s*$",
    re.MULTILINE | re.ASCII,
)
_VIDEO_NAME = re.compile(r"[A-Z]{2}\d{8}-\d{6}-\d{6}", re.ASCII)


@dataclass(frozen=True, slots=True, eq=False)
class CardLog:
    """A log, and which of its lines name which video."""

    fixes: tuple[Fix, ...]
    by_name: Mapping[str, tuple[Fix, ...]]

    def read_all(self) -> Reading:
        """Every position of the card."""
        return replace(_reading(self.fixes), is_shared=True)

    def read_video(self, name: str) -> Reading | None:
        """The positions whose lines name a video; None where no line does.

        The channels of one moment share a name up to the letter at its end; the lines name one.
        """
        wanted = _VIDEO_NAME.match(name.upper())
        fixes = self.by_name.get(wanted[0], ()) if wanted else ()
        if not fixes:
            return None
        first_s = fixes[0].utc_s
        return _reading([fix._replace(time_s=fix.utc_s - first_s) for fix in fixes])


def is_card_log(text: str) -> bool:
    """Whether a text is such a log."""
    return _LINE.search(text[:65536]) is not None


def parse_card_log(text: str) -> CardLog:
    """Read the lines that are whole; others are passed over."""
    fixes: list[Fix] = []
    by_name: dict[str, list[Fix]] = {}
    for fix, name in _lines(text):
        fixes.append(fix)
        if name is not None:
            by_name.setdefault(name, []).append(fix)
    return CardLog(tuple(fixes), {name: tuple(named) for name, named in by_name.items()})


def _reading(fixes: Sequence[Fix]) -> Reading:
    return Reading(
        track=track_of(fixes), source="70mai card log", vendor="70mai", is_camera_clock=True
    )


def _lines(text: str) -> Iterator[tuple[Fix, str | None]]:
    """Fix and video of each line, the name less its channel."""
    for match in _LINE.finditer(text):
        try:
            fix = Fix(
                float(match[3]),
                float(match[4]),
                utc_s=float(match[1]) + CLOCK_ERROR_S,
                speed_mps=float(match[6]) / 100 if match[6] else math.nan,
                mode=-1 if match[2] == "A" else 0,
            )
        except ValueError:
            continue
        named = _VIDEO_NAME.search(match[7].upper())
        yield fix, named[0] if named else None
