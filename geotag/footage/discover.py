"""What a folder holds: its videos, which camera made them, and which belong together."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, TypeVar

from geotag.errors import ConfigError
from geotag.footage.drives import group_drives
from geotag.footage.files import open_file
from geotag.footage.kinds import HEAD_BYTES, is_video, video_kind
from geotag.footage.origin import Understanding, read_origin
from geotag.footage.sidecars import Folder, find_sidecars
from geotag.types import Discovery, Skipped, Video

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Recall = Callable[[Path, os.stat_result], str | None]
    Remember = Callable[[Path, os.stat_result, str], None]

SYSTEM_FOLDERS = frozenset(
    ("system volume information", "$recycle.bin", "recycler", "lost+found", "@eadir", "#recycle")
)
"""Folders of Windows, Linux and NAS systems, in lower case; names with a leading dot go anyway."""

_EDGE_BYTES = 1 << 20
_READERS = 4
"""Threads that read: enough to hide the latency of a card or a network, few enough for a disk."""
_BATCH = 64
_THUMBNAIL_ENDING = ".thm"

_Item = TypeVar("_Item")
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    """A file that the walk met, or a folder that cannot be listed."""

    folder: Folder
    name: str
    path: Path
    status: os.stat_result | None
    """None where it cannot be had."""
    is_folder: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        return (*self.folder.parts, self.name)

    @property
    def ending(self) -> str:
        return PurePath(self.name).suffix.lower()

    @property
    def size_bytes(self) -> int:
        is_file = self.status is not None and stat.S_ISREG(self.status.st_mode)
        return self.status.st_size if self.status is not None and is_file else 0


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """An entry that is a video, understood."""

    entry: _Entry
    understanding: Understanding


def find_videos(root: Path) -> list[Video]:
    """The videos that `discover` finds, in its order.  Raises ConfigError as it does."""
    return list(discover(root).videos)


def discover(
    root: Path, *, recall: Recall | None = None, remember: Remember | None = None
) -> Discovery:
    """Find every video under a folder, or take a single file; understand and group what is found.

    A file is a video by its content whatever its name, or by its name whatever its content: what
    cannot be read or is broken is listed too, and fails visibly later. So is a folder that
    cannot be listed. Left out: pipes, sockets and devices, names with a leading dot (which
    includes the `._` files of macOS), and SYSTEM_FOLDERS. A link to a folder is followed unless
    what it leads to is found anyway. Small copies and thumbnails that cameras put beside a video
    are skipped; one whose video is gone is a video itself.

    Args:
        root: what to look through.
        recall: gives the content id of a file that has not changed since it was remembered; each
            file that it does not know is read at both ends.
        remember: is told the content id of each file that was read.

    Raises:
        ConfigError: there is no such file or folder, the folder cannot be listed, or it is a pipe
            or a device.
    """
    if _check_root(root):
        entries, above = list(_walk(root)), root.resolve().parts[-2:]
        candidates, thumbnails = _candidates(entries, above)
        candidates, proxies, skipped = _without_copies(candidates)
        skipped += thumbnails
    else:
        candidates, proxies, skipped = [_single(root)], {}, []
    candidates.sort(key=lambda candidate: _sort_key(candidate.entry.parts))
    ids = _content_ids([candidate.entry for candidate in candidates], recall, remember)
    videos = tuple(
        _video(candidate, content, proxies.get(candidate.entry.path))
        for candidate, content in zip(candidates, ids, strict=True)
    )
    return Discovery(
        videos=videos,
        drives=group_drives(videos),
        skipped=tuple(sorted(skipped, key=lambda one: _sort_key(tuple(one.name.split("/"))))),
    )


def content_id(path: Path) -> str:
    """Digest of a file's size, first and last MiB; of its path alone where it cannot be read.

    The latter is that of no content, so what was learnt from a file never stands for another.
    """
    digest = blake2b(digest_size=16)
    try:
        with open_file(path) as stream:
            size_bytes = os.fstat(stream.fileno()).st_size
            digest.update(size_bytes.to_bytes(8, "little"))
            digest.update(stream.read(_EDGE_BYTES))
            if size_bytes > _EDGE_BYTES:
                stream.seek(max(_EDGE_BYTES, size_bytes - _EDGE_BYTES))
                digest.update(stream.read(_EDGE_BYTES))
    except (OSError, ValueError):
        return blake2b(os.fsencode(path), digest_size=16, person=b"unreadable").hexdigest()
    return digest.hexdigest()


def _check_root(root: Path) -> bool:
    """Whether it is a folder; it is a regular file otherwise.  Raises ConfigError."""
    try:
        mode = root.stat().st_mode
        if stat.S_ISDIR(mode):
            os.listdir(root)  # noqa: PTH208 - iterdir() would hold its error back until used
    except OSError as exc:
        raise ConfigError(
            f"looking for videos in {_printable(str(root))}: {exc.strerror or exc}. "
            "Give a folder or a file that exists and that you may read."
        ) from exc
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ConfigError(
            f"looking for videos in {_printable(str(root))}: this is a pipe, a socket or a device. "
            "Give a folder or a file; what comes out of a pipe must be stored in a file first."
        )
    return stat.S_ISDIR(mode)


def _walk(root: Path) -> Iterator[_Entry]:
    """Every file under root once, and every folder that cannot be listed.

    Real folders come before linked ones, so that a file keeps its real path, and a folder that
    was walked is not walked again: no loop of links is endless.
    """
    walked: set[tuple[int, int]] = set()
    # A link upwards would lead out of what was asked for and back into it.
    above = {_identity(folder) for folder in (root.resolve(), *root.resolve().parents)}
    real = [Folder(root, (), None)]
    linked: list[Folder] = []
    while real or linked:
        folder = real.pop() if real else linked.pop(0)
        identity = _identity(folder.path)
        if identity in walked or (folder.parent is not None and identity in above):
            continue
        walked.add(identity)
        entries = _list(folder)
        if entries is None:
            outer = folder.parent or folder
            yield _Entry(outer, folder.path.name, folder.path, None, is_folder=True)
            continue
        for entry in entries:
            if _is_hidden(entry.name):
                continue
            path = folder.path / entry.name
            if entry.name.lower() in folder.folders:
                inner = Folder(path, (*folder.parts, entry.name), folder)
                (linked if entry.is_symlink() else real).append(inner)
            else:
                yield _Entry(folder, entry.name, path, _status(entry))


def _list(folder: Folder) -> list[os.DirEntry[str]] | None:
    """What a folder holds, by name; None if it cannot be listed."""
    try:
        entries = sorted(os.scandir(folder.path), key=lambda entry: entry.name)
    except OSError:
        return None
    for entry in entries:
        (folder.folders if _is_folder(entry) else folder.files)[entry.name.lower()] = entry.name
    return entries


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


def _candidates(
    entries: Sequence[_Entry], above: Sequence[str]
) -> tuple[list[_Candidate], list[Skipped]]:
    """The entries that are videos, by their name alone if there is no telling what they are.

    So it is for a link that leads nowhere, and in a folder that may not be entered.
    """
    regular = [
        entry for entry in entries if entry.status is None or stat.S_ISREG(entry.status.st_mode)
    ]
    candidates = []
    thumbnails = []
    for entry, head in zip(regular, _in_threads(_read_head, regular), strict=True):
        if entry.ending == _THUMBNAIL_ENDING and video_kind(head) is None:
            thumbnails.append(
                Skipped(name=_name(entry), reason="a camera's thumbnail of a video: a picture")
            )
        elif entry.is_folder or is_video(head, entry.name):
            candidates.append(_Candidate(entry, _understand(entry, head, above)))
    return candidates, thumbnails


def _understand(entry: _Entry, head: bytes, above: Sequence[str]) -> Understanding:
    folder = entry.folder
    return read_origin(folder.parts, entry.name, head, above=above, neighbours=folder.files.keys())


def _read_head(entry: _Entry) -> bytes:
    if entry.status is None:
        return b""
    try:
        with open_file(entry.path) as stream:
            return stream.read(HEAD_BYTES)
    except (OSError, ValueError):
        return b""


def _without_copies(
    candidates: Sequence[_Candidate],
) -> tuple[list[_Candidate], dict[Path, Path], list[Skipped]]:
    """The candidates less small copies of others; the copy of each; what was skipped, and why."""
    alike: dict[tuple[Path, str], list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        alike[candidate.entry.folder.path, candidate.understanding.copy_key].append(candidate)
    kept: list[_Candidate] = []
    proxies: dict[Path, Path] = {}
    skipped: list[Skipped] = []
    for group in alike.values():
        group.sort(key=lambda one: (one.understanding.copy_level, one.entry.name))
        # An empty file is no better than its copy.
        full = next((one for one in group if one.entry.size_bytes), group[0])
        for one in group:
            if one.understanding.copy_level <= full.understanding.copy_level:
                kept.append(one)
                continue
            proxies.setdefault(full.entry.path, one.entry.path)
            reason = f"the camera's small copy of {_printable(full.entry.name)}"
            skipped.append(Skipped(name=_name(one.entry), reason=reason))
    return kept, proxies, skipped


def _single(path: Path) -> _Candidate:
    """A file that was asked for, whatever it is; its folder may hold a sidecar."""
    resolved = path.resolve()
    folder = Folder(path.parent, (), None)
    _list(folder)
    entry = _Entry(folder, path.name or resolved.name, path, path.stat())
    return _Candidate(entry, _understand(entry, _read_head(entry), resolved.parent.parts[-2:]))


def _content_ids(
    entries: Sequence[_Entry], recall: Recall | None, remember: Remember | None
) -> list[str]:
    known = [
        recall(entry.path, entry.status) if recall and entry.status else None for entry in entries
    ]
    unknown = [entry for entry, digest in zip(entries, known, strict=True) if digest is None]
    read = iter(_in_threads(lambda entry: content_id(entry.path), unknown, batch=1))
    digests = []
    for entry, digest in zip(entries, known, strict=True):
        digests.append(next(read) if digest is None else digest)
        if digest is None and remember and entry.status:
            remember(entry.path, entry.status, digests[-1])
    return digests


def _video(candidate: _Candidate, content: str, proxy: Path | None) -> Video:
    entry, understanding = candidate.entry, candidate.understanding
    origin = understanding.origin
    digest = blake2b(digest_size=16)
    for part in (os.fsencode("/".join(entry.parts)), content.encode("ascii")):
        # With its length first, no two pairs give the same bytes.
        digest.update(len(part).to_bytes(8, "little") + part)
    return Video(
        path=entry.path,
        name=_name(entry),
        video_id=digest.hexdigest(),
        size_bytes=entry.size_bytes,
        content_id=content,
        origin=replace(origin, card=_printable(origin.card)),
        sidecars=find_sidecars(entry.folder, entry.name, understanding.shared_stem, origin),
        proxy=proxy,
    )


def _in_threads(
    function: Callable[[_Item], _Read], items: Sequence[_Item], *, batch: int = _BATCH
) -> Iterable[_Read]:
    """Results in the order of the items; reading and hashing let go of the interpreter's lock."""
    if not items:
        return []
    waiting = iter(items)
    batches = iter(lambda: list(islice(waiting, batch)), [])
    with ThreadPoolExecutor(_READERS, thread_name_prefix="discover") as pool:
        done = pool.map(lambda some: [function(one) for one in some], batches)
        return [result for results in done for result in results]


def _name(entry: _Entry) -> str:
    return _printable("/".join(entry.parts))


def _sort_key(parts: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Folder by folder, without regard to case; case only parts what is otherwise the same."""
    return tuple(part.casefold() for part in parts), parts


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
