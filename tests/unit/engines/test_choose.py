"""Which engine is opened, and what is said of those that are not."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from engines import cuda, openvino_cpu
from engines.base import (
    BundleError,
    EngineBuildError,
    EngineChoice,
    EngineMismatchError,
    EngineUnavailableError,
)
from engines.bundle import TENSORRT_GRAPHS, describe_file, read_bundle, write_manifest
from engines.choose import best_precision, open_engine
from engines.cuda import Cuda
from tests.fakes import make_bundle, scores_of
from tests.gpu import FakeGpu
from tests.trt import Form, Trouble, make_module, write_module
from tests.unit.engines.test_tensorrt import CLIPS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engines.base import EngineName
    from engines.bundle import Bundle, Precision


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "colours", onnx=True)


def with_graphs(bundle: Bundle, folder: Path, *names: str) -> Bundle:
    """A copy that has more graphs, each of the same arithmetic."""
    shutil.copytree(bundle.path, folder)
    graph = (folder / "model.onnx").read_bytes()
    for name in names:
        (folder / name).write_bytes(graph)
    files = {**bundle.manifest.files, **{name: describe_file(folder / name) for name in names}}
    write_manifest(folder, replace(bundle.manifest, files=files))
    return read_bundle(folder)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make this a machine with some kinds of TensorRT and a GPU."""
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)

    def set_up(*forms: Form, trouble: Trouble | None = None, gpu: FakeGpu | None = None) -> None:
        gpu = gpu or FakeGpu(capability=(8, 6))
        for form in forms:
            module = make_module(form, gpu)
            monkeypatch.setitem(sys.modules, module.__name__, module)
            write_module(tmp_path / "lib", form, trouble)
        monkeypatch.setattr(sys, "path", [str(tmp_path / "lib"), *sys.path])
        monkeypatch.setattr(cuda, "load_cuda", lambda: Cuda(gpu.library))

    return set_up


def test_without_nvidia_a_few_words_say_so(colours: Bundle, machine: Callable[..., None]) -> None:
    engine, choice = open_engine(colours, threads=1)
    engine.close()
    assert str(choice) == "openvino-cpu-fp32 on 1 thread; not tensorrt, tensorrt-rtx: not installed"


@pytest.mark.parametrize(
    ("forms", "name"),
    [
        (("10.3",), "tensorrt-10.3-fp32"),
        (("11.4", "rtx"), "tensorrt-11.4-fp32"),
        (("rtx",), "tensorrt-rtx-1.7-fp32"),
    ],
)
def test_auto_takes_a_gpu_first(
    colours: Bundle, machine: Callable[..., None], forms: tuple[Form, ...], name: str
) -> None:
    machine(*forms)
    engine, choice = open_engine(colours)
    assert (engine.name, choice.name, choice.device) == (name, name, "Fake Orin")
    assert engine.infer(CLIPS)["city"] == pytest.approx(scores_of(CLIPS)["city"], abs=1e-3)
    engine.close()
    assert str(choice).startswith(f"{name} on Fake Orin; ")
    skipped = [each for each, _ in choice.skipped]
    assert skipped == (["tensorrt"] if forms == ("rtx",) else [])


def test_a_tensorrt_without_a_gpu_is_passed_over_with_a_reason(
    colours: Bundle, machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("11.4")

    def none() -> Cuda:
        raise EngineUnavailableError("long words", reason="no NVIDIA GPU that CUDA can use")

    monkeypatch.setattr(cuda, "load_cuda", none)
    engine, choice = open_engine(colours)
    engine.close()
    assert choice.skipped == (
        ("tensorrt", "no NVIDIA GPU that CUDA can use"),
        ("tensorrt-rtx", "not installed"),
    )


def test_a_tensorrt_that_cannot_build_is_passed_over_in_its_own_words(
    colours: Bundle, machine: Callable[..., None]
) -> None:
    machine("10.3", trouble=Trouble(at="build", words="Target GPU SM 87 is not supported"))
    engine, choice = open_engine(colours)
    engine.close()
    assert choice.name.startswith("openvino")
    assert "Target GPU SM 87 is not supported" in str(choice)
    with pytest.raises(EngineBuildError, match="Target GPU SM 87 is not supported"):
        open_engine(colours, engine="tensorrt")


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_what_is_asked_for_by_name_never_falls_back(
    colours: Bundle, machine: Callable[..., None], name: EngineName
) -> None:
    with pytest.raises(EngineUnavailableError, match=f"starting {name}: it is not installed"):
        open_engine(colours, engine=name)


def test_rtx_is_passed_over_on_a_jetson(colours: Bundle, machine: Callable[..., None]) -> None:
    machine("rtx", gpu=FakeGpu(capability=(8, 7)))
    engine, choice = open_engine(colours)
    engine.close()
    assert choice.skipped[1] == ("tensorrt-rtx", "not for sm_87")


def test_where_nothing_works_every_reason_is_told(
    colours: Bundle, machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineUnavailableError) as caught:
        open_engine(colours)
    text = str(caught.value)
    assert text.startswith(f"opening {colours.label}: no engine works here.\n  tensorrt: starting")
    for name in ("tensorrt", "tensorrt-rtx", "openvino"):
        assert f"\n  {name}: " in text


def test_a_bundle_that_lies_is_an_error_and_no_reason_to_go_on(
    colours: Bundle, machine: Callable[..., None]
) -> None:
    machine("11.4")
    outputs = {**colours.manifest.outputs, "city": 7}
    liar = replace(colours, manifest=replace(colours.manifest, outputs=outputs))
    with pytest.raises(EngineMismatchError, match="checking the plan"):
        open_engine(liar)


@pytest.mark.parametrize(
    ("graphs", "on_cpu", "on_gpu"),
    [
        ((), "fp32", "fp32"),
        (("model.fp16.onnx",), "fp32", "fp16"),
        (("model.int8.onnx",), "int8", "fp32"),
        (("model.int8.onnx", "model.int8.fp16.onnx", "model.fp16.onnx"), "int8", "int8"),
    ],
)
def test_the_fastest_precision_that_the_bundle_has_is_taken(
    colours: Bundle, tmp_path: Path, graphs: tuple[str, ...], on_cpu: str, on_gpu: str
) -> None:
    bundle = with_graphs(colours, tmp_path / "more", *graphs)
    assert best_precision(bundle, "openvino") == on_cpu
    assert best_precision(bundle, "tensorrt") == best_precision(bundle, "tensorrt-rtx") == on_gpu


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_precision_asked_for_is_run_and_told(
    colours: Bundle, machine: Callable[..., None], tmp_path: Path, precision: Precision
) -> None:
    machine("11.4")
    bundle = with_graphs(colours, tmp_path / "more", *set(TENSORRT_GRAPHS.values()))
    engine, choice = open_engine(bundle, precision=precision)
    engine.close()
    assert choice.name == f"tensorrt-11.4-{precision}"


def test_a_precision_that_the_bundle_lacks_is_an_error(
    colours: Bundle, machine: Callable[..., None]
) -> None:
    machine("11.4")
    for engine in ("auto", "openvino", "tensorrt"):
        with pytest.raises(BundleError, match=r"no graph of int8 .* It has fp32; choose"):
            open_engine(colours, engine=engine, precision="int8")


def test_an_engine_that_lacks_the_precision_is_passed_over(
    colours: Bundle, machine: Callable[..., None], tmp_path: Path
) -> None:
    machine("11.4")
    bundle = with_graphs(colours, tmp_path / "more", "model.int8.onnx")
    engine, choice = open_engine(bundle, precision="int8")
    engine.close()
    assert choice.name.startswith("openvino")
    assert choice.skipped[0] == ("tensorrt", "no graph of int8 for it")


def test_a_choice_is_one_line() -> None:
    choice = EngineChoice(
        name="tensorrt-10.3-int8",
        threads=1,
        device="Orin",
        notes=("CUDA graph",),
        skipped=(("a", "not here"), ("b", "broken"), ("c", "not here")),
    )
    assert (
        str(choice) == "tensorrt-10.3-int8 on Orin; CUDA graph; not a, c: not here; not b: broken"
    )
    assert str(EngineChoice(name="cpu", threads=2)) == "cpu on 2 threads"


def test_threads_reach_the_processor(
    colours: Bundle, machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.choose.usable_cores", lambda: 6)
    asked = []
    real = openvino_cpu.OpenvinoEngine
    monkeypatch.setattr(
        openvino_cpu,
        "OpenvinoEngine",
        lambda bundle, **given: asked.append(given["threads"]) or real(bundle, **given),
    )
    for threads in (None, 1):
        open_engine(colours, engine="openvino", threads=threads)[0].close()
    assert asked == [5, 1]
