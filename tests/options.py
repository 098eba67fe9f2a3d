"""Options of classifiers in miniature: what they are asked to be, and the tree they stand in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from engines.bundle import LEVELS
from geotag.places.hierarchy import build_hierarchy
from train.losses import Targets
from train.models.base import FeatureModel
from train.models.kinds import find_kind
from train.models.teachers import TeacherConfig
from train.place_texts import label_vectors
from train.texts import name_table

if TYPE_CHECKING:
    from geotag.places.hierarchy import Hierarchy

TEXTS = 24
"""Width of embeddings."""
STATES, COUNTRIES, CONTINENTS = (0, 0, 1, 2, 3, 4, 4, 5, 6), (0, 0, 1, 1, 2, 3, 4), (0, 0, 1, 1, 2)
"""Of the cities, states and countries: what they lie in."""
CLASSES = {"city": 9, "state": 7, "country": 5, "continent": 3, "scene": 16}
OPTIONS: dict[str, dict[str, str | int]] = {
    "cosine": {"classifier": "cosine", "label_width": TEXTS},
    "marginal": {"hierarchy": "marginal"},
    "cosine, marginal": {
        "classifier": "cosine",
        "label_width": TEXTS,
        "hierarchy": "marginal",
    },
}


def rows() -> list[dict[str, str]]:
    """Of a `places.csv`; the second city lies 100 km from the first, the others far away."""
    spots = [(48.0, 2.0), (48.9, 2.0), *((10.0 * k - 50, 20.0 * k - 70) for k in range(7))]
    found = []
    for city, (lat_deg, lon_deg) in enumerate(spots):
        state = STATES[city]
        country = COUNTRIES[state]
        names = f"c{city}", f"s{state}", f"n{country}", f"k{CONTINENTS[country]}"
        found.append(
            {
                **dict(zip(LEVELS, names, strict=True)),
                "lat_deg": f"{lat_deg}",
                "lon_deg": f"{lon_deg}",
            }
        )
    return found


def places_csv() -> str:
    """The same as text."""
    lines = [",".join(row.values()) for row in rows()]
    return "\n".join([",".join(rows()[0]), *lines]) + "\n"


def tree() -> Hierarchy:
    """9 cities in 7 states, 5 countries, 3 continents."""
    return build_hierarchy(rows(), source="here")


def build(option: str, kind: str, shape: object, *, scene: str = "linear") -> FeatureModel:
    """A small network with an option, random weights, and the tree."""
    torch.manual_seed(0)
    teachers = TeacherConfig(scene=scene, **OPTIONS[option])  # type: ignore[arg-type]
    model = find_kind(kind).model(shape, CLASSES, teachers=teachers)
    assert isinstance(model, FeatureModel)
    names = name_table(tree(), TEXTS, "city"), name_table(tree(), TEXTS, "all")
    model.start_places(tree(), label_vectors(*names, tree(), coordinates=False))
    return model


def targets_for(count: int) -> Targets:
    """Each clip its own city as far as there are cities."""
    city_N = np.arange(count) % CLASSES["city"]
    scene_N = torch.arange(count) % CLASSES["scene"]
    return Targets(
        labels={level: torch.from_numpy(tree().ancestors[level][city_N]) for level in LEVELS},
        scene_NS=torch.nn.functional.one_hot(scene_N, CLASSES["scene"]).float(),
        scene_N=scene_N,
    )
