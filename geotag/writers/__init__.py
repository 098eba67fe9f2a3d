"""Writers: tags into files, one small module a format, every file atomic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geotag.errors import ConfigError, OutputError
from geotag.writers.csv import CSV
from geotag.writers.files import AtomicFile, StandardOutput, Target
from geotag.writers.geojson import GEOJSON
from geotag.writers.ndjson import NDJSON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geotag.types import Tag
    from geotag.writers.format import Format

FORMATS: dict[str, Format] = {".geojson": GEOJSON, ".csv": CSV, ".geojsonl": NDJSON, "-": NDJSON}
"""By suffix of the file; `-` is standard output."""


def format_of(out: str) -> Format:
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

    Opening them proves that each can be written. One that breaks is dropped and raises OutputError;
    the others can still be closed with what they have.
    """

    def __init__(self, outs: Sequence[str]) -> None:
        formats = [format_of(out) for out in outs]
        self.files = tuple(Path(out) for out in outs if out != "-")
        self._open: list[_Output] = []
        try:
            for out, text_format in zip(outs, formats, strict=True):
                target = StandardOutput() if out == "-" else AtomicFile(Path(out))
                self._open.append(_Output(target, text_format))
        except OutputError:
            self.close(keep=False)
            raise

    def add(self, tag: Tag) -> None:
        """Write one tag everywhere."""
        for output in list(self._open):
            self._attempt(output, tag)

    def close(self, *, keep: bool) -> None:
        """End every file; with keep they take their places, else they leave no trace.

        Whatever stops one of them, the others are still ended; the first error is raised then.
        """
        broken: BaseException | None = None
        while self._open:
            output = self._open.pop(0)
            try:
                output.close(keep=keep)
            except BaseException as exc:  # noqa: BLE001 - raised below
                output.target.abort()
                broken = broken or exc
        if broken is not None:
            raise broken

    def _attempt(self, output: _Output, tag: Tag) -> None:
        try:
            output.add(tag)
        except OutputError:
            self._open.remove(output)
            output.target.abort()
            raise


class _Output:
    """A target and the format of the tags in it."""

    def __init__(self, target: Target, text_format: Format) -> None:
        self.target = target
        self._format = text_format
        self._before = text_format.head

    def add(self, tag: Tag) -> None:
        self.target.write(self._before + self._format.row(tag))
        self._before = self._format.separator

    def close(self, *, keep: bool) -> None:
        if not keep:
            self.target.abort()
            return
        head = self._before if self._before is self._format.head else ""
        self.target.write(head + self._format.tail)
        self.target.commit()
