from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.base import EngineError, EngineMismatchError, EngineUnavailableError
from engines.bundle import InputSpec, read_bundle
from engines.openvino_cpu import OpenvinoEngine
from tests.fakes import make_bundle, scores_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engines.bundle import Bundle

CLIPS = np.random.default_rng(0).integers(0, 256, (3, 4, 32, 32, 3), dtype=np.uint8)
"""Three clips of the shape of `tests.fakes`."""


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose network tells cities by colour, and which numpy can follow."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "colours", onnx=True)


@pytest.fixture
def engine(colours: Bundle) -> Iterator[OpenvinoEngine]:
    opened = OpenvinoEngine(colours, threads=1)
    yield opened
    opened.close()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_scores_are_those_of_the_same_network_in_numpy(engine: OpenvinoEngine, count: int) -> None:
    found, wanted = engine.infer(CLIPS[:count]), scores_of(CLIPS[:count])
    assert set(found) == set(wanted)
    for output, scores in found.items():
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, wanted[output], rtol=1e-4, atol=1e-3)


def test_clips_that_are_not_contiguous_are_read_right(engine: OpenvinoEngine) -> None:
    mirrored = CLIPS[:, :, :, ::-1]
    expected = engine.infer(np.ascontiguousarray(mirrored))["city"]
    np.testing.assert_array_equal(engine.infer(mirrored)["city"], expected)


def test_scores_belong_to_the_caller(engine: OpenvinoEngine) -> None:
    first = engine.infer(CLIPS[:1])["city"]
    kept = first.copy()
    engine.infer(255 - CLIPS[:1])
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    np.testing.assert_array_equal(engine.infer(CLIPS[:1])["city"], kept)


@pytest.mark.parametrize(
    "clips",
    [
        np.zeros((1, 4, 32, 16, 3), np.uint8),
        np.zeros((1, 4, 32, 32, 3), np.float32),
        np.zeros((4, 32, 32, 3), np.uint8),
    ],
)
def test_other_clips_are_refused_with_both_shapes(
    engine: OpenvinoEngine, clips: np.ndarray
) -> None:
    with pytest.raises(ValueError, match=r"takes uint8 \[N, 4, 32, 32, 3\]") as caught:
        engine.infer(clips)
    assert f"{clips.dtype} {list(clips.shape)}" in str(caught.value)


def test_a_closed_engine_says_so(colours: Bundle) -> None:
    engine = OpenvinoEngine(colours, threads=1)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="was closed"):
        engine.infer(CLIPS)


def test_the_name_says_device_and_precision(engine: OpenvinoEngine) -> None:
    assert engine.name == "openvino-cpu-fp32"


def test_no_threads_are_refused(colours: Bundle) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        OpenvinoEngine(colours, threads=0)


def test_a_manifest_that_promises_another_input_is_refused(colours: Bundle) -> None:
    wider = InputSpec(frames=4, height_px=32, width_px=64)
    with pytest.raises(EngineMismatchError, match=r"promises clip uint8 \[-1, 4, 32, 64, 3\]"):
        OpenvinoEngine(replace(colours, manifest=replace(colours.manifest, input=wider)), threads=1)


@pytest.mark.parametrize("outputs", [{"city": 7}, {"weather": 3}])
def test_a_manifest_that_promises_other_outputs_is_refused(
    colours: Bundle, outputs: dict[str, int]
) -> None:
    manifest = replace(colours.manifest, outputs={**colours.manifest.outputs, **outputs})
    with pytest.raises(EngineMismatchError, match="its outputs are"):
        OpenvinoEngine(replace(colours, manifest=manifest), threads=1)


def test_a_file_that_is_no_network_is_an_engine_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"compiling .*model\.onnx"):
        OpenvinoEngine(make_bundle(tmp_path / "placeholder"), threads=1)


def test_a_failure_while_running_keeps_the_words_of_openvino(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "odd")
    _write_odd_network(bundle.file("model.onnx"), bundle.manifest.outputs)
    manifest = replace(bundle.manifest, input=InputSpec(frames=1, height_px=1, width_px=1))
    # Two threads: with one, OpenVINO 2026.4 loses this error, as it does any of an open shape.
    engine = OpenvinoEngine(replace(bundle, manifest=manifest), threads=2)
    with pytest.raises(EngineError, match=r"(?s)running fake@.* with OpenVINO: .*MatMul"):
        engine.infer(np.full((1, 1, 1, 1, 3), 7, np.uint8))


def test_without_openvino_the_extra_is_named(
    colours: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineUnavailableError, match=r"pip install '\.\[cpu\]'"):
        OpenvinoEngine(colours, threads=1)


def test_neither_importing_nor_running_loads_a_training_library(onnx_bundle: Path) -> None:
    program = (
        "import sys; from pathlib import Path; import numpy as np;"
        "from engines.bundle import read_bundle; from engines.openvino_cpu import OpenvinoEngine;"
        "assert 'openvino' not in sys.modules;"
        f"engine = OpenvinoEngine(read_bundle(Path({str(onnx_bundle)!r})), threads=1);"
        "engine.infer(np.zeros((1, 4, 32, 32, 3), np.uint8));"
        "print([name for name in ('torch', 'onnx', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_signal_after_engines_were_closed_in_turn_is_handled(onnx_bundle: Path) -> None:
    """OpenVINO leaves a signal stack behind that may be gone, on processors with AMX."""
    program = (
        "import gc, os, signal; from pathlib import Path;"
        "from engines.bundle import read_bundle; from engines.openvino_cpu import OpenvinoEngine;"
        f"bundle = read_bundle(Path({str(onnx_bundle)!r}));"
        "engines = [OpenvinoEngine(bundle, threads=1) for _ in range(3)];"
        "signal.signal(signal.SIGUSR1, lambda *_: print('handled'));"
        "[(engines.pop(0).close(), gc.collect()) for _ in range(3)];"
        "os.kill(os.getpid(), signal.SIGUSR1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "handled\n"


def test_nothing_is_written_beside_the_model(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "model", onnx=True)
    before = sorted(path.name for path in bundle.path.iterdir())
    OpenvinoEngine(read_bundle(bundle.path), threads=1).infer(CLIPS)
    assert sorted(path.name for path in bundle.path.iterdir()) == before


def _write_odd_network(path: Path, outputs: dict[str, int]) -> None:
    """A network that loads and cannot run: it multiplies by matrices as large as pixels say."""
    nodes = [
        helper.make_node("Cast", ["clip"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["clip"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "flat"], ["spelled"]),
        helper.make_node("Expand", ["ones", "spelled"], ["matrices"]),
        helper.make_node("MatMul", ["values", "matrices"], ["product"]),
        helper.make_node("ReduceMean", ["product"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "one"], ["row"]),
        *(helper.make_node("Tile", ["row", f"by_{name}"], [name]) for name in outputs),
    ]
    constants = [
        helper.make_tensor("flat", TensorProto.INT64, [1], [3]),
        helper.make_tensor("ones", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("one", TensorProto.INT64, [2], [1, 1]),
        *(
            helper.make_tensor(f"by_{name}", TensorProto.INT64, [2], [1, width])
            for name, width in outputs.items()
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info("clip", TensorProto.UINT8, ["N", 1, 1, 1, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
            for name, width in outputs.items()
        ],
        constants,
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path
    )


def test_signals_are_handled_after_a_network_was_let_go_of_in_another_thread() -> None:
    # OpenVINO frees the stack that it gave the first thread for signals, unless a Core stays.
    demo = Path(__file__).parents[3] / "geotag" / "demo_bundle"
    script = (
        "import gc, os, signal, sys, threading\n"
        "from pathlib import Path\n"
        "from engines.bundle import read_bundle\n"
        "from engines.openvino_cpu import OpenvinoEngine\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('handled', flush=True))\n"
        "held = [OpenvinoEngine(read_bundle(Path(sys.argv[1])), threads=1)]\n"
        "thread = threading.Thread(target=lambda: (held.clear(), gc.collect()))\n"
        "thread.start(); thread.join()\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "print('alive')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(demo)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["handled", "alive"]), done.stderr
