"""Real files: every one of them opens or is refused for the right reason."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from geotag.footage.clips import Sampling, plan_windows
from geotag.footage.decode import open_video
from geotag.footage.discover import find_videos
from geotag.types import FootageError, Video

FOOTAGE = Path(__file__).resolve().parents[2].parent / "shared" / "footage"
pytestmark = pytest.mark.skipif(not FOOTAGE.is_dir(), reason="the shared footage is not here")

REFUSED = {
    "bad/20210822_133932_00954F.MP4": ("decode", "too_short"),
    "bad/audio_only.mp4": ("open", "no_video_stream"),
    "bad/header_only_32_bytes.mp4": ("open", "damaged"),
    "bad/jpeg_named_mp4.mp4": ("open", "not_video"),
    "bad/no_moov.mp4": ("open", "damaged"),
    "bad/text_named_mov.mov": ("open", "not_video"),
    "bad/truncated_moov_at_end_lost.mp4": ("open", "damaged"),
    "bad/zero_byte.mp4": ("open", "empty"),
}
DAMAGED = {"bad/corrupt_payload.mp4", "bad/truncated_mid_mdat.mp4"}
NO_VIDEO = (".srt", ".fit", ".raw", ".txt", ".gpx", ".nmea")

VIDEOS = find_videos(FOOTAGE) if FOOTAGE.is_dir() else []
GOOD = [video for video in VIDEOS if video.name not in REFUSED]


def read_manifest() -> dict[str, dict[str, str]]:
    if not FOOTAGE.is_dir():
        return {}
    with (FOOTAGE / "manifest.csv").open(encoding="utf-8", newline="") as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


MANIFEST = read_manifest()


def name_of(video: Video) -> str:
    return video.name


def sampling(policy: str, span_s: float) -> Sampling:
    return Sampling(
        policy=policy,
        span_s=span_s,
        frames=16,
        height_px=112,
        width_px=112,
        max_keyframe_gap_s=2.0,
    )


def test_the_walk_finds_every_video_and_nothing_else() -> None:
    expected = {name for name in MANIFEST if not name.endswith(NO_VIDEO)}
    assert {video.name for video in VIDEOS} == expected
    assert len(VIDEOS) == 32
    assert len({video.video_id for video in VIDEOS}) == 32


@pytest.mark.parametrize("name", REFUSED)
def test_broken_files_fail_with_the_right_code(name: str) -> None:
    video = next(video for video in VIDEOS if video.name == name)
    with pytest.raises(FootageError) as caught, open_video(video) as reader:
        reader.read_clip(plan_windows(reader.facts.duration_s, 2.5, 1)[0], sampling("exact", 2.5))
    assert (caught.value.stage, caught.value.code) == REFUSED[name]
    assert len(caught.value.message) > 20


@pytest.mark.parametrize("video", GOOD, ids=name_of)
def test_good_files_give_clips_and_the_facts_of_the_manifest(video: Video) -> None:
    row = MANIFEST[video.name]
    with open_video(video) as reader:
        facts = reader.facts
        assert facts.codec == row["codec"]
        assert (facts.width_px, facts.height_px) == (int(row["width"]), int(row["height"]))
        assert facts.fps == pytest.approx(float(row["fps"]), rel=0.01)
        if row["duration_s"] and video.name not in DAMAGED:
            # The manifest has the length of the container, which may outlast the video track.
            assert facts.duration_s == pytest.approx(float(row["duration_s"]), rel=0.08)
        # The largest have few key frames, and then take as long as all others together.
        for policy in ("dense", "keyframe") if facts.width_px < 1900 else ("dense",):
            window = plan_windows(facts.duration_s, 2.5, 1)[0]
            clip = reader.read_clip(window, sampling(policy, 2.5))
            assert clip.frames_THWC.shape == (16, 112, 112, 3)
            assert list(clip.times_s) == sorted(clip.times_s)
            assert facts.duration_s is not None
            assert 0 <= clip.times_s[0] <= clip.times_s[-1] <= facts.duration_s
            assert len(set(clip.times_s)) > 1
            assert clip.damaged == (video.name in DAMAGED)
            assert clip.policy == policy or clip.fallback
            assert 5 < clip.frames_THWC.mean() < 250


def test_one_drive_gives_one_picture_in_every_container() -> None:
    """The same stream in MP4, MPEG-TS and bare decodes to the same frames at the same times."""
    names = (
        "driving/bay_area_i280_solid_white.mp4",
        "driving/bay_area_i280_solid_white.ts",
        "bad/raw_annexb_h264_no_timestamps.h264",
    )
    clips = []
    for name in names:
        with open_video(next(video for video in VIDEOS if video.name == name)) as reader:
            window = plan_windows(reader.facts.duration_s, 2.5, 1)[0]
            clips.append(reader.read_clip(window, sampling("exact", 2.5)))
    for clip in clips[1:]:
        assert clip.times_s == pytest.approx(clips[0].times_s, abs=1e-3)
        assert np.array_equal(clip.frames_THWC, clips[0].frames_THWC)


def test_a_phone_video_held_upright_is_shown_upright() -> None:
    video = next(video for video in VIDEOS if video.name.endswith("iphone6_quicktime_iso6709.mov"))
    with open_video(video) as reader:
        assert reader.facts.rotation_deg == 90
