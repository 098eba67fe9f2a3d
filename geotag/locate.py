"""What the pictures say about a place: the scores of a video's clips become one Tag.

Shape suffixes: N clips, K classes of one level.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.base import BundleError
from engines.bundle import LEVELS
from geotag.places.hierarchy import decode, log_softmax, marginals
from geotag.types import Tag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from engines.bundle import Bundle, Level, LevelCalibration
    from geotag.footage.clips import Sampling
    from geotag.places.hierarchy import Hierarchy
    from geotag.types import Clip, Failure, FootageError, Policy, Video, VideoFacts

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius of the WGS 84 ellipsoid, (2a + b) / 3 (IUGG)."""
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
    scene_probs: NDArray[np.float64]
    """[K], sums to 1."""
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
        scene_probs=np.exp(log_softmax(scores["scene"][0])),
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


def make_tag(
    video: Video,
    facts: VideoFacts,
    looks: Sequence[Look],
    *,
    hierarchy: Hierarchy,
    bundle: Bundle,
    engine: str,
    sampling: Sampling,
    errors: Sequence[FootageError] = (),
) -> Tag:
    """Build the tag of a video from at least one look at it.

    Args:
        video: the file.
        facts: what its container says.
        looks: one per clip that was read, in the order of the plan.
        hierarchy: the class tree of the bundle.
        bundle: the model folder.
        engine: name of the engine that ran it.
        sampling: what was asked of each clip.
        errors: clips that could not be read.
    """
    found = estimate(looks, hierarchy, calibration_of(bundle))
    names = {level: hierarchy.places[level][k] for level, k in found.places.items()}
    city, state = names.get("city"), names.get("state")
    country, continent = names.get("country"), names.get("continent")
    cities = _top_cities(found.probs["city"], hierarchy)
    scene_probs_K = np.mean([look.scene_probs for look in looks], axis=0)
    lat_deg, lon_deg = found.point_deg or (None, None)
    problem = _describe_problems(looks, errors)
    return Tag(
        id=video.video_id,
        path=video.name,
        duration_s=_rounded(facts.duration_s, 3),
        status="partial" if problem else "ok",
        error=problem,
        location_source="visual" if found.level else "none",
        continent=continent.name if continent else None,
        continent_code=(continent.code or None) if continent else None,
        country=country.name if country else None,
        country_code=(country.code or None) if country else None,
        state=state.name if state else None,
        state_code=(state.code or None) if state else None,
        city=city.name if city else None,
        city_geonameid=city.geonameid if city else None,
        confidence_continent=_confidence(found, "continent"),
        confidence_country=_confidence(found, "country"),
        confidence_state=_confidence(found, "state"),
        confidence_city=_confidence(found, "city"),
        level=found.level or "none",
        city_1=cities[0][0],
        city_1_p=cities[0][1],
        city_2=cities[1][0],
        city_2_p=cities[1][1],
        city_3=cities[2][0],
        city_3_p=cities[2][1],
        city_4=cities[3][0],
        city_4_p=cities[3][1],
        city_5=cities[4][0],
        city_5_p=cities[4][1],
        scene=bundle.manifest.scenes[int(scene_probs_K.argmax())],
        scene_p=_rounded(float(scene_probs_K.max()), 4),
        visual_lat=_rounded(lat_deg, 6),
        visual_lon=_rounded(lon_deg, 6),
        radius_m=_rounded(found.radius_m, 0),
        clips=len(looks),
        engine=engine,
        bundle=bundle.label,
        sampling=describe_sampling(sampling, looks, facts.duration_s),
    )


def failed_tag(failure: Failure) -> Tag:
    """The tag of a video that has none: everything is null but what it is and why."""
    return Tag(
        id=failure.video.video_id,
        path=failure.video.name,
        status="failed",
        error=f"{failure.code}: {failure.message}",
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


def distances_m(
    point_deg: tuple[float, float], lats_deg: NDArray[np.float64], lons_deg: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Great-circle distance from one point to each of the others.  [K], [K] -> [K], metres.

    Source: haversine, Sinnott, Sky & Telescope 68(2), 1984; on a sphere of EARTH_RADIUS_M.
    """
    lat, lon = np.radians(point_deg)
    lats, lons = np.radians(lats_deg), np.radians(lons_deg)
    half = (
        np.sin((lats - lat) / 2) ** 2 + np.cos(lat) * np.cos(lats) * np.sin((lons - lon) / 2) ** 2
    )
    return np.asarray(2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0))))


def mean_point_deg(
    lats_deg: NDArray[np.float64], lons_deg: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float]:
    """Weighted mean of points on a sphere, (lat_deg, lon_deg); right across the date line.

    The mean of the unit vectors, put back on the sphere; where they cancel out, which leaves no
    mean direction, the heaviest point.
    """
    lats, lons = np.radians(lats_deg), np.radians(lons_deg)
    units = np.stack([np.cos(lats) * np.cos(lons), np.cos(lats) * np.sin(lons), np.sin(lats)])
    x, y, z = (units * weights).sum(axis=1) / max(float(weights.sum()), 1e-300)
    if np.hypot(np.hypot(x, y), z) < 1e-6:
        heaviest = int(weights.argmax())
        return float(lats_deg[heaviest]), float(lons_deg[heaviest])
    return float(np.degrees(np.arctan2(z, np.hypot(x, y)))), float(np.degrees(np.arctan2(y, x)))


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
    return _rounded(float(probs_K[found.places.get(level, int(probs_K.argmax()))]), 4)


def _top_cities(
    city_probs_K: NDArray[np.float64], hierarchy: Hierarchy
) -> list[tuple[str | None, float | None]]:
    """The LISTED_CITIES most probable cities; blanks where the model knows fewer."""
    order = np.argsort(-city_probs_K, kind="stable")[:LISTED_CITIES]
    listed: list[tuple[str | None, float | None]] = [
        (hierarchy.places["city"][k].name, _rounded(float(city_probs_K[k]), 4)) for k in order
    ]
    return listed + [(None, None)] * (LISTED_CITIES - len(listed))


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


def _rounded(value: float | None, digits: int) -> float | None:
    """Round, so that noise in the last bits of a sum never reaches the output; never -0.0."""
    return None if value is None else round(value, digits) + 0.0
