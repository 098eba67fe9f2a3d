"""Rendered drives as training samples: the same index is the same clip, always.

Shape suffixes: T frames, H and W pixels, C = 3 colours.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from engines.bundle import LEVELS
from geotag.places.hierarchy import Hierarchy, build_hierarchy
from train.data.rendered import render_clip
from train.data.world import SCENE_GROUPS, draw_drive, places

if TYPE_CHECKING:
    from train.config import EvaluatedPolicy, SamplingRange

Sample = tuple[torch.Tensor, dict[str, int]]

PLACE_COLUMNS = (
    "city",
    "state",
    "country",
    "continent",
    "state_code",
    "country_code",
    "continent_code",
    "lat_deg",
    "lon_deg",
    "geonameid",
)


def rendered_places_csv() -> str:
    """The class tree of the rendered world, as the text of a bundle's `places.csv`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(PLACE_COLUMNS)
    writer.writerows([getattr(place, name) for name in PLACE_COLUMNS] for place in places())
    return text.getvalue()


def rendered_hierarchy() -> Hierarchy:
    """The class tree of the rendered world."""
    rows = csv.DictReader(io.StringIO(rendered_places_csv()))
    return build_hierarchy(rows, source="rendered places")


def class_counts(hierarchy: Hierarchy) -> dict[str, int]:
    """Width of every classifier of a model for this tree."""
    return {**{level: hierarchy.size(level) for level in LEVELS}, "scene": len(SCENE_GROUPS)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RenderedClips(Dataset[Sample]):
    """Clips of one split, one drive each.

    With `policy` None every clip draws its policy and span: the mixture that training sees.
    Otherwise all clips use that one: the set that evaluation measures.
    """

    split: Literal["train", "val", "test"]
    clips: int
    frames: int
    image_px: int
    sampling: SamplingRange
    hierarchy: Hierarchy
    seed: int = 0
    policy: EvaluatedPolicy | None = None

    def __len__(self) -> int:
        """Number of clips."""
        return self.clips

    def __getitem__(self, index: int) -> Sample:
        """Clip and labels: uint8 [T, H, W, 3]; class ids of the four levels and the scene."""
        rng = np.random.default_rng([self.seed, index])
        drive = draw_drive(self.split, self.seed * 1_000_003 + index)
        policy, span_s = self._draw_sampling(rng)
        frames_THWC, scene = render_clip(
            drive, policy, span_s, rng=rng, frames=self.frames, size=self.image_px
        )
        labels = {"scene": scene}
        for level in LEVELS:
            labels[level] = int(self.hierarchy.ancestors[level][drive.city_id])
        return torch.from_numpy(frames_THWC), labels

    def _draw_sampling(
        self, rng: np.random.Generator
    ) -> tuple[Literal["dense", "exact", "keyframe"], float]:
        if self.policy is not None:
            return self.policy.policy, self.policy.span_s
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
