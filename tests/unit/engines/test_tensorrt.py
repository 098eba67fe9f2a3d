"""The engine against each recorded form of TensorRT; networks are computed by ONNX Runtime."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest

from engines import tensorrt_gpu
from engines.base import EngineBuildError, EngineError, EngineMismatchError, EngineUnavailableError
from engines.cuda import Cuda
from engines.plans import BuildFacts, KeptPlan
from engines.tensorrt_api import Backend, load_backend
from engines.tensorrt_build import BuildOptions, build_plan
from engines.tensorrt_gpu import TensorrtEngine, probe
from tests.fakes import make_bundle, scores_of
from tests.gpu import FakeGpu
from tests.trt import VERSIONS, Form, Trouble, make_module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from engines.bundle import Bundle

CLIPS = np.random.default_rng(0).integers(0, 256, (3, 4, 32, 32, 3), dtype=np.uint8)
FORMS: tuple[Form, ...] = get_args(Form)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "colours", onnx=True)


@pytest.fixture
def gpu() -> FakeGpu:
    return FakeGpu(capability=(8, 6))


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    return request.param  # type: ignore[no-any-return]


def backend_of(form: Form, gpu: FakeGpu | None = None, trouble: Trouble | None = None) -> Backend:
    name = "tensorrt-rtx" if form == "rtx" else "tensorrt"
    return Backend(
        name=name,  # type: ignore[arg-type]
        module=make_module(form, gpu, trouble),
        version=VERSIONS[form],
    )


def open_plan(
    bundle: Bundle, plan: bytes, folder: Path, backend: Backend, gpu: FakeGpu
) -> TensorrtEngine:
    kept = KeptPlan(folder=folder, content=plan, facts=BuildFacts(bundle="colours", seconds=1))
    return TensorrtEngine(bundle, kept, precision="fp32", backend=backend, cuda=Cuda(gpu.library))


def opened(
    bundle: Bundle, folder: Path, form: Form, gpu: FakeGpu, *, max_batch: int = 1
) -> TensorrtEngine:
    backend = backend_of(form, gpu)
    plan = build_plan(backend, bundle.file("model.onnx"), BuildOptions(max_batch=max_batch))
    return open_plan(bundle, plan, folder, backend, gpu)


@pytest.fixture
def engine(colours: Bundle, tmp_path: Path, form: Form, gpu: FakeGpu) -> Iterator[TensorrtEngine]:
    made = opened(colours, tmp_path, form, gpu, max_batch=2)
    yield made
    made.close()


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_scores_are_those_of_the_same_network_in_numpy(engine: TensorrtEngine, count: int) -> None:
    for clips in (CLIPS[:count], CLIPS[:count][:, ::-1], CLIPS[:1], CLIPS[:count]):
        found, wanted = engine.infer(clips), scores_of(clips)
        assert set(found) == set(wanted)
        for output, scores in found.items():
            assert (scores.dtype, scores.shape) == (np.float32, wanted[output].shape)
            np.testing.assert_allclose(scores, wanted[output], rtol=1e-4, atol=1e-3)


def test_its_name_says_runtime_version_and_precision(engine: TensorrtEngine, form: Form) -> None:
    wanted = {"10.3": "tensorrt-10.3", "11.4": "tensorrt-11.4", "rtx": "tensorrt-rtx-1.7"}[form]
    assert engine.name == f"{wanted}-fp32"


def test_scores_belong_to_the_caller(engine: TensorrtEngine) -> None:
    first = engine.infer(CLIPS[:1])["city"]
    kept = first.copy()
    engine.infer(255 - CLIPS[:1])
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    "clips", [np.zeros((1, 4, 32, 16, 3), np.uint8), np.zeros((1, 4, 32, 32, 3), np.float32)]
)
def test_other_clips_are_refused_with_both_shapes(
    engine: TensorrtEngine, clips: np.ndarray
) -> None:
    with pytest.raises(ValueError, match=r"takes uint8 \[N, 4, 32, 32, 3\]") as caught:
        engine.infer(clips)
    assert f"{clips.dtype} {list(clips.shape)}" in str(caught.value)


def test_closing_gives_everything_back(
    colours: Bundle, tmp_path: Path, form: Form, gpu: FakeGpu
) -> None:
    engine = opened(colours, tmp_path, form, gpu)
    assert gpu.held
    engine.infer(CLIPS[:2])
    engine.close()
    engine.close()
    assert (gpu.held, dict(gpu.queues), gpu.graphs) == ({}, {}, {})
    with pytest.raises(EngineError, match="the engine was closed; open it again"):
        engine.infer(CLIPS[:1])


@pytest.mark.parametrize("form", ["10.3", "11.4"])
def test_a_graph_that_is_faster_is_used_and_told(
    colours: Bundle, tmp_path: Path, form: Form, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    times_ms = iter((20.0, 15.0))
    monkeypatch.setattr("engines.tensorrt_session.Session._median_ms", lambda self: next(times_ms))
    engine = opened(colours, tmp_path, form, gpu)
    assert engine.notes == ("CUDA graph",)
    before = gpu.launches
    np.testing.assert_allclose(
        engine.infer(CLIPS)["city"], scores_of(CLIPS)["city"], rtol=1e-4, atol=1e-3
    )
    assert gpu.launches == before + 3
    engine.close()
    assert gpu.graphs == {}


@pytest.mark.parametrize("form", ["10.3", "11.4"])
def test_a_graph_that_is_no_faster_is_not_used(
    colours: Bundle, tmp_path: Path, form: Form, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.tensorrt_session.Session._median_ms", lambda self: 20.0)
    engine = opened(colours, tmp_path, form, gpu)
    assert engine.notes == ("no CUDA graph (no faster)",)
    assert gpu.graphs == {}
    engine.close()


@pytest.mark.parametrize("form", ["10.3", "11.4"])
def test_where_nothing_can_be_recorded_that_is_told_and_it_runs(
    colours: Bundle, tmp_path: Path, form: Form
) -> None:
    gpu = FakeGpu(captures=False)
    engine = opened(colours, tmp_path, form, gpu)
    assert engine.notes == (
        "no CUDA graph (recording a CUDA graph: CUDA says operation not permitted when stream is "
        "capturing (error 900).)",
    )
    assert engine.infer(CLIPS)["city"].shape == (3, 6)
    engine.close()


def test_rtx_keeps_what_it_compiled(colours: Bundle, tmp_path: Path, gpu: FakeGpu) -> None:
    engine = opened(colours, tmp_path, "rtx", gpu)
    assert engine.notes == ("CUDA graphs by TensorRT",)
    engine.close()
    assert (tmp_path / "jit").read_bytes() == b"jit"
    (tmp_path / "jit").write_bytes(b"foreign")  # refused by TensorRT, and replaced
    opened(colours, tmp_path, "rtx", gpu).close()
    assert (tmp_path / "jit").read_bytes() == b"jit"


def test_rtx_runs_on_where_nothing_can_be_kept(
    colours: Bundle, tmp_path: Path, gpu: FakeGpu
) -> None:
    engine = opened(colours, tmp_path / "missing", "rtx", gpu)
    assert "compiled kernels could not be kept (No such file or directory)" in engine.notes
    engine.close()


def test_a_plan_of_another_version_is_refused_in_tensorrts_words(
    colours: Bundle, tmp_path: Path, form: Form, gpu: FakeGpu
) -> None:
    backend = backend_of(form, gpu)
    older = Backend(
        name=backend.name, module=make_module(form, gpu, version="9.9.0"), version="9.9.0"
    )
    plan = build_plan(older, colours.file("model.onnx"), BuildOptions())
    with pytest.raises(EngineError) as caught:
        open_plan(colours, plan, tmp_path, backend, gpu)
    assert f"expecting library version {VERSIONS[form]} got 9.9.0" in str(caught.value)
    assert "remove the folder `plans` in geotag's cache" in str(caught.value)
    assert (gpu.held, dict(gpu.queues)) == ({}, {})


def test_memory_that_does_not_suffice_for_the_context_is_told(
    colours: Bundle, tmp_path: Path, form: Form, gpu: FakeGpu
) -> None:
    words = "Requested amount of GPU memory (700 bytes) could not be allocated|out of memory"
    backend = backend_of(form, gpu, Trouble(at="context", words=words))
    plan = build_plan(backend, colours.file("model.onnx"), BuildOptions())
    with pytest.raises(EngineError) as caught:
        open_plan(colours, plan, tmp_path, backend, gpu)
    assert "(700 bytes) could not be allocated | out of memory. There was too little memory: " in (
        str(caught.value)
    )
    assert (gpu.held, dict(gpu.queues)) == ({}, {})


def test_memory_that_does_not_suffice_for_buffers_is_told(
    colours: Bundle, tmp_path: Path, form: Form
) -> None:
    gpu = FakeGpu(memory_bytes=15_000)
    with pytest.raises(EngineError, match=r"CUDA says out of memory \(error 2\)"):
        opened(colours, tmp_path, form, gpu)
    assert (gpu.held, dict(gpu.queues)) == ({}, {})


def test_an_error_of_the_gpu_while_running_carries_its_words(
    engine: TensorrtEngine, gpu: FakeGpu
) -> None:
    gpu.fault = 700
    with pytest.raises(EngineError, match="an illegal memory access was encountered"):
        engine.infer(CLIPS[:1])


def test_a_run_that_tensorrt_refuses_carries_its_words(
    colours: Bundle, tmp_path: Path, form: Form, gpu: FakeGpu
) -> None:
    backend = backend_of(form, gpu, Trouble(at="execute", words="enqueueV3: internal"))
    plan = build_plan(backend, colours.file("model.onnx"), BuildOptions())
    with pytest.raises(EngineError, match="TensorRT says: enqueueV3: internal"):
        open_plan(colours, plan, tmp_path, backend, gpu)


def test_a_plan_of_another_model_is_refused(
    colours: Bundle, tmp_path: Path, form: Form, gpu: FakeGpu
) -> None:
    from dataclasses import replace

    outputs = {**colours.manifest.outputs, "city": 7}
    other = replace(colours, manifest=replace(colours.manifest, outputs=outputs))
    with pytest.raises(EngineMismatchError, match="'city': \\(6,\\)"):
        opened(other, tmp_path, form, gpu)
    assert gpu.held == {}


def test_a_graph_that_takes_float16_is_given_float16(
    tmp_path: Path, form: Form, gpu: FakeGpu
) -> None:
    import onnx

    bundle = make_bundle(tmp_path / "half", onnx=True)
    model = onnx.load(bundle.file("model.onnx"))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, bundle.file("model.onnx"))
    engine = opened(bundle, tmp_path, form, gpu)
    np.testing.assert_allclose(
        engine.infer(CLIPS)["city"], scores_of(CLIPS)["city"], rtol=1e-4, atol=1e-3
    )
    engine.close()


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (Trouble(at="build", words="Could not find any implementation"), "any implementation"),
        (Trouble(at="build"), "TensorRT says: nothing"),
        (Trouble(at="build", words="Insufficient memory for tactic"), "add swap"),
        (Trouble(at="builder", words="no driver"), "TensorRT says: no driver"),
        (Trouble(at="builder"), "factory function returned nullptr"),
    ],
)
def test_a_build_that_gives_none_tells_what_the_logger_heard(
    colours: Bundle, form: Form, trouble: Trouble, words: str
) -> None:
    backend = backend_of(form, trouble=trouble)
    with pytest.raises(EngineBuildError) as caught:
        build_plan(backend, colours.file("model.onnx"), BuildOptions())
    assert words in str(caught.value)
    assert f"compiling model.onnx with {backend.name} {VERSIONS[form]}" in str(caught.value)


def test_a_graph_that_cannot_be_read_is_told(colours: Bundle, form: Form) -> None:
    words = "In node 0 with name: city and operator: Attention (importAttention): unsupported"
    backend = backend_of(form, trouble=Trouble(at="parse", words=words))
    with pytest.raises(EngineBuildError, match=r"operator: Attention .*cannot read the graph"):
        build_plan(backend, colours.file("model.onnx"), BuildOptions())


@pytest.mark.parametrize("form", ["11.4", "rtx"])
def test_weak_typing_is_refused_where_types_are_always_strong(colours: Bundle, form: Form) -> None:
    with pytest.raises(EngineBuildError, match="this version has no flag FP16 any more"):
        build_plan(backend_of(form), colours.file("model.onnx"), BuildOptions(type_flags=("FP16",)))


@pytest.mark.parametrize(("flags", "typing"), [((), "strong"), (("FP16", "INT8"), "FP16+INT8")])
def test_types_are_those_of_the_graph_unless_flags_are_asked_for(
    colours: Bundle, flags: tuple[str, ...], typing: str
) -> None:
    options = BuildOptions(type_flags=flags)
    plan = build_plan(backend_of("10.3"), colours.file("model.onnx"), options)
    assert f'"typing": "{typing}"'.encode() in plan


def test_rtx_builds_for_the_targets_asked_for_and_names_those_it_knows(colours: Bundle) -> None:
    graph, backend = colours.file("model.onnx"), backend_of("rtx")
    plan = build_plan(backend, graph, BuildOptions(targets=("SM86", "SM89")))
    assert b'"targets": ["SM86", "SM89"]' in plan
    assert b'"targets": ["CURRENT"]' in build_plan(backend, graph, BuildOptions())
    with pytest.raises(EngineBuildError, match="no target SM87; known are NONE, CURRENT, SM75"):
        build_plan(backend, graph, BuildOptions(targets=("SM87",)))


def test_times_of_kernels_are_kept_for_the_next_build(
    colours: Bundle, tmp_path: Path, form: Form
) -> None:
    cache, graph = tmp_path / "timing", colours.file("model.onnx")
    for damage in (None, b"damaged", None):
        if damage:
            cache.write_bytes(damage)
        build_plan(backend_of(form), graph, BuildOptions(), timing_cache=cache)
    if form == "rtx":  # there it would need a GPU
        assert cache.read_bytes() == b"damaged"
    else:
        assert cache.read_bytes() == b"timingtiming"


def test_rtx_is_not_for_every_card() -> None:
    orin = Cuda(FakeGpu(name="Orin", capability=(8, 7)).library).device
    with pytest.raises(EngineUnavailableError, match=r"no code for Orin \(sm_87.*SM121") as caught:
        backend_of("rtx").check_runs_on(orin)
    assert caught.value.reason == "not for sm_87"
    backend_of("rtx").check_runs_on(Cuda(FakeGpu(capability=(8, 6)).library).device)
    backend_of("10.3").check_runs_on(orin)


def install(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_a_probe_builds_and_runs_a_layer(
    monkeypatch: pytest.MonkeyPatch, form: Form, gpu: FakeGpu
) -> None:
    install(monkeypatch, make_module(form, gpu))
    monkeypatch.setattr(tensorrt_gpu, "load_cuda", lambda: Cuda(gpu.library))
    report = probe("tensorrt-rtx" if form == "rtx" else "tensorrt")
    assert (report.version, report.device) == (
        VERSIONS[form],
        "Fake Orin (sm_86, 8 multiprocessors)",
    )
    assert report.detail == "driver for CUDA 12.6, CUDA runtime 12.6"
    assert gpu.held == {}


def test_a_probe_finds_a_tensorrt_that_imports_and_cannot_build(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu
) -> None:
    words = "Target GPU SM 87 is not supported by this TensorRT release"
    install(monkeypatch, make_module("10.3", gpu, Trouble(at="build", words=words)))
    monkeypatch.setattr(tensorrt_gpu, "load_cuda", lambda: Cuda(gpu.library))
    with pytest.raises(EngineBuildError, match=words):
        probe("tensorrt")


def test_what_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineUnavailableError, match="system-site-packages"):
        load_backend("tensorrt")


def test_what_does_not_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "raise OSError('libnvinfer.so.10: cannot open shared object file')"
    (tmp_path / "tensorrt.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(EngineUnavailableError, match=r"does not load \(libnvinfer") as caught:
        load_backend("tensorrt")
    assert caught.value.reason.startswith("does not load")
