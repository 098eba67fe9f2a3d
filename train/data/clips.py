"""Rendered drives as training samples: the same index is the same clip, always."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engines.bundle import LEVELS
from geotag.places.hierarchy import Hierarchy, build_hierarchy
from geotag.places.sheets import COLUMNS
from train.data.dataset import Entry, Sample
from train.data.rendered import render_clip
from train.data.world import SCENE_GROUPS, draw_drive, places

if TYPE_CHECKING:
    from train.data.dataset import SamplingRange, View
    from train.data.world import Drive

WORLD = "rendered world"
"""What names of its datasets begin with, packed ones too."""


def rendered_places_csv() -> str:
    """The class tree of the rendered world, as the text of a bundle's `places.csv`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(place, name) for name in COLUMNS] for place in places())
    return text.getvalue()


@cache
def rendered_hierarchy() -> Hierarchy:
    """The class tree of the rendered world."""
    rows = csv.DictReader(io.StringIO(rendered_places_csv()))
    return build_hierarchy(rows, source="rendered places")


def class_counts(hierarchy: Hierarchy) -> dict[str, int]:
    """Width of every classifier of a model for this tree."""
    return {**{level: hierarchy.size(level) for level in LEVELS}, "scene": len(SCENE_GROUPS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedClips:
    """Clips of one split, one drive each: a ClipDataset.

    A view without policy and span draws them for every clip: the mixture that training sees. A clip
    is the same whatever the seed of the view, for each drive is driven once.
    """

    split: Literal["train", "val", "test"]
    clips: int
    sampling: SamplingRange
    seed: int = 0
    first: int = 0
    """Number of the first drive."""

    @property
    def name(self) -> str:
        """For titles."""
        return f"{WORLD} {self.split}"

    @property
    def hierarchy(self) -> Hierarchy:
        """The class tree of the rendered world."""
        return rendered_hierarchy()

    @property
    def places_csv(self) -> str:
        """The same as text."""
        return rendered_places_csv()

    @property
    def content_sha256(self) -> str:
        """Of what draws them: there may be millions."""
        return sha256(repr(self).encode("utf-8")).hexdigest()

    @property
    def entries(self) -> Sequence[Entry]:
        """Drives, worked out as they are asked for: there may be millions."""
        return RenderedEntries(self)

    def drive(self, index: int) -> Drive:
        """The drive that a clip is cut from."""
        return draw_drive(self.split, self.first + self.seed * 1_000_003 + index)

    def read(self, index: int, view: View) -> Sample:
        """Render one clip; see `ClipDataset`."""
        rng = np.random.default_rng([self.seed, self.first + index])
        drive = self.drive(index)
        policy, span_s = view.policy, view.span_s
        if policy is None or span_s is None:
            policy, span_s = self._draw_sampling(rng)
        if view.part:  # another stretch of the same drive
            rng = np.random.default_rng([self.seed, self.first + index, view.part])
        clip_THWC, scenes_T = render_clip(
            drive, policy, span_s, rng=rng, frames=view.frames, size=view.image_px
        )
        counts = np.bincount(scenes_T, minlength=len(SCENE_GROUPS))
        return Sample(
            clip_THWC=clip_THWC,
            city_id=drive.city_id,
            scene_S=(counts / counts.sum()).astype(np.float32),
            scene_id=int(counts.argmax()),
        )

    def _draw_sampling(
        self, rng: np.random.Generator
    ) -> tuple[Literal["dense", "exact", "keyframe"], float]:
        policy: Literal["dense", "exact", "keyframe"] = ("dense", "exact", "keyframe")[
            int(rng.integers(3))
        ]
        # Short spans are as frequent as long ones (uniform in the logarithm). A dense clip of a
        # dashcam is 2 to 4 s long; from under 8 s of key frames a scan makes no clip
        # (geotag.footage.clips), so training makes none either.
        low_s, high_s = {
            "dense": (self.sampling.min_span_s, 4.0),
            "exact": (self.sampling.min_span_s, self.sampling.max_span_s),
            "keyframe": (8.0, self.sampling.max_span_s),
        }[policy]
        return policy, math.exp(rng.uniform(math.log(low_s), math.log(high_s)))


@dataclass(frozen=True, slots=True)
class RenderedEntries(Sequence[Entry]):
    """Entries of rendered clips."""

    clips: RenderedClips

    def __len__(self) -> int:
        """Number of clips."""
        return self.clips.clips

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401
        """Entry of a clip."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"entry {index} of {len(self)}")
        drive = self.clips.drive(index % len(self))
        name = f"{drive.split}-{drive.index}"
        return Entry(name=name, city_id=drive.city_id, group=name)
