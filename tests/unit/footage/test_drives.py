from datetime import datetime, timedelta
from hashlib import blake2b
from pathlib import Path

import pytest

from geotag.footage.drives import group_drives
from geotag.footage.origin import read_origin
from geotag.types import Drive, Video

START = datetime(2024, 5, 1, 8, 0, 0)


def make_video(name: str) -> Video:
    *folders, file = name.split("/")
    return Video(
        path=Path(name),
        name=name,
        video_id=blake2b(name.encode(), digest_size=16).hexdigest(),
        size_bytes=1,
        origin=read_origin(folders, file).origin,
    )


def grouped(*names: str) -> list[list[list[str]]]:
    return names_of(group_drives([make_video(name) for name in names]))


def names_of(drives: tuple[Drive, ...]) -> list[list[list[str]]]:
    return [
        [[video.name for video in moment.videos] for moment in drive.moments] for drive in drives
    ]


def viofo(*seconds: float, channel: str = "F") -> list[str]:
    return [
        f"DCIM/Movie/{START + timedelta(seconds=s):%Y%m%d_%H%M%S}_{i:05d}{channel}.MP4"
        for i, s in enumerate(seconds)
    ]


def test_channels_that_begin_within_two_seconds_are_one_moment_with_the_front_first() -> None:
    assert grouped(
        "Record/20240501_080000_NR.mp4",
        "Record/20240501_080001_NI.mp4",
        "Record/20240501_080002_NF.mp4",
    ) == [
        [
            [
                "Record/20240501_080002_NF.mp4",
                "Record/20240501_080000_NR.mp4",
                "Record/20240501_080001_NI.mp4",
            ]
        ]
    ]


def test_three_seconds_apart_are_two_moments_of_one_drive() -> None:
    assert grouped("20240501_080000_NF.mp4", "20240501_080003_NR.mp4") == [
        [["20240501_080000_NF.mp4"], ["20240501_080003_NR.mp4"]]
    ]


def test_the_same_channel_twice_is_two_moments() -> None:
    drives = grouped("20240501_080000_NF.mp4", "20240501_080001_EF.mp4")
    assert drives == [[["20240501_080000_NF.mp4"], ["20240501_080001_EF.mp4"]]]


def test_an_event_and_a_normal_clip_of_one_second_keep_to_their_own_channels() -> None:
    drives = grouped(
        "20240501_080000_NF.mp4",
        "20240501_080000_EF.mp4",
        "20240501_080000_ER.mp4",
        "20240501_080000_NR.mp4",
    )
    assert sorted(drives[0]) == [
        ["20240501_080000_EF.mp4", "20240501_080000_ER.mp4"],
        ["20240501_080000_NF.mp4", "20240501_080000_NR.mp4"],
    ]


def test_side_cameras_differ_in_their_lens_and_come_before_the_rear() -> None:
    stamp = "TeslaCam/RecentClips/2024-08-19_19-06-18"
    views = ["back", "left_repeater", "front", "right_repeater", "right_pillar", "left_pillar"]
    (drive,) = grouped(*(f"{stamp}-{view}.mp4" for view in views))
    (moment,) = drive
    assert [name.rpartition("18-")[2].removesuffix(".mp4") for name in moment] == [
        "front",
        "left_repeater",
        "right_repeater",
        "left_pillar",
        "right_pillar",
        "back",
    ]


def test_the_wide_road_camera_comes_after_the_one_that_the_model_knows() -> None:
    folder = "2024-04-26--19-07-52--0"
    (drive,) = grouped(*(f"{folder}/{lens}camera.hevc" for lens in "def"))
    assert drive == [[f"{folder}/{lens}camera.hevc" for lens in "fed"]]


def test_files_of_two_cards_never_meet() -> None:
    names = [f"{card}/DCIM/Movie/20240501_080000_00001{c}.MP4" for card in "ab" for c in "FR"]
    assert grouped(*names) == [[names[:2]], [names[2:]]]


def test_files_of_two_makers_in_one_folder_never_meet() -> None:
    assert len(grouped("20240501_080000_NF.mp4", "20240501_080000_00001R.MP4")) == 2


def test_without_a_time_names_that_differ_in_the_channel_alone_are_a_moment() -> None:
    assert grouped("trip/day_front.mp4", "trip/day_rear.mp4", "trip/night_front.mp4") == [
        [["trip/day_front.mp4", "trip/day_rear.mp4"]],
        [["trip/night_front.mp4"]],
    ]
    assert grouped("car/Front/a.mp4", "car/Rear/a.mp4") == [[["car/Front/a.mp4", "car/Rear/a.mp4"]]]


def test_clips_follow_each_other_until_the_gap() -> None:
    names = viofo(0, 60, 120, 120 + 330, 120 + 330 + 331)
    assert grouped(*names) == [[[name] for name in names[:4]], [[names[4]]]]


def test_long_clips_widen_the_gap() -> None:
    names = viofo(0, 600, 1200, 1800)
    assert grouped(*names) == [[[name] for name in names]]


def test_two_moments_ten_minutes_apart_show_no_usual_length() -> None:
    assert len(grouped(*viofo(0, 600))) == 2


def test_order_is_that_of_time_not_of_names() -> None:
    names = ["Movie/20240501_080200_00001F.MP4", "Movie/RO/20240501_080100_00009F.MP4"]
    assert grouped(*names) == [[[names[1]], [names[0]]]]


def test_parking_clips_do_not_chain_for_hours() -> None:
    names = [
        f"Parking/{START + timedelta(seconds=240 * i):%Y%m%d_%H%M%S}_{i:05d}PF.MP4"
        for i in range(60)
    ]
    drives = grouped(*names)
    assert len(drives) == 4
    assert max(len(drive) for drive in drives) == 16


def test_a_drive_of_hours_stays_one() -> None:
    names = viofo(*range(0, 6 * 3600, 180))
    assert len(grouped(*names)) == 1


def test_chapters_of_one_recording_are_a_drive_in_the_order_of_the_chapters() -> None:
    names = ["GP010048.MP4", "GP020048.MP4", "GOPR0048.MP4", "GOPR0049.MP4"]
    assert grouped(*names) == [
        [["GOPR0048.MP4"], ["GP010048.MP4"], ["GP020048.MP4"]],
        [["GOPR0049.MP4"]],
    ]


def test_segments_of_one_route_are_a_drive_in_the_order_of_their_numbers() -> None:
    route = "2024-04-26--19-07-52"
    names = [f"{route}--{n}--fcamera.hevc" for n in (10, 2, 9, 30)]
    assert grouped(*names, "2024-04-26--19-40-00--0--fcamera.hevc") == [
        [[names[1]], [names[2]], [names[0]], [names[3]]],
        [["2024-04-26--19-40-00--0--fcamera.hevc"]],
    ]


def test_consecutive_numbers_of_a_camera_without_times_are_a_drive() -> None:
    names = [f"DCIM/105UNSVD/GRMN{n:04d}.MP4" for n in (1, 2, 3, 7)]
    assert grouped(*names) == [[[name] for name in names[:3]], [[names[3]]]]


@pytest.mark.parametrize("names", [("clip1.mp4", "clip2.mp4"), ("DJI_0001.MP4", "DJI_0002.MP4")])
def test_files_that_say_nothing_of_time_are_drives_of_their_own(names: tuple[str, ...]) -> None:
    assert len(grouped(*names)) == 2


def test_a_drive_keeps_its_id_when_more_clips_come() -> None:
    names = viofo(0, 60, 120)
    few = group_drives([make_video(name) for name in names[:2]])
    more = group_drives([make_video(name) for name in names])
    assert few[0].drive_id == more[0].drive_id
    other = group_drives([make_video(f"car/{name}") for name in names])
    assert other[0].drive_id != more[0].drive_id


def test_nothing_groups_into_nothing() -> None:
    assert group_drives([]) == ()
