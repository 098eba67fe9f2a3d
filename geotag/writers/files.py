"""Files that appear complete or not at all, and standard output behind the same two methods."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from geotag.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME_MAX_BYTES = 255
"""Of a file name, on ext4 and its like; exFAT, NTFS and APFS count 255 letters."""


class Target(Protocol):
    """Where a file's content goes."""

    def write(self, piece: str | bytes) -> None:
        """Add text, or the bytes of a format that is not text.  Raises OutputError."""
        ...

    def commit(self) -> None:
        """Make what was written the result.  Raises OutputError."""
        ...

    def abort(self) -> None:
        """Leave no trace, where that is possible; harmless after commit."""
        ...


class AtomicFile:
    """A file that replaces the one of its name in a single step, when it is complete.

    It grows in a hidden file of the same folder; until `commit` the old file is untouched.
    Opening it therefore proves, before hours of work, that the folder can be written.
    """

    def __init__(self, path: Path, *, option: str = "--out") -> None:
        self._name = str(path)
        self._option = option  # what to choose another file with
        self._target = Path(os.path.realpath(path))  # a link keeps pointing where it points
        with self._explained():
            self._check_target(path)
        self._part = _part_of(self._target)
        with self._explained():
            self._stream = self._part.open(
                "x", encoding="utf-8", newline="", errors="backslashreplace"
            )

    def write(self, piece: str | bytes) -> None:
        """Add text or bytes to the hidden file."""
        with self._explained():
            if isinstance(piece, str):
                self._stream.write(piece)
            else:
                self._stream.flush()
                self._stream.buffer.write(piece)

    def commit(self) -> None:
        """Put the file in its place, on the disk and not only in memory."""
        with self._explained():
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            os.replace(self._part, self._target)  # noqa: PTH105 - the seam that tests break
            _sync_folder(self._target.parent)

    def abort(self) -> None:
        """Remove the hidden file."""
        with contextlib.suppress(OSError):
            self._stream.close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)

    def _check_target(self, path: Path) -> None:
        parent = self._target.parent
        if not _is_folder(parent):
            raise OutputError(
                f"writing {self._name}: the folder {path.parent} does not exist. "
                f"Create it, or choose another {self._option}."
            )
        if _is_folder(self._target):
            raise OutputError(
                f"writing {self._name}: it is a folder. Choose another {self._option}."
            )
        if self._is_there() and not os.access(self._target, os.W_OK):
            raise OutputError(
                f"writing {self._name}: the file is there and write-protected. "
                f"Make it writable, or choose another {self._option}."
            )

    def _is_there(self) -> bool:
        return os.path.exists(self._target)  # noqa: PTH110 - never raises, where Path.exists may

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            if hasattr(self, "_stream"):
                self.abort()
            kept = "The file that was there is untouched. " if self._is_there() else ""
            raise OutputError(
                f"writing {self._name}: {exc.strerror or exc}. {kept}{advice(exc, self._option)}"
            ) from exc


class StandardOutput:
    """Standard output; each piece is flushed, so that a reader sees it at once."""

    def write(self, piece: str | bytes) -> None:
        """Send text or bytes on."""
        if isinstance(piece, str):
            piece = piece.encode("utf-8", "backslashreplace")
        try:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        except BrokenPipeError as exc:
            raise OutputError(
                "writing to standard output: its reader has closed. Read it to the end, or write "
                "a file with --out tags.geojsonl."
            ) from exc
        except OSError as exc:
            raise OutputError(
                f"writing to standard output: {exc.strerror or exc}. "
                "Free some space where it is sent to."
            ) from exc

    def commit(self) -> None:
        """Nothing is left to do."""

    def abort(self) -> None:
        """What was sent cannot be taken back."""


def write_file(path: Path, content: str | bytes, *, option: str = "--out") -> None:
    """Write a whole file at once, atomically.

    Args:
        path: the file.
        content: what it is to hold; text becomes UTF-8.
        option: what its name was given with, for the text of an error.

    Raises:
        OutputError: it cannot be written; what was there is untouched.
    """
    target = AtomicFile(path, option=option)
    try:
        target.write(content)
        target.commit()
    except BaseException:
        target.abort()
        raise


def advice(exc: OSError, option: str) -> str:
    """What to do about a file that cannot be written.

    Args:
        exc: what the operating system said.
        option: what the name of the file was given with.
    """
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"Free some space or choose another {option}."
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"Choose another {option}, in a folder that you may write into."
    return f"Choose another {option}."


def remove_leftovers(path: Path) -> None:
    """Remove hidden files that a killed scan left beside an output; only under its lock.

    What cannot be removed stays: it is in nobody's way.
    """
    target = Path(os.path.realpath(path))
    leftover = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.part")
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(target.parent)):
            if leftover.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)  # noqa: PTH108 - as scandir gave it


def _part_of(target: Path) -> Path:
    """A hidden file beside another, named after it where the name stays short enough."""
    ending = f".{secrets.token_hex(4)}.part"
    fits = len(os.fsencode(target.name)) + 1 + len(ending) <= NAME_MAX_BYTES
    return target.with_name(f".{target.name if fits else 'geotag'}{ending}")


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut, where that is possible.

    The file is in its place already: a folder that may be written but not read, or a file system
    that syncs no folders, is no reason to say that it is not.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_folder(path: Path) -> bool:
    """Whether there is a folder.  Raises OSError where that cannot be seen."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
