# ruff: noqa: E501 - one name, one line
from datetime import datetime

import pytest

from geotag.footage.origin import Understanding, read_origin
from geotag.footage.vendors import load_table
from geotag.types import Origin

ISO_HEAD = b"\x00\x00\x00\x18ftypisom" + bytes(64)


def understand(path: str, head: bytes = ISO_HEAD, *beside: str) -> Understanding:
    *folders, name = path.split("/")
    return read_origin(folders, name, head, neighbours={one.lower() for one in beside})


def origin_of(path: str, head: bytes = ISO_HEAD, *beside: str) -> Origin:
    return understand(path, head, *beside).origin


# Rule, path, vendor, channel, mode, start, number.
NAMES = """
blackvue|BlackVue/Record/20141017_163635_NF.mp4|BlackVue|front|normal|2014-10-17 16:36:35|
blackvue|Record/20141017_163635_NR.MP4|BlackVue|rear|normal|2014-10-17 16:36:35|
blackvue|20141017_163635_NI.mp4|BlackVue|interior|normal|2014-10-17 16:36:35|
blackvue|20141017_163635_NO.mp4|BlackVue|side|normal|2014-10-17 16:36:35|
blackvue|20240302_070001_EF.mp4|BlackVue|front|event|2024-03-02 07:00:01|
blackvue|20240302_070001_PR.mp4|BlackVue|rear|parking|2024-03-02 07:00:01|
blackvue|20240302_070001_IF.mp4|BlackVue|front|parking|2024-03-02 07:00:01|
blackvue|20240302_070001_MF.mp4|BlackVue|front|manual|2024-03-02 07:00:01|
blackvue|20240302_070001_OF.mp4|BlackVue|front|event|2024-03-02 07:00:01|
blackvue|20240302_070001_AF.mp4|BlackVue|front|event|2024-03-02 07:00:01|
blackvue|20240302_070001_TF.mp4|BlackVue|front|event|2024-03-02 07:00:01|
blackvue|20240302_070001_BR.mp4|BlackVue|rear|event|2024-03-02 07:00:01|
blackvue|20240302_070001_RF.mp4|BlackVue|front|event|2024-03-02 07:00:01|
blackvue|20240302_070001_XF.mp4|BlackVue|front|event|2024-03-02 07:00:01|
blackvue|20240302_070001_GF.mp4|BlackVue|front|event|2024-03-02 07:00:01|
blackvue|20240302_070001_DI.mp4|BlackVue|interior|event|2024-03-02 07:00:01|
blackvue|20240302_070001_LI.mp4|BlackVue|interior|event|2024-03-02 07:00:01|
blackvue|20240302_070001_YF.mp4|BlackVue|front|event|2024-03-02 07:00:01|
blackvue|20240302_070001_FF.mp4|BlackVue|front|event|2024-03-02 07:00:01|
blackvue|20240302_070001_NFS.mp4|BlackVue|front|normal|2024-03-02 07:00:01|
generic|20240302_070001_ZF.mp4||||2024-03-02 07:00:01|
generic|20241302_070001_NF.mp4||||
generic|20240230_070001_NF.mp4||||
generic|20240302_250001_NF.mp4||||
viofo-2014|DCIM/Movie/2019_0811_123456_001.MP4|VIOFO||normal|2019-08-11 12:34:56|1
viofo-2014|DCIM/Movie/RO/2019_0811_123456_0123F.MP4|VIOFO|front|event|2019-08-11 12:34:56|123
viofo-2014|DCIM/Movie/Parking/2019_0811_123456_000123PR.mp4|VIOFO|rear|parking|2019-08-11 12:34:56|123
viofo-2014|2019_0811_123456.MOV|VIOFO||normal|2019-08-11 12:34:56|
viofo-2014|2026_0820_045542_PF.MP4|VIOFO|front|parking|2026-08-20 04:55:42|
viofo-2014|2023_0412_111213_0042EI.MP4|VIOFO|interior|event|2023-04-12 11:12:13|42
viofo-2014|2023_0412_111213_0042PT.MP4|VIOFO|front|parking|2023-04-12 11:12:13|42
generic|2019_1311_123456_001.MP4||||
novatek-letters|2018_0811_123456_001A.MP4||front|normal|2018-08-11 12:34:56|1
novatek-letters|Vantrue/2018_0811_123456_001B.MP4|Vantrue|rear|normal|2018-08-11 12:34:56|1
viofo-2020|20210822_133932_00954F.MP4|VIOFO|front|normal|2021-08-22 13:39:32|954
viofo-2020|RO/20210822_133932_00955R.MP4|VIOFO|rear|event|2021-08-22 13:39:32|955
viofo-2020|20260628_133416_0001PF.MP4|VIOFO|front|parking|2026-06-28 13:34:16|1
viofo-2020|20260628_133416_0002I.MP4|VIOFO|interior|normal|2026-06-28 13:34:16|2
generic|20210822_133932_00954.MP4||||2021-08-22 13:39:32|954
viofo-2022|DCIM/Movie/20220101120000_000123.MP4|VIOFO||normal|2022-01-01 12:00:00|123
viofo-2022|20220101120000_000123.TS|VIOFO||normal|2022-01-01 12:00:00|123
viofo-2022|Parking/20220101120000_000124F.MP4|VIOFO|front|parking|2022-01-01 12:00:00|124
viofo-2022|20220101120000_000125PR.MP4|VIOFO|rear|parking|2022-01-01 12:00:00|125
novatek-counter|20220101120000_0000123.MP4|||normal|2022-01-01 12:00:00|123
novatek-counter|Roadgid/20220101120000_0000123.MP4|Roadgid||normal|2022-01-01 12:00:00|123
ddpai|20260806170529_12.mp4|||normal|2026-08-06 17:05:29|12
ddpai|20260806170529_0060.mp4|||normal|2026-08-06 17:05:29|
ddpai|DCIM/200video/front/20260806170529_0060.mp4|DDPai|front|normal|2026-08-06 17:05:29|
ddpai|DCIM/Movie/20260806170529_012.mp4|VIOFO||normal|2026-08-06 17:05:29|12
ddpai-channel|DCIM/200video/rear/20260806170529_0060_A.mp4|DDPai|rear|normal|2026-08-06 17:05:29|
ddpai-mode|G_20240101120000_0021.mp4|DDPai|front|event|2024-01-01 12:00:00|
ddpai-mode|S_20240101120000_120.mp4|DDPai|front|timelapse|2024-01-01 12:00:00|120
ddpai-mode|Q_20240101120000_12_A.mp4|DDPai|rear|timelapse|2024-01-01 12:00:00|12
generic|20261306170529_12.mp4||||
70mai|Normal/Front/NO20191130-120156-000121F.MP4|70mai|front|normal|2019-11-30 12:01:56|121
70mai|Normal/Back/NO20191130-120156-000121B.MP4|70mai|rear|normal|2019-11-30 12:01:56|121
70mai|Event/Interior/EV20191130-120156-000122I.MP4|70mai|interior|event|2019-11-30 12:01:56|122
70mai|Parking/Back/PA20191130-120156-000123.MP4|70mai|rear|parking|2019-11-30 12:01:56|123
70mai|Lapse/LA20191130-120156-000124.mp4|70mai||timelapse|2019-11-30 12:01:56|124
70mai|70mai_NO20191130-120156-000121.MP4|70mai||normal|2019-11-30 12:01:56|121
generic|XX20191130-120156-000121.MP4||||2019-11-30 12:01:56|121
nextbase|240915_143027_001_FH.MP4|Nextbase|front|normal|2024-09-15 14:30:27|1
nextbase|240915_143027_002_RH.MP4|Nextbase|rear|normal|2024-09-15 14:30:27|2
nextbase|240915_143027_003_CH.MP4|Nextbase|interior|normal|2024-09-15 14:30:27|3
nextbase|Protected/240915_143027_004_FL.MP4|Nextbase|front|event|2024-09-15 14:30:27|4
nextbase|DCIM/231011_175029_199_FH_RADR.MP4|Nextbase|front|parking|2023-10-11 17:50:29|199
nextbase|180919_100959_001_F.MP4|Nextbase|front|normal|2018-09-19 10:09:59|1
generic|241315_143027_001_FH.MP4||||
garmin|DCIM/105UNSVD/GRMN0001.MP4|Garmin||normal||1
garmin|DCIM/100EVENT/GRMN0002.MP4|Garmin||event||2
garmin|DCIM/102SAVED/GRMN0003.mp4|Garmin||manual||3
garmin|DCIM/103PARKM/GRMN0004.MP4|Garmin||parking||4
garmin|DCIM/104TLPSE/GRMN0005.MP4|Garmin||timelapse||5
garmin-virb|DCIM/100_VIRB/VIRB0042.MP4|Garmin||||42
generic|DCIM/105UNSVD/clip.MP4|Garmin||normal||
generic|GRMN1.MP4||||
thinkware|cont_rec/REC_20240101_120000_F.MP4|Thinkware|front|normal|2024-01-01 12:00:00|
thinkware|cont_rec/REC_2024_01_01_12_00_00_R.MP4|Thinkware|rear|normal|2024-01-01 12:00:00|
thinkware|evt_rec/REC_20240101_120000_F.MP4|Thinkware|front|event|2024-01-01 12:00:00|
thinkware|EVT_20240101_120000_I.MP4|Thinkware|interior|event|2024-01-01 12:00:00|
thinkware|manual_rec/REC_20240101_120000_F.MP4|Thinkware|front|manual|2024-01-01 12:00:00|
thinkware|parking_rec/REC_20240101_120000_F.MP4|Thinkware|front|parking|2024-01-01 12:00:00|
thinkware|motion_timelapse_rec/REC_20240101_120000_F.MP4|Thinkware|front|timelapse|2024-01-01 12:00:00|
thinkware|motion_rec/REC_20240101_120000_R.MP4|Thinkware|rear|parking|2024-01-01 12:00:00|
generic|REC_20240101_126000_F.MP4||||
vantrue|Normal/20260904_175735_00001_N_A.MP4|Vantrue|front|normal|2026-09-04 17:57:35|1
vantrue|Normal/20260904_175735_00001_N_B.MP4|Vantrue|interior|normal|2026-09-04 17:57:35|1
vantrue|Event/20260904_175735_0002_E_C.MP4|Vantrue|rear|event|2026-09-04 17:57:35|2
vantrue|Parking/20260904_175735_0003_P_A.MP4|Vantrue|front|parking|2026-09-04 17:57:35|3
generic|20260904_175735_0001_N_Q.MP4||||2026-09-04 17:57:35|1
mio|Normal/FILE200101-120000F.MP4|Mio|front|normal|2020-01-01 12:00:00|
mio|Event/FILE200101-120000R.MP4|Mio|rear|event|2020-01-01 12:00:00|
mio|Parking/FILE200101-120000.MP4|Mio||parking|2020-01-01 12:00:00|
mio|EMER200101-120000F.MP4|Mio|front|event|2020-01-01 12:00:00|
generic|FILE201301-120000F.MP4||||
wolfbox|front_norm/2024_03_15_173951_00_F.MP4|Wolfbox|front|normal|2024-03-15 17:39:51|
wolfbox|rear_emer/2024_03_15_173951_05_R.MP4|Wolfbox|rear|event|2024-03-15 17:39:51|
wolfbox|2024_03_15_173951_02_I.MP4|Wolfbox|interior|event|2024-03-15 17:39:51|
generic|2025_10_12_220337_00.TS||||2025-10-12 22:03:37|0
tesla|TeslaCam/RecentClips/2024-08-19_19-06-18-front.mp4|Tesla|front|normal|2024-08-19 19:06:18|
tesla|TeslaCam/SavedClips/2024-08-19_19-06-18/2024-08-19_19-05-59-back.mp4|Tesla|rear|manual|2024-08-19 19:05:59|
tesla|TeslaCam/SentryClips/x/2024-08-19_19-05-59-left_repeater.mp4|Tesla|side|parking|2024-08-19 19:05:59|
tesla|2024-08-19_19-05-59-right_pillar.mp4|Tesla|side||2024-08-19 19:05:59|
tesla|2019-01-02_07-08-front.mp4|Tesla|front||2019-01-02 07:08:00|
generic|2024-08-39_19-05-59-front.mp4||front||
comma|164080f7933651c4/2024-04-26--19-07-52--11/fcamera.hevc|comma|front|normal|2024-04-26 19:18:52|11
comma|164080f7933651c4/2024-04-26--19-07-52--0/ecamera.hevc|comma|front|normal|2024-04-26 19:07:52|0
comma|2024-04-26--19-07-52--0/dcamera.hevc|comma|interior|normal|2024-04-26 19:07:52|0
comma|2024-04-26--19-07-52--3--qcamera.ts|comma|front|normal|2024-04-26 19:10:52|3
comma|164080f7933651c4_2024-04-26--19-07-52--3--qcamera.ts|comma|front|normal|2024-04-26 19:10:52|3
comma|0000001a--abcdef0123--4/qcamera.ts|comma|front|normal||4
comma-camera|somewhere/fcamera.hevc|comma|front|normal||
generic|2024-13-26--19-07-52--3--qcam.ts||||
gopro-hero6|DCIM/100GOPRO/GX010048.MP4|GoPro||||48
gopro-hero6|GH020048.mp4|GoPro||||48
gopro-hero6|GL010048.LRV|GoPro||||48
gopro-loop|GHAA0003.MP4|GoPro||||3
gopro-360|GS010135.360|GoPro||||135
gopro-hero2|GOPR1234.MP4|GoPro||||1234
gopro-chapter|GP011234.MP4|GoPro||||1234
gopro-fusion|GPFR0012.MP4|GoPro|front|||12
gopro-fusion|GPBK0012.MP4|GoPro|rear|||12
gopro-fusion-chapter|GF010012.MP4|GoPro|front|||12
gopro-fusion-chapter|GB010012.MP4|GoPro|rear|||12
generic|GX01004.MP4||||
dji-2022|DCIM/DJI_001/DJI_20230101120000_0001_D.MP4|DJI|||2023-01-01 12:00:00|1
dji-number|DCIM/100MEDIA/DJI_0012.MP4|DJI||||12
dji-app|dji_fly_20230101_120000_12_1672574400000_video.mp4|DJI|||2023-01-01 12:00:00|
generic|DJI_20231301120000.MP4||||
insta360|VID_20230101_120000_00_001.insv|Insta360|||2023-01-01 12:00:00|1
generic|VID_20240101_120000.mp4||||2024-01-01 12:00:00|
generic|PXL_20240101_120000123.mp4||||2024-01-01 12:00:00|
generic|2024-01-01 12.30.45.mp4||||2024-01-01 12:30:45|
generic|Screen 2024-01-01 at 12.30.45.mov||||2024-01-01 12:30:45|
generic|202401011230.mp4||||2024-01-01 12:30:00|
generic|2024-01-01_12-30.mp4||||2024-01-01 12:30:00|
generic|20260101_120000R.ts||rear||2026-01-01 12:00:00|
generic|trip_front.mp4||front||
generic|my cams/front/clip.mp4||front||
generic|DCIM/MOVIE_R/20240101_120000.mp4||rear||2024-01-01 12:00:00|
generic|Rear/20240101_120000.mp4||rear||2024-01-01 12:00:00|
generic|front_and_rear.mp4||||
generic|drive_back_home.mp4||||
generic|2024-01-01_1440p.mp4||||
generic|2024-01-01.mp4||||
generic|12345678901234567890.mp4||||
generic|clip.mp4||||
"""
ROWS = [tuple((*line.split("|"), "", "")[:7]) for line in NAMES.strip().splitlines()]


@pytest.mark.parametrize(("rule", "path", "vendor", "channel", "mode", "start", "number"), ROWS)
def test_a_name_tells_vendor_channel_mode_time_and_number(
    rule: str, path: str, vendor: str, channel: str, mode: str, start: str, number: str
) -> None:
    origin = origin_of(path)
    found = (origin.vendor, origin.channel, origin.mode, origin.start_local, origin.sequence)
    assert found == (
        vendor or None,
        channel or None,
        mode or None,
        datetime.fromisoformat(start) if start else None,
        int(number) if number else None,
    )
    assert origin.rule == rule
    assert origin.reasons
    assert all(reason and reason.isprintable() for reason in origin.reasons)


def test_every_row_of_the_table_has_a_name_here() -> None:
    assert {naming.rule for naming in load_table().namings} <= {row[0] for row in ROWS}


@pytest.mark.parametrize("name", [row[1] for row in ROWS if row[0] != "generic"])
def test_case_of_a_name_means_nothing(name: str) -> None:
    *folders, file = name.split("/")
    as_is, lower = origin_of(name), origin_of("/".join((*folders, file.lower())))
    assert (as_is.rule, as_is.channel, as_is.mode) == (lower.rule, lower.channel, lower.mode)


def test_a_shape_that_two_makers_use_is_settled_by_what_lies_beside() -> None:
    name = "20260806170529_12.mp4"
    assert origin_of(name).vendor is None
    assert any("nothing else tells" in reason for reason in origin_of(name).reasons)
    assert origin_of(name, ISO_HEAD, "20260806170529_12.GPX").vendor == "DDPai"
    assert origin_of(name, ISO_HEAD + b"VIOFO").vendor == "VIOFO"


def test_first_bytes_tell_the_vendor_of_a_name_that_says_nothing() -> None:
    assert origin_of("clip.mp4", b"\x00\x00\x00\x14ftypmp41\x00\x00\x00\x00mdatGPRO").vendor == (
        "GoPro"
    )
    assert origin_of("clip.mp4", ISO_HEAD + b"Pittasoft Co., Ltd.").vendor == "BlackVue"


def test_first_bytes_are_believed_before_the_name() -> None:
    origin = origin_of("2019_0811_123456_001.MP4", ISO_HEAD + b"GoPro AVC")
    assert origin.vendor == "GoPro"
    assert origin.start_local == datetime(2019, 8, 11, 12, 34, 56)


def test_a_name_that_almost_fits_says_why_it_does_not() -> None:
    assert any("no date" in reason for reason in origin_of("20241302_070001_NF.mp4").reasons)


def test_a_clock_that_was_never_set_is_said_to_be_one() -> None:
    origin = origin_of("20000101_000012_NF.mp4")
    assert origin.start_local == datetime(2000, 1, 1, 0, 0, 12)
    assert any("not set" in reason for reason in origin.reasons)


@pytest.mark.parametrize(
    ("path", "card"),
    [
        ("DCIM/Movie/RO/2019_0811_123456_001.MP4", ""),
        ("car 1/DCIM/Movie/2019_0811_123456_001.MP4", "car 1"),
        ("nas/BlackVue/Record/2024-01-01/20240101_120000_NF.mp4", "nas"),
        ("a/b/Normal/Front/NO20191130-120156-000121F.MP4", "a/b"),
        ("usb/TeslaCam/SavedClips/2024-08-19_19-06-18/2024-08-19_19-06-18-front.mp4", "usb"),
        ("car/cont_rec/REC_20240101_120000_F.MP4", "car"),
        ("x/DCIM/105UNSVD/GRMN0001.MP4", "x"),
        ("x/DCIM/100GOPRO/GX010048.MP4", "x"),
        ("d/164080f7933651c4/2024-04-26--19-07-52--11/fcamera.hevc", "d/164080f7933651c4"),
        ("x/DCIM/MOVIE_R/20240101_120000.mp4", "x"),
        ("trip/clip.mp4", "trip"),
        ("clip.mp4", ""),
    ],
)
def test_the_root_of_a_card_is_above_the_folders_that_cameras_make(path: str, card: str) -> None:
    assert origin_of(path).card == card


def test_chapters_and_segments_name_the_recording_that_they_are_parts_of() -> None:
    chapters = [origin_of(f"G{letters}0048.MP4") for letters in ("OPR", "P01", "P02")]
    assert [one.part for one in chapters] == [0, 1, 2]
    assert len({one.recording for one in chapters}) == 1
    segments = [origin_of(f"2024-04-26--19-07-52--{n}/fcamera.hevc") for n in (2, 10)]
    assert [one.part for one in segments] == [2, 10]
    assert len({one.recording for one in segments}) == 1


def test_the_scanned_folder_itself_tells_the_mode_of_what_lies_in_it() -> None:
    name = "20220101120000_000123.MP4"
    assert read_origin((), name, above=("Movie", "RO")).origin.mode == "event"
    assert read_origin((), "NO20191130-120156-000121.MP4", above=("Normal", "Back")).origin.channel


@pytest.mark.parametrize(
    ("full", "copy"),
    [
        ("GX010048.MP4", "GL010048.LRV"),
        ("GH010048.MP4", "GL010048.MP4"),
        ("GOPR0048.MP4", "GOPR0048.LRV"),
        ("DJI_20230101120000_0001_D.MP4", "DJI_20230101120000_0001_D.LRF"),
        ("240915_143027_001_FH.MP4", "240915_143027_001_FL.MP4"),
        ("2024-04-26--19-07-52--3/fcamera.hevc", "2024-04-26--19-07-52--3/qcamera.ts"),
        ("20240302_070001_NF.mp4", "20240302_070001_NFS.mp4"),
        ("VID_20230101_120000_00_001.insv", "LRV_20230101_120000_11_001.lrv"),
        ("any name.mov", "any name.LRV"),
    ],
)
def test_a_small_copy_shares_its_key_with_what_it_copies(full: str, copy: str) -> None:
    one, other = understand(full), understand(copy)
    assert one.copy_key == other.copy_key
    assert one.copy_level < other.copy_level


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("240915_143027_001_FH.MP4", "240915_143027_001_RL.MP4"),
        ("2024-04-26--19-07-52--3/ecamera.hevc", "2024-04-26--19-07-52--3/qcamera.ts"),
        ("GX010048.MP4", "GL020048.LRV"),
        ("20240302_070001_NF.mp4", "20240302_070001_NR.mp4"),
    ],
)
def test_another_view_or_another_chapter_is_no_copy(one: str, other: str) -> None:
    assert understand(one).copy_key != understand(other).copy_key
