"""The class tree of a model, and how the scores of its four classifiers become probabilities.

Shape suffixes: N clips, K classes of one level. Levels go from fine to coarse: city, state,
country, continent. Source of every rule: CityGuessr (Kulkarni et al., ECCV 2024), section on
hierarchical evaluation; the marginal form is ours and is consistent by construction.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.base import BundleError
from engines.bundle import LEVELS, DecodingMode, Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Logits = Mapping[Level, NDArray[np.floating]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One class: a city, a state, a country or a continent."""

    name: str
    code: str
    """ISO 3166-1 alpha-2 (country), ISO 3166-2 (state), two-letter GeoNames (continent), or ''."""
    parent: int
    """Index at the next coarser level; -1 for a continent."""
    lat_deg: float | None = None
    lon_deg: float | None = None
    """Reference point; cities only."""
    geonameid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hierarchy:
    """The places a model knows, level by level, as a tree."""

    places: dict[Level, tuple[Place, ...]]
    ancestors: dict[Level, NDArray[np.intp]]
    """For each level, the class of that level above each city.  [K_city]; `city` is 0..K-1."""
    parents: dict[Level, NDArray[np.intp]]
    """For city, state, country: the class at the next coarser level.  [K]."""

    def size(self, level: Level) -> int:
        """Number of classes at a level."""
        return len(self.places[level])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """Probabilities and answers of N clips in one decoding mode."""

    probs: dict[Level, NDArray[np.float64]]
    """[N, K] per level; each row sums to 1."""
    labels: dict[Level, NDArray[np.intp]]
    """[N] per level: the class answered."""


def read_hierarchy(path: Path) -> Hierarchy:
    """Read a class tree from a `places.csv` (one row per city).

    City ids are row numbers. State, country and continent ids are given by first appearance, the
    numbering of the reference data. A class is its whole path upwards, so that two countries may
    each have a state of one name.

    Raises:
        BundleError: a missing column, an empty name, a city twice, coordinates out of range.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        return build_hierarchy(csv.DictReader(stream), source=str(path))


def build_hierarchy(rows: Iterable[Mapping[str, str]], *, source: str) -> Hierarchy:
    """Build the tree from rows with the columns of `places.csv`; see `read_hierarchy`."""
    ids: dict[Level, dict[tuple[str, ...], int]] = {level: {} for level in LEVELS}
    places: dict[Level, list[Place]] = {level: [] for level in LEVELS}
    ancestors: dict[Level, list[int]] = {level: [] for level in LEVELS}
    for line, row in enumerate(rows, start=2):
        names = _names_of(row, where=f"{source}, line {line}")
        if names in ids["city"]:
            raise BundleError(f"{source}, line {line}: the city {names[0]!r} is listed twice.")
        parent = -1
        for depth in reversed(range(len(LEVELS))):
            level, key = LEVELS[depth], names[depth:]
            if key not in ids[level]:
                ids[level][key] = len(places[level])
                places[level].append(_place(row, level, parent, where=f"{source}, line {line}"))
            parent = ids[level][key]
            ancestors[level].append(parent)
    if not places["city"]:
        raise BundleError(f"{source}: no places; at least one city is needed.")
    return Hierarchy(
        places={level: tuple(places[level]) for level in LEVELS},
        ancestors={level: np.array(ancestors[level], dtype=np.intp) for level in LEVELS},
        parents={
            level: np.array([place.parent for place in places[level]], dtype=np.intp)
            for level in LEVELS[:-1]
        },
    )


def decode(
    logits: Logits,
    hierarchy: Hierarchy,
    mode: DecodingMode = "marginal",
    temperatures: Mapping[Level, float] | None = None,
) -> Decoded:
    """Turn the classifiers' scores into probabilities and answers.

    With p the softmax of each level and par() the next coarser class:

    * `without`: every level on its own, argmax of p;
    * `independent`: p' multiplied down the tree, p'(k) = p(k) p'(par(k)) with p' = p at continent
      level, then argmax at every level (parents may disagree);
    * `codependent`: argmax of p' at city level; coarser answers are that city's ancestors;
    * `trace_only`: argmax of p at city level, then ancestors (what the released code does);
    * `marginal`: p' of the cities renormalised, coarser levels as sums over their cities: the
      probabilities nest, and a tag's confidences are these.

    Args:
        logits: [N, K] per level.
        hierarchy: the tree that the classifiers follow.
        mode: which of the five rules.
        temperatures: divides the logits of a level before its softmax; 1 where not given.

    Returns:
        Probabilities (rows sum to 1) and answers.
    """
    flat = _log_probs(logits, temperatures or {})
    products = flat if mode in ("without", "trace_only") else _multiply_down(flat, hierarchy)
    probs = {level: _normalise(products[level]) for level in LEVELS}
    if mode == "marginal":
        probs = marginals(probs["city"], hierarchy)
    labels = {level: probs[level].argmax(axis=1) for level in LEVELS}
    if mode in ("codependent", "trace_only"):
        labels = {level: hierarchy.ancestors[level][labels["city"]] for level in LEVELS}
    return Decoded(probs=probs, labels=labels)


def marginals(
    city_probs_NK: NDArray[np.float64], hierarchy: Hierarchy
) -> dict[Level, NDArray[np.float64]]:
    """Probabilities of every level as sums over their cities.  [N, K_city] -> [N, K] per level."""
    summed = {}
    for level in LEVELS:
        totals = np.zeros((hierarchy.size(level), city_probs_NK.shape[0]))
        np.add.at(totals, hierarchy.ancestors[level], city_probs_NK.T)
        summed[level] = np.ascontiguousarray(totals.T)
    return summed


def log_softmax(logits_NK: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logarithm of the softmax over the last axis, in double precision."""
    shifted = logits_NK.astype(np.float64) - logits_NK.max(axis=-1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


def _log_probs(
    logits: Logits, temperatures: Mapping[Level, float]
) -> dict[Level, NDArray[np.float64]]:
    return {
        level: log_softmax(np.atleast_2d(logits[level]) / temperatures.get(level, 1.0))
        for level in LEVELS
    }


def _multiply_down(
    flat: Mapping[Level, NDArray[np.float64]], hierarchy: Hierarchy
) -> dict[Level, NDArray[np.float64]]:
    """Sums of log-probabilities along the ancestor path, from continent to city."""
    products = {"continent": flat["continent"]}
    for coarse, fine in zip(LEVELS[:0:-1], LEVELS[-2::-1], strict=True):
        products[fine] = flat[fine] + products[coarse][:, hierarchy.parents[fine]]
    return products  # type: ignore[return-value]


def _normalise(log_probs_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    probs: NDArray[np.float64] = np.exp(log_softmax(log_probs_NK))
    return probs


def _names_of(row: Mapping[str, str], *, where: str) -> tuple[str, ...]:
    missing = [level for level in LEVELS if not (row.get(level) or "").strip()]
    if missing:
        raise BundleError(f"{where}: the column {missing[0]!r} is missing or empty.")
    return tuple(row[level].strip() for level in LEVELS)


def _place(row: Mapping[str, str], level: Level, parent: int, *, where: str) -> Place:
    if level != "city":
        return Place(name=row[level].strip(), code=row.get(f"{level}_code") or "", parent=parent)
    lat_deg, lon_deg = _coordinates(row, where=where)
    geonameid = row.get("geonameid") or ""
    return Place(
        name=row["city"].strip(),
        code="",
        parent=parent,
        lat_deg=lat_deg,
        lon_deg=lon_deg,
        geonameid=int(geonameid) if geonameid.isdigit() else None,
    )


def _coordinates(row: Mapping[str, str], *, where: str) -> tuple[float, float]:
    try:
        lat_deg, lon_deg = float(row["lat_deg"]), float(row["lon_deg"])
    except (KeyError, TypeError, ValueError) as exc:
        raise BundleError(
            f"{where}: lat_deg and lon_deg must be numbers, found "
            f"{row.get('lat_deg')!r}, {row.get('lon_deg')!r}."
        ) from exc
    if not (abs(lat_deg) <= 90 and abs(lon_deg) <= 180):
        raise BundleError(
            f"{where}: latitude {lat_deg}, longitude {lon_deg}; allowed are -90..90 and -180..180."
        )
    return lat_deg, lon_deg
