"""What torch-tensorrt is given, and what is said where it cannot run; it never runs here."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from engines import cuda
from engines.base import EngineBuildError, EngineUnavailableError
from engines.bundle import OUTPUTS
from engines.cuda import Cuda
from tests.fakes import make_bundle
from tests.gpu import FakeGpu
from tests.networks import FEW, ODD, clips_of, make
from tests.trt import make_module, write_module
from train import plans, torch_tensorrt
from train.models.teachers import PLAIN
from train.plans import make_plans
from train.torch_tensorrt import FlatNetwork, build_plan

if TYPE_CHECKING:
    from pathlib import Path

    from engines.bundle import Bundle
    from train.models.geolocator import Geolocator

MARK = b"plan of torch"


@pytest.fixture(scope="module")
def model() -> Geolocator:
    return make(ODD, FEW, PLAIN)[0].eval()


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A torch-tensorrt that runs what it is given on the CPU, and says that there is a GPU."""
    seen = SimpleNamespace(outputs=None, settings=None)

    def convert(
        program: torch.export.ExportedProgram,
        *,
        arg_inputs: list[object],
        disable_tf32: bool,
        device: torch.device,
    ) -> bytes:
        assert disable_tf32
        seen.settings = arg_inputs
        if isinstance(arg_inputs[0], torch.Tensor):
            seen.outputs = program.module()(*arg_inputs)
        return MARK

    made = ModuleType("torch_tensorrt")
    made.__dict__["Input"] = lambda **given: given
    made.__dict__["dynamo"] = SimpleNamespace(
        convert_exported_program_to_serialized_trt_engine=convert
    )
    monkeypatch.setitem(sys.modules, "torch_tensorrt", made)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return seen


@pytest.mark.parametrize(
    ("dtype", "allowed"), [(torch.float32, 1e-5), (torch.float16, 2e-2)], ids=["fp32", "fp16"]
)
def test_the_network_it_is_given_computes_the_same(
    model: Geolocator, dtype: torch.dtype, allowed: float
) -> None:
    clips = torch.from_numpy(clips_of(ODD, 2))
    with torch.inference_mode():
        wanted = model(clips)
        found = FlatNetwork(model, OUTPUTS, dtype)(clips.to(dtype))
    for name, scores in zip(OUTPUTS, found, strict=True):
        assert scores.dtype == torch.float32
        difference = (scores - wanted[name]).abs().max() / wanted[name].abs().max()
        assert difference <= allowed, name


def test_the_model_itself_stays_as_it_was(model: Geolocator) -> None:
    FlatNetwork(model, OUTPUTS, torch.float16)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_it_is_given_an_exported_network_and_only_settings_that_it_has(
    model: Geolocator, library: SimpleNamespace
) -> None:
    assert build_plan(model, OUTPUTS, "fp32", device="cpu") == MARK
    assert len(library.outputs) == len(OUTPUTS)
    black = torch.zeros((1, ODD.frames, ODD.image_px, ODD.image_px, 3), dtype=torch.uint8)
    with torch.inference_mode():
        wanted = model(black)["city"]
    np.testing.assert_allclose(library.outputs[0], wanted, atol=1e-4)


def test_many_clips_are_a_range(model: Geolocator, library: SimpleNamespace) -> None:
    assert build_plan(model, OUTPUTS, "fp16", max_batch=4, device="cpu") == MARK
    (given,) = library.settings
    assert (given["min_shape"][0], given["max_shape"][0], given["dtype"]) == (1, 4, torch.float16)


def test_int8_is_refused_with_the_way_to_it(model: Geolocator) -> None:
    with pytest.raises(EngineBuildError, match=r"it does fp32 and fp16.*--builder onnx"):
        build_plan(model, OUTPUTS, "int8")


@pytest.mark.parametrize(
    ("version", "pair"),
    [("2.12.1+cpu", "torch-tensorrt 2.12 and TensorRT 10.16"), ("2.6.0", "torch-tensorrt 2.6, on")],
)
def test_without_a_gpu_the_pair_that_is_needed_is_named(
    model: Geolocator, monkeypatch: pytest.MonkeyPatch, version: str, pair: str
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineUnavailableError) as caught:
        build_plan(model, OUTPUTS, "fp16")
    assert f"torch {version} sees no CUDA GPU here" in str(caught.value)
    assert pair in str(caught.value)


def test_what_is_not_installed_names_the_extra(
    model: Geolocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(EngineUnavailableError, match=r"pip install '\.\[torch-tensorrt\]'"):
        build_plan(model, OUTPUTS, "fp16")


def test_what_it_fails_with_is_told(
    model: Geolocator, library: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise RuntimeError("no converter for aten::something")

    made = sys.modules["torch_tensorrt"]
    made.dynamo.convert_exported_program_to_serialized_trt_engine = refuse
    with pytest.raises(EngineBuildError, match=r"no converter for aten::something\. Compile the"):
        build_plan(model, OUTPUTS, "fp32", device="cpu")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "colours", onnx=True)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeGpu:
    """A GPU, and TensorRT 10.3 for this process and the one that builds."""
    made = FakeGpu()
    monkeypatch.setitem(sys.modules, "tensorrt", make_module("10.3", made))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    write_module(tmp_path / "lib", "10.3")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "lib"), *sys.path])
    monkeypatch.setattr(plans, "load_cuda", lambda: Cuda(made.library))
    return made


def test_an_export_compiles_its_graphs_where_tensorrt_is(
    bundle: Bundle, gpu: FakeGpu, tmp_path: Path
) -> None:
    (made,), why_not = make_plans(bundle, ["fp32"], cache=tmp_path / "cache")
    assert (made.engine, made.builder, why_not) == ("tensorrt-10.3-fp32", "onnx", None)
    assert made.size_bytes == (made.folder / "plan").stat().st_size


def test_an_export_without_tensorrt_goes_on_and_says_so(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    assert make_plans(bundle, ["fp32"], cache=tmp_path / "cache") == (
        (),
        "no TensorRT plan (not installed); built on first use where there is one",
    )
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", make_module("rtx"))

    def none() -> Cuda:
        return cuda.load_cuda([])

    monkeypatch.setattr(plans, "load_cuda", none)
    _, why_not = make_plans(bundle, ["fp32"], cache=tmp_path / "cache")
    assert why_not == "no TensorRT plan (no CUDA runtime); built on first use where there is one"


def test_torch_tensorrt_that_was_asked_for_is_never_done_without(
    bundle: Bundle, model: Geolocator, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineUnavailableError, match="sees no CUDA GPU"):
        make_plans(bundle, ["fp16"], builder="torch-tensorrt", model=model)


def test_its_plan_is_kept_with_its_versions(
    bundle: Bundle,
    model: Geolocator,
    gpu: FakeGpu,
    library: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_tensorrt.metadata, "version", lambda _: "2.13.0")
    monkeypatch.setattr(plans, "build_plan", lambda *given: build_plan(*given, device="cpu"))
    (made,), _ = make_plans(
        bundle, ["fp32"], builder="torch-tensorrt", model=model, cache=tmp_path / "cache"
    )
    assert made.builder == f"torch-tensorrt 2.13.0, torch {torch.__version__}"
    assert (made.folder / "plan").read_bytes() == MARK
