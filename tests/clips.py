"""Datasets made in code: every frame of every clip can be told from every other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from geotag.places.hierarchy import build_hierarchy
from geotag.places.lists import make_places, places_text
from train.data.dataset import BadSample, Entry, Sample
from train.data.picking import pick_frames

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geotag.places.hierarchy import Hierarchy
    from train.data.dataset import View

CITIES = 4
GREY_PER_FRAME = 8


@dataclass
class NumberedClips:
    """Clips whose frames are grey by their number, with a white corner of the clip's own size."""

    clips: int = 7
    frames: int = 20
    bad: tuple[int, ...] = ()
    name: str = "numbered train"

    @property
    def places_csv(self) -> str:
        return places_text(make_places("166").rows[:CITIES])

    @cached_property
    def hierarchy(self) -> Hierarchy:
        return build_hierarchy(make_places("166").rows[:CITIES], source="numbered")

    @property
    def entries(self) -> list[Entry]:
        return [
            Entry(name=f"clip {at}, 東京", city_id=at % CITIES, group=f"drive {at // 2}")
            for at in range(self.clips)
        ]

    def count_frames(self, index: int) -> int:
        return self.frames

    def read(self, index: int, view: View) -> Sample | BadSample:
        if index in self.bad:
            return BadSample(name=self.entries[index].name, reason="made so")
        picked_T = pick_frames(self.frames, view, index)
        clip_THWC = np.empty((len(picked_T), view.image_px, view.image_px, 3), np.uint8)
        clip_THWC[...] = (picked_T * GREY_PER_FRAME + 4)[:, np.newaxis, np.newaxis, np.newaxis]
        side = view.image_px * (index % 4 + 1) // 8
        clip_THWC[:, -side:, -side:] = 255
        scene_S = np.random.default_rng(index).dirichlet(np.ones(16)).astype(np.float32)
        return Sample(
            clip_THWC=clip_THWC,
            city_id=index % CITIES,
            scene_S=scene_S if index % 2 else None,
            scene_id=int(scene_S.argmax()) if index % 2 else -1,
            point_deg=(48.0 + index / 7, -11.5) if index % 3 else None,
        )


class Footage(NumberedClips):
    """The same, as of a source that chooses frames by time."""

    count_frames = None  # type: ignore[assignment]


def frame_numbers(clip_THWC: NDArray[np.uint8]) -> list[int]:
    """Which frames of its clip these are."""
    corner = clip_THWC[:, : clip_THWC.shape[1] // 4, : clip_THWC.shape[2] // 4].astype(float)
    return [int(grey // GREY_PER_FRAME) for grey in corner.mean(axis=(1, 2, 3))]
