"""What a scan writes besides its outputs: sidecars of videos, and the ways of drives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geotag.console import printable
from geotag.errors import ConfigError, OutputError
from geotag.tracks import drive_track
from geotag.writers.files import AtomicFile
from geotag.writers.sidecars import check_sidecars, count_sidecars, write_sidecars
from geotag.writers.tracks import DriveTrack, tracks_geojson
from geotag.writers.xmp import has_place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from geotag.config import ScanConfig
    from geotag.console import Console
    from geotag.evidence import Evidence
    from geotag.types import Discovery, Drive, Tag


class SideFiles:
    """The files that were asked for; none costs nothing."""

    def __init__(
        self, config: ScanConfig, root: Path, discovery: Discovery, console: Console
    ) -> None:
        """Make sure that each can be written.

        Raises:
            ConfigError: the name of the tracks does not end in .geojson.
            OutputError: a file or a folder cannot be written.
        """
        self.tracks: list[DriveTrack] = []
        self.sidecars = 0
        """How many are in their places."""
        self._config = config
        self._root = root
        self._console = console
        self._folder = Path(config.sidecars_dir) if config.sidecars_dir else None
        self._paths = {video.name: video.path for video in discovery.videos}
        self._ways: AtomicFile | None = None
        if config.sidecars:
            check_sidecars(self._paths.values(), self._folder, root)
        if config.tracks:
            if Path(config.tracks).suffix.lower() not in (".geojson", ".json"):
                raise ConfigError(
                    f"--tracks {config.tracks}: tracks are GeoJSON; name a file that ends in "
                    ".geojson. A .gpkg among --out takes them too, as a layer."
                )
            self._ways = AtomicFile(Path(config.tracks), option="--tracks")

    def add(self, tag: Tag) -> None:
        """Write a video's sidecars, if they are wanted."""
        if not self._config.sidecars:
            return
        video_path, kinds = self._paths[tag.path], self._config.sidecars
        problems = write_sidecars(tag, video_path, self._folder, self._root, kinds)
        if not problems:
            self.sidecars += len(kinds) - ("xmp" in kinds and not has_place(tag))
        else:
            self.sidecars += count_sidecars(video_path, self._folder, self._root, kinds)
        for problem in problems:
            self._console.warn(f"sidecars of {printable(tag.path)}: {printable(problem)}")

    def add_drive(
        self, drive: Drive, evidence: Mapping[str, Evidence], tags: Sequence[Tag]
    ) -> None:
        """Keep the way of a drive, if tracks are wanted."""
        if self._ways is None:
            return
        track = drive_track(drive, evidence, tags)
        if track is not None:
            self.tracks.append(track)

    def describe(self) -> tuple[str, ...]:
        """What was written, for a person: the tracks by name, the sidecars by number."""
        named = (printable(self._config.tracks),) if self._config.tracks else ()
        if not self._config.sidecars:
            return named
        where = f"below {printable(str(self._folder))}" if self._folder else "beside the videos"
        return (*named, f"{self.sidecars} sidecar{'s' * (self.sidecars != 1)} {where}")

    def close(self, *, keep: bool) -> None:
        """Write the tracks; without keep, leave no trace.  Raises OutputError."""
        ways, self._ways = self._ways, None
        if ways is None:
            return
        if not keep:
            ways.abort()
            return
        try:
            ways.write(tracks_geojson(self.tracks))
            ways.commit()
        except OutputError:
            ways.abort()
            raise
