"""The classes of a data set's tree in a model's tree, which may name and number them otherwise.

Shape suffix: K classes of a level.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.bundle import LEVELS, Level
from geotag.places.join import fold_name
from train.evaluation.metrics import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from numpy.typing import NDArray

    from geotag.places.hierarchy import Hierarchy, Place

_Keys = tuple["Hashable", ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassMap:
    """For each city of a data set, the model's class at every level."""

    labels: dict[Level, NDArray[np.intp]]
    """[K_city of the data set] per level; UNKNOWN where the model has no such class."""
    unknown: tuple[int, ...]
    """Cities of the data set that the model does not know."""


def map_classes(given: Hierarchy, model: Hierarchy) -> ClassMap:
    """Find the model's class for every city of a data set, and for what is above it.

    A city is looked for by its geonameid, then by country and name (names without accents, case
    and punctuation; the country by its code or its name), then by country, state and name. A
    key that fits two cities of either tree decides nothing. Above a known city the model's own
    ancestors are the truth. Above an unknown city, classes are looked for by name, then by code
    (states within their country). Two of the data set's may be one of the model's, as England and
    Scotland are of a model that knows the United Kingdom; but a class that one of them has by name
    no other gets by its code: where the model has England, Scotland is unknown.

    Args:
        given: the data set's tree.
        model: the model's tree.

    Returns:
        The classes; of two equal trees, every class itself.
    """
    if given.places == model.places:
        return ClassMap(labels=dict(given.ancestors), unknown=())
    cities = _match_cities(_city_keys(given), _city_keys(model))
    known = cities != UNKNOWN
    labels: dict[Level, NDArray[np.intp]] = {"city": cities}
    for level in LEVELS[1:]:
        above = _match_above(given, model, level)[given.ancestors[level]]
        labels[level] = np.where(known, model.ancestors[level][cities], above)
    return ClassMap(labels=labels, unknown=tuple(np.flatnonzero(~known).tolist()))


def _match_cities(given: list[_Keys], model: list[_Keys]) -> NDArray[np.intp]:
    """For each of the given, the model's class by the first of its keys that decides."""
    ours, theirs = _owners(given), _owners(model)
    found = np.full(len(given), UNKNOWN, np.intp)
    for row, keys in enumerate(given):
        for key in keys:
            if len(ours[key]) == 1 and len(theirs.get(key, ())) == 1:
                found[row] = theirs[key][0]
                break
    return found


def _match_above(given: Hierarchy, model: Hierarchy, level: Level) -> NDArray[np.intp]:
    """For each of the given, the model's class by name, else by code where no name has taken it."""
    found = np.full(given.size(level), UNKNOWN, np.intp)
    for keys_of in (_name_keys, _code_keys):
        theirs, taken = _owners(keys_of(model, level)), set(found.tolist())
        for row, keys in enumerate(keys_of(given, level)):
            fits = {theirs[key][0] for key in keys if len(theirs.get(key, ())) == 1} - taken
            if found[row] == UNKNOWN and len(fits) == 1:
                found[row] = fits.pop()
    return found


def _owners(keys: Iterable[_Keys]) -> dict[Hashable, list[int]]:
    owners: dict[Hashable, list[int]] = defaultdict(list)
    for row, of_row in enumerate(keys):
        for key in dict.fromkeys(of_row):
            owners[key].append(row)
    return dict(owners)


def _city_keys(tree: Hierarchy) -> list[_Keys]:
    keys: list[_Keys] = []
    for city in tree.places["city"]:
        state = tree.places["state"][city.parent]
        country = tree.places["country"][state.parent]
        name, state_name = fold_name(city.name), fold_name(state.name)
        by_id = [] if city.geonameid is None else [("id", city.geonameid)]
        by_name = [(key, name) for key in _own_keys(country)]
        by_state = [(key, state_name, name) for key in _own_keys(country)]
        keys.append((*by_id, *by_name, *by_state))
    return keys


def _name_keys(tree: Hierarchy, level: Level) -> list[_Keys]:
    if level != "state":
        return [(fold_name(place.name),) for place in tree.places[level]]
    return [
        tuple(
            (key, fold_name(place.name)) for key in _own_keys(tree.places["country"][place.parent])
        )
        for place in tree.places["state"]
    ]


def _code_keys(tree: Hierarchy, level: Level) -> list[_Keys]:
    return [(place.code,) if place.code else () for place in tree.places[level]]


def _own_keys(place: Place) -> tuple[tuple[str, str], ...]:
    code = (("code", place.code),) if place.code else ()
    return (*code, ("name", fold_name(place.name)))
