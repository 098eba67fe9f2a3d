"""Clips to calibrate on and clips to judge by: where they come from, and that they stay apart."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from calibration.errors import CalibrationError
from engines.bundle import InputSpec
from geotag.errors import ConfigError
from geotag.label import COLUMNS as LABEL_COLUMNS
from tests.cityguessr import write_release
from tests.clip_datasets import tree
from tests.media import read_index, write_video
from train.calibration_clips import LISTED, CalibrationSet, open_calibration
from train.clip_pools import ClipPool
from train.data.clips import RenderedClips, rendered_hierarchy
from train.data.dataset import SamplingRange, View
from train.data.packing import pack
from train.data.shard_index import Packing
from train.errors import DatasetError

FPS = 2
INPUT = InputSpec(frames=2, height_px=32, width_px=32, resize="squash")
CITIES = {
    "Paris": ("2988507", "Ile-de-France", "FR-IDF", "France", "FR", "Europe", "EU"),
    "Lyon": ("2996944", "Auvergne-Rhone-Alpes", "FR-ARA", "France", "FR", "Europe", "EU"),
    "Oslo": ("3143244", "Oslo", "NO-03", "Norway", "NO", "Europe", "EU"),
}


def _open(given: str | None, **changes: object) -> CalibrationSet:
    options: dict[str, Any] = {
        "trained_on": None,
        "splitting": "official",
        "sampling": SamplingRange(),
        "input": INPUT,
        "picking": "mixed",
        "clips": 32,
        "held_out": 32,
        "seed": 0,
        "workers": 0,
        "console": Console(quiet=True),
        "hierarchy": tree(),
    }
    return open_calibration(given, **options | changes)


def _pixels(pool: ClipPool, size: int = 7) -> np.ndarray:
    return np.concatenate([batch.clips_NTHWC for batch in pool.batches(size)])


def _listed(found: CalibrationSet) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(found.listing)))


@pytest.fixture(scope="module")
def rendered() -> CalibrationSet:
    return _open("rendered", hierarchy=rendered_hierarchy(), clips=40)


def test_rendered_drives_calibrate_and_others_judge(rendered: CalibrationSet) -> None:
    assert (rendered.calibration.count, rendered.held_out.count) == (40, 32)
    assert all(name.startswith("train-") for name in rendered.calibration.names)
    assert all(name.startswith("val-") for name in rendered.held_out.names)
    assert len(set(rendered.calibration.names)) == 40
    assert rendered.source == "rendered world train"
    assert rendered.notes == ("40 clips to calibrate on: 512 and more are advised",)


def test_batches_hold_all_clips_in_order_however_often_they_are_read(
    rendered: CalibrationSet,
) -> None:
    pool = rendered.held_out
    batches = list(pool.batches(9))
    assert [len(batch) for batch in batches] == [9, 9, 9, 5]
    assert tuple(name for batch in batches for name in batch.names) == pool.names
    first = _pixels(pool, 9)
    assert first.shape == (32, 2, 32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, _pixels(pool, 5))


def test_a_clip_is_what_training_sees_of_it(rendered: CalibrationSet) -> None:
    drives = RenderedClips(split="val", clips=100, sampling=SamplingRange())
    names = [entry.name for entry in drives.entries]
    wanted = drives.read(
        names.index(rendered.held_out.names[5]), View(frames=2, image_px=32, seed=0)
    )
    assert np.array_equal(_pixels(rendered.held_out)[5], wanted.clip_THWC)


def test_labels_are_the_classes_of_the_model(rendered: CalibrationSet) -> None:
    places = rendered_hierarchy().places["city"]
    for pool, use in ((rendered.calibration, "calibration"), (rendered.held_out, "held-out")):
        ids = np.concatenate([batch.city_ids for batch in pool.batches(8)])
        listed = [row["city"] for row in _listed(rendered) if row["use"] == use]
        assert [places[one].name for one in ids] == listed


def test_the_choice_covers_the_cities_and_lights_that_were_looked_at(
    rendered: CalibrationSet,
) -> None:
    cities = Counter(look.city for look in rendered.calibration.looks)
    assert len(cities) == rendered_hierarchy().size("city")
    assert len({look.light_bin for look in rendered.calibration.looks}) >= 3


def test_worker_processes_read_the_same(rendered: CalibrationSet) -> None:
    found = _open("rendered", hierarchy=rendered_hierarchy(), clips=40, workers=2)
    assert found.listing == rendered.listing
    assert np.array_equal(_pixels(found.calibration), _pixels(rendered.calibration))


def test_another_seed_takes_other_clips(rendered: CalibrationSet) -> None:
    found = _open("rendered", hierarchy=rendered_hierarchy(), clips=40, seed=1)
    assert not set(found.calibration.names) & set(rendered.calibration.names)


def test_the_listing_is_a_table_of_every_clip(rendered: CalibrationSet) -> None:
    lines = rendered.listing.split("\n")
    assert lines[0] == ",".join(LISTED)
    assert lines[-1] == ""
    assert "\r" not in rendered.listing
    rows = _listed(rendered)
    assert Counter(row["use"] for row in rows) == {"calibration": 40, "held-out": 32}
    assert {row["light"] for row in rows} <= {"dark", "dim", "medium", "bright"}
    assert all(row["scene"] and row["city"] for row in rows)


# videos


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of three minutes and more."""
    folder = tmp_path_factory.mktemp("dashcam")
    for number in range(4):
        write_video(folder / f"{number}.mp4", frames=(180 + number) * FPS, fps=FPS, gop=2)
    return folder


def _videos(pool: ClipPool) -> set[str]:
    return {name.partition("@")[0] for name in pool.names}


def test_a_folder_of_videos_calibrates_and_judges(card: Path, tmp_path: Path) -> None:
    found = _open(str(card))
    assert (found.calibration.count, found.held_out.count) == (32, 32)
    assert len(_videos(found.calibration)) == 3
    assert not _videos(found.calibration) & _videos(found.held_out)
    assert found.held_out.city_ids is None
    assert next(iter(found.held_out.batches(4))).city_ids is None
    assert "no held-out clip is labelled with a city that the model knows" in found.notes
    assert str(card) not in found.listing
    assert {row["city"] for row in _listed(found)} == {""}
    moved = tmp_path / "moved"
    moved.symlink_to(card)
    assert _open(str(moved)).listing == found.listing


def test_a_single_video_calibrates_by_its_beginning(card: Path, tmp_path: Path) -> None:
    long = write_video(tmp_path / "long.mp4", frames=800, fps=1, gop=2)
    found = _open(str(long))
    for pool, low_s, high_s in ((found.calibration, 0, 600), (found.held_out, 600, 800)):
        numbers = [read_index(picture) for clip in _pixels(pool) for picture in clip]
        assert low_s <= min(numbers) <= max(numbers) <= high_s


def test_files_that_cannot_be_read_are_counted_and_told(card: Path, tmp_path: Path) -> None:
    for path in card.iterdir():
        (tmp_path / path.name).symlink_to(path)
    for number in range(3):
        (tmp_path / f"broken{number}.mp4").write_bytes(bytes([number]) * 9000)
    found = _open(str(tmp_path))
    assert len(found.calibration.bad) + len(found.held_out.bad) == 3
    assert any("cannot be read" in note and "broken" in note for note in found.notes)


def test_a_clip_that_is_gone_in_a_later_pass_is_told(tmp_path: Path) -> None:
    for number in range(2):
        write_video(tmp_path / f"{number}.mp4", frames=(180 + number) * FPS, fps=FPS, gop=2)
    found = _open(str(tmp_path))
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(CalibrationError, match=r"could be read before and cannot be now"):
        list(found.held_out.batches(8))


# manifests


def _manifest(path: Path, *rows: tuple[str, str, str, int]) -> Path:
    """Rows of (drive, city, split, stretches), all of one video; a drive has its own seconds."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, LABEL_COLUMNS)
        writer.writeheader()
        at = 0
        for drive, city, split, stretches in rows:
            geonameid, state, state_code, country, code, continent, continent_code = CITIES[city]
            for _ in range(stretches):
                writer.writerow(
                    {
                        "video": "0.mp4",
                        "start_s": f"{at / 4:g}",
                        "end_s": f"{at / 4 + 10:g}",
                        "lat_deg": "48",
                        "lon_deg": "2",
                        "city_geonameid": geonameid,
                        "state_code": state_code,
                        "country_code": code,
                        "continent_code": continent_code,
                        "city": city,
                        "state": state,
                        "country": country,
                        "continent": continent,
                        "quality": "good",
                        "speed_mps": "10",
                        "drive_id": drive,
                        "cell": "1-1",
                        "split": split,
                    }
                )
                at += 1
    return path


def test_a_manifest_calibrates_on_train_and_judges_on_val(card: Path, tmp_path: Path) -> None:
    path = _manifest(
        tmp_path / "labels.csv",
        ("a", "Paris", "train", 40),
        ("b", "Oslo", "train", 40),
        ("c", "Lyon", "val", 30),
        ("d", "Oslo", "val", 10),
        ("e", "Paris", "test", 60),
    )
    given = f"{path}?footage={card}"
    found = _open(given, clips=48)
    assert {look.group for look in found.calibration.looks} == {"a", "b"}
    assert {look.group for look in found.held_out.looks} == {"c", "d"}
    assert str(tmp_path) not in found.listing
    # Of the model's tree: Paris, Lyon, Berlin, Tokyo. It does not know Oslo.
    calibrating, judging = found.calibration.city_ids, found.held_out.city_ids
    assert calibrating is not None
    assert judging is not None
    assert Counter(calibrating.tolist()) == {0: 24, -1: 24}
    assert Counter(judging.tolist()) == {1: 24, -1: 8}
    assert "8 of 32 held-out clips have no city that the model knows" in found.notes
    assert _open(f"manifest:{given}", clips=48).listing == found.listing


def test_where_nothing_is_held_out_other_drives_of_train_judge(card: Path, tmp_path: Path) -> None:
    drives = [(f"drive {number}", "Paris", "train", 20) for number in range(8)]
    path = _manifest(tmp_path / "labels.csv", *drives, ("v", "Paris", "val", 5))
    found = _open(f"{path}?footage={card}")
    ours = {look.group for look in found.calibration.looks}
    others = {look.group for look in found.held_out.looks}
    assert (len(ours), len(others)) == (6, 2)
    assert not ours & others
    assert any("labels.csv val has 5 clips, fewer than 32" in note for note in found.notes)
    assert any("other drives of its train split" in note for note in found.notes)


def test_rows_of_the_test_split_are_never_used(card: Path, tmp_path: Path) -> None:
    path = _manifest(tmp_path / "labels.csv", ("a", "Paris", "test", 90))
    with pytest.raises(CalibrationError, match=r"no clips in this split.*test split are never"):
        _open(f"{path}?footage={card}")
    _manifest(path, ("a", "Paris", "test", 90), ("b", "Paris", "train", 40))
    with pytest.raises(
        CalibrationError, match=r"held-out clips.*: 0 can be read.*A drive is never"
    ):
        _open(f"{path}?footage={card}")


# data sets


def test_what_the_model_was_trained_on_is_taken_where_nothing_is_given() -> None:
    options = {"hierarchy": rendered_hierarchy(), "trained_on": "rendered"}
    assert _open(None, **options).source == "rendered world train"
    with pytest.raises(CalibrationError, match=r"not known here\. Give --calib a folder of videos"):
        _open(None)
    with pytest.raises(
        CalibrationError, match=r"trained on, msls:/no/such: .*elsewhere now.*--calib"
    ):
        _open(None, trained_on="msls:/no/such")


def test_what_the_model_was_trained_on_is_divided_as_it_was_however_it_is_spelt(
    tmp_path: Path,
) -> None:
    root = write_release(tmp_path / "release", cities=("Austin", "Dallas"), clips=240)
    options = {"trained_on": f"cityguessr:{root}", "splitting": "blocks"}
    own = _open(None, **options)
    assert _open(f"cityguessr:{root}/../release/", **options).listing == own.listing
    # By blocks, what comes last in a city is held out: of 240 clips the last 48 are test.
    last = max(int(name.rpartition("_")[2]) for name in own.calibration.names)
    first = min(int(name.rpartition("_")[2]) for name in own.held_out.names)
    assert last < first
    assert max(int(name.rpartition("_")[2]) for name in own.held_out.names) < 192


def test_packed_clips_without_a_held_out_part_judge_by_others_of_train(tmp_path: Path) -> None:
    source = RenderedClips(split="train", clips=140, sampling=SamplingRange())
    pack(source, tmp_path / "packed", "train", Packing(frames=4, image_px=32))
    found = _open(f"shards:{tmp_path / 'packed'}", hierarchy=rendered_hierarchy())
    assert (found.calibration.count, found.held_out.count) == (32, 32)
    assert not set(found.calibration.names) & set(found.held_out.names)
    assert any("has no split 'val'" in note for note in found.notes)
    pack(source, tmp_path / "tests", "test", Packing(frames=4, image_px=32))
    with pytest.raises(DatasetError, match=r"has no split 'train'.*never used to calibrate"):
        _open(f"shards:{tmp_path / 'tests'}")


# what cannot be


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clips": 31}, "taking 31 clips to calibrate on: at least 32 are needed, 512"),
        ({"held_out": 8}, "taking 8 clips to judge by: at least 32"),
        (
            {"input": InputSpec(frames=2, height_px=32, width_px=48, resize="squash")},
            "takes 48x32 px",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(CalibrationError, match=said):
        _open("rendered", **changes)


def _made(folder: Path, kind: str) -> Sequence[str]:
    if kind == "texts":
        for number in range(50):
            (folder / f"{number}.txt").write_text("no video")
    elif kind == "short":
        for number in range(4):
            write_video(folder / f"{number}.mp4", frames=20 + number, fps=FPS, gop=2)
    elif kind == "broken":
        for number in range(60):
            (folder / f"{number}.mp4").write_bytes(bytes([number]) * 5000)
    return ()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("empty", "there are none to use"),
        ("texts", r"there are none to use.*cityguessr:PATH"),
        ("short", r"calibrating clips from .*: 6 can be read\. At least 32.*longer ones"),
        ("broken", r"0 can be read, 45 cannot \(.*\.mp4: .*At least 32"),
    ],
)
def test_a_folder_that_is_not_enough_is_told(tmp_path: Path, kind: str, said: str) -> None:
    _made(tmp_path, kind)
    with pytest.raises((CalibrationError, DatasetError), match=said):
        _open(str(tmp_path))


@pytest.mark.parametrize("given", ["/no/such/folder", "cityguesser:/data", "demo", ""])
def test_what_is_not_there_is_told_with_what_can_be_given(given: str) -> None:
    with pytest.raises(ConfigError, match=r"no such file or folder.*cityguessr:PATH.*manifest"):
        _open(given)
