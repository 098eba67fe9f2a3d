"""Finding the videos under a folder."""

from __future__ import annotations

import os
import stat
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from geotag.errors import ConfigError
from geotag.footage.files import open_file
from geotag.footage.kinds import HEAD_BYTES, is_video
from geotag.types import Video

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM_FOLDERS = frozenset(
    ("system volume information", "$recycle.bin", "recycler", "lost+found", "@eadir", "#recycle")
)
"""Folders of Windows, Linux and NAS systems, in lower case; names with a leading dot go anyway."""

_EDGE_BYTES = 1 << 20


def find_videos(root: Path) -> list[Video]:
    """Find every video under a folder, or take a single file.

    A file is a video by its content whatever its name, or by its name whatever its content: what
    cannot be read or is broken is listed too, and fails visibly later. So is a folder that
    cannot be listed. Left out: pipes, sockets and devices, names with a leading dot (which
    includes the `._` files of macOS), and SYSTEM_FOLDERS. A link to a folder is followed unless
    what it leads to is found anyway.

    Returns:
        The videos sorted by path, without regard to case: the same on every system.

    Raises:
        ConfigError: there is no such file or folder, the folder cannot be listed, or it is a pipe
            or a device.
    """
    try:
        mode = root.stat().st_mode
        if stat.S_ISDIR(mode):
            os.listdir(root)  # noqa: PTH208 - iterdir() would hold its error back until used
    except OSError as exc:
        raise ConfigError(
            f"looking for videos in {_printable(str(root))}: {exc.strerror or exc}. "
            "Give a folder or a file that exists and that you may read."
        ) from exc
    if stat.S_ISREG(mode):
        return [_video(root, Path(root.name))]
    if not stat.S_ISDIR(mode):
        raise ConfigError(
            f"looking for videos in {_printable(str(root))}: this is a pipe, a socket or a device. "
            "Give a folder or a file; what comes out of a pipe must be stored in a file first."
        )
    found = (
        _video(path, path.relative_to(root))
        for path, is_folder in _walk(root)
        if is_folder or _is_wanted(path)
    )
    return sorted(found, key=lambda video: _sort_key(video.path.relative_to(root)))


def _walk(root: Path) -> Iterator[tuple[Path, bool]]:
    """Every file under root once, and every folder that cannot be listed; True for a folder.

    Real folders come before linked ones, so that a file keeps its real path, and a folder that
    was walked is not walked again: no loop of links is endless.
    """
    walked: set[tuple[int, int]] = set()
    # A link upwards would lead out of what was asked for and back into it.
    above = {_identity(folder) for folder in (root.resolve(), *root.resolve().parents)}
    real: list[Path] = [root]
    linked: list[Path] = []
    while real or linked:
        folder = real.pop() if real else linked.pop(0)
        identity = _identity(folder)
        if identity in walked or (folder != root and identity in above):
            continue
        walked.add(identity)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            yield folder, True
            continue
        for entry in entries:
            path = Path(entry.path)
            if _is_hidden(entry.name):
                continue
            if _is_folder(entry):
                (linked if entry.is_symlink() else real).append(path)
            else:
                yield path, False


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Asked of the entry, which knows it even in a folder that may be listed but not entered."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _identity(folder: Path) -> tuple[int, int]:
    """Device and inode: the same for every path to one folder."""
    try:
        status = folder.stat()
    except OSError:
        return (-1, hash(folder))
    return (status.st_dev, status.st_ino)


def _is_wanted(path: Path) -> bool:
    """Whether a walked file is a video: by its name alone if there is no telling what it is.

    So it is for a link that leads nowhere, and in a folder that may not be entered.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return is_video(b"", path.name)
    return stat.S_ISREG(mode) and is_video(_read_head(path), path.name)


def _read_head(path: Path) -> bytes:
    try:
        with open_file(path) as stream:
            return stream.read(HEAD_BYTES)
    except OSError:
        return b""


def _video(path: Path, relative: Path) -> Video:
    name = relative.as_posix()
    size_bytes, edges = _read_edges(path)
    digest = blake2b(digest_size=16)
    for part in (os.fsencode(name), str(size_bytes).encode("ascii"), edges):
        # With its length first, no two triples give the same bytes.
        digest.update(len(part).to_bytes(8, "little") + part)
    return Video(
        path=path, name=_printable(name), video_id=digest.hexdigest(), size_bytes=size_bytes
    )


def _read_edges(path: Path) -> tuple[int, bytes]:
    """Size of a file, and its first and last MiB; 0 and nothing where they cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return 0, b""
    if not stat.S_ISREG(status.st_mode):
        return 0, b""
    size_bytes = status.st_size
    try:
        with open_file(path) as stream:
            edges = stream.read(_EDGE_BYTES)
            if size_bytes > _EDGE_BYTES:
                stream.seek(max(_EDGE_BYTES, size_bytes - _EDGE_BYTES))
                edges += stream.read(_EDGE_BYTES)
    except OSError:
        return size_bytes, b""
    return size_bytes, edges


def _sort_key(relative: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Folder by folder, without regard to case; case only parts what is otherwise the same."""
    return tuple(part.casefold() for part in relative.parts), relative.parts


def _printable(name: str) -> str:
    r"""Spell a path in printable UTF-8: an undecodable byte as \xNN, a newline as \n.

    Reversible, so that two names never become one: a backslash becomes two.
    """
    escaped = []
    for character in name:
        if "\udc80" <= character <= "\udcff":
            escaped.append(f"\\x{ord(character) - 0xDC00:02x}")
        elif character == "\\" or not character.isprintable():
            escaped.append(character.encode("unicode_escape").decode("ascii"))
        else:
            escaped.append(character)
    return "".join(escaped)
