"""`geotag export --precision`: what it writes and refuses, and that nothing is ever half done."""

from __future__ import annotations

import csv
import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import onnx
import pytest

from calibration.quantize import QuantizedState
from engines.bundle import LEVELS, read_bundle
from geotag.cli import main
from geotag.places.hierarchy import decode, read_hierarchy
from geotag.wish import PrecisionWish
from tests.fakes import write_colour_video
from tests.lowered import (
    CITIES,
    CLASSES,
    TINY,
    calibration_set,
    clips_of,
    draw,
    one_thread,
    run,
    tell_apart,
)
from tests.media import write_video
from train import export as exporting
from train import precisions, smaller
from train.checkpoint import save_checkpoint
from train.latency import latencies_ms
from train.onnx_graph import build_graph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from engines.bundle import Precision

STATES = [0, 0, 1, 2, 3]
"""The country of each state; 5 states, 4 countries."""
COUNTRIES = [0, 0, 1, 2]
"""The continent of each."""
FILES = {
    "MODEL_CARD.md",
    "bundle.json",
    "calibration.csv",
    "model.fp16.onnx",
    "model.int8.fp16.onnx",
    "model.int8.onnx",
    "model.onnx",
    "places.csv",
}
FEW = ("--calib-clips", "48", "--gate-clips", "32")
EVALUATION = {
    "split": "test",
    "clips": 40,
    "modes": {"marginal": dict.fromkeys(LEVELS, 0.5)},
    "policies": [
        {"policy": "dense", "span_s": 2.0, "city_top1": 0.5, "country_top1": 0.75, "clips": 40}
    ],
    "calibration": {},
    "command": "python -m train.fit --preset tiny",
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def _places() -> str:
    rows = ["city,state,country,continent,lat_deg,lon_deg"]
    for city in range(CITIES):
        state = city % CLASSES["state"]
        country = STATES[state]
        rows.append(f"c{city},s{state},n{country},k{COUNTRIES[country]},{city},{city / 2}")
    return "\n".join(rows) + "\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a network whose answers differ from clip to clip."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    model = draw(TINY)
    tell_apart(model)
    facts = {
        "data": "manifest:/home/lovelace/drives.csv",
        "preset": "tiny",
        "seed": 0,
        "sampling": {"min_span_s": 1.0, "max_span_s": 3.0, "max_keyframe_gap_s": 2.0, "clips": 3},
    }
    save_checkpoint(folder, model, places_csv=_places(), facts=facts)
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One long video, other colours in every second of it: 36 clips are held out, 108 are not."""
    folder = tmp_path_factory.mktemp("cards") / "lovelace"
    folder.mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (720, 4, 4, 3), dtype=np.uint8)

    def picture(index: int) -> av.VideoFrame:
        pixels = colours[index // 4].repeat(16, axis=0).repeat(16, axis=1)
        return av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p")

    write_video(folder / "drive.mp4", frames=2880, fps=4, gop=4, size=(64, 64), draw=picture)
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOTAG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where bundles are written; nothing else may be left there."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def in_memory(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips that need no reading; labels are what float32 says, which is right about all then."""
    model = draw(TINY)
    tell_apart(model)
    scores = run(build_graph(model), clips_of(TINY, 32, seed=5))
    hierarchy = read_hierarchy(trained / "places.csv")
    found = decode({level: scores[level] for level in LEVELS}, hierarchy, "codependent")
    give_clips(monkeypatch, found.labels["city"])


def give_clips(monkeypatch: pytest.MonkeyPatch, cities: NDArray[np.intp] | None) -> None:
    made = calibration_set(TINY, 64, city_ids=cities)
    monkeypatch.setattr(smaller, "open_calibration", lambda *_, **__: made)
    times: dict[Precision, float] = {"fp32": 3.0, "fp16": 3.0, "int8": 1.0}
    monkeypatch.setattr(
        smaller,
        "latencies_ms",
        lambda bundle, **_: {name: times[name] for name in bundle.precisions},
    )


def export(trained: Path, out: Path, *flags: object) -> int:
    given = ["export", "--checkpoint", trained, "--out", out, "--no-plan", *flags]
    return main([str(each) for each in given])


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Standard error as one line."""
    return " ".join(capsys.readouterr().err.split())


# --- from footage to tags ---


@pytest.fixture(scope="module")
def exported(
    trained: Path, footage: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A bundle of every precision, calibrated on footage; and what was printed."""
    folder = tmp_path_factory.mktemp("bundles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOTAG_CACHE", str(folder / "cache"))
        report = exporting.export_bundle(
            trained, folder / "first", name="mine", wish=_wish(footage)
        )
        again = exporting.export_bundle(
            trained, folder / "second", name="mine", wish=_wish(footage)
        )
    assert again.label == report.label
    return report.path, str(report)


def _wish(footage: Path) -> PrecisionWish:
    return PrecisionWish(
        precision="int8",
        calib=str(footage),
        calib_clips=48,
        judged_clips=32,
        has_plan=False,
        force=True,
    )


def test_the_same_export_gives_the_same_bytes(exported: tuple[Path, str]) -> None:
    path, _ = exported
    first, second = content(path), content(path.with_name("second"))
    assert set(first) == set(second) == FILES
    for name, held in first.items():
        assert held == second[name], name


def test_a_bundle_says_how_each_precision_was_made_and_how_well_it_does(
    exported: tuple[Path, str],
) -> None:
    path, _ = exported
    bundle = read_bundle(path)
    assert bundle.precisions == ("fp32", "fp16", "int8")
    facts = bundle.manifest.quantization
    assert facts is not None
    assert facts["calibration"]["clips"] == 48
    assert facts["calibration"]["held_out_clips"] == 32
    assert set(facts["recipe"]["families"]) | set(facts["recipe"]["in_floating_point"]) == {
        f"blocks.{number}.{name}" for number in range(2) for name in ("qkv", "proj", "fc1", "fc2")
    }
    assert facts["gate"]["max_city_drop"] == 0.005
    assert facts["command"] == (
        "geotag export --precision int8 --calib lovelace --calib-clips 48 --gate-clips 32 --force"
    )
    for name, precision in (("model.fp16.onnx", "fp16"), ("model.int8.onnx", "int8")):
        measured = bundle.manifest.files[name].measured
        assert bundle.manifest.files[name].precision == precision
        assert measured["clips"] == 32
        assert 0.9 <= float(measured["agreement_city"]) <= 1
        assert float(measured["latency_ms"]) > 0
        assert precision in str(measured["judged_by"])
        assert "city_top1" not in measured  # nobody says where that footage was recorded
    assert bundle.manifest.files["model.int8.fp16.onnx"].precision == "int8"


def test_the_list_of_clips_names_no_folder_and_no_clip_twice(exported: tuple[Path, str]) -> None:
    path, _ = exported
    with (path / "calibration.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    uses = [row["use"] for row in rows]
    assert (uses.count("calibration"), uses.count("held-out")) == (48, 32)
    assert len({row["clip"] for row in rows}) == 80
    for held in content(path).values():
        assert b"lovelace/" not in held
        assert str(path.parent).encode() not in held


def test_the_table_shows_what_the_bundle_holds(exported: tuple[Path, str]) -> None:
    path, printed = exported
    files = read_bundle(path).manifest.files
    lines = {line.split()[0]: line.split() for line in printed.splitlines() if line.split()}
    for precision, name in (("fp32", "model.onnx"), ("int8", "model.int8.onnx")):
        row = lines[precision]
        assert float(row[1]) == pytest.approx(files[name].size_bytes / 1e6, abs=0.05)
        assert float(row[2]) == files[name].measured["latency_ms"]
    share = float(files["model.int8.onnx"].measured["agreement_city"])
    assert f"{100 * share:.2f}" in lines["int8"]


@pytest.mark.parametrize(
    ("flags", "engine"),
    [
        ((), "openvino-cpu-int8"),
        (("--precision", "int8"), "openvino-cpu-int8"),
        (("--precision", "fp16"), "openvino-cpu-fp16"),
        (("--precision", "fp32"), "openvino-cpu-fp32"),
    ],
)
def test_a_scan_runs_every_precision_and_tags_say_which(
    flags: tuple[str, ...],
    engine: str,
    exported: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_colour_video(tmp_path / "card" / "a.mp4")
    assert main(["scan", str(tmp_path / "card"), "--bundle", str(exported[0]), *flags]) == 0
    (tag,) = json.loads(Path("tags.geojson").read_text(encoding="utf-8"))["features"]
    assert tag["properties"]["engine"].removesuffix("-bf16") == engine
    assert tag["properties"]["bundle"] == read_bundle(exported[0]).label


def test_a_bundle_of_before_still_reads_and_has_float32_alone(
    trained: Path, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(trained, work / "bundle") == 0
    record = json.loads((work / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    del record["quantization"]
    (work / "bundle" / "bundle.json").write_text(json.dumps(record), encoding="utf-8")
    bundle = read_bundle(work / "bundle")
    assert bundle.manifest.quantization is None
    assert bundle.precisions == ("fp32",)
    write_colour_video(tmp_path / "card" / "a.mp4")
    asked = ["scan", str(tmp_path / "card"), "-b", str(work / "bundle"), "--precision", "int8"]
    capsys.readouterr()
    assert main([*asked, "-o", str(tmp_path / "tags.csv")]) == 6
    assert "in int8: the bundle has no graph of int8" in said(capsys)


# --- usage ---


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--precision", "int4"], "--precision int4: allowed are fp32, fp16, int8."),
        (["--precision", "int8", "--builder", "gcc"], "--builder gcc: allowed are onnx, torch-"),
        (["--precision", "fp32", "--calib", "."], "--calib belongs to --precision fp16 or int8."),
        (["--calib", "."], "--calib belongs to --precision fp16 or int8."),
        (["--precision", "fp16", "--int8-skip", "blocks.0"], "belong to --precision int8."),
        (["--int8-onnx", "own.onnx"], "--int8-skip and --int8-onnx belong to --precision int8."),
        (
            ["--precision", "int8", "--int8-onnx", "own.onnx", "--int8-skip", "blocks.0"],
            "--int8-skip and --int8-onnx exclude each other.",
        ),
        (["--precision", "int8", "--max-drop", "-1"], "--max-drop"),
        (["--precision", "int8", "--calib-clips", "many"], "--calib-clips"),
        (
            ["--precision", "int8", "--calib", "nowhere"],
            "nowhere': there is no such file or folder",
        ),
        (["--precision", "int8", "--calib", "FOOTAGE", "--calib-clips", "8"], "taking 8 clips to"),
        (["--precision", "int8", "--calib", "FOOTAGE", "--gate-clips", "31"], "taking 31 clips to"),
        (["--precision", "int8", "--calib", "EMPTY"], "there are none to use"),
        (["--precision", "int8", "--calib", "SHORT"], "At least 32 are needed, 512 are advised."),
        (["--precision", "int8"], "drives.csv"),  # what it was trained on is not here
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_left(
    flags: list[str],
    text: str,
    trained: Path,
    footage: Path,
    work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    if "SHORT" in flags:
        write_colour_video(tmp_path / "short" / "a.mp4")
    folders = {
        "FOOTAGE": footage,
        "EMPTY": tmp_path / "empty",
        "SHORT": tmp_path / "short",
        "nowhere": tmp_path / "nowhere",
    }
    assert export(trained, work / "bundle", *(folders.get(flag, flag) for flag in flags)) == 2
    error = said(capsys)
    assert text in error
    assert "Traceback" not in error
    assert list(work.iterdir()) == []


# --- what is named is looked at before clips are ---


@pytest.fixture
def no_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("clips were looked at")

    monkeypatch.setattr(smaller, "open_calibration", refuse)


def _zero_point(model: onnx.ModelProto) -> None:
    for held in model.graph.initializer:
        if held.name == "zero[]":
            held.CopyFrom(onnx.numpy_helper.from_array(np.array(1, np.int8), held.name))


def _opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 21


def _outputs(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


@pytest.mark.usefixtures("no_clips")
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_zero_point, "blocks.0.norm1.quantized: its zero point is 1; it must be 0"),
        (_opset, "the model: opset 21, needed is 20"),
        (_outputs, "its outputs are {'city': 24, 'country': 4"),
    ],
)
def test_a_graph_that_somebody_brings_is_told_what_is_wrong_with_it(
    change: Callable[[onnx.ModelProto], None],
    text: str,
    exported: tuple[Path, str],
    trained: Path,
    work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = onnx.load(exported[0] / "model.int8.onnx")
    change(model)
    onnx.save(model, tmp_path / "own.onnx")
    flags = ("--precision", "int8", "--int8-onnx", tmp_path / "own.onnx")
    assert export(trained, work / "bundle", *flags) == 2
    error = said(capsys)
    assert text in error
    assert "own.onnx" in error
    assert list(work.iterdir()) == []


@pytest.mark.usefixtures("no_clips")
@pytest.mark.parametrize("content", [None, b"", b"onnx"])
def test_a_graph_that_is_none_is_told(
    content: bytes | None,
    trained: Path,
    work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / "own.onnx").write_bytes(content)
    flags = ("--precision", "int8", "--int8-onnx", tmp_path / "own.onnx")
    assert export(trained, work / "bundle", *flags) == 2
    assert "own.onnx" in said(capsys)
    assert list(work.iterdir()) == []


@pytest.mark.usefixtures("no_clips")
def test_a_layer_that_is_not_there_is_told(
    trained: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--precision", "int8", "--int8-skip", "blocks.12.fc2")
    assert export(trained, work / "bundle", *flags) == 2
    assert "leaving blocks.12.fc2 in floating point: there is no such layer." in said(capsys)
    assert list(work.iterdir()) == []


@pytest.mark.usefixtures("in_memory")
def test_a_graph_that_somebody_brings_is_judged_and_recorded(
    exported: tuple[Path, str], trained: Path, work: Path
) -> None:
    brought = exported[0] / "model.int8.onnx"
    flags = ("--precision", "int8", "--int8-onnx", brought, "--force")
    assert export(trained, work / "bundle", *flags) == 0
    bundle = read_bundle(work / "bundle")
    assert set(content(work / "bundle")) == FILES
    facts = bundle.manifest.quantization
    assert facts is not None
    assert facts["recipe"] == {"made_by": "a graph that was brought"}
    assert facts["command"].endswith("--int8-onnx model.int8.onnx")
    assert "agreement_city" in bundle.manifest.files["model.int8.onnx"].measured


# --- the gate ---


def _spoil(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of zero in the first block: the answers are other ones."""

    def spoiled(*given: Any, **options: Any) -> Any:  # noqa: ANN401
        held = real(*given, **options)
        families = {}
        for name, family in held.state.families.items():
            linears = {
                linear: replace(weight, weight_IO=weight.weight_IO * name.startswith("blocks.1"))
                for linear, weight in family.linears.items()
            }
            families[name] = replace(family, linears=linears)
        return replace(held, state=QuantizedState(families=families))

    real = precisions.quantize_model
    monkeypatch.setattr(precisions, "quantize_model", spoiled)


@pytest.mark.usefixtures("in_memory")
def test_a_model_that_lost_accuracy_is_refused_and_its_worst_layers_are_named(
    trained: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _spoil(monkeypatch)
    assert export(trained, work / "bundle", "--precision", "int8") == 2
    error = said(capsys)
    assert "exporting: the smaller model lost too much, so nothing was written." in error
    assert "int8: it is right about the city" in error
    named = [word.rstrip(",)") for word in error.split() if word.startswith("blocks.")]
    assert len(named) == 3
    # Every layer of the first block was spoiled and none of the second.
    assert all(name.startswith("blocks.0.") for name in named)
    assert list(work.iterdir()) == []


@pytest.mark.usefixtures("in_memory")
def test_a_model_that_lost_accuracy_is_written_by_force_and_says_so(
    trained: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _spoil(monkeypatch)
    assert export(trained, work / "bundle", "--precision", "int8", "--force") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "note: int8 was shipped because of --force: it is right about the city" in printed
    bundle = read_bundle(work / "bundle")
    facts = bundle.manifest.quantization
    assert facts is not None
    assert facts["gate"]["forced"] is True
    assert facts["gate"]["passed"] == {"fp16": True, "int8": False}
    assert facts["command"].endswith("--force")
    measured = bundle.manifest.files["model.int8.onnx"].measured
    assert float(measured["city_top1"]) < 0.9
    assert float(measured["city_drop"]) == pytest.approx(1 - float(measured["city_top1"]))


def test_more_may_be_lost_where_it_is_allowed(
    trained: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_clips(monkeypatch, np.arange(32) % CITIES)
    _spoil(monkeypatch)
    flags = ("--precision", "int8", "--max-drop", "100")
    assert export(trained, work / "bundle", *flags) == 0
    facts = read_bundle(work / "bundle").manifest.quantization
    assert facts is not None
    assert facts["gate"]["forced"] is False
    assert facts["gate"]["max_city_drop"] == 1.0
    assert "--max-drop 100" in facts["command"]


def test_without_labels_another_city_for_many_clips_is_refused(
    trained: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_clips(monkeypatch, None)
    _spoil(monkeypatch)
    assert export(trained, work / "bundle", "--precision", "int8") == 2
    assert "int8: it answers another city than float32 for" in said(capsys)


@pytest.mark.usefixtures("in_memory")
def test_a_smaller_model_that_is_no_faster_is_told(
    trained: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        smaller, "latencies_ms", lambda *_, **__: {"fp32": 1.5, "fp16": 1.5, "int8": 2.0}
    )
    assert export(trained, work / "bundle", "--precision", "int8", "--force") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "note: int8 is not faster than fp32 on this machine (2.0 ms and 1.5 ms a clip)" in printed
    )


def test_a_latency_is_measured_once_for_each_machine(
    exported: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = read_bundle(exported[0])
    first = latencies_ms(bundle, cache=tmp_path / "kept")
    assert set(first) == set(bundle.precisions)
    monkeypatch.setattr("train.latency._time", lambda *_: pytest.fail("it was measured again"))
    assert latencies_ms(bundle, cache=tmp_path / "kept") == first
    (kept,) = (tmp_path / "kept" / "latency").iterdir()
    kept.write_text("half a rec", encoding="utf-8")
    monkeypatch.setattr("train.latency._time", lambda *_: dict.fromkeys(bundle.precisions, 0.25))
    assert latencies_ms(bundle, cache=tmp_path / "kept") == dict.fromkeys(bundle.precisions, 250.0)


@pytest.mark.usefixtures("in_memory")
def test_files_that_take_float16_pixels_are_written(trained: Path, work: Path) -> None:
    flags = ("--precision", "int8", "--trt-pixels", "float16", "--trt-weights", "qdq", "--force")
    assert export(trained, work / "bundle", *flags) == 0
    for name in ("model.fp16.onnx", "model.int8.fp16.onnx"):
        (port,) = onnx.load(work / "bundle" / name).graph.input
        assert port.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    (port,) = onnx.load(work / "bundle" / "model.int8.onnx").graph.input
    assert port.type.tensor_type.elem_type == onnx.TensorProto.UINT8


# --- whatever goes wrong, no half bundle ---


@pytest.fixture
def old(trained: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, bytes]:
    """A bundle that is there already."""
    assert export(trained, work / "bundle", "--name", "old") == 0
    capsys.readouterr()
    return content(work / "bundle")


def _full_disk(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refusing(real: Callable[..., int]) -> Callable[..., int]:
        def write(path: Path, *given: Any, **options: Any) -> int:  # noqa: ANN401
            if path.name == name:
                real(path, given[0][: len(given[0]) // 2], **options)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return real(path, *given, **options)

        return write

    for kind in ("write_bytes", "write_text"):
        monkeypatch.setattr(Path, kind, refusing(getattr(Path, kind)))


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("name", sorted(FILES - {"places.csv"}))
def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(
    name: str,
    trained: Path,
    work: Path,
    old: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _full_disk(monkeypatch, name)
    flags = ("--precision", "int8", "--force", "--overwrite")
    assert export(trained, work / "bundle", *flags) == 5
    error = said(capsys)
    assert f"writing the bundle {work / 'bundle'}" in error
    assert "No space left on device" in error
    assert [path.name for path in work.iterdir()] == ["bundle"]
    assert content(work / "bundle") == old


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_told(
    code: int,
    trained: Path,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(path: Path, *given: Any, **options: Any) -> None:  # noqa: ANN401
        if path.name.startswith("."):
            raise OSError(code, os.strerror(code), str(path))
        real(path, *given, **options)

    real = Path.mkdir
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert export(trained, work / "bundle", "--precision", "int8") == 5
    assert os.strerror(code) in said(capsys)
    assert list(work.iterdir()) == []


INTERRUPTED: list[tuple[object, str]] = [
    (exporting, "export_onnx"),
    (exporting, "check_parity"),
    (smaller, "open_calibration"),
    (precisions, "observe"),
    (precisions, "quantize_model"),
    (precisions, "write_int8"),
    (smaller, "judge_precisions"),
    (smaller, "latencies_ms"),
    (exporting, "write_manifest"),
    (exporting, "read_bundle"),
]


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(("module", "name"), INTERRUPTED, ids=[name for _, name in INTERRUPTED])
def test_an_interrupt_leaves_the_old_bundle_and_nothing_else(
    module: object,
    name: str,
    trained: Path,
    work: Path,
    old: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, name, interrupt)
    flags = ("--precision", "int8", "--force", "--overwrite")
    assert export(trained, work / "bundle", *flags) == 130
    assert said(capsys).endswith(f"error: interrupted: no bundle was written to {work / 'bundle'}.")
    assert [path.name for path in work.iterdir()] == ["bundle"]
    assert content(work / "bundle") == old


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
def test_what_goes_wrong_while_folders_change_places_puts_the_old_one_back(
    stop: BaseException,
    trained: Path,
    work: Path,
    old: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: Path, target: Path) -> Path:
        if path.name.endswith(".new"):
            raise stop
        return real(path, target)

    real = Path.replace
    monkeypatch.setattr(Path, "replace", refuse)
    assert export(trained, work / "bundle", "--overwrite") in (5, 130)
    assert [path.name for path in work.iterdir()] == ["bundle"]
    assert content(work / "bundle") == old


@pytest.mark.usefixtures("in_memory")
def test_a_bundle_is_replaced_as_a_whole(trained: Path, work: Path, old: dict[str, bytes]) -> None:
    assert export(trained, work / "bundle", "--precision", "int8", "--force") == 2
    assert content(work / "bundle") == old
    flags = ("--precision", "fp16", "--force", "--overwrite")
    assert export(trained, work / "bundle", *flags) == 0
    names = set(content(work / "bundle"))
    assert names == FILES - {"model.int8.onnx", "model.int8.fp16.onnx"}
    assert [path.name for path in work.iterdir()] == ["bundle"]
