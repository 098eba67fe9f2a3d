import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.cityguessr import write_release
from train.data.dataset import Sample, View
from train.data.sources import open_dataset, parse_place
from train.errors import DatasetError


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("CityGuessr68k"), ("Austin", "Dallas"), clips=21)


def test_a_path_ends_at_the_question_mark() -> None:
    assert parse_place("/a/b?partial&footage=/c d/e") == (
        "/a/b",
        {"partial": "", "footage": "/c d/e"},
    )
    assert parse_place("/a/b") == ("/a/b", {})


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("nosuch:/tmp", "KIND is one of cityguessr, manifest, msls, shards"),
        ("cityguessr:", "KIND:PATH"),
        ("rendered:/tmp", "KIND:PATH"),
        ("cityguessr:/no/such/folder", "there is no file or folder /no/such/folder"),
        ("shards:/tmp?spatial", "spatial says nothing to shards"),
        ("msls:/tmp?footage=/x", "takes partial, spatial, test-cities"),
    ],
)
def test_what_cannot_be_opened_says_what_can(spec: str, told: str) -> None:
    with pytest.raises(DatasetError) as caught:
        open_dataset(spec, "train")
    assert told in str(caught.value)


def test_a_splitting_that_a_dataset_does_not_know_is_refused(release: Path) -> None:
    with pytest.raises(DatasetError, match="shards cannot be divided by blocks"):
        open_dataset(f"shards:{release}", "train", splitting="blocks")
    with pytest.raises(DatasetError, match="'rendered': it cannot be divided by blocks"):
        open_dataset("rendered", "train", splitting="blocks")
    assert open_dataset(f"cityguessr:{release}?partial", "train", splitting="blocks").entries


def shown(dataset: object, view: View) -> list[int]:
    sample = dataset.read(0, view)  # type: ignore[attr-defined]
    assert isinstance(sample, Sample)
    return sample.clip_THWC.mean(axis=(1, 2, 3)).round().astype(int).tolist()


def test_a_known_time_between_frames_makes_clips_of_a_span(release: Path) -> None:
    # Five frames, 2, 4, 6, 8 and 10 grey, a second apart.
    dataset = open_dataset(f"cityguessr:{release}?partial&frame-s=1", "train")
    view = View(frames=3, image_px=8, policy="exact", span_s=3.0)
    assert shown(dataset, view) == [4, 6, 8]
    whole = View(frames=3, image_px=8, policy="exact", span_s=60.0)
    assert shown(dataset, whole) == [2, 6, 10]
    untimed = open_dataset(f"cityguessr:{release}?partial", "train")
    assert shown(untimed, view) == [2, 6, 10]


def test_a_timed_dataset_crosses_processes_and_can_what_it_could(release: Path) -> None:
    dataset = open_dataset(f"cityguessr:{release}?partial&frame-s=1", "train")
    again = pickle.loads(pickle.dumps(dataset))
    view = View(frames=3, image_px=8)
    np.testing.assert_array_equal(shown(again, view), shown(dataset, view))
    assert again.count_frames(0) == 5
    assert again.text_table() is None


@pytest.mark.parametrize("text", ["0", "-1", "nan", "soon", "inf"])
def test_a_time_that_is_none_is_refused(release: Path, text: str) -> None:
    with pytest.raises(DatasetError, match="no time between two frames"):
        open_dataset(f"cityguessr:{release}?partial&frame-s={text}", "train")
