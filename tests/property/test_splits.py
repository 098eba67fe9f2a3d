from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data.dataset import Entry, Split
from train.data.splits import (
    GAP_CLIPS,
    check_words,
    hold_out,
    hold_out_quarter,
    split_areas,
    split_blocks,
    split_groups,
)
from train.errors import DatasetError

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@st.composite
def entries_of_cities(draw: st.DrawFn, first_city: int = 0) -> list[Entry]:
    """Cities of 1 to 60 clips in groups of 1 to 6; a group stays in its city."""
    entries = []
    for city in range(first_city, first_city + draw(st.integers(1, 5))):
        clips, size = draw(st.integers(1, 60)), draw(st.integers(1, 6))
        entries += [
            Entry(name=f"c{city}_{clip:04}", city_id=city, group=f"c{city}/{clip // size}")
            for clip in range(clips)
        ]
    return entries


def cities_of(entries: list[Entry], indices: list[int]) -> set[int]:
    return {entries[index].city_id for index in indices}


def groups_of(entries: list[Entry], indices: list[int]) -> set[str]:
    return {entries[index].group for index in indices}


@given(entries_of_cities())
def test_groups_lie_on_one_side_and_every_sample_on_one(entries: list[Entry]) -> None:
    train, val, test = (split_groups(entries, split) for split in SPLITS)
    assert sorted(train + val + test) == list(range(len(entries)))
    assert not groups_of(entries, train) & groups_of(entries, val + test)
    assert not groups_of(entries, val) & groups_of(entries, test)
    assert cities_of(entries, train) == cities_of(entries, list(range(len(entries))))
    assert train == sorted(train)


@given(entries_of_cities())
def test_what_is_held_out_shares_no_group_with_what_stays(entries: list[Entry]) -> None:
    train, val = hold_out(entries)
    assert sorted(train + val) == list(range(len(entries)))
    assert not groups_of(entries, train) & groups_of(entries, val)
    assert cities_of(entries, train) == cities_of(entries, list(range(len(entries))))


@given(entries_of_cities(), entries_of_cities(first_city=5), st.sampled_from(SPLITS))
def test_more_cities_change_no_split_of_the_others(
    entries: list[Entry], others: list[Entry], split: Split
) -> None:
    count = len(entries)
    for rule in (split_groups, split_blocks, lambda e, s: hold_out(e)[s == "val"]):
        alone = rule(entries, split)
        together = rule(entries + others, split)
        assert [index for index in together if index < count] == alone


@given(entries_of_cities(), st.randoms())
def test_groups_do_not_depend_on_the_order_of_the_samples(
    entries: list[Entry], random: object
) -> None:
    shuffled = list(entries)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for split in SPLITS:
        names = {entries[index].name for index in split_groups(entries, split)}
        assert {shuffled[index].name for index in split_groups(shuffled, split)} == names


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=60))
def test_groups_that_span_cities_stay_whole_and_no_city_loses_all_training(
    pairs: list[tuple[int, int]],
) -> None:
    entries = [
        Entry(name=str(number), city_id=city, group=f"drive {drive}")
        for number, (city, drive) in enumerate(pairs)
    ]
    sides: dict[str, set[str]] = {}
    for split in SPLITS:
        for index in split_groups(entries, split):
            sides.setdefault(entries[index].group, set()).add(split)
    assert all(len(found) == 1 for found in sides.values())
    train = split_groups(entries, "train")
    assert cities_of(entries, train) == {city for city, _ in pairs}


def test_shares_are_about_as_wanted() -> None:
    entries = [
        Entry(name=f"{number}", city_id=number % 20, group=f"{number}") for number in range(20_000)
    ]
    counts = {split: len(split_groups(entries, split)) for split in SPLITS}
    assert abs(counts["test"] / 20_000 - 0.2) < 0.01
    assert abs(counts["val"] / 20_000 - 0.08) < 0.01
    assert abs(len(hold_out(entries)[1]) / 20_000 - 0.1) < 0.01


@pytest.mark.parametrize("clips", [*range(1, 70), 160, 330, 1000])
def test_blocks_follow_each_other_with_a_gap_between(clips: int) -> None:
    entries = [Entry(name=f"a_{n}", city_id=0, group=f"a_{n}") for n in range(clips)]
    train, val, test = (split_blocks(entries, split) for split in SPLITS)
    assert train
    assert train == list(range(len(train)))
    if test:
        assert test == list(range(test[0], clips))
        assert len(test) == round(0.2 * clips)
        before = val or train
        assert 1 <= test[0] - before[-1] - 1 <= GAP_CLIPS
    if val:
        assert 1 <= val[0] - train[-1] - 1 <= GAP_CLIPS
        assert val == list(range(val[0], val[-1] + 1))


def test_blocks_of_a_city_of_a_hundred_clips() -> None:
    entries = [Entry(name=f"a_{n}", city_id=0, group=f"a_{n}") for n in range(100)]
    assert split_blocks(entries, "test") == list(range(80, 100))
    assert split_blocks(entries, "val") == list(range(70, 78))
    assert split_blocks(entries, "train") == list(range(68))


@st.composite
def walks(draw: st.DrawFn) -> tuple[list[Entry], list[str], list[np.ndarray]]:
    """Sequences on a line of tiles in two cities; each touches some tiles and their neighbours."""
    entries, areas, tiles = [], [], []
    for city in range(2):
        for number in range(draw(st.integers(1, 25))):
            start, length = draw(st.integers(0, 200)), draw(st.integers(1, 8))
            entries.append(Entry(name=f"{city}/{number}", city_id=city, group=f"{city}/{number}"))
            areas.append(f"{city}/{(start + length // 2) // 10}")
            tiles.append(city * 1000 + np.arange(start, start + length, dtype=np.int64))
    return entries, areas, tiles


@given(walks())
def test_nothing_that_is_learned_from_touches_what_is_held_out(
    walk: tuple[list[Entry], list[str], list[np.ndarray]],
) -> None:
    entries, areas, tiles = walk
    sides = [split_areas(entries, areas, tiles, split)[0] for split in SPLITS]
    left_out = split_areas(entries, areas, tiles, "train")[1]
    assert sorted([*sides[0], *sides[1], *sides[2], *left_out]) == list(range(len(entries)))
    touched = [{int(tile) for index in side for tile in tiles[index]} for side in sides]
    assert not touched[0] & touched[1]
    assert not touched[0] & touched[2]
    assert not touched[1] & touched[2]
    assert cities_of(entries, sides[0]) == {0, 1}


def test_areas_hold_out_about_a_fifth_of_a_large_city() -> None:
    entries = [Entry(name=f"{n}", city_id=0, group=f"{n}") for n in range(2000)]
    tiles = [np.array([n], dtype=np.int64) for n in range(2000)]
    counts = Counter(
        {split: len(split_areas(entries, range(2000), tiles, split)[0]) for split in SPLITS}
    )
    assert abs(counts["test"] / 2000 - 0.2) < 0.03
    assert counts.total() == 2000


@pytest.mark.parametrize(("split", "splitting"), [("tset", "official"), ("test", "blcks")])
def test_a_word_that_is_no_split_is_told_with_those_allowed(split: str, splitting: str) -> None:
    with pytest.raises(DatasetError, match="allowed are"):
        check_words(split, splitting, ("official", "blocks"))


@given(st.dictionaries(st.text(max_size=8), st.integers(1, 500), min_size=2, max_size=40))
def test_about_a_quarter_is_held_out_and_never_nothing_or_most(sizes: dict[str, int]) -> None:
    held = hold_out_quarter(sizes)
    count, total = sum(sizes[group] for group in held), sum(sizes.values())
    assert 0 < count <= total / 2
    # Another group would bring it no nearer.
    others = [sizes[group] for group in sizes if group not in held]
    assert all(abs(count + size - total / 4) > abs(count - total / 4) for size in others)


def test_one_video_in_four_is_held_out_whatever_their_order_and_none_of_one() -> None:
    names = [f"VID_{number:03}.mp4" for number in range(100)]
    held = hold_out_quarter(dict.fromkeys(names, 1))
    assert len(held) == 25
    assert hold_out_quarter(dict.fromkeys(reversed(names), 1)) == held
    assert held != frozenset(names[:25])
    assert hold_out_quarter({"only.mp4": 40}) == frozenset()
