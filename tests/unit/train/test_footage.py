"""Videos without labels become clips: nothing is cut that a scan would not look at."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from geotag.errors import ConfigError
from tests.media import cut, drop_moov, read_index, write_video
from train.data.dataset import BadSample, Sample, View
from train.data.footage import FootageClips, open_footage
from train.errors import DatasetError

FPS = 2
VIEW = View(frames=4, image_px=64, seed=3)


def _video(path: Path, seconds: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, frames=seconds * FPS, fps=FPS, gop=2)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of one to eight quarters of a minute, and one that is no video."""
    folder = tmp_path_factory.mktemp("dashcam")
    for number in range(8):
        _video(folder / "day" / f"drive {number}.mp4", 15 * (number + 1))
    (folder / "broken.mp4").write_bytes(b"no video" * 1000)
    return folder


def _videos(clips: FootageClips) -> list[str]:
    return [entry.name.partition("@")[0] for entry in clips.entries]


def _read(clips: FootageClips, view: View = VIEW) -> list[Sample | BadSample]:
    try:
        return [clips.read(index, view) for index in range(len(clips.entries))]
    finally:
        clips.close()


def test_about_one_video_in_four_is_held_out_and_none_is_on_both_sides(card: Path) -> None:
    train, val = (open_footage(card, split) for split in ("train", "val"))
    assert len(set(_videos(val))) == 2
    assert len(set(_videos(train))) == 6
    assert not set(_videos(train)) & set(_videos(val))
    assert {train.name, val.name} == {f"{card.name} train", f"{card.name} val"}


def test_a_long_video_gives_more_clips_each_from_another_place(card: Path) -> None:
    clips = [open_footage(card, split) for split in ("train", "val")]
    counts = {
        name: sum(_videos(one).count(name) for one in clips)
        for name in (f"day/drive {number}.mp4" for number in range(8))
    }
    assert counts == {f"day/drive {number}.mp4": 3 * (number + 1) for number in range(8)}
    names = [entry.name for one in clips for entry in one.entries]
    assert len(set(names)) == len(names)


def test_fewer_clips_are_shared_out_among_all_videos(card: Path) -> None:
    clips = open_footage(card, "train", clips=14)
    counts = {name: _videos(clips).count(name) for name in set(_videos(clips))}
    assert len(clips.entries) == 14
    assert max(counts.values()) - min(counts.values()) <= 1
    few = open_footage(card, "val", clips=1)
    assert len(few.entries) == 1


def test_no_city_is_known_and_a_group_is_a_drive(card: Path) -> None:
    clips = open_footage(card, "val", clips=8)
    assert {entry.city_id for entry in clips.entries} == {-1}
    groups = {
        name: {
            entry.group
            for entry, video in zip(clips.entries, _videos(clips), strict=True)
            if video == name
        }
        for name in _videos(clips)
    }
    assert all(len(one) == 1 for one in groups.values())
    assert clips.hierarchy.size("city") == 0
    assert clips.places_csv.count("\n") == 1
    assert all(isinstance(one, Sample) and one.city_id == -1 for one in _read(clips))


def test_the_same_clip_is_read_again_in_another_process(card: Path) -> None:
    clips = open_footage(card, "train", clips=8)
    copy = pickle.loads(pickle.dumps(clips))
    first, again = _read(clips), _read(copy)
    assert [type(one) for one in first] == [type(one) for one in again]
    for one, other in zip(first, again, strict=True):
        if isinstance(one, Sample):
            assert isinstance(other, Sample)
            assert np.array_equal(one.clip_THWC, other.clip_THWC)


def test_a_file_that_is_no_video_is_told_and_gives_no_clip(card: Path) -> None:
    clips = [open_footage(card, split) for split in ("train", "val")]
    assert "broken.mp4" not in {name for one in clips for name in _videos(one)}
    (bad,) = (bad for one in clips for bad in one.bad)
    assert bad.name == "broken.mp4"
    assert "broken.mp4: " in bad.reason
    assert str(card) not in bad.reason


def test_of_a_single_video_the_last_quarter_is_held_out(tmp_path: Path) -> None:
    path = _video(tmp_path / "long.mp4", 200)
    for place in (path, tmp_path):
        train, val = (open_footage(place, split) for split in ("train", "val"))
        assert (len(train.entries), len(val.entries)) == (30, 10)
        for clips, low_s, high_s in ((train, 0, 150), (val, 150, 200)):
            for sample in _read(clips):
                assert isinstance(sample, Sample)
                numbers = [read_index(picture) for picture in sample.clip_THWC]
                assert low_s * FPS <= min(numbers) <= max(numbers) <= high_s * FPS


def test_a_video_shorter_than_any_span_is_shown_whole(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        _video(tmp_path / name, 1 + (name == "b.mp4"))
    for split in ("train", "val"):
        (sample,) = _read(open_footage(tmp_path, split))
        assert isinstance(sample, Sample)


def test_a_truncated_video_gives_what_it_still_has(tmp_path: Path) -> None:
    # The index comes first, and still speaks of a minute.
    path = write_video(
        tmp_path / "cut.mp4",
        frames=60 * FPS,
        fps=FPS,
        gop=2,
        container_options={"movflags": "faststart"},
    )
    cut(path, 0.5)
    samples = _read(open_footage(path, "train")) + _read(open_footage(path, "val"))
    assert 4 <= len(samples) <= 7
    for sample in samples:
        assert isinstance(sample, Sample)
        assert max(read_index(picture) for picture in sample.clip_THWC) < 40 * FPS


def test_a_video_that_lost_its_index_is_told(tmp_path: Path) -> None:
    path = drop_moov(_video(tmp_path / "lost.mp4", 60))
    clips = open_footage(path, "train")
    (bad,) = clips.bad
    assert len(clips.entries) == 0
    assert "lost.mp4: the index (moov) is missing" in bad.reason


def test_copies_and_cameras_that_look_inside_are_left_out(tmp_path: Path) -> None:
    for number in range(4):
        _video(tmp_path / f"{number}.mp4", 5 + number)
    shutil.copy(tmp_path / "1.mp4", tmp_path / "again.mp4")
    _video(tmp_path / "2021_0101_120000_001I.MP4", 20)
    _video(tmp_path / "2021_0101_120000_001F.MP4", 21)
    clips = [open_footage(tmp_path, split) for split in ("train", "val")]
    names = {name for one in clips for name in _videos(one)}
    assert names == {"0.mp4", "1.mp4", "2.mp4", "3.mp4", "2021_0101_120000_001F.MP4"}
    assert any("1 videos that are there a second time" in note for note in clips[0].notes)
    assert any("1 videos of a camera that looks inside" in note for note in clips[0].notes)


def test_what_holds_no_video_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there are none to use.*cityguessr:PATH"):
        open_footage(tmp_path, "train")
    (tmp_path / "notes.txt").write_text("not a video")
    with pytest.raises(DatasetError, match="there are none to use"):
        open_footage(tmp_path, "val")
    with pytest.raises(ConfigError, match=r"missing.*No such file"):
        open_footage(tmp_path / "missing", "train")
    with pytest.raises(DatasetError, match=r"test split.*without labels"):
        open_footage(tmp_path, "test")
