"""What a container says of when and where it was made."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotag.footage.decode import open_video
from geotag.footage.isolation import DecodeProcess
from geotag.footage.metadata import read_created_utc_s, read_location
from geotag.types import Video
from tests.media import patch_box, write_video

if TYPE_CHECKING:
    from pathlib import Path

    from geotag.types import VideoFacts

NOON_S = datetime(2021, 8, 22, 12, 0, 0, tzinfo=timezone.utc).timestamp()


def facts_of(path: Path) -> VideoFacts:
    video = Video(path=path, name=path.name, video_id="", size_bytes=path.stat().st_size)
    with open_video(video) as reader:
        here = reader.facts
    with DecodeProcess() as process, process.open_video(video) as reader:
        assert reader.facts == here
    return here


def tagged(path: Path, tags: dict[str, str], movflags: str = "use_metadata_tags") -> Path:
    """A copy with tags, beside the original."""
    target = path.with_name(f"tagged{path.suffix}")
    options = {"movflags": movflags} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path)) as source, av.open(str(target), "w", options=options) as output:
        output.metadata.update(tags)
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    return target


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_the_time_of_a_container_reaches_the_facts(tmp_path: Path, name: str) -> None:
    path = tagged(write_video(tmp_path / name), {"creation_time": "2021-08-22T12:00:00.000000Z"})
    assert facts_of(path).created_utc_s == NOON_S


def test_a_container_that_says_nothing_gives_nothing(tmp_path: Path) -> None:
    facts = facts_of(write_video(tmp_path / "a.mp4"))
    assert (facts.created_utc_s, facts.location) == (None, None)


def test_a_clock_that_was_never_set_gives_nothing(tmp_path: Path) -> None:
    tags = {"creation_time": "2021-08-22T12:00:00Z"}
    path = tagged(write_video(tmp_path / "a.mp4"), tags, "faststart")
    assert facts_of(path).created_utc_s == NOON_S
    for seconds in (0, 2_082_844_800, 2_082_844_800 + 86_400):  # 1904, 1970, a day later
        patch_box(path, b"mvhd", 4, seconds.to_bytes(4, "big"))
        assert facts_of(path).created_utc_s is None


@pytest.mark.parametrize(
    ("tags", "movflags"),
    [
        ({"com.apple.quicktime.location.ISO6709": "+48.5-123.25+010/"}, "use_metadata_tags"),
        ({"location": "+48.5-123.25+010/"}, "faststart"),
    ],
)
def test_the_place_of_a_container_reaches_the_facts(
    tmp_path: Path, tags: dict[str, str], movflags: str
) -> None:
    path = tagged(write_video(tmp_path / "a.mov"), tags, movflags)
    assert facts_of(path).location == "+48.5-123.25+010/"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021-08-22T12:00:00Z", NOON_S),
        ("2021-08-22T12:00:00.25Z", NOON_S + 0.25),
        ("2021-08-22 12:00:00", NOON_S),
        ("2021-08-22T14:00:00+02:00", NOON_S),
        ("1970-01-01T00:00:00Z", None),
        ("1904-01-01T00:00:00.000000Z", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("9999-12-31T23:59:59-23:59", 253402387139.0),
        ("yesterday", None),
        ("", None),
    ],
)
def test_a_time_is_read_or_is_none(text: str, expected: float | None) -> None:
    assert read_created_utc_s({"creation_time": text}) == expected


def test_the_phone_makers_own_key_goes_first_and_the_language_does_not_matter() -> None:
    assert read_location({"location-eng": "+1+2/"}) == "+1+2/"
    both = {"location": "+1+2/", "com.apple.quicktime.location.ISO6709": "+3+4/"}
    assert read_location(both) == "+3+4/"
    assert read_location({"\xa9xyz": " +5+6/ "}) == "+5+6/"
    assert read_location({"location": "  ", "title": "+1+2/"}) is None
    assert len(read_location({"location": "+" * 9999}) or "") == 256


@given(st.dictionaries(st.sampled_from(["creation_time", "location", "x"]), st.text()))
def test_any_tags_are_read_without_an_error(tags: dict[str, str]) -> None:
    created_utc_s, location = read_created_utc_s(tags), read_location(tags)
    assert created_utc_s is None or created_utc_s > 0
    assert location is None or location.strip() == location != ""
