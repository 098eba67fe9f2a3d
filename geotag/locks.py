"""One scan at a time into one output.

The lock is the kernel's, on a hidden file beside the output: it ends with the process that holds
it, however that ends. The file itself only says who that is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from geotag.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_NETWORK_FILE_SYSTEMS = (
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse.sshfs",
    "glusterfs",
    "lustre",
    "ncpfs",
    "nfs",
    "smb",
)
_MODE = 0o666
"""As far as the umask allows: the next scan of the folder may be another user's."""


class OutputLock:
    """Holds every output of a scan; standard output needs no lock."""

    def __init__(self, outs: Iterable[str]) -> None:
        """Take note of the outputs; entering takes the locks."""
        # Different spellings of one file, and links to it, are one.
        real = {os.path.realpath(out): out for out in outs if out != "-"}
        self._outs = sorted(real.items())
        self._held: list[tuple[int, Path]] = []
        self.warnings: list[str] = []
        """Outputs that could not be locked, and why; they are used all the same."""

    def __enter__(self) -> OutputLock:
        """Take the locks.

        Raises:
            OutputError: another scan holds one of them.
        """
        try:
            for real, out in self._outs:
                self._take(Path(real), out)
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let go, and leave no lock file behind; harmless when done twice."""
        while self._held:
            handle, path = self._held.pop()
            with contextlib.suppress(OSError):
                if _is_file_of(handle, path):  # still ours: whoever waits for it sees it go
                    path.unlink()
            os.close(handle)

    def _take(self, target: Path, out: str) -> None:
        path = lock_path(target)
        try:
            handle = _lock(path)
        except BlockingIOError as exc:
            raise OutputError(
                f"writing {out}: another scan is writing it ({_holder(path)}). Wait for it to "
                "end, or choose another --out."
            ) from exc
        except (FileNotFoundError, NotADirectoryError):
            return  # no folder: opening the output says so
        except OSError as exc:
            self.warnings.append(
                f"{out} cannot be locked ({exc.strerror or exc}): let no other scan write it at "
                "the same time."
            )
            return
        self._held.append((handle, path))


def lock_path(target: Path) -> Path:
    """The hidden file beside an output."""
    return target.with_name(f".{target.name}.geotag-lock")


def is_on_network(path: Path) -> bool:
    """Whether the file may be open on another computer, where a write-ahead log fails.

    Source: https://www.sqlite.org/wal.html, "all processes must be on the same host".
    """
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    folder = os.path.realpath(path.parent)
    best = ("", "")
    for line in mounts.splitlines():
        _, point, kind, *_ = [*line.split(" "), "", "", ""]
        point = point.replace("\\040", " ")
        is_above = folder == point or folder.startswith(point.rstrip("/") + "/")
        if is_above and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1].startswith(_NETWORK_FILE_SYSTEMS)


def _lock(path: Path) -> int:
    """Create and lock a file, and write into it who did.

    Returns:
        Its handle.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be created, or not be locked.
    """
    while True:
        handle = _open(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed it between our opening and our locking.
            if _is_file_of(handle, path):
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, f"{os.getpid()} {platform.node()}\n".encode(), 0)
                return handle
        except OSError as exc:
            os.close(handle)
            if exc.errno in _TAKEN:
                raise BlockingIOError(exc.errno, exc.strerror) from exc
            if exc.errno in _NO_LOCKS:
                _remove_if_empty(path)
            raise
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _open(path: Path) -> int:
    flags = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, os.O_RDWR | flags, _MODE)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _is_file_of(handle: int, path: Path) -> bool:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(handle), there)


def _remove_if_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        if os.lstat(path).st_size == 0:
            path.unlink()


def _holder(path: Path) -> str:
    """`process 4711 on cab-3`, as far as the lock file says."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            words = os.read(handle, 300).decode("utf-8", "replace").split()
        finally:
            os.close(handle)
    except OSError:
        words = []
    if len(words) != 2 or not words[0].isdecimal() or not words[1].isprintable():
        return "which does not say who it is"
    return f"process {words[0]} on {words[1]}"
