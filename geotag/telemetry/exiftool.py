"""ExifTool, kept open: a program of its own, so it may hang or die, and must not take us along."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geotag.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRONMENT = "GEOTAG_EXIFTOOL"
"""Variable that names the program to use instead of the `exiftool` on PATH."""
CURRENT_VERSION = (13, 30)
"""Older ones miss the positions of many dashcams of the years since 2022."""

Level = Literal["-ee", "-ee3"]
"""How deep to look: `-ee` reads what the index names and the first 20 MB of media, `-ee3` every
byte of the file."""

_START_LIMIT_S = 30.0
_POLL_S = 0.05
_MOST_MEMORY_BYTES = 2 << 30
_LAUNCHER = f"""
import os, sys
try:
    import ctypes, resource
    ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM: old versions outlive their input
    resource.setrlimit(resource.RLIMIT_AS, ({_MOST_MEMORY_BYTES}, {_MOST_MEMORY_BYTES}))
except Exception:
    pass  # a system that has none of these
try:
    os.execv(sys.argv[1], sys.argv[1:])
except OSError as exc:
    sys.exit(str(exc))
"""
_TAGS = (
    "ExifToolVersion",
    "MIMEType",
    "MetaFormat",
    "OtherFormat",
    "GPSLatitude",
    "GPSLongitude",
    "GPSAltitude",
    "GPSSpeed",
    "GPSDateTime",
    "GPSMeasureMode",
    "GPSHPositioningError",
    "GPSDOP",
    "SampleTime",
    "SampleDuration",
    "CreateDate",
    "Make",
    "Model",
)
_OPTIONS = (
    "-q",
    "-q",
    "-n",
    "-a",
    # Kind and track of the metadata, the record, and the number of equal tags in a record.
    "-G0:1:3:4",
    "-j",
    "-api",
    "LargeFileSupport=1",
    # Times of the container as UTC, whatever the zone of this machine.
    "-api",
    "QuickTimeUTC=1",
)


class ExifToolError(Exception):
    """ExifTool gave no answer: it hung, died, or said something that is no answer."""


def find_exiftool() -> Path | None:
    """The program: the one that GEOTAG_EXIFTOOL names, else the one on PATH; None without one.

    Raises:
        ConfigError: GEOTAG_EXIFTOOL names nothing that can be run; it never falls back.
    """
    wanted = os.environ.get(ENVIRONMENT)
    found = shutil.which(wanted or "exiftool")
    if wanted and found is None:
        raise ConfigError(
            f"looking for ExifTool: {ENVIRONMENT} is {wanted!r}, which is no program. "
            "Give the path of an executable exiftool, or leave the variable out."
        )
    return Path(found) if found else None


def exiftool_version() -> str | None:
    """Version of the program that a scan would use, like "13.59"; None without one that runs.

    Raises:
        ConfigError: GEOTAG_EXIFTOOL names nothing that can be run.
    """
    program = find_exiftool()
    if program is None:
        return None
    try:
        answer = subprocess.run(
            [program, "-ver"], capture_output=True, timeout=_START_LIMIT_S, check=True, text=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    version = answer.stdout.strip()
    return version if version.replace(".", "").isdigit() else None


def describe_version(version: str | None) -> str:
    """One sentence on what a version of ExifTool reads, and what to do where that is too little."""
    advice = (
        "unpack a current one from exiftool.org (it needs nothing but Perl) and set "
        f"{ENVIRONMENT} to its path"
    )
    if version is None:
        return f"not found: GPS inside most dashcam videos stays unread; {advice}"
    major, _, minor = version.partition(".")
    if (int(major), int(minor or 0)) < CURRENT_VERSION:
        wanted = ".".join(map(str, CURRENT_VERSION))
        return (
            f"{version} reads GoPro, BlackVue, 70mai and older Novatek files, but misses many "
            f"dashcams since 2022, and DJI's own tracks: for {wanted} or later, {advice}"
        )
    return f"{version} reads every kind of timed GPS that is known here"


class ExifTool:
    """One process of ExifTool, begun at the first file and again after it had to be ended."""

    def __init__(self, program: Path) -> None:
        """Keep the path; nothing is started."""
        self._program = program
        self._tool: Any = None

    def read_tags(self, path: Path, *, level: Level, limit_s: float) -> dict[str, Any]:
        """Tags of a file, `family:family:record:Tag` to value, in the order of the file.

        Args:
            path: the file, whatever bytes its name is made of.
            level: how deep to look.
            limit_s: how long that may take; then the process is killed.

        Raises:
            ExifToolError: there is no answer.
        """
        with contextlib.ExitStack() as stack:
            name = stack.enter_context(_passable(path.absolute()))
            self._start()
            options = (*_OPTIONS, level, *(f"-{tag}" for tag in _TAGS))
            answer = self._ask([*map(os.fsencode, options), os.fsencode(name)], limit_s)
        try:
            entries: Any = json.loads(answer.decode("utf-8", "replace") or "[]")
        except (ValueError, RecursionError) as exc:
            raise ExifToolError("what it answered is no JSON") from exc
        if not (isinstance(entries, list) and entries and isinstance(entries[0], dict)):
            return {}
        tags: dict[str, Any] = entries[0]
        return tags

    def close(self) -> None:
        """End the process."""
        tool, self._tool = self._tool, None
        if tool is not None:
            _end(tool)

    def _start(self) -> None:
        if self._tool is not None and self._tool._process.poll() is None:
            return
        self.close()
        try:
            # PyExifTool's own start would fork this process with all its threads, run Python in
            # the fork, and now and then hang there.
            self._tool = _unstarted(self._program)
            self._tool._process = _launch(self._program)
            with _watched(self._tool, _START_LIMIT_S):
                self._tool.execute("-ver")
        except _failures() as exc:
            self.close()
            raise ExifToolError(f"it does not start: {exc or type(exc).__name__}") from exc

    def _ask(self, arguments: list[bytes], limit_s: float) -> bytes:
        try:
            with _watched(self._tool, limit_s) as watch:
                answer: bytes = self._tool.execute(*arguments, raw_bytes=True)
                return answer
        except _failures() as exc:
            self.close()
            why = f"took more than {limit_s:.0f} s" if watch.is_late else "it died"
            raise ExifToolError(why) from exc


class _Watch:
    """Whether a watched call ran into its limit."""

    def __init__(self) -> None:
        self.is_late = False


@contextlib.contextmanager
def _watched(tool: Any, limit_s: float) -> Iterator[_Watch]:  # noqa: ANN401 - PyExifTool has no types
    """Cut a call of PyExifTool short when its process dies or takes too long.

    PyExifTool itself would wait for ever for one that hangs, and spin for ever on one that died.
    """
    watch, done = _Watch(), threading.Event()
    deadline_s = time.monotonic() + limit_s

    def look() -> None:
        while not done.wait(_POLL_S):
            process = tool._process
            if process is None:
                continue
            watch.is_late = time.monotonic() > deadline_s
            if watch.is_late or process.poll() is not None:
                _break_off(process)
                return

    thread = threading.Thread(target=look, name="exiftool watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()


def _break_off(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and make the next read of its output fail instead of finding it empty."""
    process.kill()
    process.wait()
    unreadable = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                os.dup2(unreadable, stream.fileno(), inheritable=False)
    finally:
        os.close(unreadable)


def _end(tool: Any) -> None:  # noqa: ANN401
    process = tool._process
    tool._flag_running_false()
    if process is None:
        return
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        with contextlib.suppress(OSError):
            stream.close()


def _failures() -> tuple[type[Exception], ...]:
    from exiftool.exceptions import ExifToolException

    return (ExifToolException, OSError, ValueError, RuntimeError)


def _unstarted(program: Path) -> Any:  # noqa: ANN401 - PyExifTool has no types
    """PyExifTool's object, which says whether it runs without a warning when it does no more."""
    import exiftool

    class Tool(exiftool.ExifTool):  # type: ignore[misc]
        @property
        def running(self) -> bool:
            return self._process is not None and self._process.poll() is None

    return Tool(executable=str(program), common_args=[], encoding="utf-8")


def _launch(program: Path) -> subprocess.Popen[bytes]:
    """Start ExifTool so that it ends with us, and cannot fill the machine."""
    # Without a configuration: that is a program, and not ours.
    arguments = [str(program), "-config", "", "-stay_open", "True", "-@", "-"]
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@contextlib.contextmanager
def _passable(path: Path) -> Iterator[Path]:
    """The path, or a link to it: ExifTool takes one argument a line, so a name has no breaks."""
    if all(byte >= 0x20 for byte in os.fsencode(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="geotag-") as folder:
        link = Path(folder) / "video"
        try:
            link.symlink_to(path)
        except OSError as exc:
            raise ExifToolError(f"cannot link to a name with line breaks: {exc}") from exc
        yield link
