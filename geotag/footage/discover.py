"""What a folder holds: its videos, which camera made them, and which belong together."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from geotag.errors import ConfigError
from geotag.footage.drives import group_drives
from geotag.footage.files import open_file
from geotag.footage.kinds import HEAD_BYTES, is_video, video_kind
from geotag.footage.origin import Understanding, read_origin
from geotag.footage.sidecars import find_sidecars
from geotag.footage.walk import Entry, Folder, list_folder, walk
from geotag.types import Discovery, Origin, Skipped, Video

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Recall = Callable[[Path, os.stat_result], str | None]
    Remember = Callable[[Path, os.stat_result, str], None]

_EDGE_BYTES = 1 << 20
_READERS = 4
"""Threads that read: enough to hide the latency of a card or a network, few enough for a disk."""
_BATCH = 64
_THUMBNAIL_ENDING = ".thm"

_Item = TypeVar("_Item")
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """An entry that is a video, understood."""

    entry: Entry
    understanding: Understanding

    @property
    def origin(self) -> Origin:
        return self.understanding.origin


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
        entries, above = list(walk(root)), root.resolve().parts[-2:]
        candidates, thumbnails = _candidates(entries, above)
        candidates = _settled(candidates, above)
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
        return _unreadable_id(path)
    return digest.hexdigest()


def _unreadable_id(path: Path) -> str:
    return blake2b(os.fsencode(path), digest_size=16, person=b"unreadable").hexdigest()


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


def _candidates(
    entries: Sequence[Entry], above: Sequence[str]
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


def _settled(candidates: Sequence[_Candidate], above: Sequence[str]) -> list[_Candidate]:
    """The candidates, those whose name several makers use settled by the rest of their card."""
    makers: dict[str, set[str | None]] = defaultdict(set)
    for candidate in candidates:
        makers[candidate.origin.card].add(candidate.origin.vendor)
    settled = []
    for candidate in candidates:
        known = makers[candidate.origin.card] - {None}
        if candidate.origin.vendor is None and candidate.origin.rule != "generic" and known:
            maker = sorted(one for one in known if one)[0] if len(known) == 1 else None
            understanding = _understand(candidate.entry, b"", above, card_vendor=maker)
            settled.append(_Candidate(candidate.entry, understanding))
        else:
            settled.append(candidate)
    return settled


def _understand(
    entry: Entry, head: bytes, above: Sequence[str], *, card_vendor: str | None = None
) -> Understanding:
    folder = entry.folder
    return read_origin(
        folder.parts,
        entry.name,
        head,
        above=above,
        neighbours=folder.files.keys(),
        card_vendor=card_vendor,
    )


def _read_head(entry: Entry) -> bytes:
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
    list_folder(folder)
    entry = Entry(folder, path.name or resolved.name, path, path.stat())
    return _Candidate(entry, _understand(entry, _read_head(entry), resolved.parent.parts[-2:]))


def _content_ids(
    entries: Sequence[Entry], recall: Recall | None, remember: Remember | None
) -> list[str]:
    known = [
        recall(entry.path, entry.status) if recall and entry.status else None for entry in entries
    ]
    unknown = [entry for entry, digest in zip(entries, known, strict=True) if digest is None]
    read = iter(_in_threads(lambda entry: content_id(entry.path), unknown, batch=1))
    digests = []
    for entry, digest in zip(entries, known, strict=True):
        digests.append(next(read) if digest is None else digest)
        is_read = digest is None and digests[-1] != _unreadable_id(entry.path)
        if is_read and remember and entry.status:
            remember(entry.path, entry.status, digests[-1])
    return digests


def _video(candidate: _Candidate, content: str, proxy: Path | None) -> Video:
    entry, understanding = candidate.entry, candidate.understanding
    origin = understanding.origin
    digest = blake2b(digest_size=16)
    # Where the scanned folder lies must not show in the result.
    known = "" if content == _unreadable_id(entry.path) else content
    for part in (os.fsencode("/".join(entry.parts)), known.encode("ascii")):
        # With its length first, no two pairs give the same bytes.
        digest.update(len(part).to_bytes(8, "little") + part)
    return Video(
        path=entry.path,
        name=_name(entry),
        video_id=digest.hexdigest(),
        size_bytes=entry.size_bytes,
        content_id=content,
        origin=replace(
            origin,
            card=_printable(origin.card),
            recording=_printable(origin.recording),
            reasons=tuple(_printable(reason) for reason in origin.reasons),
        ),
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


def _name(entry: Entry) -> str:
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
