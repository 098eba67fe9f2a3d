"""Footage with a manifest as training samples: clips are decoded exactly as a scan decodes them.

Each row of the manifest is a sample: a stretch of a video, [start_s, end_s), of which a clip is
cut. No frame outside the stretch is shown: what lies there may have been left out for privacy.
Videos are decoded in a process apart, as in a scan, so that no file can take the training down.

Shape suffixes: T frames, H and W pixels, C = 3 colours.
"""

from __future__ import annotations

import csv
import io
import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from geotag.places.hierarchy import build_hierarchy
from geotag.types import FootageError
from train.data.dataset import Sample, SamplingRange
from train.data.entries import Entries
from train.data.manifest_rows import class_tree, read_rows
from train.data.pictures import disturb
from train.data.stretches import Decoding, Stretch, draw_clip, unreadable
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from geotag.places.hierarchy import Hierarchy
    from train.data.dataset import BadSample, Entry, Split, View
    from train.data.manifest_rows import Row


def open_manifest(
    csv_path: Path,
    split: Split,
    *,
    footage: Path | None = None,
    sampling: SamplingRange | None = None,
) -> ManifestClips:
    """Open one split of a manifest that `geotag label` wrote.

    Rows without a city are left out, and counted in `ManifestClips.left_out`. The class tree is
    that of the rows of all splits.

    Args:
        csv_path: the manifest.
        split: which of its rows.
        footage: the folder that was labelled; None: the one that the manifest lies in.
        sampling: the clips that are drawn where the view leaves policy or span open; None for
            what is usual.

    Raises:
        DatasetError: the manifest is damaged, or none of its videos is below the folder.
    """
    rows = read_rows(csv_path)
    places_csv, city_ids = class_tree(rows, source=str(csv_path))
    footage = csv_path.parent if footage is None else footage
    videos = sorted({row.video for row in rows})
    if not any(_is_there(footage / video) for video in videos):
        raise DatasetError(
            f"reading the manifest {csv_path}: none of its {len(videos)} videos is below "
            f"{footage}, such as {videos[0]!r}. Say behind the file's name which folder was "
            f"labelled: 'manifest:{csv_path}?footage=FOLDER'."
        )
    own = [row for row in rows if row.split == split]
    used = tuple(row for row in own if row.home is not None)
    return ManifestClips(
        name=f"{csv_path.name} {split}",
        places_csv=places_csv,
        footage=footage,
        rows=used,
        city_ids=np.array([city_ids[row.home.key] for row in used if row.home], dtype=np.int32),
        sampling=sampling or SamplingRange(),
        left_out=len(own) - len(used),
    )


class ManifestClips:
    """Clips of one split; a copy in another process decodes in a process of its own."""

    has_scenes = False
    """A manifest knows places alone."""

    def __init__(
        self,
        *,
        name: str,
        places_csv: str,
        footage: Path,
        rows: tuple[Row, ...],
        city_ids: np.ndarray[Any, np.dtype[np.int32]],
        sampling: SamplingRange,
        left_out: int,
    ) -> None:
        """Use `open_manifest` instead."""
        self.left_out = left_out
        """Rows of the split that name no city."""
        self.notes = (f"{left_out} rows name no city and are left out",) if left_out else ()
        """What a person should know."""
        self._name = name
        self._places_csv = places_csv
        self._hierarchy = build_hierarchy(csv.DictReader(io.StringIO(places_csv)), source=name)
        self._footage = footage
        self._rows = rows
        self._sampling = sampling
        self._entries = Entries(
            [f"{row.video}@{row.start_s:.10g}" for row in rows],
            city_ids,
            [row.drive_id for row in rows],
        )
        self._decoding = Decoding()

    @property
    def name(self) -> str:
        """Name of the manifest's file, and the split."""
        return self._name

    @property
    def hierarchy(self) -> Hierarchy:
        """The class tree of all splits."""
        return self._hierarchy

    @property
    def places_csv(self) -> str:
        """The same tree as the text of a `places.csv`."""
        return self._places_csv

    @property
    def entries(self) -> Sequence[Entry]:
        """In the order of the rows; a group is a drive."""
        return self._entries

    @property
    def longest_s(self) -> float | None:
        """Length of the longest stretch; None where there is none."""
        return max((row.end_s - row.start_s for row in self._rows), default=None)

    @property
    def content_sha256(self) -> str:
        """Of the samples: where they lie, and their labels."""
        rows = [
            [row.video, row.start_s, row.end_s, row.home and row.home.key] for row in self._rows
        ]
        return sha256(json.dumps(rows).encode("utf-8")).hexdigest()

    def covered_s(self, index: int, view: View) -> float:
        """Seconds from first frame to last of a clip as a view shows it: no more than there are."""
        row = self._rows[index]
        _, sampling = draw_clip(row.start_s, row.end_s, view, index, self._sampling)
        return sampling.span_s

    def close(self) -> None:
        """End the decoding process; another read starts a new one."""
        self._decoding.close()

    def read(self, index: int, view: View) -> Sample | BadSample:
        """Read one clip.

        Of a view without a policy or span, they are drawn; without a seed a clip is `exact`, its
        span the (geometric) middle of the range. A span is cut to the length of the stretch.
        """
        row = self._rows[index]
        stretch = Stretch(
            video=row.video,
            path=self._footage / row.video,
            start_s=row.start_s,
            end_s=row.end_s,
        )
        try:
            clip = self._decoding.read_clip(stretch, view, index, self._sampling)
        except FootageError as exc:
            return unreadable(self._entries[index].name, stretch, exc)
        return Sample(
            clip_THWC=disturb(clip.frames_THWC, view, index),
            city_id=self._entries[index].city_id,
            point_deg=(row.lat_deg, row.lon_deg),
        )


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False  # a name that is too long, or none at all
