"""The network that shows what an engine can do, against onnx, ONNX Runtime and numpy."""

import numpy as np
import pytest

from engines.base import EngineError
from engines.bundle import PRECISIONS, Precision
from engines.matmuls import Chain
from engines.probes import check_chain

SMALL = {"rows": 24, "width": 40, "layers": 3}
ROW = np.linspace(-1, 1, 40, dtype=np.float32)[np.newaxis]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_is_onnx_that_a_foreign_runtime_runs(precision: Precision) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    chain = Chain(**SMALL, precision=precision)
    model = onnx.load_from_string(chain.to_onnx())
    onnx.checker.check_model(model, full_check=True)
    assert [opset.version for opset in model.opset_import] == [20]
    session = onnxruntime.InferenceSession(chain.to_onnx())
    (found,) = session.run(None, {"row": ROW})
    tolerance = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.1}[precision]
    assert np.abs(found - chain.run_in_numpy(ROW)).max() < tolerance
    assert np.abs(found).max() > 0.5


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_holds_the_multiplications_that_it_counts(precision: Precision) -> None:
    onnx = pytest.importorskip("onnx")
    chain = Chain(**SMALL, precision=precision)
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(chain.to_onnx()))
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert len(products) == 3
    assert chain.macs == 3 * 24 * 40 * 40
    kinds = {info.name: info.type.tensor_type.elem_type for info in model.graph.value_info}
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    inner = single if precision == "fp32" else half
    assert {kinds[node.output[0]] for node in products} == {inner}


def test_the_int8_one_keeps_to_the_dialect_of_our_own_graphs() -> None:
    """Signed, without zero points, a step for each column of the weights."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(Chain(**SMALL, precision="int8").to_onnx())
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert values["weights_int8"].dtype == np.int8
    assert np.abs(values["weights_int8"].astype(int)).max() == 127
    assert values["weights_step"].shape == (40,)
    assert not values["zero"].any()
    assert not values["weights_zero"].any()


def test_activations_keep_their_size_through_many_layers() -> None:
    chain = Chain(rows=64, width=256, layers=24)
    answer = chain.run_in_numpy(np.ones((1, 256), dtype=np.float32))
    assert 0.05 < np.abs(answer).max() < 50


def test_a_wrong_answer_is_found() -> None:
    chain = Chain(**SMALL)
    check_chain(chain, chain.run_in_numpy)
    with pytest.raises(EngineError, match=r"its answer is off by 0\.5"):
        check_chain(chain, lambda row: chain.run_in_numpy(row) + 0.5)
    with pytest.raises(EngineError, match="off by nan"):
        check_chain(chain, lambda row: row * np.nan)
