from __future__ import annotations

import csv
import io
import os
import pickle
import sys
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from train import scenes
from train.data.clips import rendered_hierarchy, rendered_places_csv
from train.data.dataset import BadSample, Entry, Sample, View
from train.data.places365 import categories
from train.data.scenes import SceneLabels, read_scenes, with_scenes, write_scenes
from train.data.world import SCENE_GROUPS
from train.errors import DatasetError, WeightsError
from train.models.resnet import build_resnet50

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geotag.places.hierarchy import Hierarchy

HIGHWAY, STREET, FOREST = (
    categories().index(name) for name in ("highway", "street", "forest/broadleaf")
)


@dataclass(frozen=True)
class Colours:
    """Clips of one grey each: `shades` by name; None for one that cannot be read."""

    shades: dict[str, int | None]
    name: str = "colours"
    hierarchy: Hierarchy = rendered_hierarchy()  # noqa: RUF009
    places_csv: str = rendered_places_csv()

    @property
    def entries(self) -> Sequence[Entry]:
        return [Entry(name=name, city_id=3, group=name) for name in self.shades]

    def read(self, index: int, view: View) -> Sample | BadSample:
        name, shade = list(self.shades.items())[index]
        if shade is None:
            return BadSample(name=name, reason=f"{name}.jpg is damaged")
        clip = np.full((view.frames, view.image_px, view.image_px, 3), shade, np.uint8)
        return Sample(clip_THWC=clip, city_id=3, scene_S=np.eye(16, dtype=np.float32)[2])


class ByShade(torch.nn.Module):
    """Highway for dark pictures, street for bright ones; undecided between; counts its frames."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = 0

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.shape[1:] == (3, 224, 224)
        self.frames += len(pixels)
        scores = torch.full((len(pixels), 365), -100.0)
        scores[:, HIGHWAY], scores[:, STREET] = 0, pixels.mean(dim=(1, 2, 3))
        return scores


def network(model: torch.nn.Module | None = None, sha256: str = "ab") -> scenes.PlacesNetwork:
    return scenes.PlacesNetwork(model=model or ByShade(), sha256=sha256)


def test_shares_are_softmax_then_groups_then_the_mean_over_frames() -> None:
    """By hand: three frames, each of which knows two categories."""
    scores_TK = np.full((3, 365), -1e3)
    for frame, probs in enumerate(((0.6, 0.4, 0.0), (0.6, 0.0, 0.4), (0.1, 0.9, 0.0))):
        for category, prob in zip((HIGHWAY, STREET, FOREST), probs, strict=True):
            scores_TK[frame, category] = np.log(prob) + 7 if prob else -1e3
    soft_S, majority = scenes.scenes_of_scores(scores_TK)
    wanted = np.zeros(16)
    wanted[[10, 15, 8]] = 1.3 / 3, 1.3 / 3, 0.4 / 3
    np.testing.assert_allclose(soft_S, wanted, atol=1e-6)
    assert majority == 10  # two of three frames, whatever the third is so sure of


def test_of_two_groups_with_as_many_frames_the_surer_one_is_the_majority() -> None:
    scores_TK = np.full((2, 365), -1e3)
    scores_TK[0, [HIGHWAY, STREET]] = np.log((0.6, 0.4))
    scores_TK[1, [HIGHWAY, STREET]] = np.log((0.1, 0.9))
    assert scenes.scenes_of_scores(scores_TK)[1] == 15


def test_a_group_gathers_what_its_categories_have() -> None:
    """Six likely kinds of shop beat one likelier road."""
    scores_TK = np.full((1, 365), -1e3)
    shops = ("bakery/shop", "bookstore", "candy_store", "gift_shop", "shoe_shop", "toyshop")
    for shop in shops:
        scores_TK[0, categories().index(shop)] = np.log(0.1)
    scores_TK[0, HIGHWAY] = np.log(0.4)
    soft_S, majority = scenes.scenes_of_scores(scores_TK)
    assert (majority, round(float(soft_S[0]), 5)) == (0, 0.6)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(365)),
               elements=st.floats(-1e4, 1e4, width=32))
)  # fmt: skip
@settings(max_examples=25)
def test_shares_of_any_scores_sum_to_one(scores_TK: np.ndarray) -> None:
    soft_S, majority = scenes.scenes_of_scores(scores_TK)
    assert soft_S.sum() == pytest.approx(1, abs=1e-5)
    assert (soft_S >= 0).all()
    assert 0 <= majority < 16


def test_the_middle_of_a_picture_goes_in_normalised() -> None:
    clip = np.zeros((2, 256, 256, 3), np.uint8)
    clip[1, 16:240, 16:240] = (124, 116, 104)  # nearly ImageNet's mean
    clip[1, 16, 16] = 255
    pixels = scenes.normalise(clip)
    assert pixels.shape == (2, 3, 224, 224)
    assert pixels[1, :, 1:, 1:].abs().max() < 0.02
    wanted = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(pixels[1, :, 0, 0], wanted, atol=1e-5)


def test_clips_are_labelled_and_bad_ones_listed(tmp_path: Path) -> None:
    clips = Colours({"dark": 0, "bright": 255, "broken": None})
    report = scenes.label_scenes(clips, network(), tmp_path / "scenes", frames=3)
    assert (report.labelled, report.known) == (2, 0)
    assert report.bad == (BadSample(name="broken", reason="broken.jpg is damaged"),)
    labels = read_scenes(tmp_path / "scenes")
    assert labels.majority == {"dark": 10, "bright": 15}
    assert labels.bad == {"broken": "broken.jpg is damaged"}
    assert labels.soft["dark"][[10, 15]].sum() == pytest.approx(1)
    tensors = load_file(tmp_path / "scenes")
    assert (tensors["soft"].shape, tensors["majority"].shape) == ((2, 16), (2,))


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    clips = Colours({f"clip {number}": 40 * number for number in range(6)} | {"broken": None})

    class Stops(ByShade):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            if self.frames == 8:
                raise KeyboardInterrupt
            return super().forward(pixels)

    out = tmp_path / "scenes"
    with pytest.raises(KeyboardInterrupt):
        scenes.label_scenes(clips, network(Stops()), out, frames=2)
    assert len(read_scenes(out).soft) == 4
    model = ByShade()
    report = scenes.label_scenes(clips, network(model), out, frames=2, save_every=1)
    assert (report.labelled, report.known, len(report.bad), model.frames) == (2, 4, 1, 4)
    scenes.label_scenes(clips, network(), tmp_path / "at once", frames=2)
    assert out.read_bytes() == (tmp_path / "at once").read_bytes()


def test_a_clip_that_was_mended_is_labelled_after_all(tmp_path: Path) -> None:
    scenes.label_scenes(Colours({"one": None}), network(), tmp_path / "scenes", frames=2)
    report = scenes.label_scenes(Colours({"one": 9}), network(), tmp_path / "scenes", frames=2)
    assert report.labelled == 1
    assert read_scenes(tmp_path / "scenes").bad == {}


def test_splits_share_a_file(tmp_path: Path) -> None:
    for shades in ({"b": 0, "c": 1}, {"a": 255}):
        scenes.label_scenes(Colours(dict(shades)), network(), tmp_path / "scenes", frames=2)
    assert list(read_scenes(tmp_path / "scenes").soft) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("changes", "says"), [({"frames": 4}, "another frames"), ({"sha256": "cd"}, "network_sha256")]
)
def test_labels_made_otherwise_are_not_mixed(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    scenes.label_scenes(Colours({"one": 1}), network(), tmp_path / "scenes", frames=2)
    before = (tmp_path / "scenes").read_bytes()
    with pytest.raises(DatasetError, match=says):
        scenes.label_scenes(
            Colours({"one": 1, "two": 2}),
            network(sha256=changes.get("sha256", "ab")),
            tmp_path / "scenes",
            frames=changes.get("frames", 2),
        )
    assert (tmp_path / "scenes").read_bytes() == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_stop_the_run_and_keep_what_is_done(
    tmp_path: Path, value: float
) -> None:
    class Breaks(ByShade):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            scores = super().forward(pixels)
            scores[-1, 7] = value if self.frames > 2 else 0
            return scores

    with pytest.raises(DatasetError, match=r"scene of two: .* not 365 finite numbers"):
        scenes.label_scenes(
            Colours({"one": 1, "two": 2}), network(Breaks()), tmp_path / "scenes", frames=2
        )
    assert list(read_scenes(tmp_path / "scenes").soft) == ["one"]


def test_reading_in_other_processes_gives_the_same_bytes(tmp_path: Path) -> None:
    clips = Colours({f"clip {number}": 40 * number for number in range(4)} | {"broken": None})
    for workers in (0, 2):
        scenes.label_scenes(clips, network(), tmp_path / str(workers), frames=2, workers=workers)
    assert (tmp_path / "0").read_bytes() == (tmp_path / "2").read_bytes()


def test_a_dataset_takes_its_scenes_from_the_file(tmp_path: Path) -> None:
    clips = Colours({"dark": 0, "broken": None, "other": 7})
    labels = SceneLabels(facts={}, soft={}, majority={})
    labels.soft["dark"] = np.full(16, 1 / 16, np.float32)
    labels.majority["dark"] = 4
    write_scenes(labels, tmp_path / "scenes")
    dataset = with_scenes(clips, tmp_path / "scenes")
    view = View(frames=2, image_px=8)
    dark, broken, other = (dataset.read(index, view) for index in range(3))
    assert isinstance(dark, Sample)
    assert isinstance(other, Sample)
    assert (dark.scene_id, dark.city_id) == (4, 3)
    np.testing.assert_array_equal(dark.scene_S, labels.soft["dark"])
    assert (other.scene_S, other.scene_id) == (None, -1)
    assert broken == BadSample(name="broken", reason="broken.jpg is damaged")
    assert (dataset.name, dataset.entries) == (clips.name, clips.entries)
    assert dataset.hierarchy is clips.hierarchy
    copy = pickle.loads(pickle.dumps(dataset)).read(0, view)
    np.testing.assert_array_equal(copy.scene_S, dark.scene_S)


def test_labels_of_another_dataset_are_refused(tmp_path: Path) -> None:
    scenes.label_scenes(Colours({"one": 1}), network(), tmp_path / "scenes", frames=2)
    with pytest.raises(DatasetError, match="none of its 1 clips is among the 1 of colours"):
        with_scenes(Colours({"two": 1}), tmp_path / "scenes")


def test_names_that_are_no_text_come_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x9a\x97")
    scenes.label_scenes(Colours({name: 1}), network(), tmp_path / "scenes", frames=2)
    assert list(read_scenes(tmp_path / "scenes").soft) == [name]


@pytest.mark.parametrize(
    ("soft", "majority", "says"),
    [
        (np.full((1, 16), 0.1, np.float32), [3], "row 0: shares that sum to"),
        (np.full((1, 16), np.nan, np.float32), [3], "row 0: shares that sum to"),
        (np.full((1, 16), 1 / 16, np.float32), [16], "group 16"),
        (np.full((1, 16), 1 / 16, np.float32), [-1], "group -1"),
        (np.full((1, 16), 1 / 16, np.float64), [3], "needed are float32"),
        (np.full((2, 16), 1 / 16, np.float32), [3, 3], "for 1 clips"),
        (np.full((1, 15), 1 / 15, np.float32), [3], "for 1 clips"),
        (np.array([[2, -1, *[0] * 14]], np.float32), [3], "row 0"),
    ],
)
def test_labels_that_are_none_are_refused(
    tmp_path: Path, soft: np.ndarray, majority: list[int], says: str
) -> None:
    path = tmp_path / "scenes"
    write_scenes(
        SceneLabels(facts={}, soft={"a": np.eye(16, dtype=np.float32)[0]}, majority={"a": 0}), path
    )
    header = read_header(path)
    save_file({"soft": soft, "majority": np.array(majority, np.int64)}, path, header)
    with pytest.raises(DatasetError, match="reading scene labels") as caught:
        read_scenes(path)
    assert says in str(caught.value)


def read_header(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as opened:
        return dict(opened.metadata())


@pytest.mark.parametrize("content", [b"", b"\0" * 50, b"\x02\0\0\0\0\0\0\0{}", b"a,b\n1,2\n"])
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scenes").write_bytes(content)
    with pytest.raises(DatasetError, match="no scene labels, or cut short"):
        read_scenes(tmp_path / "scenes")
    with pytest.raises(DatasetError, match="no scene labels, or cut short"):
        scenes.label_scenes(Colours({"one": 1}), network(), tmp_path / "scenes")
    with pytest.raises(DatasetError, match="no such file"):
        with_scenes(Colours({"one": 1}), tmp_path / "nowhere")


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes texts as Python 2 did, with which Places365's files were made in 2016."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_str(self, text: str) -> None:
        if text.isascii() and len(text) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(text)]) + text.encode("ascii"))
            self.memoize(text)
        else:
            super().save_str(text)

    dispatch[str] = save_str


@pytest.fixture(scope="module")
def places_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        f"module.{name}": value
        for name, value in build_resnet50(365).state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def save_as_published(state: dict[str, torch.Tensor], path: Path) -> None:
    """As torch 0.1 under Python 2 wrote it: no zip, byte strings, the names of DataParallel."""
    content = {
        "epoch": 90,
        "arch": "resnet50",
        "state_dict": OrderedDict(state),
        "best_prec1": torch.tensor([54.7]),
    }
    module = ModuleType("python2_pickle")
    module.Pickler = Python2Pickler  # type: ignore[attr-defined]
    module.dump = lambda value, stream, protocol: Python2Pickler(stream, protocol).dump(value)  # type: ignore[attr-defined]
    torch.save(
        content, path, pickle_module=module, pickle_protocol=2, _use_new_zipfile_serialization=False
    )


def test_the_published_file_is_read_strictly(
    tmp_path: Path, places_state: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "resnet50_places365.pth.tar"
    save_as_published(places_state, path)
    with path.open("rb") as stream:
        head = stream.read(100_000)
    assert b"U\x0astate_dict" in head  # a byte string of Python 2
    assert not head.startswith(b"PK")
    found = scenes.read_places_network(path)
    for name, value in places_state.items():
        assert torch.equal(found.model.state_dict()[name.removeprefix("module.")], value)
    clips = Colours({"one": 100})
    scenes.label_scenes(clips, found, tmp_path / "scenes", frames=1)
    reference = build_resnet50(365).eval()
    reference.load_state_dict(
        {name.removeprefix("module."): value for name, value in places_state.items()}, strict=False
    )
    with torch.inference_mode():
        probs = reference(scenes.normalise(np.full((1, 256, 256, 3), 100, np.uint8))).softmax(1)
    wanted = [
        sum(
            float(prob)
            for prob, (_, group) in zip(probs[0], places_rows(), strict=True)
            if group == name
        )
        for name in SCENE_GROUPS
    ]
    labels = read_scenes(tmp_path / "scenes")
    np.testing.assert_allclose(labels.soft["one"], wanted, atol=1e-5)


def places_rows() -> list[tuple[str, str]]:
    path = Path(scenes.__file__).parent / "data" / "places365.csv"
    rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
    return [(category, group) for category, group in rows][1:]


@pytest.mark.parametrize("damage", ["classes", "missing", "unknown", "nan", "code", "absent"])
def test_other_weights_are_refused(
    tmp_path: Path, places_state: dict[str, torch.Tensor], damage: str
) -> None:
    path, state = tmp_path / "net.pth.tar", dict(places_state)
    content: dict[str, Any] = {"state_dict": state}
    if damage == "classes":
        state["module.fc.weight"] = torch.zeros(1000, 2048)
    elif damage == "missing":
        del state["module.fc.weight"]
    elif damage == "unknown":
        state["module.fc.weights"] = torch.zeros(1)
    elif damage == "nan":
        state["module.fc.weight"] = torch.full((365, 2048), float("nan"))
    elif damage == "code":
        content["arch"] = SimpleNamespace(fc=1)
    if damage != "absent":
        torch.save(content, path)
    says = {"code": "can run code", "absent": "no file", "nan": "not finite"}.get(damage, "fc.weig")
    with pytest.raises(WeightsError, match=says):
        scenes.read_places_network(path)


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Datasets by spec, as far as the command asks for them."""
    module = ModuleType("train.data.sources")
    module.open_dataset = lambda spec, split: Colours(  # type: ignore[attr-defined]
        {f"{split} 0": 0, f"{split} 1": 200, **({"bad": None} if spec == "worse" else {})}
    )
    monkeypatch.setitem(sys.modules, "train.data.sources", module)


@pytest.mark.usefixtures("sources")
def test_the_command_labels_a_split_and_ends_with_3_when_clips_are_bad(
    tmp_path: Path, places_state: dict[str, torch.Tensor]
) -> None:
    torch.save({"state_dict": places_state}, tmp_path / "net.pth.tar")
    usual = ["--weights", str(tmp_path / "net.pth.tar"), "--out", str(tmp_path / "scenes"),
             "--frames", "1"]  # fmt: skip
    result = CliRunner().invoke(scenes.app, ["--dataset", "good", "--split", "val", *usual])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(scenes.app, ["--dataset", "worse", *usual])
    assert result.exit_code == 3
    assert "bad: bad.jpg is damaged" in result.output
    assert sorted(read_scenes(tmp_path / "scenes").soft) == [
        "train 0", "train 1", "val 0", "val 1"
    ]  # fmt: skip
    result = CliRunner().invoke(scenes.app, ["--dataset", "good", "--split", "some", *usual])
    assert result.exit_code == 2
    assert "allowed are train, val, test" in " ".join(result.output.replace("│", " ").split())


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize(("device", "said"), [("foo", "cpu, cuda and auto"), ("cuda", "no NVIDIA")])
def test_a_device_that_is_not_here_is_told(tmp_path: Path, device: str, said: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    words = ["--dataset", "good", "--weights", str(tmp_path / "net"), "--device", device]
    result = CliRunner().invoke(scenes.app, words)
    assert result.exit_code == 2
    assert said in result.output


def test_scene_files_are_read_without_torch(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import train.data.scenes, train.data.places365\n"
        "print(train.data.places365.membership().shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(scenes.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "(365, 16)", done.stderr
