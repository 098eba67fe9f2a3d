"""Which of the user's tracks were of use to a scan: one that fits no video is a mistake to tell."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geotag.telemetry.matching import NO_TIME, match_track, to_utc
from geotag.telemetry.sidecars import read_track_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from geotag.evidence import Evidence
    from geotag.telemetry.track import Reading


class TrackUse:
    """The files of `--gpx`, and the videos that each was held against."""

    def __init__(self, names: Sequence[str]) -> None:
        """Read the files.

        Raises:
            ConfigError: one cannot be read.
        """
        self.paths = tuple(Path(name) for name in names)
        self._unused = {name: read_track_file(Path(name)) for name in names}
        self._videos = 0
        self._untimed = 0

    def add(self, videos: Iterable[Evidence]) -> None:
        """Hold the tracks against some videos.

        A track is done with once it fits one: what was made of it there is in the tag.
        """
        for evidence in videos:
            self._videos += 1
            is_untimed = False
            for name, track in list(self._unused.items()):
                part, how = match_track(track, evidence.video, evidence.viewing.facts)
                if part is not None or Path(name).stem == evidence.video.path.stem:
                    del self._unused[name]
                is_untimed |= how == NO_TIME
            self._untimed += is_untimed

    def warnings(self) -> tuple[str, ...]:
        """A line for each track that fits none of the videos."""
        if not self._videos:
            return ()
        videos = f"{self._videos} video{'s' * (self._videos != 1)}"
        untimed = f" ({self._untimed} of them have no time)" if self._untimed else ""
        return tuple(
            f"--gpx {name}: {_extent(track)}, matched none of {videos}{untimed}"
            for name, track in self._unused.items()
        )


def _extent(track: Reading) -> str:
    """`1200 positions, 2021-03-06 10:36 to 10:50 UTC`."""
    track = to_utc(track)
    count = track.track.lats_deg.size
    positions = f"{count} position{'s' * (count != 1)}"
    timed = track.track.utc_s[np.isfinite(track.track.utc_s)]
    if not timed.size:
        return f"{positions} without times, which belong to a video of the same name"
    first, last = (
        datetime.fromtimestamp(float(utc_s), timezone.utc) for utc_s in (timed.min(), timed.max())
    )
    clock = "%H:%M" if first.date() == last.date() else "%Y-%m-%d %H:%M"
    zone = "local time" if track.is_local_clock else "UTC"
    return f"{positions}, {first:%Y-%m-%d %H:%M} to {last:{clock}} {zone}"
