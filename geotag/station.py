"""What one worker thread reads with: a decoding process and the readers of positions."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from geotag.errors import ConfigError
from geotag.footage.isolation import DecodeProcess
from geotag.telemetry.readers import SurveyReader, reader_versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geotag.config import ScanConfig
    from geotag.footage.isolation import RemoteReader
    from geotag.gathering import MakeStation, Station
    from geotag.telemetry.track import Survey
    from geotag.types import Video, VideoFacts


class RealStation:
    """Reads the files themselves; its processes start with the first file that needs them."""

    def __init__(self, config: ScanConfig, tracks: Sequence[Path]) -> None:
        """Take the settings.

        Raises:
            ConfigError: a track cannot be read, or GEOTAG_EXIFTOOL names no program.
        """
        self._decoder = DecodeProcess()
        self._surveys = SurveyReader(tracks)
        self._proxies = config.proxies

    def open_video(self, video: Video, *, decode_threads: int) -> RemoteReader:
        """Open a video, or its small copy where that is wanted and can be read."""
        if self._proxies and video.proxy is not None:
            try:
                size_bytes = video.proxy.stat().st_size
            except OSError:
                size_bytes = 0
            if size_bytes:
                video = replace(video, path=video.proxy, size_bytes=size_bytes)
        return self._decoder.open_video(video, decode_threads=decode_threads)

    def survey(self, video: Video, facts: VideoFacts | None) -> Survey:
        """Read the positions of a file, and of the files beside it."""
        return self._surveys.survey(video, container=facts)

    def close(self) -> None:
        """End the processes."""
        self._decoder.close()
        self._surveys.close()


def station_maker(config: ScanConfig, tracks: Sequence[Path] = ()) -> MakeStation:
    """Stations for a scan with these settings."""

    def make() -> Station:
        return RealStation(config, tracks)

    return make


def telemetry_settings(names: Sequence[str]) -> tuple[object, ...]:
    """What surveys depend on besides the files of the card: readers, and the user's tracks."""
    digests = []
    for name in names:
        try:
            digests.append(blake2b(Path(name).read_bytes(), digest_size=16).hexdigest())
        except OSError as exc:
            raise ConfigError(f"--gpx {name}: {exc.strerror or exc}.") from exc
    return (*reader_versions(), *digests)
