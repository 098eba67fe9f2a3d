"""CityGuessr68k in miniature, laid out and labelled as its release and its released loader say."""

from __future__ import annotations

import contextlib
import csv
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geotag.places.hierarchy import build_hierarchy
from tests.cityguessr import (
    CITIES,
    ids_of,
    label_line,
    text_of,
    write_clip,
    write_labels,
    write_release,
)
from tests.pictures import grey_jpeg
from train.data.city_tree import cityguessr_tree, read_labels_list
from train.data.cityguessr import open_cityguessr
from train.data.cityguessr_labels import read_label_file
from train.data.cityguessr_layout import read_sources
from train.data.dataset import BadSample, Sample, View
from train.errors import DatasetError

VIEW = View(frames=4, image_px=8)
IDS = {  # city, state, country, continent in the numbering of the release
    "Abu_Dhabi": (0, 0, 0, 0),
    "Austin": (13, 13, 9, 4),
}


def all_names(root: Path, **options: str) -> dict[str, list[str]]:
    return {
        split: [entry.name for entry in open_cityguessr(root, split, **options).entries]  # type: ignore[arg-type]
        for split in ("train", "val", "test")
    }


def test_the_tree_is_that_of_the_release() -> None:
    tree = cityguessr_tree()
    sizes = [tree.hierarchy.size(level) for level in ("city", "state", "country", "continent")]
    assert sizes == [166, 157, 91, 6]
    folders = list(tree.city_ids)
    assert folders == sorted(folders)
    assert list(tree.city_ids.values()) == list(range(166))
    for level in ("state", "country", "continent"):
        # First appearance: every new number is the next one.
        numbers = tree.hierarchy.ancestors[level].tolist()
        assert [n for at, n in enumerate(numbers) if n not in numbers[:at]] == list(
            range(max(numbers) + 1)
        )
    groups: dict[int, set[str]] = {}
    for folder, state in zip(folders, tree.hierarchy.ancestors["state"].tolist(), strict=True):
        groups.setdefault(state, set()).add(folder)
    assert sorted(sorted(group) for group in groups.values() if len(group) > 1) == [
        ["Agra", "Kanpur", "Lucknow"],
        ["Austin", "Dallas"],
        ["Calgary", "Edmonton"],
        ["Incheon", "Seoul"],
        ["Jacksonville", "Miami"],
        ["Jeddah", "Makkah"],
        ["Liverpool", "Manchester"],
        ["Memphis", "Nashville"],
    ]
    continents = [place.name for place in tree.hierarchy.places["continent"]]
    assert continents == ["Asia", "Africa", "Oceania", "Europe", "North America", "South America"]
    assert np.bincount(tree.hierarchy.ancestors["continent"]).tolist() == [61, 15, 6, 43, 34, 7]
    per_country = np.bincount(tree.hierarchy.ancestors["country"])
    assert int((per_country > 1).sum()) == 24
    assert int((per_country == 1).sum()) == 67
    for folder, ids in IDS.items():
        assert tuple(ids_of(folder)) == ids
    names = tree.hierarchy.places["city"]
    assert names[tree.city_ids["Malm"]].name == "Malmö"
    assert names[tree.city_ids["Talinn"]].lat_deg == pytest.approx(59.44, abs=0.05)
    assert names[tree.city_ids["Oklahoma"]].name == "Oklahoma City"


def test_folder_names_alone_are_labels_enough(tmp_path: Path) -> None:
    dataset = open_cityguessr(write_release(tmp_path), "test")
    assert dataset.name == "CityGuessr68k test"
    assert [entry.name for entry in dataset.entries] == [f"{city}_0003" for city in CITIES]
    expected = [ids_of(city)[0] for city in CITIES]
    assert [entry.city_id for entry in dataset.entries] == expected
    assert dataset.hierarchy.size("city") == 166
    assert dataset.text_table() is None
    sample = dataset.read(2, VIEW)
    assert isinstance(sample, Sample)
    assert sample.scene_S is None
    assert sample.clip_THWC.shape == (4, 8, 8, 3)
    assert sample.city_id == ids_of("Banglore")[0]


def test_frames_are_taken_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_clip(tmp_path / "val" / "Austin" / "Austin_0000", frames=100)
    dataset = open_cityguessr(tmp_path, "test")
    expected = {
        "reference": range(1, 77, 5),
        "lexicographic": [1, 13, 18, 22, 27, 31, 36, 40, 45, 5, 54, 59, 63, 68, 72, 77],
        "uniform": [4, 10, 16, 22, 29, 35, 41, 47, 54, 60, 66, 72, 79, 85, 91, 97],
    }
    for picking, numbers in expected.items():
        view = View(frames=16, image_px=8, picking=picking)  # type: ignore[arg-type]
        sample = dataset.read(0, view)
        assert isinstance(sample, Sample)
        greys = sample.clip_THWC[:, 4, 4, 0].astype(int)
        assert np.abs(greys - 2 * np.array(list(numbers))).max() <= 1


def test_the_same_view_gives_the_same_bytes_in_a_copy_of_the_dataset(tmp_path: Path) -> None:
    dataset = open_cityguessr(write_release(tmp_path), "train")
    view = View(frames=4, image_px=8, picking="mixed", seed=7)
    copy = pickle.loads(pickle.dumps(dataset))
    assert list(copy.entries) == list(dataset.entries)
    for index in range(len(dataset.entries)):
        first, again = dataset.read(index, view), copy.read(index, view)
        assert isinstance(first, Sample)
        assert isinstance(again, Sample)
        assert first.clip_THWC.tobytes() == again.clip_THWC.tobytes()


@pytest.mark.parametrize("columns", [1, 5, 517, 533])
def test_label_files_are_told_apart_by_their_columns(tmp_path: Path, columns: int) -> None:
    write_release(tmp_path)
    write_labels(tmp_path, columns)
    write_labels(tmp_path, columns, "val")
    dataset = open_cityguessr(tmp_path, "test")
    expected = [ids_of(city)[0] for city in CITIES]
    assert [entry.city_id for entry in dataset.entries] == expected
    sample = dataset.read(0, VIEW)
    assert isinstance(sample, Sample)
    assert (sample.scene_S is not None) == (columns == 533)
    texts = dataset.text_table()
    assert (texts is not None) == (columns >= 517)
    if texts is not None:
        assert texts.shape == (166, 512)
        assert texts.dtype == np.float32
        np.testing.assert_allclose(texts[ids_of("Malm")[0]], text_of("Malm"), atol=1e-6)
        assert not texts[ids_of("Tokyo")[0]].any()


def test_scene_numbers_are_divided_by_their_sum(tmp_path: Path) -> None:
    write_clip(tmp_path / "val" / "Malm" / "Malm_0000")
    scene = [float(n) for n in range(16)]
    (tmp_path / "val_labels.txt").write_text(label_line("Malm_0000", 533, scene=scene) + "\r\n")
    sample = open_cityguessr(tmp_path, "test").read(0, VIEW)
    assert isinstance(sample, Sample)
    assert sample.scene_S is not None
    assert sample.scene_S.dtype == np.float32
    np.testing.assert_allclose(sample.scene_S, np.arange(16) / 120, rtol=1e-6)


@pytest.mark.parametrize("wrong", [float("nan"), -0.5, float("inf"), 0.0])
def test_scene_numbers_that_are_no_distribution_spoil_their_clip_only(
    tmp_path: Path, wrong: float
) -> None:
    write_release(tmp_path, ("Malm",), clips=1)
    write_clip(tmp_path / "val" / "Malm" / "Malm_0002")
    lines = [
        label_line("Malm_0001", 533),
        label_line("Malm_0002", 533, scene=[wrong] + [0.0] * 15),
    ]
    (tmp_path / "val_labels_all.txt").write_text("\n".join(lines))
    dataset = open_cityguessr(tmp_path, "test")
    assert isinstance(dataset.read(0, VIEW), Sample)
    bad = dataset.read(1, VIEW)
    assert isinstance(bad, BadSample)
    assert "val_labels_all.txt, row 2" in bad.reason
    assert bad.name == "Malm_0002"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["Malm_0000,1,2"], "row 1: 3 columns; known are 1, 5, 517, 533"),
        (["Malm_0000", "Malm_0001,1,2,3,4"], "row 2: 5 columns"),
        (["Malm_0000", "", "Malm_0000"], "row 3: the clip 'Malm_0000' is in row 1"),
        (["Malm_0000", "Gotham_0001"], "row 2: the city 'Gotham'"),
        (["Malm0000"], "row 1: 'Malm0000' is no clip's id"),
        (["../../etc/_1x"], "row 1"),
        (["Malm_0000,1,2,x,4"], "row 1: the country id is 'x'"),
        (["Malm_0000,-1,2,1,4"], "row 1: the city id is '-1'"),
        (["Malm_0000,92,85,53,99999999999"], "row 1: the continent id"),
        (["Malm_0000,0,0,0,0"], "row 1: the city of 'Malm_0000' has the id 0"),
        ([], "no rows"),
        (["\x00\xff"], "row 1"),
    ],
)
def test_a_wrong_label_file_is_told_with_its_row(
    tmp_path: Path, lines: list[str], told: str
) -> None:
    write_clip(tmp_path / "val" / "Malm" / "Malm_0000")
    path = tmp_path / "val_labels.txt"
    path.write_bytes("\n".join(lines).encode("latin-1"))
    with pytest.raises(DatasetError) as caught:
        open_cityguessr(tmp_path, "test")
    assert "val_labels.txt" in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_ids_that_contradict_the_tree_are_told_with_file_and_row(
    tmp_path: Path, level: int
) -> None:
    write_release(tmp_path, ("Austin",), clips=2)
    ids = ids_of("Austin")
    ids[level] += 1
    lines = [label_line("Austin_0000", 5), label_line("Austin_0001", 5, ids=ids)]
    (tmp_path / "train_labels.txt").write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=r"train_labels\.txt, row 2: the .* of 'Austin_0001'"):
        open_cityguessr(tmp_path, "train")


def test_texts_that_differ_within_a_city_are_told_with_both_rows(tmp_path: Path) -> None:
    write_release(tmp_path, ("Austin",), clips=2)
    cells = label_line("Austin_0001", 517).split(",")
    # Another way to write the same number is no difference.
    cells[5] += "000"
    lines = [label_line("Austin_0000", 517), ",".join(cells)]
    (tmp_path / "train_labels.txt").write_text("\n".join(lines))
    assert open_cityguessr(tmp_path, "train").text_table() is not None
    cells[40] = str(float(cells[40]) + 0.01)
    (tmp_path / "train_labels.txt").write_text("\n".join([lines[0], ",".join(cells)]))
    with pytest.raises(DatasetError, match=r"row 2: the text of 'Austin' .* row 1"):
        open_cityguessr(tmp_path, "train")


def test_texts_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    write_release(tmp_path, ("Austin",), clips=1)
    cells = label_line("Austin_0000", 517).split(",")
    for wrong in ("nan", "abc", ""):
        cells[100] = wrong
        (tmp_path / "train_labels.txt").write_text(",".join(cells))
        with pytest.raises(DatasetError, match=r"train_labels\.txt, row 1: the text holds"):
            open_cityguessr(tmp_path, "train")


def test_of_two_label_files_the_one_that_says_more_counts(tmp_path: Path) -> None:
    write_release(tmp_path, ("Austin",), clips=2)
    write_labels(tmp_path, 1, name="labels")
    write_labels(tmp_path, 533, name="labels_text_scenes")
    dataset = open_cityguessr(tmp_path, "train")
    assert dataset.text_table() is not None
    assert any("train_labels.txt is not used" in note for note in dataset.notes)


def test_one_clip_in_two_label_files_is_told(tmp_path: Path) -> None:
    write_release(tmp_path, ("Austin",), clips=2)
    write_labels(tmp_path, 1, name="labels_a")
    write_labels(tmp_path, 1, name="labels_b")
    with pytest.raises(DatasetError, match=r"train_labels_b\.txt, row 1: .*train_labels_a\.txt"):
        open_cityguessr(tmp_path, "train")


def test_clips_without_a_label_are_left_out_and_told(tmp_path: Path) -> None:
    write_release(tmp_path, ("Austin",), clips=3)
    (tmp_path / "train_labels.txt").write_text("Austin_0000\nAustin_0002\n")
    dataset = open_cityguessr(tmp_path, "train")
    assert [entry.name for entry in dataset.entries] == ["Austin_0000", "Austin_0002"]
    assert any("1 clips in train/ are in no label file" in note for note in dataset.notes)


def test_a_labelled_clip_that_is_not_there_is_a_bad_sample(tmp_path: Path) -> None:
    write_release(tmp_path, ("Austin",), clips=1)
    (tmp_path / "train_labels.txt").write_text("Austin_0000\nAustin_0077\n")
    dataset = open_cityguessr(tmp_path, "train")
    assert isinstance(dataset.read(0, VIEW), Sample)
    bad = dataset.read(1, VIEW)
    assert isinstance(bad, BadSample)
    assert "Austin_0077" in bad.reason
    assert "train_labels.txt, row 2" in bad.reason


def test_a_labelled_city_that_is_not_there_is_an_error_unless_asked_otherwise(
    tmp_path: Path,
) -> None:
    write_release(tmp_path, ("Austin",), clips=1)
    (tmp_path / "train_labels.txt").write_text("Austin_0000\nBoston_0000\n")
    with pytest.raises(DatasetError, match=r"train_labels\.txt, row 2: .*train/Boston"):
        open_cityguessr(tmp_path, "train")
    dataset = open_cityguessr(tmp_path, "train", partial=True)
    assert [entry.name for entry in dataset.entries] == ["Austin_0000"]
    assert dataset.notes == ("1 city has no folder in train/ and is left out",)
    with pytest.raises(DatasetError, match=rf"'cityguessr:{tmp_path}\?partial'\.$") as caught:
        open_cityguessr(tmp_path, "train")
    assert "in all" not in str(caught.value)


def test_a_part_of_the_release_may_lack_what_it_is_tested_on(tmp_path: Path) -> None:
    write_release(tmp_path, ("Austin",), clips=100)
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(DatasetError, match=r"no cities in val/.*\?partial"):
        open_cityguessr(tmp_path, "test")
    dataset = open_cityguessr(tmp_path, "test", partial=True)
    assert len(dataset.entries) == 0
    assert dataset.notes == ("there are no cities in val/, which the release is tested on",)
    assert dataset.hierarchy.size("city") == 166
    blocks = open_cityguessr(tmp_path, "test", splitting="blocks", partial=True)
    assert blocks.entries[0].name == "Austin_0080"
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(DatasetError, match="Give the folder that holds train and val"):
        open_cityguessr(tmp_path, "train", partial=True)


def test_broken_clips_are_bad_samples_that_name_their_file(tmp_path: Path) -> None:
    write_release(tmp_path, ("Austin",), clips=1)
    folder = tmp_path / "val" / "Austin"
    (folder / "Austin_0010").mkdir()
    write_clip(folder / "Austin_0011")
    (folder / "Austin_0011" / "3.jpg").write_bytes(grey_jpeg(9)[:60])
    write_clip(folder / "Austin_0012")
    (folder / "Austin_0012" / "2.jpg").write_bytes(b"")
    write_clip(folder / "Austin_0013")
    (folder / "Austin_0013" / "1.jpg").unlink()
    (folder / "Austin_0013" / "1.jpg").mkdir()
    dataset = open_cityguessr(tmp_path, "test")
    view = View(frames=5, image_px=8)
    reasons = [
        found.reason if isinstance(found, BadSample) else ""
        for found in (dataset.read(index, view) for index in range(len(dataset.entries)))
    ]
    assert reasons[0] == ""
    assert "Austin_0010: no frames" in reasons[1]
    assert "Austin_0011/3.jpg" in reasons[2]
    assert "Austin_0012/2.jpg cannot be decoded (it is no picture" in reasons[3]
    assert "Austin_0013/1.jpg" in reasons[4]


def test_a_short_clip_repeats_frames(tmp_path: Path) -> None:
    write_clip(tmp_path / "val" / "Austin" / "Austin_0000", frames=3)
    dataset = open_cityguessr(tmp_path, "test")
    for picking in ("uniform", "mixed", "reference", "lexicographic"):
        sample = dataset.read(0, View(frames=16, image_px=8, picking=picking))  # type: ignore[arg-type]
        assert isinstance(sample, Sample)
        assert sample.clip_THWC.shape == (16, 8, 8, 3)


def test_a_folder_that_goes_away_stops_the_run(tmp_path: Path) -> None:
    dataset = open_cityguessr(write_release(tmp_path / "here", ("Austin",)), "train")
    (tmp_path / "here").rename(tmp_path / "gone")
    with pytest.raises(DatasetError, match="still mounted"):
        dataset.read(0, VIEW)


def test_val_is_taken_out_of_train_and_test_is_the_official_val(tmp_path: Path) -> None:
    write_release(tmp_path, ("Austin", "Malm"), clips=200)
    names = all_names(tmp_path)
    assert sorted(names["train"] + names["val"]) == sorted(
        path.name for path in (tmp_path / "train").glob("*/*")
    )
    assert not set(names["train"]) & set(names["val"])
    assert names["test"] == ["Austin_0200", "Malm_0200"]
    assert 10 <= len(names["val"]) <= 120
    # Clips next to each other come from one video: runs of them are held out whole.
    runs = {split: {(n[:4], int(n[-4:]) // 20) for n in names[split]} for split in names}
    assert not runs["train"] & runs["val"]


def test_known_source_videos_are_held_out_whole_and_are_the_groups(tmp_path: Path) -> None:
    write_release(tmp_path, ("Austin",), clips=60)
    rows = [f"Austin_{n:04},video{n % 10}" for n in range(61)]
    (tmp_path / "sources.csv").write_text("clip,source\n" + "\n".join(rows))
    for splitting in ("official", "drives"):
        groups = {
            split: {
                entry.group
                for entry in open_cityguessr(tmp_path, split, splitting=splitting).entries  # type: ignore[arg-type]
            }
            for split in ("train", "val")
        }
        assert groups["train"]
        assert not groups["train"] & groups["val"]
    assert sum(map(len, all_names(tmp_path, splitting="drives").values())) == 61


def test_clips_without_a_known_source_are_told_and_not_divided_by_it(tmp_path: Path) -> None:
    write_release(tmp_path, ("Austin",), clips=2)
    (tmp_path / "sources.csv").write_text("clip,source\nAustin_0000,a\nAustin_0002,b\n")
    notes = open_cityguessr(tmp_path, "train").notes
    assert notes == (
        "1 of 2 clips are not in sources.csv ('Austin_0001'): each is taken for a video of its own",
    )
    with pytest.raises(DatasetError, match=r"1 of 3 clips are not in sources\.csv"):
        open_cityguessr(tmp_path, "train", splitting="drives")


@pytest.mark.parametrize("text", ["clip,source\nA_1,\n", "a,b\n1,2\n", "clip,source\nA,x\nA,y\n"])
def test_a_wrong_list_of_sources_is_told_with_its_row(tmp_path: Path, text: str) -> None:
    write_release(tmp_path, ("Austin",))
    (tmp_path / "sources.csv").write_text(text)
    with pytest.raises(DatasetError, match=r"sources\.csv, row"):
        open_cityguessr(tmp_path, "train")


def test_drives_need_to_be_known(tmp_path: Path) -> None:
    write_release(tmp_path, ("Austin",))
    with pytest.raises(DatasetError, match=r"sources\.csv"):
        open_cityguessr(tmp_path, "train", splitting="drives")


def test_blocks_hold_out_the_last_clips_of_both_folders_together(tmp_path: Path) -> None:
    for n in range(100):
        part = "val" if n % 5 == 0 else "train"
        write_clip(tmp_path / part / "Malm" / f"Malm_{n:04}", frames=1)
    names = all_names(tmp_path, splitting="blocks")
    assert names["test"] == [f"Malm_{n:04}" for n in range(80, 100)]
    assert names["val"] == [f"Malm_{n:04}" for n in range(70, 78)]
    assert names["train"] == [f"Malm_{n:04}" for n in range(68)]
    dataset = open_cityguessr(tmp_path, "train", splitting="blocks")
    assert dataset.name == "CityGuessr68k blocks train"
    assert isinstance(dataset.read(0, VIEW), Sample)
    assert isinstance(dataset.read(1, VIEW), Sample)


def test_blocks_stay_in_train_where_both_folders_count_from_zero(tmp_path: Path) -> None:
    for n in range(20):
        write_clip(tmp_path / "train" / "Malm" / f"Malm_{n:04}", frames=1)
    write_clip(tmp_path / "val" / "Malm" / "Malm_0000", frames=1)
    dataset = open_cityguessr(tmp_path, "test", splitting="blocks")
    assert dataset.name == "CityGuessr68k blocks of train test"
    assert [entry.name for entry in dataset.entries] == [f"Malm_{n:04}" for n in range(16, 20)]
    assert dataset.notes


def test_each_squashfs_file_may_be_mounted_in_a_folder_of_its_own(tmp_path: Path) -> None:
    write_release(tmp_path / "ac", ("Austin",))
    write_release(tmp_path / "lo", ("Malm",))
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "val_labels.txt").write_text("Austin_0003\nMalm_0003\n")
    dataset = open_cityguessr(tmp_path, "test")
    assert [entry.name for entry in dataset.entries] == ["Austin_0003", "Malm_0003"]
    assert all(isinstance(dataset.read(index, VIEW), Sample) for index in range(2))
    write_release(tmp_path / "again", ("Malm",))
    with pytest.raises(DatasetError, match="'Malm' lies in"):
        open_cityguessr(tmp_path, "test")


def test_squashfs_files_that_nobody_opened_are_told_with_the_command(tmp_path: Path) -> None:
    for part in ("ac", "dk", "meta_files"):
        (tmp_path / f"CityGuessr68k-{part}.sq").write_bytes(b"hsqs")
    with pytest.raises(DatasetError) as caught:
        open_cityguessr(tmp_path, "train")
    assert f"unsquashfs -f -d {tmp_path} {tmp_path / 'CityGuessr68k-ac.sq'}" in str(caught.value)
    assert "mount -t squashfs" in str(caught.value)


def test_folders_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        open_cityguessr(tmp_path / "nowhere", "train")
    with pytest.raises(DatasetError, match="there are no cities in train/"):
        open_cityguessr(tmp_path, "train")
    write_release(tmp_path, ("Austin",))
    (tmp_path / "train" / "Austin" / "holiday").mkdir()
    with pytest.raises(DatasetError, match="Austin_<number>"):
        open_cityguessr(tmp_path, "train")


def test_two_clips_of_one_number_are_told(tmp_path: Path) -> None:
    write_clip(tmp_path / "train" / "Malm" / "Malm_1")
    write_clip(tmp_path / "train" / "Malm" / "Malm_01")
    with pytest.raises(DatasetError, match="have the same number"):
        open_cityguessr(tmp_path, "train")


LIST = (
    "City,State,Country,Continent\n"
    "Trondheim,Trøndelag,Norway,Europe\n"
    "Graz,Styria,Austria,Europe\n"
    "San_Francisco,California,USA,North America\n"
)


def test_a_dataset_of_ones_own_has_its_tree_from_its_list(tmp_path: Path) -> None:
    write_release(tmp_path / "mine", ("Graz", "San_Francisco", "Trondheim"))
    (tmp_path / "mine" / "labels_list.csv").write_text(LIST, encoding="utf-8")
    dataset = open_cityguessr(tmp_path / "mine", "test")
    assert dataset.name == "mine test"
    cities = dataset.hierarchy.places["city"]
    # Alphabetical by folder, whatever the order of the list.
    assert [place.name for place in cities] == ["Graz", "San Francisco", "Trondheim"]
    assert dataset.hierarchy.ancestors["continent"].tolist() == [0, 1, 0]
    assert cities[0].lat_deg == pytest.approx(47.07, abs=0.05)
    assert cities[0].lon_deg == pytest.approx(15.45, abs=0.05)
    again = build_hierarchy(csv.DictReader(dataset.places_csv.splitlines()), source="places.csv")
    assert again.places == dataset.hierarchy.places
    ids = [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 0]]
    lines = [
        label_line(f"{city}_0003", 5, ids=numbers)
        for city, numbers in zip(("Graz", "San_Francisco", "Trondheim"), ids, strict=True)
    ]
    (tmp_path / "mine" / "val_labels.txt").write_text("\n".join(lines))
    assert len(open_cityguessr(tmp_path / "mine", "test").entries) == 3


def test_a_list_may_lack_its_header_and_give_coordinates(tmp_path: Path) -> None:
    write_release(tmp_path, ("Graz",))
    (tmp_path / "labels_list.csv").write_text("Graz,Styria,Austria,Europe\n")
    tree = open_cityguessr(tmp_path, "test").hierarchy
    assert [place.name for place in tree.places["state"]] == ["Styria"]
    (tmp_path / "labels_list.csv").write_text(
        "City,State,Country,Continent,lat,lon\nGraz,Styria,Austria,Europe,47.1,15.5\n"
    )
    tree = open_cityguessr(tmp_path, "test").hierarchy
    assert tree.places["city"][0].lat_deg == 47.1


def test_own_and_known_cities_mix(tmp_path: Path) -> None:
    write_release(tmp_path, ("Graz", "Malm"))
    (tmp_path / "labels_list.csv").write_text(
        "City,State,Country,Continent\nGraz,Styria,Austria,Europe\nMalm,Skane,Sweden,Europe\n"
    )
    tree = open_cityguessr(tmp_path, "train").hierarchy
    assert tree.size("city") == 2
    assert tree.places["city"][1].lat_deg == pytest.approx(55.61, abs=0.05)


def test_cities_of_ones_own_without_a_list_are_told_what_to_write(tmp_path: Path) -> None:
    write_release(tmp_path, ("Graz", "Austin"))
    with pytest.raises(DatasetError, match=r"'Graz'.*labels_list\.csv.*City, State"):
        open_cityguessr(tmp_path, "train")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("City,State,Country,Continent\nLinz,Upper Austria,Austria,Europe\n", "'Graz'"),
        ("City,State,Country,Continent\nGraz,Styria,Atlantis,Europe\n", "line 2"),
        ("City,State,Country,Continent\nGraz,S,Austria,Europe\nXyzzq,S,Austria,Europe\n", "line 3"),
        ("City,State,Country,Continent\nGraz,S,Austria,Europe\ngraz,S,Austria,Europe\n", "'Graz'"),
        ("City,State\nGraz,Styria\n\xff", "labels_list.csv"),
        ("", "labels_list.csv"),
    ],
)
def test_a_wrong_list_is_told(tmp_path: Path, text: str, told: str) -> None:
    write_release(tmp_path, ("Graz",))
    (tmp_path / "labels_list.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetError) as caught:
        open_cityguessr(tmp_path, "train")
    assert "labels_list.csv" in str(caught.value)
    assert told in str(caught.value)


def test_a_short_list_of_known_cities_is_a_smaller_tree_unless_ids_say_otherwise(
    tmp_path: Path,
) -> None:
    write_release(tmp_path, ("Austin", "Dallas"))
    (tmp_path / "labels_list.csv").write_text(
        "City,State,Country,Continent\nAustin,Texas,USA,North America\n"
        "Dallas,Texas,USA,North America\n"
    )
    for split in ("train", "val", "test"):
        assert open_cityguessr(tmp_path, split).hierarchy.size("city") == 2  # type: ignore[arg-type]
    write_labels(tmp_path, 5, "val")
    for split in ("train", "val", "test"):
        assert open_cityguessr(tmp_path, split).hierarchy.size("city") == 166  # type: ignore[arg-type]


def test_a_long_list_of_known_cities_is_the_tree_of_the_release(tmp_path: Path) -> None:
    write_release(tmp_path, ("Malm",))
    rows = "".join(f"{folder},s,c,k\n" for folder in cityguessr_tree().city_ids)
    (tmp_path / "labels_list.csv").write_text("City,State,Country,Continent\n" + rows)
    assert open_cityguessr(tmp_path, "train").hierarchy.size("state") == 157


def test_a_large_label_file_becomes_a_few_arrays(tmp_path: Path) -> None:
    tail = ",".join(map(str, text_of("Malm"))) + "," + ",".join(["0.0625"] * 16)
    ids = ",".join(map(str, ids_of("Malm")))
    path = tmp_path / "train_labels.txt"
    path.write_text("".join(f"Malm_{n:05},{ids},{tail}\n" for n in range(2000)))
    labels = read_label_file(path)
    assert labels.scenes_NS is not None
    assert labels.scenes_NS.nbytes == 2000 * 16 * 4
    assert len(pickle.dumps(labels)) < 300_000


@given(content=st.binary(max_size=300))
@example(b"Malm_0000," + b"9" * 400 + b",1,1,1")
@example(b"Malm_0000,1,1,1,1," + b"," * 528)
@example(b",,,,")
@example(b"\xef\xbb\xbf\n\r\n")
def test_any_bytes_are_a_label_file_or_told_to_be_none(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("labels") / "train_labels.txt"
    path.write_bytes(content)
    try:
        labels = read_label_file(path)
    except DatasetError:
        return
    assert len(labels.names) == len(set(labels.names)) > 0


@given(content=st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
@example(b"City,State,Country,Continent\nGraz,Styria,Austria,Europe,,,,\n")
@example(b"City,City\nGraz,Graz\n")
@example(b'City,State\n"Graz,Styria\n')
@example(b"City\nGraz\n")
def test_any_bytes_are_a_list_of_cities_or_told_to_be_none(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("list") / "labels_list.csv"
    path.write_bytes(content)
    try:
        tree = read_labels_list(path, {"Graz"})
    except DatasetError:
        return
    assert "Graz" in tree.city_ids


@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_list_of_sources_or_told_to_be_none(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    root = tmp_path_factory.mktemp("sources")
    (root / "sources.csv").write_bytes(content)
    with contextlib.suppress(DatasetError):
        read_sources(root)


def test_a_word_that_is_no_splitting_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="allowed are train, val, test"):
        open_cityguessr(tmp_path, "tset")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="allowed are official, blocks, drives"):
        open_cityguessr(tmp_path, "test", splitting="spatial")  # type: ignore[arg-type]
