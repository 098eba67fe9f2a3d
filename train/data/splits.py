"""Which samples are learned from, chosen by, and reported: pure functions of what a dataset holds.

Every rule is deterministic and knows no random state. By hash, a group's side depends on its own
name alone, so that more cities, or more clips of a city, change nothing for the others. A city
never loses all its training samples.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, get_args

import numpy as np

from train.data.dataset import Split
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from train.data.dataset import Entry

TEST_SHARE = 0.2
"""Source: CityGuessr68k is split 80:20; MSLS is by us."""
VAL_SHARE = 0.1
"""Of what is not test: taken out of training to choose and to calibrate on."""
GAP_CLIPS = 10
"""Between two blocks of a city, at most: clips next to each other show nearly the same place."""
GAP_SHARE = 0.02
"""Of a city's clips, at most: a city of few clips can spare few."""


def check_words(split: str, splitting: str, allowed: Sequence[str]) -> None:
    """Refuse a split, or a way of splitting, that a dataset does not have.

    Raises:
        DatasetError: with the words allowed.
    """
    if split not in get_args(Split):
        raise DatasetError(f"opening the split {split!r}: allowed are {', '.join(get_args(Split))}")
    if splitting not in allowed:
        raise DatasetError(f"splitting by {splitting!r}: allowed are {', '.join(allowed)}")


def hold_out(entries: Sequence[Entry], share: float = VAL_SHARE) -> tuple[list[int], list[int]]:
    """Take whole groups out of the training part.

    Args:
        entries: the training part.
        share: about how much of it is held out, 0 to 1.

    Returns:
        Indices that stay and indices that are held out, both ascending.
    """
    sides = _by_hash(entries, {"val": share}, salt="held out")
    return _indices(sides, "train"), _indices(sides, "val")


def hold_out_quarter(sizes: Mapping[str, int]) -> frozenset[str]:
    """Whole groups to hold out, about a quarter of all samples, where nobody says which.

    In the order of a hash of their names, each is held out that brings the samples held out nearer
    to a quarter of all. So of two groups and more at least one is, and never more than a half.

    Args:
        sizes: samples of each group.

    Returns:
        The groups held out; of a single group none.
    """
    if len(sizes) < 2:
        return frozenset()
    total, count = sum(sizes.values()), 0
    held: list[str] = []
    for group in sorted(sizes, key=lambda group: (_place(group, "quarter"), group)):
        if abs(4 * (count + sizes[group]) - total) <= abs(4 * count - total):
            held.append(group)
            count += sizes[group]
    return frozenset(held)


def split_groups(entries: Sequence[Entry], split: Split) -> list[int]:
    """Whole groups to the test and val sides, by hash; the rest is learned from.

    Returns:
        The indices of one split, ascending.
    """
    val = VAL_SHARE * (1 - TEST_SHARE)
    return _indices(_by_hash(entries, {"test": TEST_SHARE, "val": val}, salt="groups"), split)


def split_blocks(entries: Sequence[Entry], split: Split) -> list[int]:
    """The last clips of each city are test, those before them val, with a gap at either edge.

    Clips of one source video are likely to follow each other, so that two blocks next to each other
    share one video at most, and the gap, which is in no split, takes a part of that out. Of n clips
    of a city, round(0.2 n) are test and a tenth of the rest val, and before each of both lies a gap
    of min(10, 0.02 n) clips, rounded up. Of one or two clips all are learned from.

    Args:
        entries: those of a city in the order in which they were cut from their videos.
        split: which side.

    Returns:
        The indices of one split, ascending.
    """
    of_city: dict[int, list[int]] = defaultdict(list)
    for index, entry in enumerate(entries):
        of_city[entry.city_id].append(index)
    taken: list[int] = []
    for indices in of_city.values():
        begin, end = _block(len(indices), split)
        taken += indices[begin:end]
    return sorted(taken)


def split_areas(
    entries: Sequence[Entry],
    areas: Sequence[Hashable],
    tiles: Sequence[NDArray[np.int64]],
    split: Split,
) -> tuple[list[int], list[int]]:
    """Whole areas to the test and val sides, and nothing near them on a side before it.

    Test is looked at last and counts most: of training and val, every sample that touches a tile
    of a test sample is left out; of training, every one that touches a tile of val, too. A city
    that would lose all its training samples holds nothing out instead.

    Args:
        entries: the samples.
        areas: of each, its area; unique over all cities.
        tiles: of each, ascending numbers of the tiles that it touches, with their neighbours if
            a distance is to be kept; unique over all cities.
        split: which side.

    Returns:
        The indices of one split, and those that are in none, both ascending.
    """
    of_area = [f"{area}" for area in areas]
    shares = {"test": TEST_SHARE, "val": VAL_SHARE * (1 - TEST_SHARE)}
    sides = _by_hash(entries, shares, salt="areas", groups=of_area)
    for held, losing in (("test", ("train", "val")), ("val", ("train",))):
        held_tiles = _union(tiles[index] for index in _indices(sides, held))
        for index, side in enumerate(sides):
            if side in losing and _touches(tiles[index], held_tiles):
                sides[index] = "none"
    learned = {entries[index].city_id for index in _indices(sides, "train")}
    for index, entry in enumerate(entries):
        if entry.city_id not in learned:
            sides[index] = "train"
    return _indices(sides, split), _indices(sides, "none")


def _indices(sides: Sequence[str], side: str) -> list[int]:
    return [index for index, found in enumerate(sides) if found == side]


def _union(tiles: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    found = list(tiles)
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def _touches(tiles: NDArray[np.int64], held_tiles: NDArray[np.int64]) -> bool:
    if not len(held_tiles):
        return False
    at = np.searchsorted(held_tiles, tiles)
    return bool((held_tiles[np.minimum(at, len(held_tiles) - 1)] == tiles).any())


def _block(clips: int, split: Split) -> tuple[int, int]:
    """First clip of a block of one city and the one after its last."""
    test = round(TEST_SHARE * clips)
    val = round(VAL_SHARE * (clips - test))
    gap = min(GAP_CLIPS, int(np.ceil(GAP_SHARE * clips)))
    test_from = clips - test
    val_to = test_from - gap if test else clips
    val_from = val_to - val
    train_to = val_from - gap if val else val_to
    return {"train": (0, train_to), "val": (val_from, val_to), "test": (test_from, clips)}[split]


def _by_hash(
    entries: Sequence[Entry],
    shares: dict[str, float],
    *,
    salt: str,
    groups: Sequence[str] | None = None,
) -> list[str]:
    """The side of every sample; `train` is what the shares leave over.

    Of a city whose groups are all held out, the one with the highest hash is learned from instead.
    """
    of_entry = [entry.group for entry in entries] if groups is None else groups
    places = {group: _place(group, salt) for group in set(of_entry)}
    sides = {group: _side(place, shares) for group, place in places.items()}
    of_city: dict[int, set[str]] = defaultdict(set)
    for entry, group in zip(entries, of_entry, strict=True):
        of_city[entry.city_id].add(group)
    for city_groups in of_city.values():
        if all(_side(places[group], shares) != "train" for group in city_groups):
            sides[max(city_groups, key=lambda group: (places[group], group))] = "train"
    return [sides[group] for group in of_entry]


def _place(group: str, salt: str) -> float:
    """Where a group lies in 0..1: the same on every machine, unlike Python's own hash."""
    digest = hashlib.blake2b(
        f"{salt}/{group}".encode("utf-8", "surrogateescape"), digest_size=8
    ).digest()
    return int.from_bytes(digest, "big") / 2**64


def _side(place: float, shares: dict[str, float]) -> str:
    upto = 0.0
    for side, share in shares.items():
        upto += share
        if place < upto:
            return side
    return "train"
