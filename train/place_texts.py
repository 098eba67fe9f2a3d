"""What a run knows of the names of its places: targets to align with, and where classifiers begin.

Shape suffixes: C cities, K classes of a level, E width of a text embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.bundle import LEVELS
from train.errors import TrainError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engines.bundle import Level
    from geotag.places.hierarchy import Hierarchy
    from train.config import ModelConfig, TrainConfig
    from train.data.dataset import ClipDataset
    from train.texts import Variant

TEXT_WIDTH = 512
"""E of CLIP ViT-B/32 and B/16, and of the released labels."""
COORDINATES = 3
"""Values of a place on a sphere of radius 1."""
_NOTHING = 1e-6
"""Length below which a vector has no direction."""


def texts_of(
    config: TrainConfig, dataset: ClipDataset, stored: Path | None
) -> NDArray[np.float32] | None:
    """What a recipe's model is aligned with, [C, E]; None: with nothing.  See `read_texts`."""
    if config.model.text == "none":
        return None
    return read_texts(config, dataset, config.model.text, stored)


def labels_of(
    config: TrainConfig, dataset: ClipDataset, stored: Path | None
) -> dict[Level, NDArray[np.float32]] | None:
    """What the places of each level begin as, [K, E]; None: classifiers begin at random.

    See `read_texts` and `label_vectors`.
    """
    if config.model.classifier == "linear":
        return None
    return label_vectors(
        read_texts(config, dataset, "city", stored),
        read_texts(config, dataset, "all", stored),
        dataset.hierarchy,
        coordinates=config.model.coordinates,
    )


def read_texts(
    config: TrainConfig, dataset: ClipDataset, variant: Variant, stored: Path | None
) -> NDArray[np.float32]:
    """Embeddings of the names of every city.  [C, E], rows of length 1.

    Args:
        config: says where they are.
        dataset: of which they are the cities.
        variant: the city's name alone, or the mean of its names at all levels.
        stored: where the dataset keeps its own; None: it is rendered and has its spelling.

    Raises:
        TrainError: there are none; the text says how to make them.
    """
    from train.texts import name_table, read_text_table

    if config.texts == "names" or (config.data == "rendered" and not config.texts):
        return name_table(dataset.hierarchy, variant=variant, width=TEXT_WIDTH)
    path = Path(config.texts).expanduser() if config.texts else stored
    assert path is not None  # the rendered world has its names
    if not path.is_file():
        # The label files of the release may hold them: those of all levels.
        if not config.texts and variant == "all" and hasattr(dataset, "text_table"):
            released_CE: NDArray[np.float32] | None = dataset.text_table()
            if released_CE is not None:
                return released_CE
        raise TrainError(
            f"reading the names of places: there is no {path}. Make it once with "
            f"`python -m train.texts --dataset {config.data} --out {path}`, or use --texts names, "
            "which knows how names are spelled and nothing of the world."
        )
    return read_text_table(path, dataset.hierarchy, variant)


def label_vectors(
    city_CE: NDArray[np.float32],
    all_CE: NDArray[np.float32],
    hierarchy: Hierarchy,
    *,
    coordinates: bool,
) -> dict[Level, NDArray[np.float32]]:
    """What the places of every level begin as, for `train.models.labels`.

    A city begins as its own name; a coarser place as the mean over its cities of the names of all
    levels, in which what they share is left: its own name and those above. Of each level the mean
    is taken out, since text encoders put all names into one narrow cone (Ethayarajh, EMNLP 2019).

    Args:
        city_CE: embeddings of the cities' names alone.
        all_CE: of the names of all levels together.
        hierarchy: the class tree.
        coordinates: append where the place lies, as a point on a sphere of radius 1; a coarser
            place lies in the middle of its cities.

    Returns:
        [K, E] or [K, E + 3] of each level; text and point are of length 1 each.
    """
    cities = hierarchy.places["city"]
    lats, lons = np.radians([[place.lat_deg or 0.0, place.lon_deg or 0.0] for place in cities]).T
    points_C3 = np.stack(
        [np.cos(lats) * np.cos(lons), np.cos(lats) * np.sin(lons), np.sin(lats)], 1
    )
    found: dict[Level, NDArray[np.float32]] = {}
    for level in LEVELS:
        rows_KE = city_CE if level == "city" else _means(all_CE, hierarchy, level)
        parts = [_unit(_centred(np.asarray(rows_KE, np.float64)))]
        if coordinates:
            parts.append(_unit(_means(points_C3, hierarchy, level)))
        found[level] = np.concatenate(parts, axis=1).astype(np.float32)
    return found


def label_width_of(model: ModelConfig) -> int:
    """E of what places begin as, with names of the usual width; 0 for linear classifiers."""
    if model.classifier == "linear":
        return 0
    return TEXT_WIDTH + (COORDINATES if model.coordinates else 0)


def _means(
    rows_CE: NDArray[np.floating], hierarchy: Hierarchy, level: Level
) -> NDArray[np.float64]:
    """Mean over the cities of each class.  [C, E] -> [K, E]."""
    above_C = hierarchy.ancestors[level]
    totals_KE = np.zeros((hierarchy.size(level), rows_CE.shape[1]))
    np.add.at(totals_KE, above_C, rows_CE)
    return totals_KE / np.bincount(above_C, minlength=len(totals_KE))[:, np.newaxis]


def _centred(rows_KE: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without the mean; a row that is nothing but the mean stays as it is."""
    apart_KE = rows_KE - rows_KE.mean(axis=0)
    has_own_K1 = np.linalg.norm(apart_KE, axis=1, keepdims=True) > _NOTHING
    return np.where(has_own_K1, apart_KE, rows_KE)


def _unit(rows_KE: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows_KE / np.maximum(np.linalg.norm(rows_KE, axis=1, keepdims=True), _NOTHING)
