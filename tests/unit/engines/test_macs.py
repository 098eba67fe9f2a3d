from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines.bundle import Bundle, read_bundle
from engines.macs import count_macs, macs_per_clip

DEMO = Path(__file__).parents[3] / "geotag/demo_bundle"


def encoder_macs(tokens: int, width: int, mlp: int, depth: int, token_values: int) -> int:
    """A VideoMAE encoder by hand: patches, then linear layers and attention of each block."""
    linears = tokens * (4 * width * width + 2 * width * mlp)
    attention = 2 * tokens * tokens * width
    return tokens * token_values * width + depth * (linears + attention)


def test_the_demo_costs_what_its_shape_says() -> None:
    """8 x 7 x 7 tokens of 2 x 16 x 16 x 3 values; the heads are less than a thousandth."""
    if not DEMO.is_dir():
        pytest.skip("this checkout holds no demo bundle; make demo-bundle trains it")
    found = macs_per_clip(read_bundle(DEMO))
    assert found is not None
    expected = encoder_macs(tokens=392, width=160, mlp=640, depth=4, token_values=1536)
    assert found[0] == pytest.approx(expected, rel=1e-3)
    assert found[0] >= expected
    assert found[1] == "counted in the graph"


def test_what_the_bundle_says_is_believed(onnx_bundle: Path) -> None:
    bundle = read_bundle(onnx_bundle)
    told = replace(bundle, manifest=replace(bundle.manifest, training={"gmac_per_clip": 56.9}))
    assert macs_per_clip(told) == (pytest.approx(56.9e9), "bundle.json")


@pytest.mark.parametrize("nonsense", ["many", None, 0, -1.0])
def test_what_is_no_number_is_counted_anew(onnx_bundle: Path, nonsense: float | None) -> None:
    bundle = read_bundle(onnx_bundle)
    told = replace(bundle, manifest=replace(bundle.manifest, training={"gmac_per_clip": nonsense}))
    # Six products of a mean colour (3 values) with the widths of the outputs.
    widths = sum(bundle.manifest.outputs.values())
    assert macs_per_clip(told) == (3.0 * widths, "counted in the graph")


def test_what_cannot_be_read_is_not_counted(bundle: Bundle) -> None:
    assert macs_per_clip(bundle) is None  # its model.onnx is a placeholder


def test_without_openvino_nothing_is_counted(
    onnx_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "openvino", None)
    assert macs_per_clip(read_bundle(onnx_bundle)) is None


def test_convolutions_count_by_their_taps(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    floats = onnx.TensorProto.FLOAT
    weights = {
        "w": np.ones((6, 4, 3, 3), np.float32),  # 4 -> 6 channels
        "g": np.ones((6, 2, 1, 1), np.float32),  # 3 groups
        "m": np.ones((5, 6), np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["clip"], ["chw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["chw", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "g"], ["b"], group=3),
        helper.make_node("Flatten", ["b"], ["c"], axis=2),  # [6, 80]
        helper.make_node("Gemm", ["m", "d"], ["out"], transA=0),
    ]
    nodes.insert(4, helper.make_node("Reshape", ["c", "shape"], ["d"]))
    weights["shape"] = np.array([6, -1], np.int64)
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("clip", floats, [1, 8, 10, 4])],
        [helper.make_tensor_value_info("out", floats, [5, 80])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    expected = 8 * 10 * 6 * (4 * 9) + 8 * 10 * 6 * 2 + 5 * 80 * 6
    assert count_macs(tmp_path / "model.onnx", clip_shape=(8, 10, 4)) == expected
