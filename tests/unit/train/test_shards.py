"""Clips are packed into shards and read out of them, whatever happens in between."""

from __future__ import annotations

import gc
import json
import pickle
import resource
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pytest
from typer.testing import CliRunner

import train.data.packing as packing_module
from tests.cityguessr import write_labels, write_release
from tests.clips import CITIES, Footage, NumberedClips, frame_numbers
from train.data.cityguessr import open_cityguessr
from train.data.clips import RenderedClips
from train.data.dataset import Augmentation, BadSample, Sample, View
from train.data.packing import pack
from train.data.shard_index import Packing
from train.data.shards import ShardedClips, open_shards
from train.errors import DatasetError
from train.pack import app, find_beside

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = Packing(image_px=64, clips_per_shard=3)
VIEW = View(frames=5, image_px=48)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    pack(NumberedClips(), tmp_path / "packed", "train", SMALL)
    return tmp_path / "packed"


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _read(dataset: ShardedClips, index: int, view: View = VIEW) -> Sample:
    sample = dataset.read(index, view)
    assert isinstance(sample, Sample), sample
    return sample


def test_clips_come_out_of_the_shards_as_they_went_in(packed: Path) -> None:
    source, dataset = NumberedClips(), open_shards(packed, "train", verify=True)
    assert list(dataset.entries) == source.entries
    assert dataset.places_csv == source.places_csv
    assert dataset.hierarchy.size("city") == CITIES
    assert "numbered train" in dataset.name
    for index in range(7):
        read, original = _read(dataset, index), source.read(index, VIEW)
        assert isinstance(original, Sample)
        assert frame_numbers(read.clip_THWC) == frame_numbers(original.clip_THWC)
        assert np.abs(read.clip_THWC.astype(int) - original.clip_THWC).mean() < 3
        assert (read.city_id, read.scene_id) == (original.city_id, original.scene_id)
        assert read.point_deg == original.point_deg
        if original.scene_S is None:
            assert read.scene_S is None
        else:
            assert read.scene_S is not None
            assert read.scene_S.tobytes() == original.scene_S.tobytes()
        assert dataset.count_frames(index) == 20


def test_the_view_picks_among_the_stored_frames(packed: Path) -> None:
    dataset = open_shards(packed, "train")
    source = NumberedClips()
    for view in (
        View(frames=4, image_px=48, picking="reference"),
        View(frames=4, image_px=48, picking="lexicographic"),
        View(frames=5, image_px=48, picking="mixed", seed=3),
        View(frames=30, image_px=48),
        View(frames=5, image_px=48, part=1, parts=2),
    ):
        original = source.read(2, view)
        assert isinstance(original, Sample)
        assert frame_numbers(_read(dataset, 2, view).clip_THWC) == (
            frame_numbers(original.clip_THWC)
        )


def test_any_number_of_processes_packs_the_same_bytes(tmp_path: Path) -> None:
    dataset = NumberedClips(bad=(1, 6))
    for workers in (0, 2):
        pack(dataset, tmp_path / str(workers), "train", SMALL, workers=workers)
    assert _contents(tmp_path / "0") == _contents(tmp_path / "2")


# The library leaves it to the garbage collector to close what it has read.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_reads_the_shards(packed: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    shards = sorted(str(path) for path in packed.glob("*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
    gc.collect()
    assert [sample["__key__"] for sample in samples] == [f"{index:08d}" for index in range(7)]
    for index, sample in enumerate(samples):
        assert sample["json"]["city_id"] == index % CITIES
        frames = np.stack([sample[f"{number:03d}.jpg"] for number in range(20)])
        assert frame_numbers(frames) == list(range(20))


def test_tar_reads_the_shards(packed: Path) -> None:
    with tarfile.open(packed / "train-000000.tar") as shard:
        names = shard.getnames()
    assert names[:3] == ["00000000.json", "00000000.000.jpg", "00000000.001.jpg"]
    assert len(names) == 3 * 21


def test_bad_clips_are_listed_with_their_reasons_and_left_out(tmp_path: Path) -> None:
    report = pack(NumberedClips(bad=(0, 4)), tmp_path, "train", SMALL)
    assert report.clips == 5
    assert report.bad == (("clip 0, 東京", "made so"), ("clip 4, 東京", "made so"))
    dataset = open_shards(tmp_path, "train")
    assert dataset.bad == report.bad
    assert [entry.name[5] for entry in dataset.entries] == ["1", "2", "3", "5", "6"]
    assert _read(dataset, 3).city_id == 5 % CITIES


def test_splits_share_a_folder_and_a_class_tree(packed: Path) -> None:
    pack(NumberedClips(clips=2, name="numbered val"), packed, "val", SMALL)
    assert len(open_shards(packed, "train").entries) == 7
    assert len(open_shards(packed, "val").entries) == 2
    with pytest.raises(DatasetError, match="no split 'test'; there are: train, val"):
        open_shards(packed, "test")


def test_packing_again_changes_nothing_and_other_settings_are_refused(packed: Path) -> None:
    before = _contents(packed)
    report = pack(NumberedClips(), packed, "train", SMALL)
    assert report.kept == report.shards == 3
    assert _contents(packed) == before
    with pytest.raises(DatasetError, match="image_px 64 and not 48"):
        pack(NumberedClips(), packed, "train", Packing(image_px=48, clips_per_shard=3))


def test_what_was_finished_before_a_stop_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(NumberedClips(), tmp_path / "whole", "train", SMALL)
    read = NumberedClips.read
    seen: list[int] = []

    def stop_at_5(self: NumberedClips, index: int, view: View) -> Sample | BadSample:
        seen.append(index)
        if index == 5 and seen.count(5) == 1:
            raise KeyboardInterrupt
        return read(self, index, view)

    monkeypatch.setattr(NumberedClips, "read", stop_at_5)
    out = tmp_path / "packed"
    with pytest.raises(KeyboardInterrupt):
        pack(NumberedClips(), out, "train", SMALL)
    with pytest.raises(DatasetError, match="no split"):
        open_shards(out, "train")
    told: list[int] = []
    report = pack(NumberedClips(), out, "train", SMALL, progress=told.append)
    assert report.kept == 1
    assert sum(told) == 7
    assert seen == [0, 1, 2, 3, 4, 5, 3, 4, 5, 6]
    assert _contents(out) == _contents(tmp_path / "whole")


SLOW = """
import sys, time
from pathlib import Path
from tests.cityguessr import write_labels, write_release
from tests.clips import NumberedClips
from train.data.packing import pack
from train.data.shard_index import Packing

class Slow(NumberedClips):
    def read(self, index, view):
        time.sleep(0.02)
        return super().read(index, view)

pack(Slow(clips=30), Path(sys.argv[1]), "train", Packing(image_px=64, clips_per_shard=3))
"""


def test_a_kill_at_any_moment_costs_no_finished_shard(tmp_path: Path) -> None:
    pack(NumberedClips(clips=30), tmp_path / "whole", "train", SMALL)
    out = tmp_path / "packed"
    running = subprocess.Popen([sys.executable, "-c", SLOW, str(out)])
    deadline_s = time.monotonic() + 20
    while not (out / "train-000002.tar").exists() and time.monotonic() < deadline_s:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    report = pack(NumberedClips(clips=30), out, "train", SMALL)
    assert report.kept >= 2
    there, whole = _contents(out), _contents(tmp_path / "whole")
    assert {name: there[name] for name in whole} == whole


def test_two_packings_do_not_write_into_one_folder(tmp_path: Path) -> None:
    class Nested(NumberedClips):
        def read(self, index: int, view: View) -> Sample | BadSample:
            pack(NumberedClips(), tmp_path, "train", SMALL)
            return super().read(index, view)

    with pytest.raises(DatasetError, match="another process is packing"):
        pack(Nested(), tmp_path, "train", SMALL)


def test_a_full_disk_is_told_and_what_is_finished_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish: Callable[..., None] = packing_module._finish

    def fill(stream: BinaryIO, part: Path, path: Path) -> None:
        if path.name == "train-000001.tar":
            raise OSError(28, "No space left on device")
        finish(stream, part, path)

    monkeypatch.setattr(packing_module, "_finish", fill)
    with pytest.raises(DatasetError, match=r"No space left .* run the same command again"):
        pack(NumberedClips(), tmp_path, "train", SMALL)
    monkeypatch.undo()
    assert pack(NumberedClips(), tmp_path, "train", SMALL).kept == 1


def test_files_of_the_dataset_are_copied_along_and_checked(tmp_path: Path) -> None:
    table = tmp_path / "text_table.safetensors"
    table.write_bytes(b"texts")
    pack(NumberedClips(), tmp_path / "packed", "train", SMALL, beside=[table])
    copy = tmp_path / "packed" / table.name
    assert copy.read_bytes() == b"texts"
    copy.write_bytes(b"other")
    with pytest.raises(DatasetError, match=r"text_table.safetensors is not the file"):
        open_shards(tmp_path / "packed", "train", verify=True)


def test_a_few_frames_of_each_clip_can_be_stored(tmp_path: Path) -> None:
    pack(NumberedClips(), tmp_path, "train", Packing(image_px=64, frames=4))
    dataset = open_shards(tmp_path, "train")
    view = View(frames=4, image_px=64)
    assert frame_numbers(_read(dataset, 0, view).clip_THWC) == [2, 7, 12, 17]
    with pytest.raises(DatasetError, match="4 frames picked by 'uniform'"):
        dataset.read(0, View(frames=4, image_px=64, picking="reference"))


def test_the_frames_of_the_released_code_can_be_stored_alone(tmp_path: Path) -> None:
    packing = Packing(image_px=64, frames=4, picking="lexicographic")
    pack(NumberedClips(), tmp_path, "train", packing)
    view = View(frames=4, image_px=64, picking="lexicographic")
    read = _read(open_shards(tmp_path, "train"), 0, view)
    original = NumberedClips().read(0, view)
    assert isinstance(original, Sample)
    assert frame_numbers(read.clip_THWC) == frame_numbers(original.clip_THWC)


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (View(frames=4, image_px=48, resize="crop"), "--resize crop"),
        (View(frames=4, image_px=96), "at 64 px and not at least 96"),
    ],
)
def test_a_view_that_the_shards_cannot_give_is_refused(packed: Path, view: View, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        open_shards(packed, "train").read(0, view)


def test_footage_packed_by_one_policy_is_not_shown_as_another(tmp_path: Path) -> None:
    packing = Packing(image_px=64, policy="dense", span_s=2.5)
    pack(Footage(frames=32), tmp_path, "val", packing)
    dataset = open_shards(tmp_path, "val")
    assert dataset.count_frames(0) == 32
    _read(dataset, 0, View(frames=4, image_px=64, policy="dense", span_s=2.5))
    with pytest.raises(DatasetError, match=r"dense over 2.5 s and not keyframe over 21 s"):
        dataset.read(0, View(frames=4, image_px=64, policy="keyframe", span_s=21.0))


def test_a_flipped_bit_costs_one_clip(packed: Path) -> None:
    shard = packed / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    with tarfile.open(shard) as opened:
        frame = opened.getmember("00000001.010.jpg").offset_data
        labels = opened.getmember("00000002.json").offset_data
    content[frame + 300] ^= 4
    content[labels + 5] ^= 1
    shard.write_bytes(content)
    dataset = open_shards(packed, "train")
    everything = View(frames=20, image_px=48)
    found = [dataset.read(index, everything) for index in range(7)]
    bad = {at: sample.reason for at, sample in enumerate(found) if isinstance(sample, BadSample)}
    assert set(bad) == {1, 2}
    assert "train-000000.tar" in bad[1]
    assert "frame 10 is damaged" in bad[1]
    assert "labels are damaged" in bad[2]
    with pytest.raises(DatasetError, match=r"train-000000.tar is damaged"):
        open_shards(packed, "train", verify=True)


def test_missing_and_cut_off_shards_are_told_on_opening(packed: Path) -> None:
    shard = packed / "train-000001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-512])
    with pytest.raises(DatasetError, match=r"train-000001.tar has .* bytes and not"):
        open_shards(packed, "train")
    shard.unlink()
    with pytest.raises(DatasetError, match=r"train-000001.tar cannot be read"):
        open_shards(packed, "train")
    report = pack(NumberedClips(), packed, "train", SMALL)
    assert report.clips == 7
    assert shard.read_bytes() == whole


def test_a_shard_that_disappears_while_training_is_told(packed: Path) -> None:
    dataset = open_shards(packed, "train")
    (packed / "train-000002.tar").unlink()
    _read(dataset, 0)
    with pytest.raises(DatasetError, match=r"train-000002.tar cannot be read .*disk still there"):
        dataset.read(6, VIEW)


def test_a_release_whose_labels_changed_is_packed_anew(tmp_path: Path) -> None:
    root = write_release(tmp_path / "release", ("Austin", "Dallas"), clips=2)
    small = Packing(image_px=16)
    dataset = open_cityguessr(root, "train", partial=True)
    pack(dataset, tmp_path / "packed", "train", small)
    assert pack(dataset, tmp_path / "packed", "train", small).kept == 1
    write_labels(root, 533)
    labelled = open_cityguessr(root, "train", partial=True)
    assert pack(labelled, tmp_path / "packed", "train", small).kept == 0
    sample = open_shards(tmp_path / "packed", "train").read(0, View(frames=2, image_px=16))
    assert isinstance(sample, Sample)
    assert sample.scene_S is not None


def test_a_changed_class_tree_is_refused(packed: Path) -> None:
    places = packed / "places.csv"
    places.write_text(places.read_text(encoding="utf-8").replace("Asia", "Azia"), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"places.csv is not the file that was packed"):
        open_shards(packed, "train")


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("splits"),
        lambda record: record.update(schema=2),
        lambda record: record["packing"].update(image_px="256"),
        lambda record: record["packing"].update(colour="red"),
        lambda record: record["places"].update(file="../places.csv"),
        lambda record: record["splits"]["train"]["shards"][0].update(file="/etc/passwd"),
        lambda record: record["splits"]["train"]["entries"][0].__setitem__(1, 999),
        lambda record: record["splits"]["train"]["entries"][0].__setitem__(3, 17),
        lambda record: record["splits"]["train"]["entries"][0].__setitem__(4, 1 << 40),
        lambda record: record["splits"]["train"]["entries"][0].__setitem__(4, -512),
        lambda record: record["splits"]["train"]["entries"][0].__setitem__(5, 1 << 60),
        lambda record: record["splits"]["train"]["entries"][0].__setitem__(0, None),
        lambda record: record["splits"]["train"]["entries"][0].pop(),
        lambda record: record["splits"].update(train=None),
    ],
)
def test_a_damaged_index_is_told(packed: Path, change: Callable[[Any], Any]) -> None:
    path = packed / "index.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    change(record)
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"index\.json"):
        open_shards(packed, "train")


def test_a_folder_that_was_not_packed_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"train.pack"):
        open_shards(tmp_path, "train")
    (tmp_path / "index.json").write_bytes(b"\xff\x00{")
    with pytest.raises(DatasetError, match=r"index\.json cannot be read"):
        open_shards(tmp_path, "train")


def test_a_copy_in_another_process_reads_the_same(packed: Path) -> None:
    dataset = open_shards(packed, "train")
    view = View(
        frames=5,
        image_px=48,
        seed=1,
        augmentation=Augmentation(least_crop=0.6, colour_jitter=0.2, mask_prob=0.5),
    )
    before = _read(dataset, 4, view).clip_THWC
    copy: ShardedClips = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(_read(copy, 4, view).clip_THWC, before)


def test_memory_stays_flat_over_ten_thousand_clips(tmp_path: Path) -> None:
    pack(NumberedClips(clips=40), tmp_path, "train", Packing(image_px=32, clips_per_shard=4))
    dataset = open_shards(tmp_path, "train")
    view = View(frames=2, image_px=32)
    page_bytes = resource.getpagesize()

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * page_bytes

    for index in range(1000):
        _read(dataset, index % 40, view)
    before = resident_bytes()
    for index in range(10_000):
        _read(dataset, index * 7 % 40, view)
    assert resident_bytes() - before < 16 << 20
    assert len(list(Path("/proc/self/fd").iterdir())) < 200
    assert len(pickle.dumps(dataset)) < 20_000


def test_the_command_packs_rendered_drives_and_checks_them(tmp_path: Path) -> None:
    out = str(tmp_path / "packed")
    options = ["--split", "val", "--clips", "2", "--frames", "4", "--image-px", "32"]
    ran = CliRunner().invoke(app, ["rendered", "--out", out, *options, "--workers", "0"])
    assert ran.exit_code == 0, ran.output
    assert "val: 2 clips in 1 shards; 0 could not be packed" in ran.output
    checked = CliRunner().invoke(app, ["--check", out])
    assert checked.exit_code == 0
    assert "val: 2 clips, every shard as it was packed" in checked.output
    (tmp_path / "packed" / "val-000000.tar").write_bytes(b"")
    assert CliRunner().invoke(app, ["--check", out]).exit_code == 2


def test_a_stop_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RenderedClips, "read", stop)
    words = ["rendered", "--out", str(tmp_path), "--split", "val", "--clips", "1"]
    ran = CliRunner().invoke(app, [*words, "--workers", "0"])
    assert ran.exit_code == 130
    assert "Finished shards are kept; to go on, repeat: python -m train.pack" in ran.output


def test_a_split_without_clips_is_told_with_what_that_means(tmp_path: Path) -> None:
    root = write_release(tmp_path / "release", ("Austin",), clips=2)
    ran = CliRunner().invoke(
        app, [f"cityguessr:{root}", "--out", str(tmp_path / "packed"), "--workers", "0"]
    )
    assert ran.exit_code == 0, ran.output
    assert "val: 0 clips in 0 shards" in ran.output
    told = " ".join(ran.output.split())
    assert told.count("no confidences calibrated") == 2  # before and after


def test_shards_of_an_earlier_packing_are_removed_and_found_by_the_check(packed: Path) -> None:
    strange = packed / "train-000007.tar"
    strange.write_bytes(b"")
    checked = CliRunner().invoke(app, ["--check", str(packed)])
    assert checked.exit_code == 2
    assert "does not name train-000007.tar" in checked.output
    (packed / "train-notes.tar").write_bytes(b"")  # not one of ours
    pack(NumberedClips(clips=3), packed, "train", SMALL)
    assert [path.name for path in sorted(packed.glob("*.tar"))] == [
        "train-000000.tar", "train-notes.tar"
    ]  # fmt: skip


def test_tables_beside_a_dataset_belong_to_it(tmp_path: Path) -> None:
    (tmp_path / "text_table.safetensors").touch()
    (tmp_path / "labels.csv").touch()
    found = (tmp_path / "text_table.safetensors",)
    assert find_beside(f"cityguessr:{tmp_path}?partial") == found
    assert find_beside(f"manifest:{tmp_path / 'labels.csv'}") == found
    assert find_beside("rendered") == ()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a dataset"),
        (["rendered", "--out", "x", "--frames", "some"], "--frames 'some'"),
        (["rendered", "--out", "x", "--image-px", "4"], "image_px 4; allowed"),
        (["rendered", "--out", "x", "--split", "dev"], "--split 'dev'; allowed are train"),
        (["nothing:here", "--out", "x"], "nothing:here"),
    ],
)
def test_the_command_says_what_is_allowed(arguments: list[str], said: str) -> None:
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 2
    assert said in " ".join(ran.output.split())
