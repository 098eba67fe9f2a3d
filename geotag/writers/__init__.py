"""Writers: tags into files, one small module a format, every file atomic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geotag.errors import ConfigError, OutputError
from geotag.writers.csv import CSV
from geotag.writers.files import AtomicFile, StandardOutput, Target
from geotag.writers.format import Format, TableFormat
from geotag.writers.frames import need
from geotag.writers.geojson import GEOJSON
from geotag.writers.geopackage import GEOPACKAGE
from geotag.writers.geoparquet import GEOPARQUET
from geotag.writers.ndjson import NDJSON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geotag.types import Tag
    from geotag.writers.tracks import DriveTrack

FORMATS: dict[str, Format | TableFormat] = {
    ".geojson": GEOJSON,
    ".geojsonl": NDJSON,
    ".csv": CSV,
    ".parquet": GEOPARQUET,
    ".gpkg": GEOPACKAGE,
    "-": NDJSON,
}
"""By suffix of the file; `-` is standard output."""


def format_of(out: str) -> Format | TableFormat:
    """The format that a name asks for.

    Raises:
        ConfigError: no format has this suffix.
    """
    suffix = out if out == "-" else Path(out).suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(
            f"--out {out}: the suffix {suffix!r} names no format. Allowed are "
            f"{', '.join(name for name in FORMATS if name != '-')}, "
            "and - for GeoJSON lines on standard output."
        )
    return FORMATS[suffix]


class Outputs:
    """All files that a scan writes, fed one tag at a time, in order.

    Opening them proves that each can be written, and that what it is written with is installed.
    One that breaks is dropped and raises OutputError; the others can still be closed with what they
    have.
    """

    def __init__(self, outs: Sequence[str], *, with_tracks: bool = False) -> None:
        """Open the outputs.

        Args:
            outs: file names, and `-` for standard output.
            with_tracks: give the formats that have room for it a layer of tracks.

        Raises:
            ConfigError: no format has a name's suffix, or the packages it needs are missing.
            OutputError: a file cannot be written.
        """
        formats = [format_of(out) for out in outs]
        for out, form in zip(outs, formats, strict=True):
            if isinstance(form, TableFormat):
                need(out, form.modules)
        self.files = tuple(Path(out) for out in outs if out != "-")
        self._with_tracks = with_tracks
        self._open: list[_TextOutput | _TableOutput] = []
        try:
            for out, form in zip(outs, formats, strict=True):
                target = StandardOutput() if out == "-" else AtomicFile(Path(out))
                self._open.append(_output(target, form))
        except OutputError:
            self.close(keep=False)
            raise

    def add(self, tag: Tag) -> None:
        """Write one tag everywhere."""
        for output in list(self._open):
            self._attempt(output, tag)

    def close(self, *, keep: bool, tracks: Sequence[DriveTrack] = ()) -> None:
        """End every file; with keep they take their places, else they leave no trace.

        Whatever stops one of them, the others are still ended; the first error is raised then.

        Args:
            keep: whether the files are wanted.
            tracks: the drives with GPS, for the formats that have a layer of them.
        """
        broken: BaseException | None = None
        while self._open:
            output = self._open.pop(0)
            try:
                output.close(keep=keep, tracks=tracks if self._with_tracks else None)
            except BaseException as exc:  # noqa: BLE001 - raised below
                output.target.abort()
                broken = broken or exc
        if broken is not None:
            raise broken

    def _attempt(self, output: _TextOutput | _TableOutput, tag: Tag) -> None:
        try:
            output.add(tag)
        except OutputError:
            self._open.remove(output)
            output.target.abort()
            raise


def _output(target: Target, form: Format | TableFormat) -> _TextOutput | _TableOutput:
    if isinstance(form, TableFormat):
        return _TableOutput(target, form)
    return _TextOutput(target, form)


class _TextOutput:
    """A target and the format of the tags in it, written one by one."""

    def __init__(self, target: Target, form: Format) -> None:
        self.target = target
        self._format = form
        self._before = form.head

    def add(self, tag: Tag) -> None:
        self.target.write(self._before + self._format.row(tag))
        self._before = self._format.separator

    def close(self, *, keep: bool, tracks: Sequence[DriveTrack] | None) -> None:
        if not keep:
            self.target.abort()
            return
        head = self._before if self._before is self._format.head else ""
        self.target.write(head + self._format.tail)
        self.target.commit()


class _TableOutput:
    """A target and the format of the tags in it, collected and written at the end."""

    def __init__(self, target: Target, form: TableFormat) -> None:
        self.target = target
        self._format = form
        self._tags: list[Tag] = []

    def add(self, tag: Tag) -> None:
        self._tags.append(tag)

    def close(self, *, keep: bool, tracks: Sequence[DriveTrack] | None) -> None:
        if not keep:
            self.target.abort()
            return
        self.target.write(self._format.encode(self._tags, tracks))
        self.target.commit()
