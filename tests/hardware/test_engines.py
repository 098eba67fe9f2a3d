"""Every engine that works here against ONNX Runtime, in every precision.

What is not here is skipped, unless GEOTAG_REQUIRE names it: on a machine that must have an engine,
`GEOTAG_REQUIRE=tensorrt pytest tests/hardware` fails where it is missing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

from engines.base import EngineError, EngineUnavailableError
from engines.bundle import GRAPHS, TENSORRT_GRAPHS, read_bundle
from engines.choose import ORDER, open_engine
from engines.cuda import load_cuda
from engines.plans import PLAN, RECORD, cache_folder
from engines.probes import probe_apart
from geotag.bundles import demo_folder
from tests.graphs import write_bundle
from tests.tolerances import ENGINE_FP16, ENGINE_FP32, ENGINE_INT8

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from engines.base import EngineName
    from engines.bundle import Bundle, Precision

ALLOWED = {"fp32": ENGINE_FP32, "fp16": ENGINE_FP16, "int8": ENGINE_INT8}
REFERENCE: dict[str, str] = {**GRAPHS, "fp16": GRAPHS["fp32"]}
"""ONNX Runtime computes float16 through float32: the float32 graph says more."""
RUNS = 300


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if name == "openvino" else pytest.mark.gpu) for name in ORDER
    ],
)
def engine_name(request: pytest.FixtureRequest) -> EngineName:
    """An engine that works here."""
    name: EngineName = request.param
    try:
        probe_apart(name)
    except EngineUnavailableError as exc:
        if name in os.environ.get("GEOTAG_REQUIRE", "").split(","):
            pytest.fail(f"{name} is required here: {exc}")
        pytest.skip(str(exc).partition(". ")[0])
    return name


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "drawn", "tiny")[1]


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """One for the module: plans are built once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOTAG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def clips_of(bundle: Bundle, count: int) -> NDArray[np.uint8]:
    spec = bundle.manifest.input
    shape = (count, spec.frames, spec.height_px, spec.width_px, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def reference(path: Path, clips: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, {"clip": clips}), strict=True))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_scores_are_those_of_onnx_runtime(
    engine_name: EngineName, drawn: Bundle, precision: Precision
) -> None:
    clips = clips_of(drawn, 3)
    engine, choice = open_engine(drawn, engine=engine_name, precision=precision)
    try:
        found = engine.infer(clips)
        again = engine.infer(clips)
    finally:
        engine.close()
    assert precision in choice.name
    wanted = reference(drawn.file(REFERENCE[precision]), clips)
    assert set(found) == set(wanted)
    for output, scores in wanted.items():
        np.testing.assert_array_equal(found[output], again[output])
        difference = np.abs(found[output] - scores).max() / np.abs(scores).max()
        assert difference <= ALLOWED[precision], f"{output}: {difference:.1e} with {choice}"


def test_the_demo_model_names_the_same_cities(engine_name: EngineName) -> None:
    bundle = read_bundle(demo_folder())
    graphs = GRAPHS if engine_name == "openvino" else TENSORRT_GRAPHS
    clips = clips_of(bundle, 8)
    wanted = reference(bundle.file("model.onnx"), clips)["city"].argmax(axis=1)
    for precision, graph in graphs.items():
        if graph not in bundle.manifest.files:
            continue
        engine, choice = open_engine(bundle, engine=engine_name, precision=precision)
        found = engine.infer(clips)["city"].argmax(axis=1)
        engine.close()
        assert np.mean(found == wanted) >= (1 if precision == "fp32" else 0.75), str(choice)


@pytest.mark.gpu
def test_hundreds_of_runs_keep_no_memory(engine_name: EngineName, drawn: Bundle) -> None:
    if engine_name == "openvino":
        pytest.skip("the memory of a GPU is what is asked for")
    cuda, clips = load_cuda(), clips_of(drawn, 1)
    engine, _ = open_engine(drawn, engine=engine_name)
    engine.infer(clips)
    before, _ = cuda.memory()
    for _ in range(RUNS):
        engine.infer(clips)
    after, _ = cuda.memory()
    engine.close()
    assert before - after < 8 << 20


@pytest.mark.gpu
def test_a_plan_is_built_once_and_a_damaged_one_anew(
    engine_name: EngineName, drawn: Bundle
) -> None:
    if engine_name == "openvino":
        pytest.skip("it keeps no plan")
    said: list[str] = []
    open_engine(drawn, engine=engine_name, precision="fp32")[0].close()
    open_engine(drawn, engine=engine_name, precision="fp32", say=said.append)[0].close()
    assert not said
    for plan in cache_folder().rglob(PLAN):
        if (plan.parent / RECORD).is_file() and f"fp32-{engine_name}" in str(plan):
            plan.write_bytes(plan.read_bytes()[:-1])
    open_engine(drawn, engine=engine_name, precision="fp32", say=said.append)[0].close()
    assert said


@pytest.mark.gpu
def test_bytes_that_are_no_plan_are_refused_in_words(
    engine_name: EngineName, drawn: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine_name == "openvino":
        pytest.skip("it has no plan")
    monkeypatch.setattr("engines.build.build_aside", lambda *_, **__: b"no plan" * 1000)
    monkeypatch.setattr("engines.plans.SCHEMA", 1000)
    with pytest.raises(EngineError, match="TensorRT says: "):
        open_engine(drawn, engine=engine_name, precision="fp32")
