"""Everything a person sees; the only module that prints.

Standard output is for results, standard error for people. Names of files come from cards and
cameras that nobody controls, so each passes `printable` before a terminal sees it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from geotag.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from geotag.types import Tag

Verbosity = Literal["quiet", "normal", "verbose"]

LOG_INTERVAL_S = 60.0
"""Without a terminal, one line of progress a minute."""
REDRAW_INTERVAL_S = 0.1


def printable(text: str) -> str:
    r"""Escape what could move the cursor, hide or reorder text: control characters as `\x1b`.

    Letters of every script and emoji stay, U+200D, which joins emoji, among them.
    """
    return "".join(
        letter
        if letter.isprintable() or letter == "\u200d"
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


@dataclass(slots=True)
class Tally:
    """What has come out of a scan so far; its counts add up."""

    total: int
    started_s: float
    """On the clock that the console uses."""
    status: Counter[str] = field(default_factory=Counter)
    """ok, partial, failed, no_model."""
    level: Counter[str] = field(default_factory=Counter)
    """Of the videos that did not fail: city, state, country, continent, none."""
    source: Counter[str] = field(default_factory=Counter)
    """Of the same: gps, visual, drive, none."""
    agreement: Counter[str] = field(default_factory=Counter)
    """Of those with a measured and a seen place: match, state, country, conflict."""
    clips: int = 0
    footage_s: float = 0.0
    problems: list[Tag] = field(default_factory=list)
    """Tags of failed and partial videos, in order."""

    @property
    def done(self) -> int:
        """Videos with a tag, failed ones among them."""
        return self.status.total()

    @property
    def failed(self) -> int:
        """Videos that failed."""
        return self.status["failed"]

    def add(self, tag: Tag) -> None:
        """Count one tag."""
        self.status[tag.status] += 1
        self.clips += tag.clips
        self.footage_s += tag.duration_s or 0.0
        if tag.status in ("ok", "partial"):
            self.level[tag.level] += 1
            self.source[tag.location_source] += 1
        if tag.status in ("partial", "failed"):
            self.problems.append(tag)
        if tag.agreement != "none":
            self.agreement[tag.agreement] += 1

    def counts(self) -> dict[str, int]:
        """The numbers for `run.json`."""
        return {
            "videos": self.total,
            "tagged": self.status["ok"],
            "partial": self.status["partial"],
            "failed": self.failed,
            "no_model": self.status["no_model"],
            "located_by_gps": self.source["gps"],
            "located_by_pictures": self.source["visual"],
            "located_by_drive": self.source["drive"],
            "not_reached": self.total - self.done,
            "clips": self.clips,
        }


class Console:
    """Standard error for people, standard output for results; `quiet` leaves errors only."""

    def __init__(
        self, verbosity: Verbosity = "normal", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.verbosity = verbosity
        self.clock = clock
        self._line = ""
        self._last_s = float("-inf")

    def result(self, text: str) -> None:
        """Print a result.  Raises OutputError if it cannot be printed."""
        try:
            print(text, flush=True)  # noqa: T201 - here, and nowhere else
        except OSError as exc:
            raise OutputError(f"writing to standard output: {exc.strerror or exc}.") from exc

    def say(self, text: str) -> None:
        """Tell something that is good to know."""
        if self.verbosity != "quiet":
            self._print(text)

    def warn(self, text: str) -> None:
        """Tell something that a person must know; quiet does not hide it."""
        self._print(f"warning: {text}")

    def error(self, text: str) -> None:
        """Tell why the run stops."""
        self._print(f"error: {text}")

    def progress(self, tally: Tally) -> None:
        """Show how far the scan is: one line, redrawn on a terminal, else once a minute."""
        if self.verbosity == "quiet":
            return
        now_s = self.clock()
        is_drawn = sys.stderr.isatty() and self.verbosity == "normal"
        if is_drawn and (now_s - self._last_s >= REDRAW_INTERVAL_S or tally.done == tally.total):
            self._last_s = now_s
            self._draw(describe_progress(tally, now_s))
        elif not is_drawn and now_s - max(self._last_s, tally.started_s) >= LOG_INTERVAL_S:
            self._last_s = now_s
            self._print(describe_progress(tally, now_s))

    def step(self, text: str) -> None:
        """Show how far a long step is: one line, redrawn on a terminal, else once a minute."""
        if self.verbosity == "quiet":
            return
        now_s = self.clock()
        if sys.stderr.isatty() and self.verbosity == "normal":
            if now_s - self._last_s >= REDRAW_INTERVAL_S:
                self._last_s = now_s
                self._draw(text)
        elif now_s - self._last_s >= LOG_INTERVAL_S:
            self._last_s = now_s
            self._print(text)

    def problems(self, tally: Tally) -> None:
        """List each video that failed or was tagged from a part, with its reason."""
        if self.verbosity == "quiet":
            if tally.failed:
                self._print(f"{tally.failed} of {tally.total} videos failed")
            return
        for tag in tally.problems:
            self._print(f"{tag.status}: {printable(tag.path)}: {printable(tag.error or '')}")

    def clear(self) -> None:
        """Take the progress line away."""
        if self._line:
            self._line = ""
            self._write("\r\x1b[K")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table as a result."""
        from rich import box
        from rich.console import Console as RichConsole
        from rich.table import Table
        from rich.text import Text

        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for title in head:
            grid.add_column(Text(title), overflow="fold")
        for row in rows:
            grid.add_row(*(Text(printable(cell)) for cell in row))
        text = io.StringIO()
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
        RichConsole(file=text, width=width, highlight=False).print(grid)
        self.result(text.getvalue().rstrip())

    def _print(self, text: str) -> None:
        self.clear()
        self._write(text + "\n")

    def _draw(self, text: str) -> None:
        self._line = text[: shutil.get_terminal_size().columns - 1]
        self._write(f"\r{self._line}\x1b[K")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more: no reason to stop working
            sys.stderr.write(text)
            sys.stderr.flush()


def describe_progress(tally: Tally, now_s: float) -> str:
    """`12/340 videos, 1 failed, 81 h of footage per hour, 4 min left`."""
    if not tally.done:
        return f"0/{tally.total} videos"
    elapsed_s = max(now_s - tally.started_s, 1e-9)
    left_s = elapsed_s / tally.done * (tally.total - tally.done)
    return (
        f"{tally.done}/{tally.total} videos, {tally.failed} failed, "
        f"{tally.footage_s / elapsed_s:.0f} h of footage per hour, {describe_time(left_s)} left"
    )


def describe_summary(tally: Tally, now_s: float, *, ran_with: str, written: str) -> str:
    """Six lines: videos, places, how located, footage, what ran, where the result is."""
    elapsed_s = max(now_s - tally.started_s, 1e-9)
    levels = ("city", "state", "country", "continent", "none")
    named = ", ".join(
        f"{tally.level[level]} {'not sure enough' if level == 'none' else level}"
        for level in levels
        if tally.level[level]
    )
    no_model = tally.status["no_model"]
    unseen = f" + {no_model} without GPS or a model" if no_model else ""
    sources = ", ".join(
        f"{tally.source[source]} {words}"
        for source, words in (
            ("gps", "by GPS"),
            ("visual", "by their pictures"),
            ("drive", "by their drive"),
            ("none", "not placed"),
        )
        if tally.source[source]
    )
    compared = ", ".join(f"{count} {name}" for name, count in sorted(tally.agreement.items()))
    return "\n".join(
        (
            f"videos   {tally.done} = {tally.status['ok']} tagged + {tally.status['partial']} "
            f"tagged in part + {tally.failed} failed{unseen}",
            f"places   {tally.level.total()} = {named.replace(', ', ' + ') or '0'}",
            f"located  {sources or '0'}"
            + (f"; pictures against GPS: {compared}" if compared else ""),
            f"footage  {describe_time(tally.footage_s)} in {describe_time(elapsed_s)}, "
            f"{tally.footage_s / elapsed_s:.0f} h per hour; {tally.clips} clips",
            f"ran      {ran_with}",
            f"wrote    {written}",
        )
    )


def describe_time(seconds: float) -> str:
    """`42 s`, `4 min`, `3.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _SafeFormatter(logging.Formatter):
    """One record, one line; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))


def log_handler(verbosity: Verbosity) -> logging.Handler:
    """A handler that shows log records on standard error; `cli` installs it."""
    handler = logging.StreamHandler()
    handler.setFormatter(_SafeFormatter("%(levelname)s %(name)s: %(message)s"))
    handler.setLevel({"quiet": "ERROR", "normal": "WARNING", "verbose": "DEBUG"}[verbosity])
    return handler
