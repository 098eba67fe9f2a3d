"""Files that are whole, or what they were before."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from geotag.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path


def refuse_file(folder: Path, *, doing: str) -> None:
    """Refuse, before any work is done, a folder to write into where a file is in its way.

    Args:
        folder: that will be written into; it need not exist.
        doing: such as `writing the evaluation into`.

    Raises:
        OutputError: it, or something above it, is a file.
    """
    there = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if there is not None and not there.is_dir():
        raise OutputError(f"{doing} {folder}: {there} is a file, no folder. Choose another --out.")


def write_aside(path: Path, content: bytes) -> None:
    """Write a file beside its place, see it onto the disk, and move it there.  Raises OSError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
