"""What of CityGuessr68k lies in a folder: cities, clips, label files, source videos.

`<root>/<train|val>/<City>/<City>_<number>/<n>.jpg`, or the same one folder further down, so that
each squashfs file of the release can be mounted in a folder of its own.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from train.data.cityguessr_labels import read_label_file, split_clip
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from train.data.cityguessr_labels import LabelFile

Part = Literal["train", "val"]
"""A folder of the release."""
PARTS: tuple[Part, ...] = ("train", "val")
SOURCES = "sources.csv"
_SQUASHFS = (".sq", ".sqsh", ".sfs", ".squashfs")
_MOST_TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredClip:
    """A clip, and where the label files name it."""

    name: str
    city: str
    """Folder of its city."""
    number: int
    part: Part
    folder: Path
    """Of the city, with the way to it."""
    labels: LabelFile | None = None
    index: int = -1
    """In that file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """One of the two folders of the release."""

    part: Part
    cities: Mapping[str, Path]
    """Folders by city."""
    labels: tuple[LabelFile, ...]
    clips: tuple[StoredClip, ...]
    notes: tuple[str, ...]
    """What is left out, and why."""


def read_part(root: Path, part: Part, *, partial: bool = False) -> StoredPart:
    """Find the clips of one folder: those of its label files, else those on disk.

    Clips of a city that has no folder are left out: `missing_cities` tells of them. Of a dataset
    that is wanted in part, val may be missing: it then holds nothing.

    Raises:
        DatasetError: there are no cities, a folder has a wrong name, label files are wrong.
    """
    cities = find_cities(root, part)
    notes: list[str] = []
    if not cities and partial and part == "val":
        notes.append("there are no cities in val/, which the release is tested on")
    elif not cities:
        raise DatasetError(_no_cities(root, part, partial=partial))
    labels = read_labels(root, part, notes)
    on_disk = [_stored(path, part) for folder in cities.values() for path in _folders_in(folder)]
    if labels:
        clips = [clip for file in labels for clip in _labelled(file, part, cities)]
        unlisted = len({clip.name for clip in on_disk} - {clip.name for clip in clips})
        if unlisted:
            notes.append(f"{unlisted} clips in {part}/ are in no label file and left out")
    else:
        clips = on_disk
    _refuse_doubles(clips)
    return StoredPart(
        part=part, cities=cities, labels=labels, clips=tuple(clips), notes=tuple(notes)
    )


def missing_cities(root: Path, part: StoredPart, *, partial: bool) -> str:
    """Tell of cities that the label files name and that have no folder.

    Returns:
        A note; '' where there are none.

    Raises:
        DatasetError: there are some, and the dataset is not wanted in part.
    """
    missing = sorted({city for file in part.labels for city in file.cities} - set(part.cities))
    if not missing:
        return ""
    one = len(missing) == 1
    if partial:
        return (
            f"{len(missing)} {'city has' if one else 'cities have'} no folder in {part.part}/ and "
            f"{'is' if one else 'are'} left out"
        )
    file = next(file for file in part.labels if missing[0] in file.cities)
    more = "" if one else f"; in all, {len(missing)} cities have none ({some(missing)})"
    raise DatasetError(
        f"{file.path}, row {file.rows[file.cities.index(missing[0])]}: there is no folder "
        f"{part.part}/{missing[0]}{more}. To use the cities that are there, put ?partial behind "
        f"the path: 'cityguessr:{root}?partial'{_squashfs_hint(root)}."
    )


def _no_cities(root: Path, part: Part, *, partial: bool) -> str:
    """What is said of a part without cities."""
    use = "" if part == "train" else ", which a model is tested on"
    hint = _squashfs_hint(root)
    if not hint and part == "val" and not partial:
        hint = (
            ". Bring it there, or train without a test: put ?partial behind the path, "
            f"'cityguessr:{root}?partial'"
        )
    elif not hint:
        hint = ". Give the folder that holds train and val"
    return (
        f"opening {str(root)!r}: there are no cities in {part}/; expected is "
        f"{part}/<City>/<City>_<number>/<n>.jpg{use}{hint}."
    )


def find_cities(root: Path, part: Part) -> dict[str, Path]:
    """The folders of cities by name, in alphabetical order; none where the part is missing.

    Raises:
        DatasetError: a folder cannot be listed, or a city lies in two places.
    """
    found: dict[str, Path] = {}
    for holder in _holders(root):
        if not (holder / part).is_dir():
            continue
        for folder in _folders_in(holder / part):
            if folder.name in found:
                raise DatasetError(
                    f"opening {str(root)!r}: the city {folder.name!r} lies in "
                    f"{str(found[folder.name])!r} and in {str(folder)!r}; take one away"
                )
            found[folder.name] = folder
    return dict(sorted(found.items()))


def find_files(root: Path, pattern: str) -> list[Path]:
    """Files of a dataset that belong to no clip, by pattern of their names.

    Raises:
        DatasetError: there is no such folder.
    """
    return [
        path
        for holder in _holders(root)
        for path in sorted(holder.glob(pattern))
        if path.is_file() and not path.name.startswith(".")
    ]


def read_labels(root: Path, part: Part, notes: list[str]) -> tuple[LabelFile, ...]:
    """The label files of a part: of several, those of the most columns.

    Several of one width are parts of one list; narrower ones are told of in the notes.

    Raises:
        DatasetError: a file is wrong, or two of them name one clip.
    """
    files = [read_label_file(path) for path in find_files(root, f"{part}_labels*.txt")]
    widest = max((file.width for file in files), default=0)
    notes += [
        f"{file.path.name} is not used: another label file has more columns"
        for file in files
        if file.width < widest
    ]
    files = [file for file in files if file.width == widest]
    seen: dict[str, LabelFile] = {}
    for file in files:
        for index, name in enumerate(file.names):
            if name in seen:
                raise DatasetError(
                    f"{file.path}, row {file.rows[index]}: the clip {name!r} is in "
                    f"{seen[name].path} already; take one of the files away"
                )
        seen.update(dict.fromkeys(file.names, file))
    return tuple(files)


def read_sources(root: Path) -> dict[str, str] | None:
    """The source videos by clip, from `sources.csv` (columns clip, source).

    The release has no such file; who knows the videos can write one.

    Returns:
        None where there is none; a clip that it does not name is a video of its own.

    Raises:
        DatasetError: it is no CSV file, a cell is empty, or a clip has two sources.
    """
    path = root / SOURCES
    if not path.is_file():
        return None
    sources: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream, strict=True), start=2):
                clip, source = (row.get("clip") or "").strip(), (row.get("source") or "").strip()
                if not clip or not source or sources.get(clip, source) != source:
                    raise DatasetError(
                        f"{path}, row {number}: the clip is {clip!r}, the source {source!r}; each "
                        "clip has one source, in the columns clip and source"
                    )
                sources[clip] = source
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise DatasetError(f"reading {str(path)!r}: {exc}; give a CSV file in UTF-8") from exc
    return sources


def some(names: Sequence[str]) -> str:
    """The first few of many names, for a message."""
    more = len(names) - _MOST_TOLD
    return ", ".join(map(repr, names[:_MOST_TOLD])) + (f" and {more} more" if more > 0 else "")


def _holders(root: Path) -> list[Path]:
    """Where the release's folders may lie: the root, and each folder mounted in it."""
    if not root.is_dir():
        raise DatasetError(
            f"opening {str(root)!r}: no such folder; give the one that holds train and val"
        )
    return [root, *(path for path in _folders_in(root) if path.name not in PARTS)]


def _folders_in(folder: Path) -> list[Path]:
    """Folders in a folder, in alphabetical order; hidden ones are nobody's."""
    try:
        with os.scandir(folder) as listing:
            names = [item.name for item in listing if item.is_dir() and item.name[0] != "."]
    except OSError as exc:
        raise DatasetError(f"listing {str(folder)!r}: {exc.strerror or exc}") from exc
    return [folder / name for name in sorted(names)]


def _stored(path: Path, part: Part) -> StoredClip:
    parsed = split_clip(path.name)
    if parsed is None or parsed[0] != path.parent.name:
        raise DatasetError(
            f"opening {str(path)!r}: a clip's folder is called after its city and a number, here "
            f"{path.parent.name}_<number>; rename it or take it away"
        )
    return StoredClip(
        name=path.name, city=parsed[0], number=parsed[1], part=part, folder=path.parent
    )


def _labelled(file: LabelFile, part: Part, cities: Mapping[str, Path]) -> Iterable[StoredClip]:
    for index, (name, city) in enumerate(zip(file.names, file.cities, strict=True)):
        if city in cities:
            yield StoredClip(
                name=name,
                city=city,
                number=int(name.rpartition("_")[2]),
                part=part,
                folder=cities[city],
                labels=file,
                index=index,
            )


def _refuse_doubles(clips: Sequence[StoredClip]) -> None:
    """Refuse two clips of one number, such as `Oslo_1` and `Oslo_0001`."""
    seen: dict[tuple[str, int], str] = {}
    for clip in clips:
        first = seen.setdefault((clip.city, clip.number), clip.name)
        if first != clip.name:
            raise DatasetError(
                f"opening the clips of {clip.part}/: {first!r} and {clip.name!r} have the same "
                "number; rename one"
            )


def _squashfs_hint(root: Path) -> str:
    """What to do about squashfs files that nobody has opened; "" where there are none."""
    files = sorted(path.name for path in root.iterdir() if path.suffix in _SQUASHFS)
    if not files:
        return ""
    first, mounted = root / files[0], root / "part1"
    return (
        f". {len(files)} squashfs file{'s lie' if len(files) > 1 else ' lies'} there unopened "
        f"({some(files)}). Extract each: unsquashfs -f -d {root} {first}; or mount each in a "
        f"folder of its own: mkdir {mounted} && sudo mount -t squashfs -o loop,ro {first} "
        f"{mounted}"
    )
