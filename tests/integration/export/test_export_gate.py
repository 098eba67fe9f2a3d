"""`geotag export --precision`: graphs that are brought, and what may be shipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from calibration.quantize import QuantizedState
from engines.bundle import read_bundle
from tests.exports import FILES, content, export, give_clips, said
from tests.lowered import CITIES
from train import precisions, smaller

if TYPE_CHECKING:
    from collections.abc import Callable


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


def test_what_judged_less_than_was_asked_for_is_told(
    trained: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_clips(monkeypatch, None)
    flags = ("--precision", "fp16", "--max-drop", "0", "--gate-clips", "64")
    assert export(trained, work / "bundle", *flags) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "and --max-drop counted for nothing" in printed
    assert "judged by 32 clips, where 64 were wanted" in printed
    card = (work / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "It was judged by at most 32 held-out clips" in card
    assert "int8 was calibrated" not in card
