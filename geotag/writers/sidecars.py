"""Sidecars: small files that go with a video, `clip.MP4.geotag.json` and `clip.MP4.xmp`.

They keep the whole name of the video, as digiKam and darktable expect, so that `clip.MP4` and
`clip.MOV` have their own. They lie beside it, or in a tree of the same shape elsewhere, because a
card may be read-only. A file of somebody else is never replaced.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from geotag.errors import OutputError
from geotag.types import Tag
from geotag.writers.files import NAME_MAX_BYTES, write_file
from geotag.writers.schema import SCHEMA_FIELD, SCHEMA_VERSION
from geotag.writers.xmp import OURS as OUR_XMP
from geotag.writers.xmp import has_place, xmp_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SidecarKind = Literal["json", "xmp"]

OUR_JSON = f'{{\n  "{SCHEMA_FIELD}": '.encode()
"""How each of our JSON files begins."""
SUFFIXES: dict[SidecarKind, str] = {"json": ".geotag.json", "xmp": ".xmp"}
_NAMES = tuple(field.name for field in fields(Tag))
_BEGINNINGS: dict[SidecarKind, bytes] = {"json": OUR_JSON, "xmp": OUR_XMP}


def write_sidecars(
    tag: Tag,
    video_path: Path,
    folder: Path | None,
    root: Path,
    kinds: Sequence[SidecarKind] = ("json", "xmp"),
) -> tuple[str, ...]:
    """Write a video's sidecars, each atomically; one that holds the same already is left alone.

    A video without any place gets no XMP, and loses one that an earlier scan gave it.

    Args:
        tag: what is known of the video.
        video_path: the video, below `root`.
        folder: where the tree of sidecars begins; None: beside each video.
        root: the scanned folder, or the one video that is scanned.
        kinds: which ones.

    Returns:
        Why a sidecar was not written, one sentence each: what lies there is not ours, the name is
        too long, a link leads elsewhere. They do not name the video.

    Raises:
        OutputError: the disk refuses; what was there is untouched.
    """
    place = sidecar_folder(video_path, folder, root)
    if folder is not None:
        if problem := _leaves(place, folder):
            return (f"none written, {problem}",)
        _make_folder(place)
    contents = {kind: _content(kind, tag) for kind in kinds}
    problems = (
        _write(place / f"{video_path.name}{SUFFIXES[kind]}", content, _BEGINNINGS[kind])
        for kind, content in contents.items()
    )
    return tuple(problem for problem in problems if problem)


def check_sidecars(video_paths: Iterable[Path], folder: Path | None, root: Path) -> None:
    """Make sure, before hours of work, that the sidecars of these videos can be written.

    Args:
        video_paths: the videos.
        folder: where the tree of sidecars begins, made if need be; None: beside each video.
        root: the scanned folder, or the one video that is scanned.

    Raises:
        OutputError: a folder cannot be written; says what to do.
    """
    if folder is not None:
        _make_folder(folder)
        _probe(folder, "choose another --sidecars-dir.")
        return
    for place in sorted({sidecar_folder(path, None, root) for path in video_paths}):
        _probe(place, "give a folder that can be written with --sidecars-dir.")


def count_sidecars(
    video_path: Path, folder: Path | None, root: Path, kinds: Sequence[SidecarKind]
) -> int:
    """How many sidecars of a video, written by geotag, are there; arguments as `write_sidecars`."""
    place = sidecar_folder(video_path, folder, root)
    if folder is not None and _leaves(place, folder):
        return 0
    heads = (
        (_read(place / f"{video_path.name}{SUFFIXES[kind]}", len(beginning)), beginning)
        for kind, beginning in _BEGINNINGS.items()
        if kind in kinds
    )
    return sum(head == beginning for head, beginning in heads)


def sidecar_folder(video_path: Path, folder: Path | None, root: Path) -> Path:
    """The folder that takes a video's sidecars: its own, or its image below `folder`.

    A video that is not below `root`, or leaves it by `..`, has its image in `folder` itself.
    """
    if folder is None:
        return video_path.parent
    with contextlib.suppress(ValueError):
        below = video_path.relative_to(root).parent
        if ".." not in below.parts:
            return folder / below
    return folder


def json_bytes(tag: Tag) -> bytes:
    """The tag as flat JSON, one field a line, with the version of its schema first."""
    record = {SCHEMA_FIELD: SCHEMA_VERSION} | {name: getattr(tag, name) for name in _NAMES}
    # Not indent=2: that takes Python's own encoder, five times as slow as the one in C.
    line = json.dumps(record, separators=(",\n  ", ": "), ensure_ascii=False, allow_nan=False)
    return f"{{\n  {line[1:-1]}\n}}\n".encode("utf-8", "backslashreplace")


def _content(kind: SidecarKind, tag: Tag) -> bytes | None:
    """What a sidecar is to hold; None: it is not to be there."""
    if kind == "json":
        return json_bytes(tag)
    return xmp_bytes(tag) if has_place(tag) else None


def _write(path: Path, content: bytes | None, beginning: bytes) -> str | None:
    """Bring a sidecar to hold this content; returns why not."""
    if len(os.fsencode(path.name)) > NAME_MAX_BYTES:
        return f"no {path.name}, the name is too long for a file"
    if not os.path.lexists(path):
        if content is not None:
            write_file(path, content, option="--sidecars-dir")
        return None
    there = _read(path, len(content or beginning) + 1)
    if there is None or not there.startswith(beginning):
        return f"{path.name} is there and was not written by geotag, so it stays as it is"
    if content is None:
        _remove(path)
    elif there != content:
        write_file(path, content, option="--sidecars-dir")
    return None


def _read(path: Path, size_bytes: int) -> bytes | None:
    """The beginning of a plain file; None for anything else, a link included."""
    if path.is_symlink() or not os.path.isfile(path):  # noqa: PTH113 - never raises
        return None
    try:
        with path.open("rb") as stream:
            return stream.read(size_bytes)
    except OSError:
        return None


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as exc:
        raise OutputError(
            f"removing {path}, which is out of date: {exc.strerror or exc}. Choose another folder "
            "with --sidecars-dir."
        ) from exc


def _leaves(place: Path, folder: Path) -> str | None:
    """Why a folder is not below another, once links are followed; None where it is."""
    real, top = Path(os.path.realpath(place)), Path(os.path.realpath(folder))
    if real == top or top in real.parents:
        return None
    return f"a link leads from {place} out of {folder}"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(
            f"making the folder {folder} for sidecars: {exc.strerror or exc}. Choose another "
            "--sidecars-dir."
        ) from exc


def _probe(folder: Path, advice: str) -> None:
    """Write a hidden file into a folder and take it away again."""
    path = folder / f".geotag.{secrets.token_hex(4)}.part"
    try:
        with path.open("xb"):
            pass
        path.unlink()
    except OSError as exc:
        why = "it is read-only" if exc.errno == errno.EROFS else exc.strerror or exc
        raise OutputError(f"writing sidecars into {folder}: {why}. Please {advice}") from exc
