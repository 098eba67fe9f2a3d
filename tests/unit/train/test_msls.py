"""MSLS in miniature, laid out and with the columns of its release."""

from __future__ import annotations

import contextlib
import csv
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotag.geo import distance_m
from tests.pictures import grey_jpeg
from train.data.city_tree import make_tree, read_folder_table
from train.data.dataset import BadSample, Sample, View
from train.data.msls import open_msls
from train.data.msls_tables import read_side
from train.errors import DatasetError

VIEW = View(frames=16, image_px=8)
PLACES = Path(__file__).parents[3] / "train" / "data" / "msls_places.csv"
CLUSTER = "unique_cluster"
SIZES = ((16, 12), (12, 16), (20, 9))

Frame = tuple[str, str, int, float, float, bool]
"""Key, sequence, frame number, longitude, latitude, panorama."""


def frames_of(
    sequence: str,
    count: int = 16,
    *,
    lon: float = 10.40,
    lat: float = 63.43,
    panoramas: tuple[int, ...] = (),
) -> list[Frame]:
    """A drive to the north, a frame each 20 m."""
    return [
        (f"{sequence}-{n:04}_x", sequence, n, lon, lat + n * 0.00018, n in panoramas)
        for n in range(count)
    ]


def write_table(path: Path, header: list[str], rows: list[list[object]]) -> None:
    """A table as pandas writes it: the first column has no name and counts the rows."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["", *header])
        writer.writerows([number, *row] for number, row in enumerate(rows))


def write_side(
    side: Path, frames: list[Frame], *, raw: bool = True, sequence: str = "sequence_key"
) -> None:
    (side / "images").mkdir(parents=True)
    for number, (key, _, frame, *_) in enumerate(frames):
        # Images of MSLS have different sizes.
        picture = grey_jpeg(10 * (frame % 20), *SIZES[number % 3])
        (side / "images" / f"{key}.jpg").write_bytes(picture)
    write_table(
        side / "seq_info.csv", ["key", sequence, "frame_number"], [list(f[:3]) for f in frames]
    )
    write_table(
        side / "subtask_index.csv",
        ["key", "all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d"],
        [[f[0], True, *[False] * 6] for f in frames],
    )
    if raw:
        write_table(
            side / "raw.csv",
            ["key", "lon", "lat", "ca", "captured_at", "pano"],
            [[f[0], f[3], f[4], 12.5, "2018-01-02", f[5]] for f in frames],
        )
        write_table(
            side / "postprocessed.csv",
            ["key", "easting", "northing", "night", "control_panel", "view_direction", CLUSTER],
            [[f[0], 1.0, 2.0, False, False, "Forward", 7] for f in frames],
        )


def write_msls(root: Path, drives: int = 2) -> Path:
    for city, lon, lat in (("trondheim", 10.40, 63.43), ("cph", 12.56, 55.67)):
        for side in ("query", "database"):
            frames = [
                frame
                for n in range(drives)
                for frame in frames_of(f"{side}{n}", lon=lon + 0.05 * n, lat=lat)
            ]
            write_side(root / "train_val" / city / side, frames)
    write_side(root / "test" / "miami" / "query", frames_of("m"), raw=False)
    return root


def everything(root: Path, **options: bool) -> list[tuple[str, int, str]]:
    return [
        (entry.name, entry.city_id, entry.group)
        for split in ("train", "val", "test")
        for entry in open_msls(root, split, **options).entries  # type: ignore[arg-type]
    ]


def test_the_thirty_cities_are_a_tree_in_which_only_two_share_a_state() -> None:
    rows = read_folder_table(PLACES)
    tree = make_tree(rows, source="msls_places.csv")
    assert [tree.hierarchy.size(level) for level in ("city", "state")] == [30, 29]
    states = tree.hierarchy.ancestors["state"]
    assert states[tree.city_ids["toronto"]] == states[tree.city_ids["ottawa"]]
    assert list(rows) == sorted(rows)
    assert rows["cph"]["city"] == "Copenhagen"
    assert rows["sf"]["city"] == "San Francisco"
    known = read_folder_table(PLACES.parents[2] / "geotag" / "places" / "places166.csv")
    ids = {row["geonameid"] for row in known.values()}
    foreign = {folder for folder, row in rows.items() if row["geonameid"] not in ids}
    assert foreign == {
        "trondheim", "toronto", "saopaulo", "zurich", "paris", "ottawa", "phoenix", "goa", "sf"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "lat_deg", "lon_deg"),
    [
        ("trondheim", 63.43, 10.40),
        ("saopaulo", -23.55, -46.63),
        ("goa", 15.49, 73.83),
        ("sf", 37.77, -122.42),
        ("zurich", 47.37, 8.54),
        ("phoenix", 33.45, -112.07),
        ("toronto", 43.70, -79.40),
        ("ottawa", 45.42, -75.70),
        ("paris", 48.86, 2.35),
    ],
)
def test_the_cities_lie_where_they_lie(folder: str, lat_deg: float, lon_deg: float) -> None:
    row = read_folder_table(PLACES)[folder]
    point = (float(row["lat_deg"]), float(row["lon_deg"]))
    assert distance_m(point, (lat_deg, lon_deg)) < 3000


def test_clips_are_sequences_of_a_side_of_a_city(tmp_path: Path) -> None:
    write_msls(tmp_path)
    found = sorted(everything(tmp_path))
    assert [name for name, _, _ in found] == [
        f"{city}/{side}/{side}{n}"
        for city in ("cph", "trondheim")
        for side in ("database", "query")
        for n in range(2)
    ]
    assert [city_id for _, city_id, _ in found] == [0] * 4 + [1] * 4
    dataset = open_msls(tmp_path, "train")
    assert dataset.name == "MSLS train"
    assert [place.name for place in dataset.hierarchy.places["city"]] == ["Copenhagen", "Trondheim"]
    assert dataset.places_csv.splitlines()[1].startswith("Copenhagen,Capital Region,Denmark")


def test_a_clip_is_read_in_order_with_its_measured_middle(tmp_path: Path) -> None:
    frames = frames_of("s", 20)
    write_side(tmp_path / "train_val" / "trondheim" / "query", frames[::-1])
    dataset = open_msls(tmp_path, "train")
    sample = dataset.read(0, VIEW)
    assert isinstance(sample, Sample)
    assert sample.clip_THWC.shape == (16, 8, 8, 3)
    greys = sample.clip_THWC[:, 4, 4, 0].astype(int)
    picked = [0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15, 16, 18, 19]
    assert np.abs(greys - 10 * np.array(picked)).max() <= 2
    assert sample.point_deg == (frames[10][4], frames[10][3])
    assert sample.scene_S is None


@pytest.mark.parametrize("count", [16, 17, 31, 32, 47, 64, 100])
def test_the_middle_of_a_whole_sequence_is_its_middle_frame(tmp_path: Path, count: int) -> None:
    frames = frames_of("s", count)
    write_side(tmp_path / "train_val" / "trondheim" / "query", frames)
    sample = open_msls(tmp_path, "train").read(0, VIEW)
    assert isinstance(sample, Sample)
    assert sample.point_deg == (frames[count // 2][4], frames[count // 2][3])


def test_the_position_of_a_stretch_lies_in_the_stretch(tmp_path: Path) -> None:
    frames = frames_of("s", 100)
    write_side(tmp_path / "train_val" / "trondheim" / "query", frames)
    dataset = open_msls(tmp_path, "train")
    lats = set()
    for seed in range(10):
        sample = dataset.read(0, View(frames=16, image_px=8, picking="mixed", seed=seed))
        assert isinstance(sample, Sample)
        assert sample.point_deg is not None
        lats.add(sample.point_deg[0])
    assert len(lats) > 3
    assert lats <= {frame[4] for frame in frames}


def test_panoramas_go_before_frames_are_counted(tmp_path: Path) -> None:
    frames = frames_of("a", 17, panoramas=(3,)) + frames_of("b", 17, panoramas=(3, 4))
    write_side(tmp_path / "train_val" / "trondheim" / "query", frames)
    dataset = open_msls(tmp_path, "train")
    assert [entry.name for entry in dataset.entries] == ["trondheim/query/a"]
    assert dataset.images.tolist() == [f[0].encode() for f in frames_of("a", 17) if f[2] != 3]
    assert any("3 panoramas, then 1 sequences of fewer than 16" in note for note in dataset.notes)


def test_the_column_may_be_called_as_the_readme_calls_it(tmp_path: Path) -> None:
    side = tmp_path / "train_val" / "trondheim" / "query"
    write_side(side, frames_of("s"), sequence="sequence_id")
    assert len(everything(tmp_path)) == 1


def test_test_cities_come_when_asked_for_without_a_position(tmp_path: Path) -> None:
    write_msls(tmp_path)
    assert not any("miami" in name for name, _, _ in everything(tmp_path))
    dataset = open_msls(tmp_path, "train", with_test_cities=True)
    cities = [place.name for place in dataset.hierarchy.places["city"]]
    assert cities == ["Copenhagen", "Miami", "Trondheim"]
    (index,) = [n for n, entry in enumerate(dataset.entries) if "miami" in entry.name]
    sample = dataset.read(index, VIEW)
    assert isinstance(sample, Sample)
    assert sample.point_deg is None
    assert any("no raw.csv" in note for note in dataset.notes)


def test_both_sides_of_a_sequence_are_in_one_split(tmp_path: Path) -> None:
    frames = [frame for n in range(40) for frame in frames_of(f"s{n}", 16)]
    for side in ("query", "database"):
        write_side(tmp_path / "train_val" / "trondheim" / side, frames)
    groups = [
        {entry.group for entry in open_msls(tmp_path, split).entries}  # type: ignore[arg-type]
        for split in ("train", "val", "test")
    ]
    assert sum(map(len, groups)) == 40
    assert all(groups)
    assert len(everything(tmp_path)) == 80


def test_spatial_splits_keep_a_hundred_metres_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [
        frame
        for n in range(60)
        for frame in frames_of(
            f"s{n}", 16, lon=10.3 + 0.2 * rng.random(), lat=63.38 + 0.08 * rng.random()
        )
    ]
    write_side(tmp_path / "train_val" / "trondheim" / "query", frames)
    points = {
        split: open_msls(tmp_path, split, splitting="spatial").points_deg  # type: ignore[arg-type]
        for split in ("train", "val", "test")
    }
    assert all(map(len, points.values()))
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        nearest_m = min(
            distance_m(tuple(a), tuple(b))
            for a in points[first].tolist()
            for b in points[second][::4].tolist()
        )
        assert nearest_m > 100
    assert open_msls(tmp_path, "val", splitting="spatial").name == "MSLS spatial val"


def test_spatial_splits_need_positions(tmp_path: Path) -> None:
    write_msls(tmp_path)
    with pytest.raises(DatasetError, match=r"miami/query has no raw\.csv"):
        open_msls(tmp_path, "train", splitting="spatial", with_test_cities=True)


def test_a_missing_or_damaged_image_is_a_bad_sample(tmp_path: Path) -> None:
    side = tmp_path / "train_val" / "trondheim" / "query"
    write_side(side, frames_of("a") + frames_of("b") + frames_of("c"))
    names = [entry.name for entry in open_msls(tmp_path, "train").entries]
    (side / "images" / "a-0003_x.jpg").unlink()
    (side / "images" / "b-0004_x.jpg").write_bytes(b"no picture")
    dataset = open_msls(tmp_path, "train")
    assert [entry.name for entry in dataset.entries] == names
    found = {name: dataset.read(index, VIEW) for index, name in enumerate(names)}
    for key, file in (("a", "a-0003_x.jpg"), ("b", "b-0004_x.jpg")):
        bad = found.get(f"trondheim/query/{key}")
        if bad is not None:
            assert isinstance(bad, BadSample)
            assert file in bad.reason
            assert f"sequence trondheim/query/{key}" in bad.reason
    assert sum(isinstance(sample, BadSample) for sample in found.values()) >= 1


def test_a_copy_in_another_process_reads_the_same(tmp_path: Path) -> None:
    dataset = open_msls(write_msls(tmp_path), "train")
    copy = pickle.loads(pickle.dumps(dataset))
    view = View(frames=16, image_px=8, picking="mixed", seed=3)
    for index in range(len(dataset.entries)):
        first, again = dataset.read(index, view), copy.read(index, view)
        assert isinstance(first, Sample)
        assert isinstance(again, Sample)
        assert first.clip_THWC.tobytes() == again.clip_THWC.tobytes()
        assert first.point_deg == again.point_deg


def test_folders_that_are_missing_or_unknown_are_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="train_val/ cannot be listed"):
        open_msls(tmp_path, "train")
    (tmp_path / "train_val").mkdir()
    with pytest.raises(DatasetError, match="no cities"):
        open_msls(tmp_path, "train")
    (tmp_path / "train_val" / "gotham").mkdir()
    with pytest.raises(DatasetError, match="'gotham' is no city of MSLS; known are amman"):
        open_msls(tmp_path, "train")
    (tmp_path / "train_val" / "gotham").rename(tmp_path / "train_val" / "oslo")
    (tmp_path / "train_val" / "oslo").rename(tmp_path / "train_val" / "paris")
    with pytest.raises(DatasetError, match="neither query nor database"):
        open_msls(tmp_path, "train")


def test_tables_without_images_are_an_error_unless_asked_otherwise(tmp_path: Path) -> None:
    write_msls(tmp_path)
    for side in ("query", "database"):
        write_side(tmp_path / "train_val" / "paris" / side, [])
        (tmp_path / "train_val" / "paris" / side / "images").rmdir()
    with pytest.raises(DatasetError, match="there is no folder images"):
        open_msls(tmp_path, "train")
    dataset = open_msls(tmp_path, "train", partial=True)
    assert dataset.hierarchy.size("city") == 2
    assert any("paris/query has no images" in note for note in dataset.notes)


def test_images_that_go_away_stop_the_run(tmp_path: Path) -> None:
    dataset = open_msls(write_msls(tmp_path / "here"), "train")
    (tmp_path / "here").rename(tmp_path / "gone")
    with pytest.raises(DatasetError, match="is gone"):
        dataset.read(0, VIEW)


@pytest.mark.parametrize(
    ("table", "text", "told"),
    [
        ("seq_info", None, "extract metadata"),
        ("seq_info", "", "row 1: no column key"),
        ("seq_info", ",key,frame_number\n", "row 1: no column sequence_key or sequence_id"),
        ("seq_info", ",key,sequence_key,frame_number\n0,a,s\n", "row 2: 3 cells"),
        ("seq_info", ",key,sequence_key,frame_number\n0,a,s,x\n", "row 2: frame_number is 'x'"),
        ("seq_info", ",key,sequence_key,frame_number\n0,a,s,1.5\n", "row 2: frame_number"),
        ("seq_info", ",key,sequence_key,frame_number\n0,../a,s,1\n", "row 2: the image key '../a'"),
        ("seq_info", ",key,sequence_key,frame_number\n0,a,,1\n", "row 2: no sequence"),
        ("seq_info", ",key,sequence_key,frame_number\n0,a,s,1\n1,a,s,2\n", "row 3: the image 'a'"),
        ("seq_info", ",key,sequence_key,frame_number\n0,zz,s,1\n", "row 2: the image 'zz' is not"),
        ("seq_info", "\x00\xff,key", "seq_info.csv"),
        ("raw", ",key,lon,lat,ca,captured_at\n", "row 1: no column pano"),
        ("raw", ",key,lon,lat,pano\n0,a,200,1,False\n", "row 2: lat 1, lon 200"),
        ("raw", ",key,lon,lat,pano\n0,a,nan,1,False\n", "row 2: lon is 'nan'"),
        ("raw", ",key,lon,lat,pano\n0,a,1,,False\n", "row 2: lat is ''"),
        ("raw", ",key,lon,lat,pano\n0,a,1,1,maybe\n", "row 2: pano is 'maybe'"),
        ("raw", ",key,lon,lat,pano\n", "row 2: the image 's-0000_x' is not in"),
    ],
)
def test_a_wrong_table_is_told_with_file_and_row(
    tmp_path: Path, table: str, text: str | None, told: str
) -> None:
    side = tmp_path / "train_val" / "trondheim" / "query"
    write_side(side, frames_of("s"))
    path = side / f"{table}.csv"
    path.unlink()
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetError) as caught:
        open_msls(tmp_path, "train")
    assert told in str(caught.value)


@given(content=st.binary(max_size=200), table=st.sampled_from(["seq_info.csv", "raw.csv"]))
def test_any_bytes_are_a_table_or_told_to_be_none(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, table: str
) -> None:
    side = tmp_path_factory.mktemp("side")
    (side / "seq_info.csv").write_text(",key,sequence_key,frame_number\n0,a,s,1\n")
    (side / "raw.csv").write_text(",key,lon,lat,pano\n0,a,1,1,False\n")
    (side / table).write_bytes(content)
    # Nothing but a DatasetError may come out.
    with contextlib.suppress(DatasetError):
        read_side(side)


def test_a_word_that_is_no_splitting_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="allowed are drives, spatial"):
        open_msls(tmp_path, "train", splitting="official")  # type: ignore[arg-type]
