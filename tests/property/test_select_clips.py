"""Whatever footage there is, the chosen clips cover it as evenly as it allows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.select import Candidate, measure_light, select_clips


@st.composite
def pools(draw: st.DrawFn) -> list[Candidate]:
    """Lopsided footage: some cities, lights and scenes are far rarer than others."""
    count = draw(st.integers(1, 60))
    labelled = draw(st.booleans())
    return [
        Candidate(
            number=7 * number,
            name=f"clip {number}",
            group=f"drive {draw(st.integers(0, 5))}",
            city=draw(st.sampled_from([0, 0, 0, 1, 2, 3, None])) if labelled else None,
            scene=draw(st.sampled_from([4, 4, 4, 9, None])) if labelled else None,
            light=draw(st.sampled_from([20.0, 100.0, 110.0, 120.0, 200.0])),
            contrast=draw(st.floats(0, 127)),
        )
        for number in range(count)
    ]


def cell(candidate: Candidate) -> tuple[object, ...]:
    return candidate.city, candidate.scene, candidate.light_bin


def values(pool: list[Candidate]) -> set[tuple[str, object]]:
    """Every city, scene and light that there is."""
    return {
        (kind, getattr(candidate, kind))
        for candidate in pool
        for kind in ("city", "scene", "light_bin")
    }


def chosen_from(pool: list[Candidate], count: int) -> list[Candidate]:
    by_number = {candidate.number: candidate for candidate in pool}
    return [by_number[number] for number in select_clips(pool, count)]


@given(pools(), st.integers(0, 80))
def test_as_many_as_are_wanted_or_there_are_and_none_twice(
    pool: list[Candidate], count: int
) -> None:
    chosen = select_clips(pool, count)
    assert len(chosen) == min(count, len(pool))
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= {candidate.number for candidate in pool}


@given(pools(), st.integers(0, 60), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_makes_no_difference(
    pool: list[Candidate], count: int, random: object
) -> None:
    mixed = list(pool)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert select_clips(mixed, count) == select_clips(pool, count)


@given(pools())
def test_every_city_light_and_scene_is_there_once_the_count_allows_it(
    pool: list[Candidate],
) -> None:
    wanted = values(pool)
    assert values(chosen_from(pool, len(wanted))) == wanted


@given(pools(), st.integers(1, 60))
def test_no_cell_has_two_more_than_one_that_could_still_give(
    pool: list[Candidate], count: int
) -> None:
    there, taken = Counter(map(cell, pool)), Counter(map(cell, chosen_from(pool, count)))
    most = max(taken.values())
    assert all(taken[one] >= most - 1 or taken[one] == there[one] for one in there)


@given(pools(), st.integers(1, 60))
def test_the_first_few_are_the_choice_of_few(pool: list[Candidate], count: int) -> None:
    assert select_clips(pool, len(pool))[:count] == select_clips(pool, count)


def test_scenes_of_one_city_alone_are_covered_before_others_show_theirs_in_every_light() -> None:
    alone = [made(number, city=0, scene=number) for number in range(10)]
    others = [
        made(10 * city + number, city=city, scene=0, light=light)
        for city in (1, 2, 3)
        for number, light in enumerate((10.0, 60.0, 100.0, 200.0))
    ]
    pool = alone + others  # 4 cities, 10 scenes, 4 lights
    assert {candidate.scene for candidate in chosen_from(pool, 18)} == set(range(10))


def test_one_rare_night_among_a_thousand_days_is_chosen() -> None:
    days = [made(number, light=110.0) for number in range(1000)]
    night = made(1000, light=10.0)
    assert 1000 in select_clips([*days, night], 32)


def test_of_one_cell_every_drive_gives_before_any_gives_twice() -> None:
    pool = [made(number, group=f"drive {max(0, number - 90)}") for number in range(100)]
    drives = Counter(candidate.group for candidate in chosen_from(pool, 12))
    assert drives == {"drive 0": 3} | {f"drive {number}": 1 for number in range(1, 10)}


def test_of_one_drive_dull_and_glaring_clips_are_both_chosen() -> None:
    pool = [made(number, contrast=50.0) for number in range(98)]
    pool += [made(98, contrast=5.0), made(99, contrast=90.0)]
    assert {98, 99} <= set(select_clips(pool, 4))


def test_two_candidates_of_one_number_are_refused() -> None:
    with pytest.raises(ValueError, match="'clip 1' and 'other'"):
        select_clips([made(1), made(1, name="other")], 1)
    with pytest.raises(ValueError, match="-1"):
        select_clips([made(1)], -1)


def test_light_is_luma_and_contrast_is_within_frames() -> None:
    clip_THWC = np.zeros((2, 8, 8, 3), np.uint8)
    clip_THWC[1] = (0, 255, 0)  # 0.587 of full luma: between frames, which is no contrast
    assert measure_light(clip_THWC) == pytest.approx((0.587 * 255 / 2, 0.0), abs=1e-3)
    clip_THWC[:, :4] = 255
    clip_THWC[:, 4:] = 0
    assert measure_light(clip_THWC) == pytest.approx((127.5, 127.5), abs=1e-3)


def made(
    number: int,
    *,
    name: str | None = None,
    group: str = "drive",
    city: int = 0,
    scene: int | None = None,
    light: float = 100.0,
    contrast: float = 50.0,
) -> Candidate:
    return Candidate(
        number=number,
        name=name or f"clip {number}",
        group=group,
        city=city,
        scene=scene,
        light=light,
        contrast=contrast,
    )
