"""Clips and models small enough to work out by hand: a clip's first pixel says what is answered."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from engines.bundle import LEVELS
from geotag.places.hierarchy import Hierarchy, build_hierarchy
from train.data.dataset import UNKNOWN_SCENE, BadSample, Entry, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from train.data.dataset import View

COLUMNS = (
    *("city", "state", "country", "continent", "state_code", "country_code", "continent_code"),
    *("lat_deg", "lon_deg", "geonameid"),
)
WORLD = """\
Paris,Ile-de-France,France,Europe,FR-IDF,FR,EU,48.8534,2.3488,2988507
Lyon,Auvergne-Rhone-Alpes,France,Europe,FR-ARA,FR,EU,45.7485,4.8467,2996944
Berlin,Berlin,Germany,Europe,DE-BE,DE,EU,52.5244,13.4105,2950159
Tokyo,Tokyo,Japan,Asia,JP-13,JP,AS,35.6895,139.6917,1850147
"""
"""Four cities of three countries on two continents."""


def tree(text: str = WORLD) -> Hierarchy:
    """A class tree from the lines of a places.csv without its heading."""
    rows = csv.DictReader(io.StringIO(places_text(text)))
    return build_hierarchy(rows, source="test")


def places_text(text: str = WORLD) -> str:
    return ",".join(COLUMNS) + "\n" + text


@dataclass(frozen=True)
class Clips:
    """A ClipDataset that holds its clips as numbers.

    `answers[i][part]` is the city that every frame of a part of sample i shows; -1 is unreadable.
    """

    answers: tuple[tuple[int, ...], ...]
    cities: tuple[int, ...]
    groups: tuple[str, ...] = ()
    points_deg: tuple[tuple[float, float] | None, ...] = ()
    scenes: tuple[int, ...] = ()
    places: str = WORLD
    name: str = "four cities"
    timed: bool = False
    """Whether the policy shows in the pixels."""
    opened: list[int] = field(default_factory=list)

    @property
    def hierarchy(self) -> Hierarchy:
        return tree(self.places)

    @property
    def places_csv(self) -> str:
        return places_text(self.places)

    @property
    def entries(self) -> Sequence[Entry]:
        names = [f"clip {number}" for number in range(len(self.cities))]
        groups = self.groups or names
        return [
            Entry(name=name, city_id=city, group=group)
            for name, city, group in zip(names, self.cities, groups, strict=True)
        ]

    def read(self, index: int, view: View) -> Sample | BadSample:
        answers = self.answers[index]
        answer = answers[view.part % len(answers)]
        if answer < 0:
            return BadSample(name=f"clip {index}", reason=f"row {index}: the frame is damaged")
        clip_THWC = np.zeros((view.frames, view.image_px, view.image_px, 3), np.uint8)
        clip_THWC[:, 0, 0] = answer
        if self.timed and view.policy is not None:
            clip_THWC[:, 0, 1] = len(view.policy)
        return Sample(
            clip_THWC=clip_THWC,
            city_id=self.cities[index],
            scene_id=self.scenes[index] if self.scenes else UNKNOWN_SCENE,
            point_deg=self.points_deg[index] if self.points_deg else None,
        )


class Reader:
    """A model that reads the answer out of the first pixel: city a, its ancestors, scene a."""

    label = "reader"
    clip_shape = (2, 4, "squash")
    nests = False

    def __init__(
        self, hierarchy: Hierarchy | None = None, *, sure: float = 3.0, scenes: int = 0
    ) -> None:
        self.hierarchy = hierarchy or tree()
        self.sure = sure
        self.scenes = scenes

    def score(self, clips_NTHWC: np.ndarray) -> dict[str, np.ndarray]:
        cities = clips_NTHWC[:, 0, 0, 0, 0].astype(int)
        scores = {}
        for level in LEVELS:
            logits = np.zeros((len(cities), self.hierarchy.size(level)), np.float32)
            logits[np.arange(len(cities)), self.hierarchy.ancestors[level][cities]] = self.sure
            scores[level] = logits
        if self.scenes:
            scores["scene"] = np.eye(self.scenes, dtype=np.float32)[cities % self.scenes]
        return scores

    def take_routing(self) -> dict[str, object]:
        return {}
