"""Opening what a folder holds without ever waiting for it: pipes and devices are refused."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from pathlib import Path

_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    What it is is asked of the open file: by then a name may lead to something else than before.

    Raises:
        OSError: it cannot be opened, or is no regular file.
        ValueError: no file can have such a name.
    """
    # Path.open() knows no opener.
    return cast("BinaryIO", open(path, "rb", opener=_open_at_once))


def _open_at_once(path: str, flags: int) -> int:
    handle = os.open(path, flags | _AT_ONCE)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
    except BaseException:
        os.close(handle)
        raise
    return handle
