"""Reading the telemetry of files for labels: the whole track, where a scan keeps a summary."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from geotag.footage.isolation import DecodeProcess
from geotag.telemetry.readers import SurveyReader
from geotag.types import FootageError

if TYPE_CHECKING:
    from types import TracebackType

    from geotag.telemetry.track import Reading
    from geotag.types import Video, VideoFacts

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What a reader found in a video."""

    reading: Reading | None
    """None: no position."""
    duration_s: float | None = None


class TrackReader(Protocol):
    """Reads the telemetry of one video at a time; never raises for what is wrong with a file."""

    def read(self, video: Video) -> Recording:
        """What its receiver recorded."""
        ...


class FileTracks:
    """The real thing: what a scan reads positions with; one per thread.

    Positions that lie in the frames alone (Tesla) are not read: that takes decoding every frame.
    """

    def __enter__(self) -> FileTracks:
        """Take the processes behind it.  Raises ConfigError where ExifTool is misconfigured."""
        self._telemetry = SurveyReader()
        self._decoder = DecodeProcess()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End them."""
        self._decoder.close()
        self._telemetry.close()

    def read(self, video: Video) -> Recording:
        """What the receiver of a video recorded."""
        facts = self._facts(video)
        duration_s = facts.duration_s if facts else None
        try:
            reading, _ = self._telemetry.read(video, container=facts)
        except Exception as exc:  # noqa: BLE001 - a bug of ours costs this file's samples alone
            logger.warning("%s: reading its positions failed (%r)", video.name, exc)
            return Recording(reading=None, duration_s=duration_s)
        return Recording(reading=reading, duration_s=duration_s)

    def _facts(self, video: Video) -> VideoFacts | None:
        try:
            with self._decoder.open_video(video) as opened:
                return opened.facts
        except FootageError:
            return None  # its positions may be readable all the same, but no frame is
