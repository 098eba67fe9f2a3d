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
import math
import os
import weakref
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from geotag.footage.clips import Sampling, Window
from geotag.footage.isolation import DecodeProcess
from geotag.places.hierarchy import build_hierarchy
from geotag.types import FootageError, Video
from train.data.dataset import BadSample, Sample, SamplingRange
from train.data.entries import Entries
from train.data.manifest_rows import class_tree, read_rows
from train.data.pictures import disturb
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engines.bundle import Policy
    from geotag.footage.isolation import RemoteReader
    from geotag.places.hierarchy import Hierarchy
    from geotag.types import Clip
    from train.data.dataset import Entry, Split, View
    from train.data.manifest_rows import Row

PURPOSE = 3
"""Of the randomness drawn here; see `View.generator`."""
_MOST_DENSE_S = 4.0
"""A fixed stride of a few frames: a dense clip of a dashcam is 2 to 4 s long."""
_LEAST_KEYFRAME_S = 8.0
"""From under 8 s of key frames a scan makes no clip (geotag.footage.clips)."""
_EDGE_S = 0.002
"""A frame may lie this much outside its stretch, for times are rounded; one chosen by time half
the time between two frames, which is how far the one nearest to an edge may be."""


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
            f"labelled: 'manifest:{csv_path}?footage=FOLDER'"
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
        self._decoding = _Decoding()

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

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the decoding process."""
        return {**self.__dict__, "_decoding": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start without a decoding process."""
        self.__dict__.update(state)
        self._decoding = _Decoding()

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
        try:
            clip = self._read_clip(row, view, index)
        except FootageError as exc:
            return BadSample(
                name=self._entries[index].name,
                reason=f"{row.video}, {row.start_s:g} to {row.end_s:g} s: {exc.message}",
            )
        return Sample(
            clip_THWC=disturb(clip.frames_THWC, view, index),
            city_id=self._entries[index].city_id,
            point_deg=(row.lat_deg, row.lon_deg),
        )

    def _read_clip(self, row: Row, view: View, index: int) -> Clip:
        window, sampling = draw_clip(row.start_s, row.end_s, view, index, self._sampling)
        path = self._footage / row.video
        try:
            size_bytes = path.stat().st_size
        except (OSError, ValueError) as exc:
            raise FootageError("open", "unreadable", f"it cannot be opened ({exc})") from exc
        video = Video(path=path, name=row.video, video_id="", size_bytes=size_bytes)
        with self._decoding.open_video(video) as reader:
            clip = reader.read_clip(window, sampling)
            if not _is_inside(clip, row, reader):
                # Key frames, or a stride of whole frames, may reach over the edge; times do not.
                clip = reader.read_clip(window, replace(sampling, policy="exact"))
            if not _is_inside(clip, row, reader):
                raise FootageError(
                    "decode",
                    "decode_error",
                    "the video has no frames there that decode: it is shorter than when it was "
                    "labelled, or damaged",
                )
        return clip


def draw_clip(
    start_s: float, end_s: float, view: View, index: int, allowed: SamplingRange
) -> tuple[Window, Sampling]:
    """Choose the clip of a stretch, [start_s, end_s), that a view shows.

    Where the view leaves them open, policies are equally frequent as far as the stretch is long
    enough, and so are short and long spans (uniform in the logarithm). A window of key frames
    keeps half their allowed distance from the edges, so that the nearest ones lie inside.

    Returns:
        The window, inside the stretch, and how it is to be decoded.
    """
    rng = view.generator(index, PURPOSE)
    length_s = end_s - start_s
    policy = view.policy or _draw_policy(rng, length_s, allowed)
    margin_s = allowed.max_keyframe_gap_s / 2 if policy == "keyframe" else 0.0
    if 2 * margin_s >= length_s:
        margin_s = 0.0
    room_s = length_s - 2 * margin_s
    span_s = view.span_s or _draw_span_s(rng, policy, room_s, allowed)
    span_s = min(span_s, room_s)
    share = (view.part + 0.5) / view.parts if rng is None else rng.random()
    first_s = start_s + margin_s + share * (room_s - span_s)
    sampling = Sampling(
        policy=policy,
        span_s=span_s,
        frames=view.frames,
        height_px=view.image_px,
        width_px=view.image_px,
        max_keyframe_gap_s=allowed.max_keyframe_gap_s,
        resize=view.resize,
    )
    return Window(start_s=first_s, end_s=first_s + span_s), sampling


def _draw_policy(
    rng: np.random.Generator | None, length_s: float, allowed: SamplingRange
) -> Policy:
    if rng is None:
        return "exact"
    fitting: list[Policy] = ["dense", "exact"]
    if length_s - allowed.max_keyframe_gap_s >= _LEAST_KEYFRAME_S:
        fitting.append("keyframe")
    return fitting[int(rng.integers(len(fitting)))]


def _draw_span_s(
    rng: np.random.Generator | None, policy: Policy, room_s: float, allowed: SamplingRange
) -> float:
    low_s, high_s = {
        "dense": (allowed.min_span_s, _MOST_DENSE_S),
        "exact": (allowed.min_span_s, allowed.max_span_s),
        "keyframe": (_LEAST_KEYFRAME_S, allowed.max_span_s),
    }[policy]
    high_s = min(high_s, room_s)
    low_s = min(low_s, high_s)
    share = 0.5 if rng is None else rng.random()
    return math.exp((1 - share) * math.log(low_s) + share * math.log(high_s))


def _is_inside(clip: Clip, row: Row, reader: RemoteReader) -> bool:
    edge_s = _EDGE_S
    if clip.policy == "exact" and reader.facts.fps:
        edge_s = max(edge_s, 0.5 / reader.facts.fps)
    return clip.times_s[0] >= row.start_s - edge_s and clip.times_s[-1] < row.end_s + edge_s


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False  # a name that is too long, or none at all


@dataclass(slots=True)
class _Running:
    """A decoding process, and the process that started it."""

    pid: int
    decoder: DecodeProcess


class _Decoding:
    """The decoding process of whichever process asks: a fork must not share its parent's."""

    def __init__(self) -> None:
        self._running: list[_Running] = []
        weakref.finalize(self, _end, self._running)

    def open_video(self, video: Video) -> RemoteReader:
        """Open a video, in a fresh process if this one has none yet."""
        if not self._running or self._running[-1].pid != os.getpid():
            # That of the parent is kept, for letting go of it here would close its pipes.
            self._running.append(_Running(os.getpid(), DecodeProcess()))
        return self._running[-1].decoder.open_video(video, decode_threads=1)

    def close(self) -> None:
        """End the process, if there is one."""
        _end(self._running)


def _end(running: list[_Running]) -> None:
    while running:
        one = running.pop()
        if one.pid == os.getpid():
            one.decoder.close()
