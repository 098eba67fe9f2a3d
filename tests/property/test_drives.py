from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from geotag.footage.drives import MOMENT_S, group_drives
from geotag.types import Video
from tests.unit.footage.test_drives import make_video

START = datetime(2024, 5, 1, 8)
TIMES = st.integers(0, 4000).map(lambda s: START + timedelta(seconds=s))
NAMES = st.one_of(
    st.builds(
        lambda time, mode, lens: f"Record/{time:%Y%m%d_%H%M%S}_{mode}{lens}.mp4",
        TIMES,
        st.sampled_from("NEP"),
        st.sampled_from("FRIO"),
    ),
    st.builds(
        lambda card, time, number, lens: f"{card}/Movie/{time:%Y%m%d%H%M%S}_{number:06d}{lens}.MP4",
        st.sampled_from(["a", "b"]),
        TIMES,
        st.integers(0, 99),
        st.sampled_from(["", "F", "R"]),
    ),
    st.builds(
        lambda time, view: f"TeslaCam/RecentClips/{time:%Y-%m-%d_%H-%M-%S}-{view}.mp4",
        TIMES,
        st.sampled_from(["front", "back", "left_repeater", "right_repeater", "left_pillar"]),
    ),
    st.builds(
        lambda part, number: f"GX{part:02d}{number:04d}.MP4", st.integers(1, 9), st.integers(0, 3)
    ),
    st.builds(
        lambda part, lens: f"2024-04-26--19-07-52--{part}/{lens}camera.hevc",
        st.integers(0, 30),
        st.sampled_from("fed"),
    ),
    st.builds(lambda number: f"DCIM/105UNSVD/GRMN{number:04d}.MP4", st.integers(0, 20)),
    st.sampled_from(["a.mp4", "A.mp4", "a_front.mp4", "a_rear.mp4", "Front/a.mp4", "Rear/a.mp4"]),
)
CARDS = st.lists(NAMES, unique=True, max_size=40)


def videos(names: list[str]) -> list[Video]:
    return [make_video(name) for name in names]


@given(CARDS)
def test_every_video_is_in_exactly_one_drive(names: list[str]) -> None:
    drives = group_drives(videos(names))
    grouped = [
        video.name for drive in drives for moment in drive.moments for video in moment.videos
    ]
    assert sorted(grouped) == sorted(names)
    assert all(moment.videos for drive in drives for moment in drive.moments)
    assert all(drive.moments for drive in drives)


@given(CARDS.flatmap(lambda names: st.tuples(st.just(names), st.permutations(names))))
def test_the_order_of_the_videos_does_not_matter(pair: tuple[list[str], list[str]]) -> None:
    assert group_drives(videos(pair[0])) == group_drives(videos(pair[1]))


@given(CARDS)
def test_channels_of_a_moment_are_distinct_and_begin_together(names: list[str]) -> None:
    for drive in group_drives(videos(names)):
        for moment in drive.moments:
            origins = [video.origin for video in moment.videos]
            assert len({(one.channel, one.lens) for one in origins}) == len(origins)
            starts = [one.start_local for one in origins if one.start_local is not None]
            if starts:
                assert (max(starts) - min(starts)).total_seconds() <= MOMENT_S


@given(CARDS)
def test_a_drive_holds_one_card_of_one_maker_and_has_an_id_of_its_own(names: list[str]) -> None:
    drives = group_drives(videos(names))
    for drive in drives:
        makers = {
            (video.origin.card, video.origin.vendor)
            for moment in drive.moments
            for video in moment.videos
        }
        assert len(makers) == 1
    assert len({drive.drive_id for drive in drives}) == len(drives)


@given(CARDS)
def test_time_never_runs_backwards_in_a_drive(names: list[str]) -> None:
    for drive in group_drives(videos(names)):
        starts = [
            min(video.origin.start_local for video in moment.videos if video.origin.start_local)
            for moment in drive.moments
            if any(video.origin.start_local for video in moment.videos)
        ]
        assert starts == sorted(starts)
