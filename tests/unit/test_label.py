from __future__ import annotations

import csv
import math
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from geotag.console import Console
from geotag.errors import ConfigError, NoVideosError, OutputError
from geotag.geo import distance_m
from geotag.label import COLUMNS, run_label
from geotag.labels.reading import Recording
from geotag.labels.samples import LEAST_SPAN_S, LEAST_WAY_M, MOST_GAP_S, cut_samples
from geotag.locks import OutputLock
from geotag.privacy import MARGIN_M, Zone
from geotag.telemetry.track import Fix, Reading, track_of
from train.data.sources import open_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from geotag.types import Video

MUNICH = (48.137, 11.575)
BERLIN = (52.518, 13.408)
PARIS = (48.857, 2.352)
DEG_M = math.radians(6_371_008.8)


def _drive(
    start_deg: tuple[float, float] = MUNICH,
    *,
    seconds: int = 60,
    speed_mps: float = 15.0,
    every_s: float = 1.0,
    first_s: float = 0.0,
    tells_speed: bool = False,
) -> list[Fix]:
    """A vehicle going north from a place."""
    return [
        Fix(
            start_deg[0] + speed_mps * number * every_s / DEG_M,
            start_deg[1],
            time_s=first_s + number * every_s,
            speed_mps=speed_mps if tells_speed else math.nan,
        )
        for number in range(int(seconds / every_s) + 1)
    ]


def _reading(fixes: list[Fix], *, is_single_point: bool = False) -> Reading:
    return Reading(track=track_of(fixes), source="made", is_single_point=is_single_point)


def test_a_drive_is_cut_into_stretches_that_follow_one_another() -> None:
    samples, dropped = cut_samples(_reading(_drive()))
    assert [(one.start_s, one.end_s) for one in samples] == [
        (10.0 * number, 10.0 * number + 10) for number in range(6)
    ]
    assert {one.speed_mps for one in samples} == {15.0}
    assert {one.quality for one in samples} == {"good"}
    assert dropped == {"in too short a stretch": 1}


def test_a_sample_is_where_the_vehicle_was_in_the_middle_of_it() -> None:
    (first, *_), _ = cut_samples(_reading(_drive()))
    truth = (MUNICH[0] + 15.0 * 5 / DEG_M, MUNICH[1])
    assert distance_m((first.lat_deg, first.lon_deg), truth) < 0.2


def test_slow_samples_last_until_the_vehicle_has_moved_on() -> None:
    samples, _ = cut_samples(_reading(_drive(speed_mps=4.0)))
    assert [one.end_s - one.start_s for one in samples] == [13.0] * 4
    assert 12 * 4.0 < LEAST_WAY_M <= 13 * 4.0


@pytest.mark.parametrize("tells_speed", [False, True])
def test_a_standing_vehicle_gives_no_sample(tells_speed: bool) -> None:
    samples, dropped = cut_samples(_reading(_drive(speed_mps=2.0, tells_speed=tells_speed)))
    assert samples == ()
    assert dropped == {"slow or standing": 61}


def test_a_stop_is_in_no_sample() -> None:
    before = _drive(seconds=25)
    halt = [before[-1]._replace(time_s=26.0 + number) for number in range(30)]
    after = [
        fix._replace(lat_deg=fix.lat_deg + before[-1].lat_deg - MUNICH[0])
        for fix in _drive(seconds=25, first_s=56.0)
    ]
    samples, _ = cut_samples(_reading([*before, *halt, *after]))
    assert len(samples) == 4
    assert all(one.end_s <= 26 or one.start_s >= 55 for one in samples)


def test_a_receiver_that_repeats_its_last_fix_at_speed_gives_no_sample() -> None:
    stale = [fix._replace(lat_deg=MUNICH[0]) for fix in _drive(tells_speed=True)]
    assert cut_samples(_reading(stale))[0] == ()


def test_no_sample_spans_a_gap() -> None:
    fixes = [fix for fix in _drive(seconds=100) if not 33 < fix.time_s < 45]
    samples, _ = cut_samples(_reading(fixes))
    assert samples
    assert all(one.end_s <= 33 or one.start_s >= 45 for one in samples)


def test_fixes_every_few_seconds_are_enough() -> None:
    samples, _ = cut_samples(_reading(_drive(seconds=120, every_s=MOST_GAP_S)))
    assert len(samples) == 12


def test_bad_fixes_are_left_out_and_counted() -> None:
    fixes = _drive()
    fixes[7] = fixes[7]._replace(lat_deg=0.0, lon_deg=0.0)
    fixes[8] = fixes[8]._replace(mode=0)
    samples, dropped = cut_samples(_reading(fixes))
    assert len(samples) == 6
    assert dropped["bad fix"] == 2


def test_a_track_beyond_the_video_counts_only_inside_it() -> None:
    fixes = _drive(seconds=200, first_s=-100.0)
    samples, dropped = cut_samples(_reading(fixes), duration_s=45.0)
    assert [one.start_s for one in samples] == [0.0, 10.0, 20.0, 30.0]
    assert dropped["no time in the video"] == 155


def test_a_track_without_times_gives_no_sample() -> None:
    fixes = [fix._replace(time_s=math.nan) for fix in _drive()]
    samples, dropped = cut_samples(_reading(fixes))
    assert samples == ()
    assert dropped == {"no time in the video": 61}


def test_a_single_position_gives_no_sample() -> None:
    reading = _reading([Fix(*MUNICH, time_s=0.0)], is_single_point=True)
    assert cut_samples(reading)[0] == ()


def test_no_fixes_at_all_give_no_sample() -> None:
    assert cut_samples(_reading([])) == ((), {})


@pytest.mark.parametrize("radius_m", [1.0, 60.0, 200.0])
def test_no_sample_touches_a_zone(radius_m: float) -> None:
    fixes = _drive(seconds=120)
    middle = fixes[60]
    zone = Zone(lat_deg=middle.lat_deg, lon_deg=middle.lon_deg, radius_m=radius_m)
    samples, dropped = cut_samples(_reading(fixes), zones=[zone])
    assert dropped["in a privacy zone"] >= 1
    inside = [
        fix.time_s
        for fix in fixes
        if distance_m((fix.lat_deg, fix.lon_deg), (zone.lat_deg, zone.lon_deg))
        <= radius_m + MARGIN_M
    ]
    assert samples
    assert all(one.end_s < inside[0] or one.start_s > inside[-1] for one in samples)


def test_a_sample_between_whose_fixes_a_zone_lies_is_left_out() -> None:
    fixes = _drive(speed_mps=40.0, seconds=200, every_s=5.0)  # 200 m from fix to fix
    lat_deg = (fixes[20].lat_deg + fixes[21].lat_deg) / 2
    zone = Zone(lat_deg=lat_deg, lon_deg=MUNICH[1], radius_m=10.0)
    samples, _ = cut_samples(_reading(fixes), zones=[zone])
    assert samples
    assert all(one.end_s <= 100 or one.start_s >= 105 for one in samples)


def test_a_bad_fix_in_a_zone_keeps_samples_away_too() -> None:
    fixes = _drive(seconds=120)
    home = Fix(48.2, 11.7, time_s=60.5, mode=0)
    zone = Zone(lat_deg=48.2, lon_deg=11.7, radius_m=100.0)
    samples, _ = cut_samples(_reading([*fixes[:61], home, *fixes[61:]]), zones=[zone])
    assert samples
    assert all(one.end_s < 60 or one.start_s > 61 for one in samples)


def test_null_island_in_between_leads_no_line_through_a_zone() -> None:
    fixes = _drive(seconds=60)
    fixes[30] = Fix(0.0, 0.0, time_s=30.0)
    zone = Zone(lat_deg=24.0685, lon_deg=5.7875, radius_m=50_000.0)
    samples, dropped = cut_samples(_reading(fixes), zones=[zone])
    assert len(samples) == 5
    assert dropped["in a privacy zone"] == 0


def test_samples_last_long_enough_at_any_rate() -> None:
    rng = np.random.default_rng(3)
    times_s = np.cumsum(rng.uniform(0.05, 2.0, 400))
    fixes = [
        Fix(MUNICH[0] + 12.0 * time_s / DEG_M, MUNICH[1], time_s=time_s)
        for time_s in times_s.tolist()
    ]
    samples, _ = cut_samples(_reading(fixes))
    assert len(samples) > 25
    assert all(one.end_s - one.start_s >= LEAST_SPAN_S - 0.002 for one in samples)


class _Reader:
    """Knows the tracks of made files by their names."""

    def __init__(self, tracks: dict[str, list[Fix]]) -> None:
        self.tracks = tracks
        self.thread = threading.get_ident()

    def read(self, video: Video) -> Recording:
        assert self.thread == threading.get_ident()
        fixes = self.tracks.get(video.name)
        return Recording(reading=None if fixes is None else _reading(fixes))


def _label(
    folder: Path, tracks: dict[str, list[Fix]], out: Path | None = None, **options: object
) -> list[dict[str, str]]:
    for number, name in enumerate(tracks):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + number.to_bytes(4, "big"))

    @contextmanager
    def make_reader() -> Iterator[_Reader]:
        yield _Reader(tracks)

    out = out or folder / "manifest.csv"
    options.setdefault("console", Console())
    code = run_label(folder, out, make_reader=make_reader, **options)  # type: ignore[arg-type]
    assert code == 0
    with out.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_manifest_elsewhere_says_how_training_finds_the_footage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "my card"
    _label(card, {"a.mp4": _drive()}, tmp_path / "m.csv")
    spec = f"manifest:{tmp_path / 'm.csv'}?footage={card}"
    assert f"to train or calibrate on it: '{spec}'" in capsys.readouterr().err
    assert len(open_dataset(spec, "train").entries) + len(open_dataset(spec, "val").entries)
    _label(card, {"a.mp4": _drive()})
    assert "manifest:" not in capsys.readouterr().err


def test_the_manifest_names_video_time_place_and_split(tmp_path: Path) -> None:
    rows = _label(tmp_path, {"trip/a.mp4": _drive()})
    assert len(rows) == 6
    assert tuple(rows[0]) == COLUMNS
    first = rows[0]
    assert (first["video"], first["start_s"], first["end_s"]) == ("trip/a.mp4", "0.0", "10.0")
    assert (first["city"], first["state_code"], first["country_code"]) == ("Munich", "DE-BY", "DE")
    assert (first["country"], first["continent"], first["continent_code"]) == (
        "Germany",
        "Europe",
        "EU",
    )
    assert first["city_geonameid"] == "2867714"
    assert (first["quality"], first["speed_mps"], first["split"]) == ("good", "15.0", "train")


def test_the_same_footage_gives_the_same_bytes(tmp_path: Path) -> None:
    tracks = {f"{number}.mp4": _drive((40.0 + number, 3.0)) for number in range(12)}
    _label(tmp_path, tracks, tmp_path / "one.csv")
    _label(tmp_path, tracks, tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def test_far_places_are_dealt_out_in_their_shares(tmp_path: Path) -> None:
    tracks = {f"{number}.mp4": _drive((40.0 + number, 3.0)) for number in range(20)}
    rows = _label(tmp_path, tracks, val_share=0.2, test_share=0.1)
    splits = [row["split"] for row in rows]
    assert (splits.count("train"), splits.count("val"), splits.count("test")) == (84, 24, 12)


def test_the_seed_decides_which_places_are_dealt_where(tmp_path: Path) -> None:
    tracks = {f"{number}.mp4": _drive((40.0 + number, 3.0)) for number in range(20)}
    dealt = {
        tuple(row["split"] for row in _label(tmp_path, tracks, seed=seed)) for seed in range(3)
    }
    assert len(dealt) == 3


def test_one_place_alone_is_all_train_and_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _label(tmp_path, {"a.mp4": _drive(), "b.mp4": _drive((48.16, 11.6))})
    assert {row["split"] for row in rows} == {"train"}
    assert "one region holds 12 of 12 samples" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        "Record/20260102_030405_NR.mp4",  # BlackVue, rear
        "Record/20260102_030405_NI.mp4",  # interior
        "Record/20260102_030405_PF.mp4",  # parking
    ],
)
def test_rear_interior_and_parking_files_are_left_out(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _label(tmp_path, {f"BlackVue/{name}": _drive(), "Record/berlin.mp4": _drive(BERLIN)})
    assert {row["video"] for row in rows} == {"Record/berlin.mp4"}
    assert "1 used" in capsys.readouterr().err


def test_a_copy_of_a_file_is_not_learnt_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracks = {"a.mp4": _drive()}
    _label(tmp_path, tracks)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "copy.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    rows = _label(tmp_path, tracks)
    assert {row["video"] for row in rows} == {"a.mp4"}
    assert "1 the same as another" in capsys.readouterr().err


def test_nothing_written_or_told_comes_from_a_zone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zones = tmp_path / "zones.txt"
    zones.write_text("52.518,13.408,5000  # work")
    rows = _label(
        tmp_path,
        {"munich.mp4": _drive(), "berlin.mp4": _drive(BERLIN), "paris.mp4": _drive(PARIS)},
        exclude=["48.137,11.575,5000"],
        exclude_file=zones,
        console=Console("verbose"),
    )
    told = capsys.readouterr()
    assert {row["video"] for row in rows} == {"paris.mp4"}
    for text in (told.out, told.err, (tmp_path / "manifest.csv").read_text()):
        for secret in ("munich", "Munich", "berlin", "Berlin", "48.13", "11.57", "52.5"):
            assert secret not in text


def test_a_wrong_zone_stops_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        _label(tmp_path, {"a.mp4": _drive()}, exclude=["48.137,11.575"])
    assert not (tmp_path / "manifest.csv").exists()


def test_footage_without_gps_leaves_a_header_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    assert _label(tmp_path, {}) == []
    assert (tmp_path / "manifest.csv").read_text().startswith("video,start_s,end_s,")
    told = capsys.readouterr().err
    assert "1 without a position" in told
    assert "there is no sample" in told


def test_a_folder_without_videos_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoVideosError):
        _label(tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_into_one_manifest_are_refused(tmp_path: Path) -> None:
    with OutputLock([str(tmp_path / "manifest.csv")]), pytest.raises(OutputError, match="another"):
        _label(tmp_path, {"a.mp4": _drive()})


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.5, 0.5), (float("nan"), 0.1)])
def test_impossible_shares_are_refused(tmp_path: Path, shares: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="less than 1"):
        _label(tmp_path, {"a.mp4": _drive()}, val_share=shares[0], test_share=shares[1])
