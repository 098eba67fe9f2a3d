"""Videos with a manifest become clips, decoded as a scan decodes them."""

from __future__ import annotations

import csv
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotag.footage.clips import Sampling, Window
from geotag.footage.decode import open_video
from geotag.label import COLUMNS as LABEL_COLUMNS
from geotag.places.gazetteer import read_gazetteer
from geotag.types import Video
from tests.media import read_index, write_video
from train.config import EvaluatedPolicy, load_preset
from train.data.dataset import Augmentation, BadSample, Sample, SamplingRange, View
from train.data.manifest import ManifestClips, open_manifest
from train.data.manifest_rows import COLUMNS, read_rows
from train.data.packing import pack
from train.data.shard_index import Packing
from train.data.shards import open_shards
from train.data.stretches import draw_clip
from train.errors import DatasetError
from train.evaluation.sets import dataset_task
from train.guards import digest_of
from train.training import training_facts

FPS = 30
MUNICH = {
    "city_geonameid": "2867714",
    "state_code": "DE-BY",
    "country_code": "DE",
    "continent_code": "EU",
    "city": "Munich",
    "state": "Bavaria",
    "country": "Germany",
    "continent": "Europe",
    "lat_deg": "48.2",
    "lon_deg": "11.5",
}
SINGAPORE = {
    "city_geonameid": "1880252",
    "state_code": "",
    "country_code": "SG",
    "continent_code": "AS",
    "city": "Singapore",
    "state": "",
    "country": "Singapore",
    "continent": "Asia",
    "lat_deg": "1.3",
    "lon_deg": "103.8",
}
NOWHERE = dict.fromkeys(MUNICH, "") | {"lat_deg": "0.5", "lon_deg": "-150"}
ROW = {
    "video": "cam/a.mp4",
    "start_s": "0",
    "end_s": "10",
    "quality": "good",
    "speed_mps": "12.5",
    "drive_id": "d1",
    "cell": "1-1",
    "split": "train",
    **MUNICH,
}


def _write(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, LABEL_COLUMNS)
        writer.writeheader()
        writer.writerows(ROW | row for row in rows)
    return path


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty seconds with a key frame each second, and a file that is no video."""
    folder = tmp_path_factory.mktemp("footage")
    (folder / "cam").mkdir()
    write_video(folder / "cam" / "a.mp4", frames=30 * FPS, fps=FPS, gop=FPS)
    (folder / "cam" / "broken.mp4").write_bytes(b"no video" * 1000)
    return folder


@contextmanager
def _opened(path: Path, footage: Path, split: str = "train") -> Iterator[ManifestClips]:
    dataset = open_manifest(path, split, footage=footage)  # type: ignore[arg-type]
    try:
        yield dataset
    finally:
        dataset.close()


def _numbers(sample: Sample | BadSample) -> list[int]:
    assert isinstance(sample, Sample), sample
    return [read_index(picture) for picture in sample.clip_THWC]


def test_the_columns_are_among_those_that_geotag_label_writes() -> None:
    assert set(COLUMNS) <= set(LABEL_COLUMNS)


def test_rows_become_samples_with_their_places_points_and_drives(
    tmp_path: Path, footage: Path
) -> None:
    path = _write(
        tmp_path / "labels.csv",
        {},
        {"start_s": "10", "end_s": "20.5", "drive_id": "d2", **SINGAPORE},
        {"start_s": "20.5", "end_s": "30", **NOWHERE},
        {"video": "cam/b.mp4", "split": "val", "drive_id": "d3", **SINGAPORE},
    )
    with _opened(path, footage) as dataset:
        assert [entry.name for entry in dataset.entries] == ["cam/a.mp4@0", "cam/a.mp4@10"]
        assert [entry.group for entry in dataset.entries] == ["d1", "d2"]
        assert dataset.left_out == 1
        assert dataset.notes == ("1 rows name no city and are left out",)
        assert dataset.name == "labels.csv train"
        cities = dataset.hierarchy.places["city"]
        assert [place.name for place in cities] == ["Munich", "Singapore"]
        assert [dataset.entries[at].city_id for at in range(2)] == [0, 1]
        states = dataset.hierarchy.places["state"]
        assert [(state.name, state.code) for state in states] == [
            ("Bavaria", "DE-BY"),
            ("Singapore", ""),
        ]
        sample = dataset.read(1, View(frames=4, image_px=64))
        assert isinstance(sample, Sample)
        assert sample.city_id == 1
        assert sample.point_deg == (1.3, 103.8)
    table = read_gazetteer().table
    munich = int(np.flatnonzero(table.geonameids == 2867714)[0])
    assert cities[0].lat_deg == pytest.approx(float(table.lats_deg[munich]), abs=1e-4)
    assert cities[0].lon_deg == pytest.approx(float(table.lons_deg[munich]), abs=1e-4)
    with _opened(path, footage, "val") as val:
        assert val.places_csv == dataset.places_csv
        assert len(val.entries) == 1


def test_a_city_that_the_gazetteer_does_not_know_lies_amid_its_rows(
    tmp_path: Path, footage: Path
) -> None:
    village = MUNICH | {"city": "Our village", "city_geonameid": ""}
    path = _write(
        tmp_path / "labels.csv",
        village | {"lat_deg": "47", "lon_deg": "11"},
        village | {"lat_deg": "49", "lon_deg": "11", "start_s": "10", "end_s": "20"},
    )
    with _opened(path, footage) as dataset:
        (city,) = dataset.hierarchy.places["city"]
    assert (city.lat_deg, city.lon_deg) == (pytest.approx(48, abs=1e-3), pytest.approx(11))


def test_a_city_without_a_state_is_one_class_whatever_district_its_rows_lie_in(
    tmp_path: Path, footage: Path
) -> None:
    places = read_gazetteer().locate([22.31, 22.32], [114.22, 114.17])  # Kwun Tong, Mong Kok
    assert len({place.state for place in places}) == 2
    rows = [
        {name: str(getattr(place, name) or "") for name in MUNICH if "_deg" not in name}
        | {"start_s": str(number)}
        for number, place in enumerate(places)
    ]
    with _opened(_write(tmp_path / "labels.csv", *rows), footage) as dataset:
        assert [place.name for place in dataset.hierarchy.places["city"]] == ["Hong Kong"]
        assert [place.name for place in dataset.hierarchy.places["state"]] == ["Hong Kong"]


def test_two_cities_of_one_name_in_one_state_are_two_classes(tmp_path: Path, footage: Path) -> None:
    path = _write(
        tmp_path / "labels.csv",
        MUNICH | {"city_geonameid": "2867715"},
        MUNICH | {"start_s": "10", "end_s": "20"},
    )
    with _opened(path, footage) as dataset:
        names = [place.name for place in dataset.hierarchy.places["city"]]
        assert names == ["Munich", "Munich (2867715)"]
        assert [dataset.entries[at].city_id for at in range(2)] == [1, 0]


@pytest.mark.parametrize("policy", ["dense", "exact", "keyframe"])
def test_a_clip_has_the_very_frames_that_a_scan_takes(
    tmp_path: Path, footage: Path, policy: str
) -> None:
    path = _write(tmp_path / "labels.csv", {"start_s": "5", "end_s": "25"})
    span_s = 2.5 if policy == "dense" else 12.0
    view = View(frames=8, image_px=64, policy=policy, span_s=span_s)  # type: ignore[arg-type]
    window, sampling = draw_clip(5.0, 25.0, view, 0, SamplingRange())
    video = footage / "cam" / "a.mp4"
    found = Video(path=video, name="", video_id="", size_bytes=video.stat().st_size)
    with open_video(found) as reader:
        scanned = reader.read_clip(window, sampling)
    assert scanned.policy == policy
    with _opened(path, footage) as dataset:
        sample = dataset.read(0, view)
    assert isinstance(sample, Sample)
    assert np.array_equal(sample.clip_THWC, scanned.frames_THWC)


def test_no_frame_lies_outside_the_stretch(tmp_path: Path, footage: Path) -> None:
    path = _write(tmp_path / "labels.csv", {"start_s": "4", "end_s": "14.5"})
    with _opened(path, footage) as dataset:
        for index in range(12):
            view = View(frames=8, image_px=64, seed=index)
            numbers = _numbers(dataset.read(0, view))
            assert min(numbers) >= 4 * FPS
            assert max(numbers) <= 14.5 * FPS
            assert numbers == sorted(numbers)


def test_where_the_nearest_key_frames_lie_outside_the_clip_is_chosen_by_time(
    tmp_path: Path, footage: Path
) -> None:
    path = _write(tmp_path / "labels.csv", {"start_s": "4.3", "end_s": "6.7"})
    with _opened(path, footage) as dataset:
        view = View(frames=2, image_px=64, policy="keyframe", span_s=2.4)
        numbers = _numbers(dataset.read(0, view))  # there is a key frame each second
    assert 4.3 * FPS <= min(numbers) < max(numbers) <= 6.7 * FPS


def test_what_is_measured_is_named_by_the_spans_that_the_stretches_allow(
    tmp_path: Path, footage: Path
) -> None:
    path = _write(tmp_path / "labels.csv", {}, {"start_s": "10", "end_s": "20"})
    asked = [("keyframe", 21.0), ("exact", 8.0), ("exact", 21.0), ("exact", 12.0), ("dense", 2.5)]
    policies = tuple(EvaluatedPolicy(policy=policy, span_s=span_s) for policy, span_s in asked)  # type: ignore[arg-type]
    view = View(frames=4, image_px=32)
    with _opened(path, footage) as dataset:
        task = dataset_task(dataset, None, split="train", view=view, policies=policies)
        facts = training_facts(load_preset("geotag"), dataset)
    # Key frames keep half of their allowed distance, 1.25 s, from either end.
    assert [(policy.policy, policy.span_s) for policy in task.policies] == [
        ("keyframe", 7.5), ("exact", 8.0), ("exact", 10.0), ("dense", 2.5)
    ]  # fmt: skip
    assert tuple(given.policy for given in task.tests) == task.policies
    assert (facts["sampling"]["min_span_s"], facts["sampling"]["max_span_s"]) == (2.0, 10.0)


def test_another_content_under_the_same_names_is_told_apart(tmp_path: Path, footage: Path) -> None:
    digests = []
    for number, rows in enumerate(({}, {"end_s": "9"}, {})):
        with _opened(_write(tmp_path / f"{number}.csv", rows), footage) as dataset:
            digests.append(digest_of(dataset))
    assert digests[0] == digests[2] != digests[1]


def test_the_same_index_and_seed_give_the_same_clip_and_others_give_others(
    tmp_path: Path, footage: Path
) -> None:
    path = _write(tmp_path / "labels.csv", {"end_s": "30"})
    with _opened(path, footage) as dataset:
        copy = pickle.loads(pickle.dumps(dataset))
        clips = [
            dataset.read(0, View(frames=8, image_px=64, seed=seed)) for seed in (0, 1, 2, 3, 0)
        ]
        again = copy.read(0, View(frames=8, image_px=64, seed=0))
        copy.close()
    numbers = [_numbers(clip) for clip in clips]
    assert numbers[0] == numbers[4] == _numbers(again)
    assert len({tuple(one) for one in numbers}) == 4


def test_parts_of_a_stretch_are_different_clips(tmp_path: Path, footage: Path) -> None:
    path = _write(tmp_path / "labels.csv", {"end_s": "30"})
    with _opened(path, footage) as dataset:
        firsts = [
            _numbers(
                dataset.read(
                    0,
                    View(frames=4, image_px=64, policy="dense", span_s=2.0, part=part, parts=3),
                )
            )[0]
            for part in range(3)
        ]
    assert firsts == [140, 420, 700]


def test_clips_are_disturbed_where_the_view_asks_for_it(tmp_path: Path, footage: Path) -> None:
    path = _write(tmp_path / "labels.csv", {})
    augmentation = Augmentation(least_crop=0.6, colour_jitter=0.3, mask_prob=1.0)
    with _opened(path, footage) as dataset:
        plain = dataset.read(0, View(frames=4, image_px=64, seed=1))
        wild = dataset.read(0, View(frames=4, image_px=64, seed=1, augmentation=augmentation))
    assert isinstance(plain, Sample)
    assert isinstance(wild, Sample)
    assert not np.array_equal(plain.clip_THWC, wild.clip_THWC)


def test_videos_that_cannot_be_read_are_bad_samples(tmp_path: Path, footage: Path) -> None:
    path = _write(
        tmp_path / "labels.csv",
        {},
        {"video": "cam/broken.mp4"},
        {"video": "cam/missing.mp4"},
        {"video": "cam"},
        {"start_s": "500", "end_s": "510"},
    )
    with _opened(path, footage) as dataset:
        read = [dataset.read(index, View(frames=4, image_px=64)) for index in range(5)]
    assert isinstance(read[0], Sample)
    for sample, video in zip(read[1:], ("broken", "missing", "cam", "a.mp4"), strict=True):
        assert isinstance(sample, BadSample)
        assert video in sample.reason


def test_footage_that_is_not_there_is_told_with_the_word_that_names_it(tmp_path: Path) -> None:
    path = _write(tmp_path / "labels.csv", {})
    with pytest.raises(DatasetError, match=rf"'manifest:{path}\?footage=FOLDER'"):
        open_manifest(path, "train")


def test_footage_is_packed_and_read_back(tmp_path: Path, footage: Path) -> None:
    path = _write(tmp_path / "labels.csv", {"end_s": "15"}, {"video": "cam/broken.mp4"})
    with _opened(path, footage) as dataset:
        report = pack(dataset, tmp_path / "packed", "train", Packing(frames=8, image_px=96))
        view = View(frames=8, image_px=96)
        original = _numbers(dataset.read(0, view))
    assert (report.clips, len(report.bad)) == (1, 1)
    sample = open_shards(tmp_path / "packed", "train").read(0, view)
    assert _numbers(sample) == original


def test_the_folder_of_the_manifest_is_the_footage_unless_another_is_given(
    tmp_path: Path, footage: Path
) -> None:
    _write(footage / "labels.csv", {})
    assert len(open_manifest(footage / "labels.csv", "train").entries) == 1
    path = _write(tmp_path / "labels.csv", {})
    with pytest.raises(DatasetError, match=r"none of its 1 videos .* 'cam/a\.mp4'.*labelled"):
        open_manifest(path, "train")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"start_s": "10", "end_s": "10"}, "line 3: start_s 10, end_s 10"),
        ({"start_s": "-1"}, "line 3: start_s -1"),
        ({"end_s": "nan"}, "line 3: end_s is 'nan'"),
        ({"start_s": ""}, "line 3: start_s is ''"),
        ({"lat_deg": "91"}, "line 3: latitude 91"),
        ({"lon_deg": "east"}, "line 3: lon_deg is 'east'"),
        ({"split": "dev"}, "line 3: split 'dev'; allowed are train, val, test"),
        ({"video": "../a.mp4"}, r"line 3: video '\.\./a\.mp4'"),
        ({"video": "/a.mp4"}, "line 3: video '/a.mp4'"),
        ({"video": ""}, "line 3: video ''"),
        ({"country": ""}, "line 3: the city 'Munich' has no country"),
        ({"continent": " "}, "line 3: the city 'Munich' has no continent"),
        ({"city_geonameid": "x1"}, "line 3: city_geonameid 'x1'"),
        ({"start_s": "0.0"}, "line 3: 'cam/a.mp4' from 0 s is in line 2 already"),
        ({"start_s": "5", "state": "Hesse"}, "line 3: the city 'Munich' is Munich, Hesse.*line 2"),
        ({"start_s": "5", "continent": "Asia"}, "line 3: the .* line 2 it is"),
        ({"start_s": "5", "state_code": "DE-XX"}, "line 3: the state 'Bavaria' is DE-XX"),
    ],
)
def test_a_wrong_row_is_named(
    tmp_path: Path, footage: Path, row: dict[str, str], said: str
) -> None:
    path = _write(tmp_path / "labels.csv", {}, row)
    with pytest.raises(DatasetError, match=rf"labels\.csv, {said}"):
        open_manifest(path, "train", footage=footage)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1: the columns video, start_s"),
        (b"video,split\r\na.mp4,train\r\n", "line 1: the columns start_s"),
        (b"\xff\xfe\x00", "UTF-8"),
        ((",".join(COLUMNS) + "\r\na.mp4,1\r\n").encode(), "line 2: 2 fields"),
        ((",".join(COLUMNS) + '\r\n"a.mp4\r\n').encode(), "line 2"),
        ((",".join([*COLUMNS, "video"]) + "\r\n").encode(), "a column is double"),
        ((",".join(COLUMNS) + "\r\n").encode(), "no row names a city"),
        ((",".join(COLUMNS) + "\r\n" + "x" * 200_000).encode(), "line 2: field larger"),
    ],
)
def test_a_file_that_is_no_manifest_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=said):
        open_manifest(path, "train")


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8")))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        header = ",".join(COLUMNS).encode() + b"\n"
        for start in (b"", header):
            path.write_bytes(start + content)
            with suppress(DatasetError):
                assert all(row.start_s < row.end_s for row in read_rows(path))


ALLOWED = SamplingRange(min_span_s=2.0, max_span_s=25.0, max_keyframe_gap_s=2.5, clips=3)


@given(
    start_s=st.floats(0, 1e5),
    length_s=st.floats(0.1, 1000),
    policy=st.sampled_from([None, "dense", "exact", "keyframe"]),
    span_s=st.none() | st.floats(0.1, 100),
    seed=st.none() | st.integers(0, 1000),
    part=st.integers(0, 2),
)
def test_a_clip_lies_inside_its_stretch(
    start_s: float,
    length_s: float,
    policy: str | None,
    span_s: float | None,
    seed: int | None,
    part: int,
) -> None:
    view = View(
        frames=16,
        image_px=64,
        policy=policy,  # type: ignore[arg-type]
        span_s=span_s,
        seed=seed,
        part=part,
        parts=3,
    )
    window, sampling = draw_clip(start_s, start_s + length_s, view, 3, ALLOWED)
    assert isinstance(window, Window)
    assert isinstance(sampling, Sampling)
    assert start_s - 1e-6 <= window.start_s < window.end_s <= start_s + length_s + 1e-6
    assert sampling.policy == (policy or sampling.policy)
    if span_s is not None:
        assert window.end_s - window.start_s <= span_s + 1e-6


def test_drawn_spans_fill_their_ranges() -> None:
    view = View(frames=16, image_px=64, seed=0)
    drawn = [draw_clip(0.0, 60.0, view, index, ALLOWED)[1] for index in range(600)]
    for policy, low_s, high_s in (("dense", 2, 4), ("exact", 2, 25), ("keyframe", 8, 25)):
        spans_s = [one.span_s for one in drawn if one.policy == policy]
        assert 150 < len(spans_s) < 250
        assert low_s <= min(spans_s) < low_s * 1.1
        assert high_s * 0.9 < max(spans_s) <= high_s
    short = {draw_clip(0.0, 10.0, view, index, ALLOWED)[1].policy for index in range(50)}
    assert short == {"dense", "exact"}
