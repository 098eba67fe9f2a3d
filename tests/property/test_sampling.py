"""What holds for every window of every video, not only for the examples."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from geotag.footage.clips import (
    Sampling,
    Window,
    dense_stride,
    nearest,
    plan_windows,
    shorten,
    wanted_times,
    widest_gap_s,
)
from geotag.footage.decode import VideoReader, open_video
from geotag.footage.discover import find_videos
from geotag.sampling import MOST_AUTO_CLIPS, count_clips
from tests.media import read_index, write_video

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geotag.types import Policy

seconds = st.floats(0.01, 20_000, allow_nan=False)
FPS, FRAMES = 25, 75


@given(duration_s=seconds, span_s=st.floats(0.05, 600), count=st.integers(1, 40))
@example(duration_s=3.75, span_s=2.5, count=3)
@example(duration_s=60.0, span_s=21.0, count=5)
def test_windows_lie_inside_the_video_and_overlap_by_half_at_most(
    duration_s: float, span_s: float, count: int
) -> None:
    windows = plan_windows(duration_s, span_s, count)
    assert 1 <= len(windows) <= count
    for window in windows:
        assert 0 <= window.start_s < window.end_s <= duration_s * (1 + 1e-9)
        assert window.end_s - window.start_s == pytest.approx(min(span_s, duration_s))
    starts_s = sorted(window.start_s for window in windows)
    for before_s, after_s in itertools.pairwise(starts_s):
        assert after_s - before_s >= span_s / 2 * (1 - 1e-9)


@given(duration_s=st.floats(100, 20_000), count=st.integers(1, 30))
def test_the_first_window_is_the_most_central_and_more_windows_keep_spreading(
    duration_s: float, count: int
) -> None:
    windows = plan_windows(duration_s, 2.5, count)
    sides_s = [(window.start_s + window.end_s - duration_s) / 2 for window in windows]
    assert abs(sides_s[0]) == pytest.approx(min(map(abs, sides_s)), abs=1e-6)
    if count >= 3:
        assert min(sides_s[:3]) < 0 < max(sides_s[:3])


@given(count=st.integers(1, 40))
def test_windows_come_farthest_first_and_of_equals_the_farthest_from_all(count: int) -> None:
    # Spans that tile the video twice over, so that all of them fit.
    windows = plan_windows(1000.0 + 10.0 * count, 20.0, count)
    starts_s = np.sort([window.start_s for window in windows])
    order = [int(np.searchsorted(starts_s, window.start_s)) for window in windows]
    assert len(order) == count
    for place, index in enumerate(order):
        before = np.array(order[:place])

        def rank(other: int, before: np.ndarray = before) -> tuple[float, float, float, int]:
            distances = np.abs(before - other)
            centre = abs(other - (count - 1) / 2)
            return (-distances.min(initial=count), -distances.sum(), centre, other)

        assert index == min(order[place:], key=rank)


def test_thousands_of_windows_are_planned_at_once() -> None:
    began_s = time.perf_counter()
    windows = plan_windows(800_000.0, 21.0, 3000)
    assert time.perf_counter() - began_s < 3  # a cubic order takes many minutes
    assert len({window.start_s for window in windows}) == 3000


def test_a_lying_duration_does_not_give_thousands_of_clips() -> None:
    assert count_clips(800_000.0, None, 3) == MOST_AUTO_CLIPS == 32
    assert count_clips(9000.0, None, 3) == 32
    assert count_clips(1500.0, None, 3) == 7
    # What was asked for, by the user or by the bundle, is given.
    assert count_clips(800_000.0, 100, 3) == 100
    assert count_clips(800_000.0, None, 40) == 40


@given(duration_s=st.one_of(st.none(), st.floats(-5, 0)), span_s=seconds)
def test_an_unknown_or_impossible_duration_gives_one_window_from_the_start(
    duration_s: float | None, span_s: float
) -> None:
    (window,) = plan_windows(duration_s, span_s, 5)
    assert window.start_s == 0
    assert window.end_s > 0


@pytest.mark.parametrize(("span_s", "count"), [(0.0, 1), (-1.0, 1), (2.5, 0)])
def test_impossible_requests_are_refused(span_s: float, count: int) -> None:
    with pytest.raises(ValueError, match="must be > 0"):
        plan_windows(10.0, span_s, count)


@given(start_s=seconds, length_s=st.floats(0.001, 600), frames=st.integers(1, 64))
def test_wanted_times_are_even_and_inside(start_s: float, length_s: float, frames: int) -> None:
    window = Window(start_s=start_s, end_s=start_s + length_s)
    times = wanted_times(window, frames)
    assert len(times) == frames
    assert times[0] == start_s
    assert times[-1] < window.end_s
    assert np.all(np.diff(times) > 0) or frames == 1
    assert np.ptp(np.diff(times)) < 1e-6 if frames > 2 else True


@given(
    start_s=st.floats(0, 100),
    length_s=st.floats(0.01, 100),
    frames=st.integers(1, 64),
    fps=st.floats(0.1, 240),
    duration_s=st.one_of(st.none(), st.floats(0.01, 300)),
)
def test_a_dense_stride_is_a_whole_step_that_stays_in_the_video(
    start_s: float, length_s: float, frames: int, fps: float, duration_s: float | None
) -> None:
    window = Window(start_s=start_s, end_s=start_s + length_s)
    stride = dense_stride(window, frames, fps, duration_s)
    assert isinstance(stride, int)
    assert stride >= 1
    assert stride <= max(1, round((window.end_s - window.start_s) * fps / frames))
    if duration_s is not None and stride > 1 and frames > 1:
        assert start_s + (frames - 1) * stride / fps <= duration_s + 1 / fps


times_of_frames = st.lists(st.integers(0, 5000), min_size=1, max_size=60, unique=True).map(
    lambda ticks: np.sort(np.array(ticks)) / 100
)


@given(
    times_s=times_of_frames,
    start_s=st.floats(0, 60),
    length_s=st.floats(0.01, 60),
    frames=st.integers(1, 24),
)
def test_nearest_is_nearest_unless_all_would_be_one_frame(
    times_s: np.ndarray, start_s: float, length_s: float, frames: int
) -> None:
    wanted = wanted_times(Window(start_s=start_s, end_s=start_s + length_s), frames)
    picked = nearest(times_s, wanted)
    best = np.abs(times_s[None] - wanted[:, None]).min(axis=1)
    assert np.all(np.diff(picked) >= 0)
    if len(set(np.abs(times_s[None] - wanted[:, None]).argmin(axis=1).tolist())) > 1:
        assert np.abs(times_s[picked] - wanted) == pytest.approx(best, abs=2e-6)
    if len(times_s) > 1 and frames > 1:
        assert len(set(picked.tolist())) > 1


@given(times_s=times_of_frames, start_s=st.floats(0, 80), length_s=st.floats(0.01, 60))
def test_a_shortened_window_is_never_longer_and_never_past_the_last_frame(
    times_s: np.ndarray, start_s: float, length_s: float
) -> None:
    window = Window(start_s=start_s, end_s=start_s + length_s)
    part = shorten(window, times_s)
    step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
    assert part.end_s >= part.start_s
    assert part.end_s - part.start_s <= length_s + 1e-9
    assert part.end_s <= max(float(times_s[-1]) + step_s, part.start_s) + 1e-9
    if times_s[0] <= start_s < times_s[-1]:
        assert part.start_s == start_s


@given(times_s=times_of_frames, start_s=st.floats(0, 60), length_s=st.floats(0.01, 60))
def test_the_widest_gap_is_between_the_windows_length_and_its_share(
    times_s: np.ndarray, start_s: float, length_s: float
) -> None:
    window = Window(start_s=start_s, end_s=start_s + length_s)
    gap_s = widest_gap_s(times_s, window)
    inside = int(((times_s > window.start_s) & (times_s < window.end_s)).sum())
    assert length_s / (inside + 1) - 1e-9 <= gap_s <= length_s + 1e-9


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[VideoReader]]:
    """The same numbered frames in three containers, with and without B-frames, and bare."""
    folder = tmp_path_factory.mktemp("videos")
    settings_of = {
        "a.mp4": {"b_frames": 2},
        "a.ts": {},
        "a.h264": {"container": "h264"},
    }
    opened = []
    for name, options in settings_of.items():
        path = write_video(folder / name, frames=FRAMES, fps=FPS, gop=12, size=(96, 64), **options)
        opened.append(open_video(find_videos(path)[0], decode_threads=1))
    yield opened
    for reader in opened:
        reader.close()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    number=st.integers(0, 2),
    policy=st.sampled_from(["dense", "exact", "keyframe"]),
    start_s=st.floats(0, 4),
    length_s=st.floats(0.02, 5),
    frames=st.integers(2, 16),
    max_gap_s=st.sampled_from([0.1, 1.0]),
)
def test_every_clip_has_its_frames_in_order_and_their_true_times(
    readers: list[VideoReader],
    number: int,
    policy: Policy,
    start_s: float,
    length_s: float,
    frames: int,
    max_gap_s: float,
) -> None:
    sampling = Sampling(
        policy=policy,
        span_s=length_s,
        frames=frames,
        height_px=32,
        width_px=48,
        max_keyframe_gap_s=max_gap_s,
    )
    clip = readers[number].read_clip(Window(start_s=start_s, end_s=start_s + length_s), sampling)
    assert clip.frames_THWC.shape == (frames, 32, 48, 3)
    assert list(clip.times_s) == sorted(clip.times_s)
    assert 0 <= clip.times_s[0] <= clip.times_s[-1] < FRAMES / FPS
    assert len(set(clip.times_s)) > 1
    assert [read_index(picture) for picture in clip.frames_THWC] == [
        round(time_s * FPS) for time_s in clip.times_s
    ]
    assert (clip.policy == policy) or clip.fallback
    if clip.policy == "keyframe":
        assert all(round(time_s * FPS) % 12 == 0 for time_s in clip.times_s)
