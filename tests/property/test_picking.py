from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data.dataset import Picking, View
from train.data.picking import order_frames, pick_frames

PICKINGS: list[Picking] = ["uniform", "mixed", "reference", "lexicographic"]
ASCENDING: list[Picking] = ["uniform", "mixed", "reference"]
SEEDS = st.none() | st.integers(0, 2**32)


def view(picking: Picking, frames: int = 16, **more: int | None) -> View:
    return View(frames=frames, image_px=8, picking=picking, **more)  # type: ignore[arg-type]


@given(
    count=st.integers(1, 1200),
    frames=st.integers(1, 64),
    picking=st.sampled_from(PICKINGS),
    seed=SEEDS,
    index=st.integers(0, 70_000),
    parts=st.integers(1, 9),
)
def test_as_many_as_asked_for_all_inside_the_clip_and_the_same_again(
    count: int, frames: int, picking: Picking, seed: int | None, index: int, parts: int
) -> None:
    for part in range(parts):
        asked = view(picking, frames, seed=seed, part=part, parts=parts)
        picked = pick_frames(count, asked, index)
        assert picked.shape == (frames,)
        assert picked.min() >= 0
        assert picked.max() < count
        assert picked.dtype == np.intp
        assert np.array_equal(picked, pick_frames(count, asked, index))
        if picking != "lexicographic":
            assert (np.diff(picked) >= 0).all()


@given(count=st.integers(1, 1200), frames=st.integers(1, 64), seed=SEEDS, index=st.integers(0, 99))
def test_one_frame_from_each_equal_part(
    count: int, frames: int, seed: int | None, index: int
) -> None:
    picked = pick_frames(count, view("uniform", frames, seed=seed), index)
    for part, frame in enumerate(picked.tolist()):
        # In whole numbers: frame .. frame + 1 touches count * part / frames .. + 1 part.
        assert frame * frames < count * (part + 1)
        assert (frame + 1) * frames > count * part


@given(count=st.integers(16, 1200), seed=st.integers(0, 2**32), index=st.integers(0, 99))
def test_no_frame_twice_where_there_are_enough(count: int, seed: int, index: int) -> None:
    for picking in ("uniform", "mixed"):
        picked = pick_frames(count, view(picking, seed=None), index)
        assert len(set(picked.tolist())) == 16
    stretch = pick_frames(count, view("mixed", seed=seed), index)
    assert stretch[-1] - stretch[0] <= count - 1


@given(frames=st.integers(1, 32), parts=st.integers(1, 8), more=st.integers(0, 500))
def test_parts_share_no_frame_where_the_clip_has_enough(frames: int, parts: int, more: int) -> None:
    count = frames * parts + more
    picked = [
        frame
        for part in range(parts)
        for frame in pick_frames(count, view("uniform", frames, part=part, parts=parts), 0).tolist()
    ]
    assert len(set(picked)) == frames * parts


@given(turns=st.integers(1, 3), frames=st.integers(1, 20))
def test_parts_of_every_fifth_share_no_frame_where_the_clip_has_enough(
    turns: int, frames: int
) -> None:
    parts, count = 5 * turns, 5 * turns * frames
    picked = [
        frame
        for part in range(parts)
        for frame in pick_frames(
            count, view("reference", frames, part=part, parts=parts), 0
        ).tolist()
    ]
    assert sorted(picked) == list(range(count))


def test_reference_is_every_fifth_from_the_first() -> None:
    assert pick_frames(100, view("reference"), 0).tolist() == list(range(0, 80, 5))


def test_reference_repeats_the_last_of_a_short_clip() -> None:
    expected = [0, 5, 10, 15, 20, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25]
    assert pick_frames(30, view("reference"), 0).tolist() == expected


def test_lexicographic_takes_the_frames_that_the_released_code_takes() -> None:
    expected = [1, 13, 18, 22, 27, 31, 36, 40, 45, 5, 54, 59, 63, 68, 72, 77]
    picked = pick_frames(100, view("lexicographic"), 0)
    assert (picked + 1).tolist() == expected
    listing = sorted(f"{number}.jpg" for number in range(1, 101))
    assert [f"{number}.jpg" for number in expected] == listing[0:80:5]
    names = order_frames(listing)
    picked = pick_frames(100, view("lexicographic"), 0, names=names)
    assert [names[frame] for frame in picked] == listing[0:80:5]


def test_the_middle_of_every_part_without_a_seed() -> None:
    assert pick_frames(32, view("uniform"), 0).tolist() == list(range(1, 32, 2))
    assert pick_frames(16, view("uniform"), 0).tolist() == list(range(16))
    assert pick_frames(3, view("uniform", 6), 0).tolist() == [0, 0, 1, 1, 2, 2]


@given(count=st.integers(1, 300), frames=st.integers(1, 20))
def test_mixed_without_a_seed_is_uniform(count: int, frames: int) -> None:
    mixed = pick_frames(count, view("mixed", frames), 3)
    assert np.array_equal(mixed, pick_frames(count, view("uniform", frames), 3))


def test_mixed_goes_from_consecutive_frames_to_the_whole_clip() -> None:
    extents = {
        int(picked[-1] - picked[0])
        for index in range(2000)
        for picked in [pick_frames(100, view("mixed", seed=1), index)]
    }
    assert min(extents) == 15
    assert max(extents) >= 95


def test_another_seed_another_index_and_another_part_jitter_otherwise() -> None:
    def picked(seed: int, index: int, part: int) -> tuple[int, ...]:
        asked = view("uniform", seed=seed, part=part, parts=2)
        return tuple(pick_frames(1000, asked, index).tolist())

    assert len({picked(1, 1, 0), picked(2, 1, 0), picked(1, 2, 0), picked(1, 1, 1)}) == 4


@pytest.mark.parametrize(
    ("count", "asked"),
    [
        (0, view("uniform")),
        (-1, view("uniform")),
        (10, view("uniform", 0)),
        (10, view("uniform", part=2, parts=2)),
        (10, view("uniform", part=-1, parts=2)),
    ],
)
def test_nothing_to_pick_is_an_error(count: int, asked: View) -> None:
    with pytest.raises(ValueError, match="picking"):
        pick_frames(count, asked, 0)


def test_frames_are_in_the_order_of_their_numbers_and_nothing_else_is_a_frame() -> None:
    names = ["10.jpg", "2.jpg", "1.JPG", "._2.jpg", "Thumbs.db", "x3.jpg", "3.jpeg", "4.png", ""]
    assert order_frames(names) == ["1.JPG", "2.jpg", "3.jpeg", "10.jpg"]


@given(st.lists(st.text(max_size=12)))
def test_any_names_can_be_ordered(names: list[str]) -> None:
    assert set(order_frames(names)) <= set(names)


@given(st.sets(st.integers(0, 10_000), min_size=1, max_size=100), st.randoms())
def test_order_does_not_depend_on_the_listing(numbers: set[int], random: object) -> None:
    names = [f"{number}.jpg" for number in numbers]
    random.shuffle(names)  # type: ignore[attr-defined]
    assert order_frames(names) == [f"{number}.jpg" for number in sorted(numbers)]


@given(count=st.integers(1, 300), frames=st.integers(3, 40), seed=st.none() | st.integers(0, 9))
def test_ends_holds_the_first_the_middle_and_the_last_frame(
    count: int, frames: int, seed: int | None
) -> None:
    view = View(frames=frames, image_px=8, picking="ends", seed=seed)
    picked = pick_frames(count, view, 0)
    assert picked.tolist() == sorted(picked.tolist())
    assert (picked[0], picked[frames // 2], picked[-1]) == (0, count // 2, count - 1)
    assert len(picked) == frames


@given(
    count=st.integers(1, 300),
    frames=st.integers(1, 20),
    span_s=st.floats(0.01, 100),
    frame_s=st.floats(0.01, 10),
    seed=st.none() | st.integers(0, 9),
)
def test_a_span_takes_frames_no_further_apart_than_it_is_long(
    count: int, frames: int, span_s: float, frame_s: float, seed: int | None
) -> None:
    view = View(frames=frames, image_px=8, span_s=span_s, frame_s=frame_s, seed=seed)
    picked = pick_frames(count, view, 0)
    assert picked.min() >= 0
    assert picked.max() < count
    assert picked.tolist() == sorted(picked.tolist())
    assert np.ptp(picked) < max(frames, round(span_s / frame_s), 1)
