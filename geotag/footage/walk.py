"""Every file under a folder, once."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM_FOLDERS = frozenset(
    ("system volume information", "$recycle.bin", "recycler", "lost+found", "@eadir", "#recycle")
)
"""Folders of Windows, Linux and NAS systems, in lower case; names with a leading dot go anyway."""
KERNEL_FOLDERS = ("/proc", "/sys", "/dev")
"""What is in them is no storage: it has no end, and reading some of it changes the machine."""


@dataclass(frozen=True, slots=True, eq=False)
class Folder:
    """What a folder holds; names in lower case lead to those on the disk."""

    path: Path
    parts: tuple[str, ...]
    """Its names below the scanned folder."""
    parent: Folder | None
    files: dict[str, str] = field(default_factory=dict)
    """Hidden ones too."""
    folders: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A file that the walk met, or a folder that cannot be listed."""

    folder: Folder
    name: str
    path: Path
    status: os.stat_result | None
    """None where it cannot be had."""
    is_folder: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Names below the scanned folder, its own last."""
        return (*self.folder.parts, self.name)

    @property
    def ending(self) -> str:
        """With its dot, in lower case."""
        return PurePath(self.name).suffix.lower()

    @property
    def size_bytes(self) -> int:
        """0 for what is no file, or where it cannot be had."""
        is_file = self.status is not None and stat.S_ISREG(self.status.st_mode)
        return self.status.st_size if self.status is not None and is_file else 0


def walk(root: Path) -> Iterator[Entry]:
    """Every file under root once, and every folder that cannot be listed.

    Real folders come before linked ones, so that a file keeps its real path, and a folder that
    was walked is not walked again: no loop of links is endless. File systems of the kernel are
    left out, unless root is in one.
    """
    walked: set[tuple[int, int]] = set()
    # A link upwards would lead out of what was asked for and back into it.
    above = {_identity(folder) for folder in (root.resolve(), *root.resolve().parents)}
    kernel = {_identity(Path(name))[0] for name in KERNEL_FOLDERS}
    kernel -= {-1, _identity(root)[0], _identity(Path("/"))[0]}
    real = [Folder(root, (), None)]
    linked: list[Folder] = []
    while real or linked:
        folder = real.pop() if real else linked.pop(0)
        identity = _identity(folder.path)
        if identity in walked or (folder.parent is not None and identity in above):
            continue
        if identity[0] in kernel:
            continue
        walked.add(identity)
        entries = list_folder(folder)
        if entries is None:
            outer = folder.parent or folder
            yield Entry(outer, folder.path.name, folder.path, None, is_folder=True)
            continue
        for entry, is_folder in entries:
            if _is_hidden(entry.name):
                continue
            path = folder.path / entry.name
            if is_folder:
                inner = Folder(path, (*folder.parts, entry.name), folder)
                (linked if entry.is_symlink() else real).append(inner)
            else:
                yield Entry(folder, entry.name, path, _status(entry))


def list_folder(folder: Folder) -> list[tuple[os.DirEntry[str], bool]] | None:
    """What a folder holds, by name; True for a folder; None if it cannot be listed."""
    try:
        entries = sorted(os.scandir(folder.path), key=lambda entry: entry.name)
    except OSError:
        return None
    listed = [(entry, _is_folder(entry)) for entry in entries]
    for entry, is_folder in listed:
        (folder.folders if is_folder else folder.files)[entry.name.lower()] = entry.name
    return listed


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Asked of the entry, which knows it even in a folder that may be listed but not entered."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError:
        return None


def _identity(folder: Path) -> tuple[int, int]:
    """Device and inode: the same for every path to one folder."""
    try:
        status = folder.stat()
    except OSError:
        return (-1, hash(folder))
    return (status.st_dev, status.st_ino)
