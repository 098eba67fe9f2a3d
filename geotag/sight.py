"""What the pictures of a video say about its place: the scores of its clips become one answer.

Shape suffixes: N clips, K classes of one level.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.base import BundleError
from engines.bundle import LEVELS
from geotag.geo import distances_m, mean_point_deg
from geotag.places.hierarchy import decode, log_softmax, marginals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from engines.bundle import Bundle, Level, LevelCalibration
    from geotag.footage.clips import Sampling
    from geotag.places.hierarchy import Hierarchy
    from geotag.types import Clip, FootageError, Policy, VideoFacts

COVERED_PROB = 0.9
"""Share of the posterior that `radius_m` holds."""
CITY_EXTENT_M = 25_000.0
"""A city is a point to the model and an area on the ground: no radius is smaller than this, the
"city" threshold of geolocation benchmarks (Hays and Efros, CVPR 2008, and all who follow)."""
LISTED_CITIES = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """What the model makes of one clip."""

    city_probs: NDArray[np.float64]
    """Calibrated posterior over the cities.  [K], sums to 1."""
    scene_probs: NDArray[np.float64] | None
    """[K], sums to 1; None for a model that says nothing of scenes."""
    policy: Policy
    fallback: str | None
    damaged: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimate:
    """Where a video was recorded, as far as its pictures tell."""

    probs: dict[Level, NDArray[np.float64]]
    """Posterior over the places of each level.  [K]."""
    level: Level | None
    """The finest level that is confident enough; None where not even the continent is."""
    places: dict[Level, int]
    """Class answered at `level` and at each coarser one: one path of the tree."""
    point_deg: tuple[float, float] | None
    """(lat_deg, lon_deg) that stands for the answer."""
    radius_m: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPlace:
    """One place of an answer."""

    level: Level
    name: str
    code: str | None
    geonameid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """The answer of a video's pictures: plain values, rounded as the output shows them."""

    places: tuple[SeenPlace, ...]
    """From the finest level that is confident enough upwards; empty where none is."""
    confidences: tuple[float | None, ...]
    """In the order of LEVELS: of the place named, else of the most probable one."""
    cities: tuple[tuple[str, float], ...]
    """The most probable cities, at most LISTED_CITIES, with their probability."""
    scene: str | None
    """None for a model that says nothing of scenes."""
    scene_prob: float | None
    lat_deg: float | None
    lon_deg: float | None
    radius_m: float | None
    clips: int
    """How many the answer rests on."""
    sampling: str
    problem: str | None
    """What of the video could not be used."""

    @property
    def level(self) -> Level | None:
        """The finest level that is confident enough."""
        return self.places[0].level if self.places else None

    @property
    def point_deg(self) -> tuple[float, float] | None:
        """(lat_deg, lon_deg) that stands for the answer."""
        if self.lat_deg is None or self.lon_deg is None:
            return None
        return self.lat_deg, self.lon_deg

    def place(self, level: Level) -> SeenPlace | None:
        """The place at one level, if the answer reaches it."""
        return next((place for place in self.places if place.level == level), None)


def calibration_of(bundle: Bundle) -> dict[Level, LevelCalibration]:
    """How to read the bundle's probabilities.

    Raises:
        BundleError: a level has no calibration for the decoding mode that tags use.
    """
    levels = bundle.manifest.calibration.get("marginal", {})
    missing = [level for level in LEVELS if level not in levels]
    if missing:
        raise BundleError(
            f"reading the bundle {bundle.path}: no calibration of the mode 'marginal' for "
            f"{', '.join(missing)}. Export the bundle again."
        )
    return {level: levels[level] for level in LEVELS}


def read_scores(
    scores: Mapping[str, NDArray[np.float32]],
    clip: Clip,
    *,
    hierarchy: Hierarchy,
    calibration: Mapping[Level, LevelCalibration],
) -> Look:
    """Turn the scores of one clip, [1, K] each, into calibrated probabilities."""
    temperatures = {level: calibration[level].temperature for level in LEVELS}
    logits = {level: scores[level] for level in LEVELS}
    decoded = decode(logits, hierarchy, mode="marginal", temperatures=temperatures)
    return Look(
        city_probs=decoded.probs["city"][0],
        scene_probs=np.exp(log_softmax(scores["scene"][0])) if "scene" in scores else None,
        policy=clip.policy,
        fallback=clip.fallback,
        damaged=clip.damaged,
    )


def fuse(city_probs_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Join the posteriors of n clips of one video.  [N, K] -> [K], sums to 1; n = 1: unchanged.

    A product of experts (Hinton, Neural Computation 2002) would count every clip as new evidence,
    yet the clips of one drive share street, light and windscreen. The product is therefore
    tempered to the power n**-0.5: n correlated clips weigh as much as sqrt(n) independent ones,
    the effective sample size.
    """
    count = city_probs_NK.shape[0]
    with np.errstate(divide="ignore"):
        joined = np.log(city_probs_NK).sum(axis=0) * count**-0.5
    if not np.isfinite(joined.max()):  # each city is impossible to some clip: no product
        return np.asarray(city_probs_NK.mean(axis=0))
    return np.exp(log_softmax(joined))


def is_settled(looks: Sequence[Look], stop_prob: float) -> bool:
    """At least two clips name the city that all of them together name with stop_prob or more."""
    if len(looks) < 2:
        return False
    stacked = np.stack([look.city_probs for look in looks])
    fused = fuse(stacked)
    agreeing = int((stacked.argmax(axis=1) == fused.argmax()).sum())
    return agreeing >= 2 and float(fused.max()) >= stop_prob


def estimate(
    looks: Sequence[Look], hierarchy: Hierarchy, calibration: Mapping[Level, LevelCalibration]
) -> Estimate:
    """Answer at the finest level whose most probable place reaches its threshold."""
    fused = fuse(np.stack([look.city_probs for look in looks]))
    probs = {level: row[0] for level, row in marginals(fused[np.newaxis], hierarchy).items()}
    level = next(
        (name for name in LEVELS if probs[name].max() >= calibration[name].threshold_prob), None
    )
    if level is None:
        return Estimate(probs=probs, level=None, places={}, point_deg=None, radius_m=None)
    place = int(probs[level].argmax())
    point_deg = _reference_point(fused, level, place, hierarchy)
    return Estimate(
        probs=probs,
        level=level,
        places=_path_upwards(level, place, hierarchy),
        point_deg=point_deg,
        radius_m=_covering_radius_m(fused, point_deg, hierarchy),
    )


def see(
    facts: VideoFacts,
    looks: Sequence[Look],
    *,
    hierarchy: Hierarchy,
    bundle: Bundle,
    sampling: Sampling,
    errors: Sequence[FootageError] = (),
) -> Sight:
    """Join at least one look at a video into one answer.

    Args:
        facts: what the container says.
        looks: one per clip that was read, in the order of the plan.
        hierarchy: the class tree of the bundle.
        bundle: the model folder.
        sampling: what was asked of each clip.
        errors: clips that could not be read.
    """
    found = estimate(looks, hierarchy, calibration_of(bundle))
    scene, scene_prob = _scene_of(looks, bundle)
    lat_deg, lon_deg = found.point_deg or (None, None)
    return Sight(
        places=tuple(
            SeenPlace(
                level=level,
                name=hierarchy.places[level][k].name,
                code=hierarchy.places[level][k].code or None,
                geonameid=hierarchy.places[level][k].geonameid,
            )
            for level, k in found.places.items()
        ),
        confidences=tuple(_confidence(found, level) for level in LEVELS),
        cities=_top_cities(found.probs["city"], hierarchy),
        scene=scene,
        scene_prob=rounded(scene_prob, 4),
        lat_deg=rounded(lat_deg, 6),
        lon_deg=rounded(lon_deg, 6),
        radius_m=rounded(found.radius_m, 0),
        clips=len(looks),
        sampling=describe_sampling(sampling, looks, facts.duration_s),
        problem=_describe_problems(looks, errors),
    )


def describe_sampling(sampling: Sampling, looks: Sequence[Look], duration_s: float | None) -> str:
    """The policy and span asked for, and whatever became of them, on one line."""
    parts = [f"{sampling.policy} {sampling.span_s:g} s"]
    if duration_s is not None and duration_s < sampling.span_s:
        parts.append(f"cut to {duration_s:.1f} s: the whole video")
    fallbacks = [(look.policy, look.fallback) for look in looks if look.fallback]
    parts += [
        f"{fallbacks.count((policy, why))} of {len(looks)} clips {policy}: {why}"
        for policy, why in dict.fromkeys(fallbacks)
    ]
    return "; ".join(parts)


def _path_upwards(level: Level, place: int, hierarchy: Hierarchy) -> dict[Level, int]:
    path = {level: place}
    for fine, coarse in itertools.pairwise(LEVELS):
        if fine in path:
            path[coarse] = int(hierarchy.parents[fine][path[fine]])
    return path


def _reference_point(
    city_probs_K: NDArray[np.float64], level: Level, place: int, hierarchy: Hierarchy
) -> tuple[float, float]:
    """A city's own point; for a wider place the mean of its cities, each by its probability."""
    lats_deg, lons_deg = _city_points(hierarchy)
    inside = hierarchy.ancestors[level] == place
    if inside.sum() == 1:
        city = int(inside.argmax())
        return float(lats_deg[city]), float(lons_deg[city])
    return mean_point_deg(lats_deg[inside], lons_deg[inside], city_probs_K[inside])


def _covering_radius_m(
    city_probs_K: NDArray[np.float64], point_deg: tuple[float, float], hierarchy: Hierarchy
) -> float:
    """The smallest radius that holds COVERED_PROB of the posterior; at least CITY_EXTENT_M."""
    away_m = distances_m(point_deg, *_city_points(hierarchy))
    order = np.argsort(away_m, kind="stable")
    held = np.cumsum(city_probs_K[order])
    enough = min(int(np.searchsorted(held, COVERED_PROB - 1e-12)), held.size - 1)
    return max(float(away_m[order[enough]]), CITY_EXTENT_M)


def _city_points(hierarchy: Hierarchy) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    cities = hierarchy.places["city"]
    lats_deg = np.array([city.lat_deg for city in cities], dtype=np.float64)
    return lats_deg, np.array([city.lon_deg for city in cities], dtype=np.float64)


def _confidence(found: Estimate, level: Level) -> float | None:
    """Probability of the place that the tag names at a level, else of the most probable one."""
    probs_K = found.probs[level]
    return rounded(float(probs_K[found.places.get(level, int(probs_K.argmax()))]), 4)


def _top_cities(
    city_probs_K: NDArray[np.float64], hierarchy: Hierarchy
) -> tuple[tuple[str, float], ...]:
    """The LISTED_CITIES most probable cities; fewer where the model knows fewer."""
    order = np.argsort(-city_probs_K, kind="stable")[:LISTED_CITIES]
    return tuple(
        (hierarchy.places["city"][k].name, round(float(city_probs_K[k]), 4) + 0.0) for k in order
    )


def _scene_of(looks: Sequence[Look], bundle: Bundle) -> tuple[str | None, float | None]:
    """The scene group that is likeliest over all looks, and its probability."""
    found = [look.scene_probs for look in looks if look.scene_probs is not None]
    if not found:
        return None, None
    mean_K = np.mean(found, axis=0)
    return bundle.manifest.scenes[int(mean_K.argmax())], float(mean_K.max())


def _describe_problems(looks: Sequence[Look], errors: Sequence[FootageError]) -> str | None:
    """What of the video could not be used, as `code: message`; None where all could."""
    total = len(looks) + len(errors)
    parts = []
    if errors:
        parts.append(
            f"{errors[0].code}: {len(errors)} of {total} clips unreadable: {errors[0].message}"
        )
    if damaged := sum(look.damaged for look in looks):
        parts.append(f"damaged: {damaged} of {total} clips lack frames that cannot be decoded")
    return "; ".join(parts) or None


def rounded(value: float | None, digits: int) -> float | None:
    """Round, so that noise in the last bits of a sum never reaches the output; never -0.0."""
    return None if value is None else round(value, digits) + 0.0
