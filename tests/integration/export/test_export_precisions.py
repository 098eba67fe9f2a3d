"""`geotag export --precision`: from footage to tags, and what cannot be."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest

from engines.bundle import read_bundle
from engines.openvino_cpu import OpenvinoEngine
from geotag.cli import main
from tests.exports import FILES, content, export, said
from tests.fakes import write_colour_video
from tests.lowered import TINY, assert_near, clips_of, run
from tests.tolerances import FP16_GRAPH
from train import smaller
from train.latency import latencies_ms

if TYPE_CHECKING:
    pass


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
def test_files_that_take_float16_pixels_are_written(
    trained: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smaller, "latencies_ms", latencies_ms)
    flags = ("--precision", "int8", "--trt-pixels", "float16", "--trt-weights", "qdq", "--force")
    assert export(trained, work / "bundle", *flags) == 0
    for name in ("model.fp16.onnx", "model.int8.fp16.onnx"):
        (port,) = onnx.load(work / "bundle" / name).graph.input
        assert port.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    (port,) = onnx.load(work / "bundle" / "model.int8.onnx").graph.input
    assert port.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    clips = clips_of(TINY, 2)
    found = OpenvinoEngine(read_bundle(work / "bundle"), threads=1, precision="fp16").infer(clips)
    wanted = run(onnx.load(work / "bundle" / "model.onnx").graph, clips)
    assert_near(found, wanted, FP16_GRAPH)


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
