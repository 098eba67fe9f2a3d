"""CityGuessr68k as it is published, extracted or mounted; also a dataset of one's own like it.

Label files (`train_labels*.txt`, `val_labels*.txt`) and `labels_list.csv` are used where they are;
without them the folders' names are the labels. What the release calls `val` is the test split
here; val is taken out of its `train`.

Shape suffixes: N samples, S scene groups.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from train.data.city_tree import (
    CITYGUESSR_CITIES,
    LABELS_LIST,
    LIST_COLUMNS,
    cityguessr_folders,
    cityguessr_tree,
    count_listed,
    read_labels_list,
)
from train.data.cityguessr_labels import SCENES, check_ids, first_contradiction, merge_texts
from train.data.cityguessr_layout import (
    PARTS,
    SOURCES,
    find_cities,
    find_files,
    missing_cities,
    read_labels,
    read_part,
    read_sources,
    some,
)
from train.data.dataset import BadSample, Entry, Sample
from train.data.entries import Entries
from train.data.pictures import PictureError
from train.data.splits import check_words, hold_out, split_blocks, split_groups
from train.data.stored import list_frames, read_stored
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geotag.places.hierarchy import Hierarchy
    from train.data.city_tree import CityTree
    from train.data.cityguessr_labels import LabelFile
    from train.data.cityguessr_layout import StoredClip, StoredPart
    from train.data.dataset import Split, View

CityGuessrSplitting = Literal["official", "blocks", "drives"]
SPLITTINGS: tuple[CityGuessrSplitting, ...] = ("official", "blocks", "drives")
RUN_CLIPS = 20
"""Where source videos are unknown, so many clips that follow each other are held out together."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CityGuessrClips:
    """A split of CityGuessr68k; see `ClipDataset`."""

    name: str
    hierarchy: Hierarchy
    places_csv: str
    entries: Entries
    notes: tuple[str, ...]
    """What was left out on opening, and why, for a person."""
    folders: tuple[str, ...]
    """Of cities."""
    folder_ids: NDArray[np.int32]
    """Which of them each sample lies in, [N]."""
    label_files: tuple[str, ...]
    """Names."""
    label_rows: NDArray[np.int32]
    """Label file of each sample and its row there; -1 for none, [N, 2]."""
    scenes_NS: NDArray[np.float32] | None
    """As written, NaN where a sample has none; None where none has any."""
    has_scene: NDArray[np.bool_]
    """[N]."""
    texts: NDArray[np.float32] | None

    def text_table(self) -> NDArray[np.float32] | None:
        """The text of every city, as the label files have it.

        Returns:
            [K_city, 512], zeros for cities without a clip here; None where no file has texts.
        """
        return self.texts

    @property
    def has_scenes(self) -> bool:
        """Whether the label files say of any clip which scene it shows."""
        return self.scenes_NS is not None

    @property
    def labels_sha256(self) -> str:
        """Of the scenes and texts that label files gave: others make another dataset."""
        found = sha256()
        for array in (self.scenes_NS, self.has_scene, self.texts):
            found.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def count_frames(self, index: int) -> int:
        """How many frames of a clip are stored; 0 where they cannot be listed."""
        folder = Path(self.folders[self.folder_ids[index]]) / self.entries[index].name
        try:
            return len(list_frames(folder))
        except PictureError:
            return 0

    def read(self, index: int, view: View) -> Sample | BadSample:
        """Read one clip; see `ClipDataset`.

        A clip of fewer frames than wanted repeats some. Bad are a clip without frames, a frame
        that cannot be read, and 16 scene numbers that are no distribution (NaN, below 0, or all
        0); others are divided by their sum.

        Raises:
            DatasetError: the folder of the city is gone.
        """
        entry = self.entries[index]
        city_folder = Path(self.folders[self.folder_ids[index]])
        try:
            scene_S = self._scene(index)
            folder = city_folder / entry.name
            clip, _ = read_stored(folder, list_frames(folder), view, index, by_name=True)
        except PictureError as exc:
            if not city_folder.is_dir():
                raise DatasetError(
                    f"reading {entry.name!r}: the folder {str(city_folder)!r} is gone; is its "
                    "squashfs file still mounted?"
                ) from exc
            file, row = self.label_rows[index].tolist()
            origin = f" ({self.label_files[file]}, row {row})" if file >= 0 else ""
            return BadSample(name=entry.name, reason=f"{exc}{origin}")
        return Sample(clip_THWC=clip, city_id=entry.city_id, scene_S=scene_S)

    def _scene(self, index: int) -> NDArray[np.float32] | None:
        if self.scenes_NS is None or not self.has_scene[index]:
            return None
        written_S = self.scenes_NS[index].astype(np.float64)
        total = written_S.sum()
        if not np.isfinite(total) or written_S.min() < 0 or total <= 0:
            raise PictureError(
                f"the {SCENES} scene numbers are no distribution: the least is "
                f"{written_S.min():g}, their sum {total:g}"
            )
        scene_S: NDArray[np.float32] = (written_S / total).astype(np.float32)
        return scene_S


def open_cityguessr(
    root: Path,
    split: Split,
    *,
    splitting: CityGuessrSplitting = "official",
    partial: bool = False,
) -> CityGuessrClips:
    """Open a split of CityGuessr68k, or of a dataset in its layout.

    Classes are the 166 cities of CityGuessr68k where all folders are among them, and otherwise
    the cities of `labels_list.csv`. A `labels_list.csv` of fewer cities makes a smaller tree of
    its own, unless the ids of the label files follow the 166.

    Splittings: `official`: test is the release's val, and val a tenth of its train, taken by source
    video where `sources.csv` (columns clip, source) names them, else in runs of 20 clips. `blocks`:
    the last clips of each city are test (`split_blocks`), out of train and val together where
    no number occurs in both, else of train alone. `drives`: by source video, which needs
    `sources.csv`, since the release does not say which clips come from one video.

    Args:
        root: the folder that holds `train` and `val`.
        split: which split.
        splitting: how the splits are made.
        partial: leave out cities that the label files name and that are not on disk, and do
            without val where it is missing; otherwise either is an error.

    Raises:
        DatasetError: folders, cities or label files that are missing, wrong or contradictory.
    """
    check_words(split, splitting, SPLITTINGS)
    wanted = PARTS
    if splitting == "official":
        wanted = ("val",) if split == "test" else ("train",)
    parts = [read_part(root, part, partial=partial) for part in wanted]
    tree = _choose_tree(root, parts)
    for part in parts:
        for file in part.labels:
            check_ids(file, tree)
    notes = [note for part in parts for note in part.notes]
    notes += filter(None, (missing_cities(root, part, partial=partial) for part in parts))
    title = "CityGuessr68k" if tree.is_cityguessr else root.resolve().name
    if splitting != "official":
        title += f" {splitting}"
    clips = [clip for part in parts for clip in part.clips]
    if len({(clip.city, clip.number) for clip in clips}) < len(clips):
        notes.append("train and val count their clips apart: only those of train are split")
        title += " of train"
        clips = [clip for clip in clips if clip.part == "train"]
    clips.sort(key=lambda clip: (clip.city, clip.number))
    sources = read_sources(root)
    if sources is not None:
        notes += filter(None, [_unlisted(clips, sources, root, splitting)])
    entries = _entries(clips, tree, sources)
    taken = _take(entries, clips, split, splitting, root)
    files = [file for part in parts for file in part.labels]
    return _make(f"{title} {split}", clips, entries, taken, files, tree, notes)


def _choose_tree(root: Path, parts: Sequence[StoredPart]) -> CityTree:
    folders = {city for part in PARTS for city in find_cities(root, part)}
    foreign = sorted(folders - cityguessr_folders())
    lists = find_files(root, LABELS_LIST)
    if not lists and foreign:
        raise DatasetError(
            f"opening {str(root)!r}: not among CityGuessr68k's {CITYGUESSR_CITIES} cities are the "
            f"folders {some(foreign)}. For a dataset of your own, write {root / LABELS_LIST} with "
            f"the columns {', '.join(LIST_COLUMNS)} and a row for each folder."
        )
    if not foreign and (not lists or count_listed(lists[0]) >= CITYGUESSR_CITIES):
        return cityguessr_tree()
    listed = read_labels_list(lists[0], folders)
    if foreign:
        return listed
    # The same tree for every split: label files of the other part are heard, too.
    read = {part.part: part.labels for part in parts}
    files = [
        file
        for part in PARTS
        for file in (read[part] if part in read else read_labels(root, part, []))
    ]
    whole = cityguessr_tree()
    if _follow(files, whole) and not _follow(files, listed):
        return whole
    return listed


def _follow(files: Sequence[LabelFile], tree: CityTree) -> bool:
    return all(first_contradiction(file, tree) is None for file in files)


def _entries(
    clips: Sequence[StoredClip], tree: CityTree, sources: dict[str, str] | None
) -> Entries:
    city_ids = np.array([tree.city_ids[clip.city] for clip in clips], dtype=np.int32)
    names = [clip.name for clip in clips]
    groups = None if sources is None else [sources.get(name, name) for name in names]
    return Entries(names, city_ids, groups)


def _unlisted(
    clips: Sequence[StoredClip],
    sources: dict[str, str],
    root: Path,
    splitting: CityGuessrSplitting,
) -> str:
    """Tell of clips whose source video nobody names.

    Returns:
        A note; '' where there are none.

    Raises:
        DatasetError: the clips are to be divided by those videos.
    """
    missing = [clip.name for clip in clips if clip.name not in sources]
    if not missing:
        return ""
    lacking = f"{len(missing)} of {len(clips)} clips are not in {SOURCES} ({some(missing)})"
    if splitting == "drives":
        raise DatasetError(
            f"splitting {str(root)!r} by drives: {lacking}. Clips of one video could then lie on "
            "both sides: name the source of each, or split by blocks."
        )
    return f"{lacking}: each is taken for a video of its own"


def _take(
    entries: Entries,
    clips: Sequence[StoredClip],
    split: Split,
    splitting: CityGuessrSplitting,
    root: Path,
) -> list[int]:
    """The clips of a split, by index."""
    has_sources = (root / SOURCES).is_file()
    if splitting == "blocks":
        return split_blocks(entries, split)
    if splitting == "drives":
        if not has_sources:
            raise DatasetError(
                f"splitting {str(root)!r} by drives: nobody says which clips come from one video. "
                f"Write {root / SOURCES} with the columns clip and source, or split by blocks."
            )
        return split_groups(entries, split)
    if split == "test":
        return list(range(len(entries)))
    grouped: Sequence[Entry] = entries
    if not has_sources:
        grouped = [
            replace(entry, group=f"{clip.city}/{clip.number // RUN_CLIPS}")
            for entry, clip in zip(entries, clips, strict=True)
        ]
    train, val = hold_out(grouped)
    return train if split == "train" else val


def _make(
    name: str,
    all_clips: Sequence[StoredClip],
    entries: Entries,
    taken: Sequence[int],
    files: Sequence[LabelFile],
    tree: CityTree,
    notes: Sequence[str],
) -> CityGuessrClips:
    clips = [all_clips[index] for index in taken]
    folder_ids: dict[Path, int] = {}
    for clip in clips:
        folder_ids.setdefault(clip.folder, len(folder_ids))
    file_ids = {id(file): number for number, file in enumerate(files)}
    label_rows = [
        (-1, -1)
        if clip.labels is None
        else (file_ids[id(clip.labels)], clip.labels.rows[clip.index])
        for clip in clips
    ]
    scenes_NS, has_scene = _scenes(clips)
    return CityGuessrClips(
        name=name,
        hierarchy=tree.hierarchy,
        places_csv=tree.places_csv,
        entries=entries.take(taken),
        notes=tuple(notes),
        folders=tuple(map(str, folder_ids)),
        folder_ids=np.array([folder_ids[clip.folder] for clip in clips], dtype=np.int32),
        label_files=tuple(file.path.name for file in files),
        label_rows=np.array(label_rows, dtype=np.int32).reshape(-1, 2),
        scenes_NS=scenes_NS,
        has_scene=has_scene,
        texts=merge_texts(files, tree),
    )


def _scenes(
    clips: Sequence[StoredClip],
) -> tuple[NDArray[np.float32] | None, NDArray[np.bool_]]:
    scenes_NS = np.full((len(clips), SCENES), np.nan, dtype=np.float32)
    has_scene = np.zeros(len(clips), dtype=np.bool_)
    for row, clip in enumerate(clips):
        if clip.labels is not None and clip.labels.scenes_NS is not None:
            scenes_NS[row] = clip.labels.scenes_NS[clip.index]
            has_scene[row] = True
    return (scenes_NS if has_scene.any() else None), has_scene
