"""The readers of positions, in the order in which they are believed."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from geotag.footage.boxes import top_level_boxes
from geotag.geo import distance_m
from geotag.telemetry import native
from geotag.telemetry.exiftool import ExifTool, ExifToolError, exiftool_version, find_exiftool
from geotag.telemetry.fixes import summarise
from geotag.telemetry.matching import cut_to_video, match_track, place_sidecar
from geotag.telemetry.points import read_container
from geotag.telemetry.sidecars import TrackFileError, read_sidecar, read_track_file
from geotag.telemetry.tesla import read_frames
from geotag.telemetry.timed import read_single, read_timed
from geotag.telemetry.track import Survey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Any

    from geotag.telemetry.track import Reading
    from geotag.types import Video, VideoFacts

NEEDS_EXIFTOOL = "needs ExifTool"
"""Note of a video that carries no position which anything but ExifTool could read."""
SCANNED_WHOLE = frozenset(("DDPai", "Vantrue", "VIOFO", "Wolfbox", "70mai"))
"""Makers whose positions may lie among the pictures where the index does not name them."""
_SCANNED_RULES = ("novatek", "viofo", "ddpai")
"""Rows of the vendor table whose names several of these makers share."""

_LIMIT_S = 30.0
_SLOWEST_BYTES_PER_S = 10e6
"""An old card in an old reader."""
_LONGEST_S = 300.0
_MOST_APART_M = 1000.0


class SurveyReader:
    """Reads positions, one video after the other; one per thread, to be closed at the end.

    Order: the user's tracks, sidecars, what the frames carry, ExifTool, mapillary_tools where
    that is missing, and last the single positions, of Tesla's `event.json` and the container.
    The first with usable fixes wins; what the others said is kept in the notes.
    """

    def __init__(self, tracks: Sequence[Path] = (), *, reads_whole: bool = False) -> None:
        """Take the settings; ExifTool starts with the first video that needs it.

        Args:
            tracks: files of a receiver of its own, matched to the videos by time.
            reads_whole: let ExifTool read every byte of every file it finds nothing in.

        Raises:
            ConfigError: GEOTAG_EXIFTOOL names no program, or a track cannot be read.
        """
        program = find_exiftool()
        self._exiftool = ExifTool(program) if program else None
        self._tracks = [(path, read_track_file(path)) for path in tracks]
        self._reads_whole = reads_whole

    def __enter__(self) -> SurveyReader:
        """Close at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End ExifTool."""
        self.close()

    def close(self) -> None:
        """End ExifTool."""
        if self._exiftool is not None:
            self._exiftool.close()

    def survey(
        self,
        video: Video,
        *,
        container: VideoFacts | None,
        user_data: Sequence[tuple[float, bytes]] = (),
    ) -> Survey:
        """What is kept of a video's positions; arguments as for `read`."""
        reading, notes = self.read(video, container=container, user_data=user_data)
        if reading is None:
            created = container.created_utc_s if container else None
            return Survey(container_utc_s=created, notes=notes)
        return summarise(replace(reading, notes=()), container, notes)

    def read(
        self,
        video: Video,
        *,
        container: VideoFacts | None,
        user_data: Sequence[tuple[float, bytes]] = (),
    ) -> tuple[Reading | None, tuple[str, ...]]:
        """Positions of a video, unfiltered, and what a person should know.

        Args:
            video: the file, and what lies beside it.
            container: its facts; None where it does not open.
            user_data: messages of its frames, where they were decoded.

        Returns:
            The first reading with usable fixes; else the one with the most fixes, so that their
            faults can be counted; else None.
        """
        notes: list[str] = []
        best: Reading | None = None
        for reading in self._readings(video, container, user_data, notes):
            survey = summarise(reading, container)
            if survey.quality is not None:
                return reading, (*notes, *reading.notes)
            counts = ", ".join(f"{reason} {count}" for reason, count in survey.rejected)
            notes.append(f"{reading.source}: no usable fix ({counts})")
            if best is None or reading.track.lats_deg.size > best.track.lats_deg.size:
                best = reading
        is_read = best is not None and best.source.startswith("mapillary_tools")
        if self._exiftool is None and not is_read:
            notes.append(NEEDS_EXIFTOOL)
        return best, tuple(notes)

    def _readings(
        self,
        video: Video,
        container: VideoFacts | None,
        user_data: Sequence[tuple[float, bytes]],
        notes: list[str],
    ) -> Iterator[Reading]:
        """What each reader finds, as long as nothing before was usable."""
        yield from self._from_tracks(video, container, notes)
        sidecars = list(_from_sidecars(video, container, notes))
        _compare(sidecars, notes)
        yield from (reading for reading in sidecars if not reading.is_single_point)
        frames = read_frames(user_data)
        if frames is not None:
            yield frames
        embedded, single = self._from_file(video, container, notes)
        if embedded is not None:
            yield embedded
        yield from (reading for reading in sidecars if reading.is_single_point)
        if embedded is not None:
            # A receiver that never knew where it was has not told the container either.
            return
        point = read_container(container) or single
        if point is not None:
            yield point

    def _from_tracks(
        self, video: Video, container: VideoFacts | None, notes: list[str]
    ) -> Iterator[Reading]:
        for path, track in self._tracks:
            if path.stem == video.path.stem:
                yield place_sidecar(track, video, container)
                continue
            part, how = match_track(track, video, container)
            if part is None:
                notes.append(f"{track.source}: {how}")
            else:
                yield replace(part, notes=(*part.notes, how))

    def _from_file(
        self, video: Video, container: VideoFacts | None, notes: list[str]
    ) -> tuple[Reading | None, Reading | None]:
        """Timed fixes and the single position in the file itself."""
        if self._exiftool is None:
            return _from_native(video, container, notes), None
        single: Reading | None = None
        for level in ("-ee", "-ee3"):
            if level == "-ee3" and not self._should_read_whole(video, container):
                break
            tags = self._tags(self._exiftool, video, level, notes)
            reading = read_timed(tags, video.origin.vendor)
            if reading is not None:
                return cut_to_video(reading, video, container), None
            single = single or read_single(tags)
        return None, single

    def _tags(
        self, exiftool: ExifTool, video: Video, level: str, notes: list[str]
    ) -> dict[str, Any]:
        limit_s = _LIMIT_S
        if level == "-ee3":
            limit_s = min(_LIMIT_S + video.size_bytes / _SLOWEST_BYTES_PER_S, _LONGEST_S)
        try:
            return exiftool.read_tags(
                video.path, level="-ee3" if level == "-ee3" else "-ee", limit_s=limit_s
            )
        except ExifToolError as exc:
            notes.append(f"ExifTool {level}: {exc}")
            return {}

    def _should_read_whole(self, video: Video, container: VideoFacts | None) -> bool:
        """Whether to look at every byte, which takes as long as copying the file."""
        if self._reads_whole:
            return True
        origin = video.origin
        looks_out = origin.channel in (None, "front")  # of several cameras it has the receiver
        is_likely = origin.vendor in SCANNED_WHOLE or origin.rule.startswith(_SCANNED_RULES)
        if looks_out and is_likely:
            return True
        with contextlib.suppress(OSError):
            boxes = top_level_boxes(video.path)
            return container is None and "moov" not in boxes and "ftyp" in boxes
        return False


def survey_of_frames(
    user_data: Sequence[tuple[float, bytes]], container: VideoFacts | None
) -> Survey | None:
    """What is kept of the positions in decoded frames; None where they hold none."""
    reading = read_frames(user_data)
    return summarise(reading, container) if reading is not None else None


def reader_versions() -> tuple[str, ...]:
    """What the readings depend on besides the files: for whoever keeps them.

    Raises:
        ConfigError: GEOTAG_EXIFTOOL names no program.
    """
    from importlib.metadata import PackageNotFoundError, version

    versions = [f"exiftool {exiftool_version()}"]
    for package in ("mapillary_tools", "fitdecode"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} None")
    return tuple(versions)


def _from_sidecars(
    video: Video, container: VideoFacts | None, notes: list[str]
) -> Iterator[Reading]:
    for path in video.sidecars:
        try:
            reading = read_sidecar(path, video.path.name)
        except TrackFileError as exc:
            notes.append(str(exc).partition(". Give ")[0])
            continue
        if reading.is_shared:
            part, how = match_track(reading, video, container)
            if part is not None:
                yield replace(part, notes=(*part.notes, how))
            else:
                notes.append(f"{reading.source}: {how}")
            continue
        yield place_sidecar(reading, video, container)


def _compare(sidecars: Sequence[Reading], notes: list[str]) -> None:
    """Say so where two sidecars place a video kilometres apart."""
    surveys = [summarise(reading) for reading in sidecars if not reading.is_single_point]
    usable = [survey for survey in surveys if survey.median_deg is not None]
    for other in usable[1:]:
        away_m = distance_m(usable[0].median_deg or (0, 0), other.median_deg or (0, 0))
        if away_m > _MOST_APART_M:
            notes.append(
                f"two sidecars disagree: {usable[0].source} and {other.source}, "
                f"{away_m / 1000:.1f} km apart"
            )


def _from_native(video: Video, container: VideoFacts | None, notes: list[str]) -> Reading | None:
    if not native.is_installed():
        return None
    try:
        return native.read_native(video.path, container.created_utc_s if container else None)
    except (OSError, ValueError) as exc:
        notes.append(f"mapillary_tools: {exc}")
        return None
