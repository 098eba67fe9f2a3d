"""Mapillary MSLS (street-level sequences) as it is published: a clip is a sequence of images.

`<root>/train_val/<city>/<query|database>/` holds `images/<key>.jpg`, `seq_info.csv`, `raw.csv` and
`postprocessed.csv`; `<root>/test/<city>/` the same without measured positions. The published split
is by city, which cannot tell cities apart: ours is within every city, by sequence.

Shape suffixes: N samples, F frames of all samples.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from train.data.city_tree import make_tree, read_folder_table
from train.data.dataset import BadSample, Sample
from train.data.entries import Entries
from train.data.msls_tables import LEAST_FRAMES, read_side
from train.data.pictures import PictureError
from train.data.splits import check_words, split_areas, split_groups
from train.data.stored import read_stored
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geotag.places.hierarchy import Hierarchy
    from train.data.city_tree import CityTree
    from train.data.dataset import Split, View
    from train.data.msls_tables import Drive

MslsSplitting = Literal["drives", "spatial"]
SPLITTINGS: tuple[MslsSplitting, ...] = ("drives", "spatial")
SIDES = ("query", "database")
AREA_M = 1000.0
"""Side of the squares that are held out as a whole, by a sequence's middle image."""
TILE_M = 50.0
"""Side of the squares by which nearness is judged: images of two splits are at least two apart."""
METRES_PER_DEG = math.radians(1) * 6_371_008.8
"""Of latitude. Source: sphere of the IUGG mean radius."""
_PLACES = Path(__file__).with_name("msls_places.csv")
_MOST_TOLD = 5
# Far more than a half of the earth has tiles of TILE_M, so that no two of a city get one number.
_TILES = 2**22


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MslsClips:
    """A split of MSLS; see `ClipDataset`."""

    name: str
    hierarchy: Hierarchy
    places_csv: str
    entries: Entries
    notes: tuple[str, ...]
    """What was left out on opening, and why, for a person."""
    folders: tuple[str, ...]
    """Of images."""
    folder_ids: NDArray[np.int32]
    """Which of them each sample lies in, [N]."""
    starts: NDArray[np.int64]
    """First frame of each sample, and the end of the last, [N + 1]."""
    images: NDArray[np.bytes_]
    """Keys of the images, [F]."""
    points_deg: NDArray[np.float64]
    """lat_deg and lon_deg, NaN where nobody measured, [F, 2]."""

    has_scenes: ClassVar[bool] = False
    """Nobody has labelled them."""

    def count_frames(self, index: int) -> int:
        """How many images a clip has."""
        return int(self.starts[index + 1] - self.starts[index])

    def read(self, index: int, view: View) -> Sample | BadSample:
        """Read one clip; see `ClipDataset`.

        Its position is that of the image in the middle of the stretch that is shown.

        Raises:
            DatasetError: the folder of the images is gone.
        """
        entry, folder = self.entries[index], Path(self.folders[self.folder_ids[index]])
        frames = slice(int(self.starts[index]), int(self.starts[index + 1]))
        names = [f"{key.decode()}.jpg" for key in self.images[frames].tolist()]
        try:
            clip, picked_T = read_stored(folder, names, view, index)
        except PictureError as exc:
            if not folder.is_dir():
                raise DatasetError(
                    f"reading {entry.name!r}: the folder {str(folder)!r} is gone"
                ) from exc
            return BadSample(name=entry.name, reason=f"{exc} (sequence {entry.name})")
        middle = (int(picked_T.min()) + int(picked_T.max()) + 1) // 2
        lat_deg, lon_deg = self.points_deg[frames][middle].tolist()
        return Sample(
            clip_THWC=clip,
            city_id=entry.city_id,
            point_deg=None if math.isnan(lat_deg) else (lat_deg, lon_deg),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clip:
    city: str
    side: str
    images: Path
    drive: Drive


def open_msls(
    root: Path,
    split: Split,
    *,
    splitting: MslsSplitting = "drives",
    with_test_cities: bool = False,
    partial: bool = False,
) -> MslsClips:
    """Open a split of MSLS.

    Clips are sequences of one side of a city, in the order of their frame numbers, without
    panoramas, of at least 16 images. Classes are the cities that lie on disk.

    Splittings: `drives`: a fifth of the sequences are test and a tenth of the others val.
    `spatial`: the same of squares of a kilometre; what comes within 100 m of a split that is
    looked at later is left out (`split_areas`).

    Args:
        root: the folder that holds `train_val`, and `test`.
        split: which split.
        splitting: how the splits are made.
        with_test_cities: also the six cities of `test`, of which no position is known, and where
            panoramas cannot be told.
        partial: leave out what has tables and no images; otherwise that is an error.

    Raises:
        DatasetError: folders or tables that are missing or wrong.
    """
    check_words(split, splitting, SPLITTINGS)
    notes: list[str] = []
    clips: list[_Clip] = []
    cities: list[str] = []
    for part in ("train_val", "test") if with_test_cities else ("train_val",):
        for folder in _city_folders(root, part):
            found = _clips_of(folder, notes, partial=partial)
            if found is not None:
                cities.append(folder.name)
                clips += found
    if not cities:
        raise DatasetError(f"opening {str(root)!r}: no city has images; extract images_vol_*.zip")
    table = read_folder_table(_PLACES)
    tree = make_tree({city: table[city] for city in cities}, source=_PLACES.name)
    clips.sort(key=lambda clip: (clip.city, clip.side, clip.drive.key))
    entries = Entries(
        [f"{clip.city}/{clip.side}/{clip.drive.key}" for clip in clips],
        np.array([tree.city_ids[clip.city] for clip in clips], dtype=np.int32),
        # Both sides of one sequence are one drive.
        [f"{clip.city}/{clip.drive.key}" for clip in clips],
    )
    title = "MSLS" if splitting == "drives" else f"MSLS {splitting}"
    if splitting == "drives":
        taken = split_groups(entries, split)
    else:
        taken, left_out = _split_spatially(entries, clips, tree, split)
        notes.append(f"{len(left_out)} sequences are near those of another split and left out")
    return _make(f"{title} {split}", clips, entries, taken, tree, notes)


def _city_folders(root: Path, part: str) -> list[Path]:
    """Folders of cities, in alphabetical order.

    Raises:
        DatasetError: the part is not there, or a folder is no city of MSLS.
    """
    known = read_folder_table(_PLACES)
    try:
        with os.scandir(root / part) as listing:
            names = sorted(item.name for item in listing if item.is_dir() and item.name[0] != ".")
    except OSError as exc:
        raise DatasetError(
            f"opening {str(root)!r}: {part}/ cannot be listed ({exc.strerror or exc}); give the "
            "folder that holds train_val, with images_vol_*.zip and metadata.zip extracted"
        ) from exc
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise DatasetError(
            f"opening {str(root / part)!r}: "
            + (f"{unknown[0]!r} is no city of MSLS" if unknown else "no cities")
            + f"; known are {', '.join(known)}"
        )
    return [root / part / name for name in names]


def _clips_of(folder: Path, notes: list[str], *, partial: bool) -> list[_Clip] | None:
    """The clips of a city; None where it has no images."""
    sides = [folder / side for side in SIDES if (folder / side).is_dir()]
    if not sides:
        raise DatasetError(f"opening {str(folder)!r}: there is neither {' nor '.join(SIDES)}")
    clips: list[_Clip] = []
    has_images = False
    for side in sides:
        if not (side / "images").is_dir():
            if not partial:
                raise DatasetError(
                    f"opening {str(side)!r}: there is no folder images; extract images_vol_*.zip, "
                    "or put ?partial behind the path of the dataset"
                )
            notes.append(f"{folder.name}/{side.name} has no images and is left out")
            continue
        has_images = True
        found = read_side(side)
        name = f"{folder.name}/{side.name}"
        if not found.is_measured:
            notes.append(f"{name} has no raw.csv: positions and panoramas are not known")
        if found.panoramas or found.short:
            notes.append(
                f"{name}: left out are {found.panoramas} panoramas, then {found.short} sequences "
                f"of fewer than {LEAST_FRAMES} images"
            )
        clips += [
            _Clip(city=folder.name, side=side.name, images=side / "images", drive=drive)
            for drive in found.drives
        ]
    return clips if has_images else None


def _split_spatially(
    entries: Entries, clips: Sequence[_Clip], tree: CityTree, split: Split
) -> tuple[list[int], list[int]]:
    areas, tiles = [], []
    for clip in clips:
        if np.isnan(clip.drive.points_deg).any():
            raise DatasetError(
                f"splitting MSLS spatially: {clip.city}/{clip.side} has no raw.csv, so no position "
                "is known; take it away, open without the test cities, or split by drives"
            )
        city_id = tree.city_ids[clip.city]
        lat_deg = tree.hierarchy.places["city"][city_id].lat_deg or 0.0
        middle = len(clip.drive.images) // 2
        areas.append(
            (clip.city, *_squares(clip.drive.points_deg[middle : middle + 1], lat_deg, AREA_M)[0])
        )
        tiles.append(_tiles(clip.drive.points_deg, lat_deg) + city_id * _TILES**2)
    return split_areas(entries, areas, tiles, split)


def _squares(
    points_deg: NDArray[np.float64], lat_deg: float, side_m: float
) -> list[tuple[int, int]]:
    """Row and column of the square that each point lies in, near a latitude.  [F, 2] -> F."""
    metres = points_deg * METRES_PER_DEG * [1.0, math.cos(math.radians(lat_deg))]
    return [(row, column) for row, column in np.floor(metres / side_m).astype(int).tolist()]


def _tiles(points_deg: NDArray[np.float64], lat_deg: float) -> NDArray[np.int64]:
    """Numbers of the tiles that points lie in, and of those around, ascending."""
    tiles = np.array(_squares(points_deg, lat_deg, TILE_M), dtype=np.int64)
    around = np.array([(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)])
    rows, columns = (np.unique(tiles, axis=0)[:, None] + around).reshape(-1, 2).T + _TILES // 2
    numbers: NDArray[np.int64] = np.unique(rows * _TILES + columns)
    return numbers


def _make(
    name: str,
    all_clips: Sequence[_Clip],
    entries: Entries,
    taken: Sequence[int],
    tree: CityTree,
    notes: Sequence[str],
) -> MslsClips:
    clips = [all_clips[index] for index in taken]
    folder_ids: dict[Path, int] = {}
    for clip in clips:
        folder_ids.setdefault(clip.images, len(folder_ids))
    counts = [len(clip.drive.images) for clip in clips]
    return MslsClips(
        name=name,
        hierarchy=tree.hierarchy,
        places_csv=tree.places_csv,
        entries=entries.take(taken),
        notes=tuple(notes),
        folders=tuple(map(str, folder_ids)),
        folder_ids=np.array([folder_ids[clip.images] for clip in clips], dtype=np.int32),
        starts=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
        images=np.concatenate([np.empty(0, "S1"), *(clip.drive.images for clip in clips)]),
        points_deg=np.concatenate([np.empty((0, 2)), *(clip.drive.points_deg for clip in clips)]),
    )
