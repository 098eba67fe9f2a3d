"""The label files of CityGuessr68k: one line a clip, told apart by their number of columns.

`clip`, or `clip, city, state, country, continent`, or these and 512 numbers of the text label, or
all that and 16 of the scene. There is no header. A file of all columns has 300 MB, so that the
numbers of the text, which are the same in every line of a city, are read once a city and compared
as they are written.

Shape suffixes: N rows, L = 4 levels (city, state, country, continent), S = 16 scene groups.
Source of the layout: the loader of CityGuessr's released code.
"""

from __future__ import annotations

import array
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from engines.bundle import LEVELS
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from train.data.city_tree import CityTree

TEXT_WIDTH = 512
SCENES = 16
_IDS = len(LEVELS)
_WIDTHS = (1, 1 + _IDS, 1 + _IDS + TEXT_WIDTH, 1 + _IDS + TEXT_WIDTH + SCENES)
SAME_TEXT = 1e-4
"""Numbers of one text may differ by this: as if written with other precision."""
_CLIP = re.compile(r"(?P<city>[^/\\\x00]+)_(?P<number>\d{1,9})", re.ASCII)
_WHOLE = re.compile(rb"\d{1,9}(?:\.0*)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelFile:
    """What one label file says."""

    path: Path
    names: tuple[str, ...]
    """Clip ids, [N]."""
    cities: tuple[str, ...]
    """Folder of each clip's city, [N]."""
    rows: NDArray[np.int32]
    """Line of each clip in the file, from 1, [N]."""
    ids_NL: NDArray[np.int32] | None
    scenes_NS: NDArray[np.float32] | None
    """As written: not renormalised, not checked."""
    width: int
    """Number of columns."""
    texts: dict[str, NDArray[np.float32]]
    """[512] by folder of the city; empty where the file has none."""

    def where(self, index: int) -> str:
        """File and row of a clip, for messages."""
        return f"{self.path.name}, row {self.rows[index]}"


@dataclass(slots=True)
class _Columns:
    """The columns of a file that is being read."""

    names: list[str] = field(default_factory=list)
    cities: list[str] = field(default_factory=list)
    rows: array.array[int] = field(default_factory=lambda: array.array("i"))
    ids: array.array[int] = field(default_factory=lambda: array.array("i"))
    scenes: array.array[float] = field(default_factory=lambda: array.array("f"))
    texts: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """Row and bytes of the first text of every city."""


def split_clip(name: str) -> tuple[str, int] | None:
    """City and number of a clip id such as `Abu_Dhabi_0003`; None if it is none."""
    match = _CLIP.fullmatch(name)
    return (match["city"], int(match["number"])) if match else None


def read_label_file(path: Path) -> LabelFile:
    """Read one label file.

    Raises:
        DatasetError: it cannot be read, or is empty; a row has another number of columns than
            are known or than the first, an id that is no clip's, a clip that was there before,
            a class id that is no whole number, a scene that is no number, or a text that is not
            that of its city's first row. Told with the row.
    """
    columns, width = _Columns(), 0
    seen: dict[str, int] = {}
    for row, line in _lines(path):
        found = line.count(b",") + 1
        width = width or found
        if found not in _WIDTHS or found != width:
            raise DatasetError(
                f"{path}, row {row}: {found} columns; known are {', '.join(map(str, _WIDTHS))}"
                + (f", and the first row has {width}" if found != width else "")
                + ". Is the file cut off, or none of CityGuessr68k's label files?"
            )
        _read_row(columns, line, row, path)
        first = seen.setdefault(columns.names[-1], row)
        if first != row:
            raise DatasetError(
                f"{path}, row {row}: the clip {columns.names[-1]!r} is in row {first} already; "
                "take one of them out"
            )
    if not columns.names:
        raise DatasetError(f"{path}: no rows; take the file away, or extract it again")
    return _finish(columns, width, path)


def check_ids(labels: LabelFile, tree: CityTree) -> None:
    """Hold the class ids of a label file against the class tree.

    Raises:
        DatasetError: a city is not in the tree, or an id is another than the tree's.
    """
    unknown = next((n for n, city in enumerate(labels.cities) if city not in tree.city_ids), None)
    if unknown is not None:
        raise DatasetError(
            f"{labels.path}, row {labels.rows[unknown]}: the city {labels.cities[unknown]!r} of "
            f"{labels.names[unknown]!r} is none of the {len(tree.city_ids)} classes. A dataset of "
            "your own names its cities in labels_list.csv."
        )
    wrong = first_contradiction(labels, tree)
    if wrong is not None and labels.ids_NL is not None:
        index, level = wrong
        name = LEVELS[level]
        ours = int(tree.hierarchy.ancestors[name][tree.city_ids[labels.cities[index]]])
        raise DatasetError(
            f"{labels.path}, row {labels.rows[index]}: the {name} of {labels.names[index]!r} has "
            f"the id {labels.ids_NL[index, level]}, in the class tree it is {ours} "
            f"({tree.hierarchy.places[name][ours].name}). Cities are numbered by folder in "
            "alphabetical order, the coarser levels by first appearance; labels_list.csv says "
            "which cities and states there are."
        )


def first_contradiction(labels: LabelFile, tree: CityTree) -> tuple[int, int] | None:
    """Index and level of the first class id that is not the tree's; None where all agree."""
    if labels.ids_NL is None or not set(labels.cities) <= set(tree.city_ids):
        return None
    city_ids = np.array([tree.city_ids[city] for city in labels.cities], dtype=np.intp)
    ours_NL = np.stack([tree.hierarchy.ancestors[level][city_ids] for level in LEVELS], axis=1)
    wrong = np.argwhere(ours_NL != labels.ids_NL)
    return (int(wrong[0, 0]), int(wrong[0, 1])) if len(wrong) else None


def merge_texts(files: Sequence[LabelFile], tree: CityTree) -> NDArray[np.float32] | None:
    """The text of every city.

    Returns:
        [K_city, 512], zeros for a city that no file has a clip of; None where no file has texts.

    Raises:
        DatasetError: two files disagree about a city.
    """
    if not any(labels.texts for labels in files):
        return None
    table = np.zeros((len(tree.city_ids), TEXT_WIDTH), dtype=np.float32)
    source: dict[str, LabelFile] = {}
    for labels in files:
        for city, text in labels.texts.items():
            number = tree.city_ids[city]
            if city in source and not np.allclose(table[number], text, rtol=0, atol=SAME_TEXT):
                raise DatasetError(
                    f"the text of {city!r} is not the same in {source[city].path} and "
                    f"{labels.path}; it belongs to the city, so take files of one release"
                )
            table[number], source[city] = text, labels
    return table


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Row and content of all lines that are not empty."""
    try:
        with path.open("rb") as stream:
            for row, line in enumerate(stream, start=1):
                stripped = line.removeprefix(b"\xef\xbb\xbf").strip()
                if stripped:
                    yield row, stripped
    except OSError as exc:
        raise DatasetError(
            f"reading {str(path)!r}: {exc.strerror or exc}; give a file that you may read"
        ) from exc


def _read_row(columns: _Columns, line: bytes, row: int, path: Path) -> None:
    fields = line.split(b",", 1 + _IDS)
    city = _read_name(columns, fields[0], row, path)
    columns.rows.append(row)
    for level, cell in zip(LEVELS, fields[1 : 1 + _IDS], strict=False):
        if not _WHOLE.fullmatch(cell.strip()):
            raise DatasetError(
                f"{path}, row {row}: the {level} id is {_shown(cell)}; it must be a whole number "
                "from 0 up"
            )
        columns.ids.append(int(float(cell)))
    if len(fields) <= 1 + _IDS:
        return
    numbers = fields[-1]
    if numbers.count(b",") + 1 > TEXT_WIDTH:
        numbers, *scenes = numbers.rsplit(b",", SCENES)
        try:
            columns.scenes.extend(map(float, scenes))
        except ValueError as exc:
            raise DatasetError(f"{path}, row {row}: a scene is no number ({exc})") from exc
    _keep_text(columns, city, numbers, row, path)


def _read_name(columns: _Columns, cell: bytes, row: int, path: Path) -> str:
    """Keep a clip's id, which may be written with folders before it; returns its city."""
    try:
        name = cell.decode("utf-8").strip().rstrip("/").rpartition("/")[2]
    except UnicodeDecodeError:
        name = ""
    parts = split_clip(name)
    if parts is None:
        raise DatasetError(
            f"{path}, row {row}: {_shown(cell)} is no clip's id; they are a city and a number, "
            "such as Abu_Dhabi_0000"
        )
    columns.names.append(name)
    columns.cities.append(parts[0])
    return parts[0]


def _keep_text(columns: _Columns, city: str, numbers: bytes, row: int, path: Path) -> None:
    """Keep the first text of a city, and hold the others against it."""
    known = columns.texts.get(city)
    if known is None:
        _parse_text(numbers, row, path)
        columns.texts[city] = (row, numbers)
    elif known[1] != numbers:
        first = _parse_text(known[1], known[0], path)
        if not np.allclose(first, _parse_text(numbers, row, path), rtol=0, atol=SAME_TEXT):
            raise DatasetError(
                f"{path}, row {row}: the text of {city!r} is another than in row {known[0]}; it "
                f"belongs to the city, so the {TEXT_WIDTH} numbers must be the same in both rows"
            )


def _parse_text(numbers: bytes, row: int, path: Path) -> NDArray[np.float32]:
    try:
        text = np.array([float(cell) for cell in numbers.split(b",")], dtype=np.float32)
    except ValueError as exc:
        raise DatasetError(f"{path}, row {row}: the text holds what is no number ({exc})") from exc
    if not np.isfinite(text).all():
        raise DatasetError(
            f"{path}, row {row}: the text holds NaN or infinity; only finite numbers are allowed"
        )
    return text


def _finish(columns: _Columns, width: int, path: Path) -> LabelFile:
    has_scenes = width == _WIDTHS[-1]
    return LabelFile(
        path=path,
        width=width,
        names=tuple(columns.names),
        cities=tuple(columns.cities),
        rows=np.array(columns.rows, dtype=np.int32),
        ids_NL=np.array(columns.ids, dtype=np.int32).reshape(-1, _IDS) if width > 1 else None,
        scenes_NS=(
            np.array(columns.scenes, dtype=np.float32).reshape(-1, SCENES) if has_scenes else None
        ),
        texts={city: _parse_text(text, row, path) for city, (row, text) in columns.texts.items()},
    )


def _shown(cell: bytes) -> str:
    return repr(cell[:40].decode("utf-8", "replace"))
