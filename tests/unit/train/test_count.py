from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from typer.testing import CliRunner

from engines.macs import count_macs
from tests.kinds import SMALL, build
from train.count import app, cost_of, lay_out
from train.data.city_tree import cityguessr_tree
from train.data.clips import class_counts
from train.graphs import graph_of
from train.models.kinds import find_kind
from train.models.resnet import ResNet
from train.models.teachers import TeacherConfig
from train.onnx_graph import write_graph

if TYPE_CHECKING:
    from pathlib import Path

PLACES = 166 + 157 + 91 + 6


@pytest.mark.parametrize(
    ("kind", "size", "changes", "trunk_m", "gmac"),
    [
        # VideoMAE's model zoo: 22 M and 57 G, 87 M and 180 G.
        ("videomae", "small", {}, 21.88, 56.9),
        ("videomae", "base", {}, 86.2, 180.0),
        # TimeSformer's table: 121.4 M with its classifier of 400, 0.59 T for three views.
        ("timesformer", "base", {}, 121.3, 590 / 3),
        # ViT-B/16 at 224 px: 85.8 M and 17.6 G for one picture.
        ("vit", "base", {"frames": 1}, 85.8, 17.58),
    ],
)
def test_known_networks_cost_what_is_known(
    kind: str, size: str, changes: dict[str, int], trunk_m: float, gmac: float
) -> None:
    shape = find_kind(kind).sizes[size]
    shape = type(shape)(**{name: getattr(shape, name) for name in shape.__slots__} | changes)
    classes = class_counts(cityguessr_tree().hierarchy)
    cost = cost_of(lay_out(kind, shape, classes, TeacherConfig(scene="none")))
    assert cost.trunk / 1e6 == pytest.approx(trunk_m, abs=0.06)
    assert cost.macs / 1e9 == pytest.approx(gmac, rel=0.005)
    assert cost.parameters - cost.trunk == PLACES * (shape.width + 1)


def test_the_trunk_of_resnet_50_has_what_is_known() -> None:
    with torch.device("meta"):
        network = ResNet(1000)
    counted = sum(value.numel() for value in network.parameters())
    assert (counted - network.fc.weight.numel() - 1000) / 1e6 == pytest.approx(23.5, abs=0.05)


@pytest.mark.parametrize("name", list(SMALL))
def test_the_exported_graph_does_as_many_multiplications(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    model = build(name).eval()
    write_graph(graph_of(model), tmp_path / "model.onnx")
    counted = count_macs(tmp_path / "model.onnx", clip_shape=model.clip_shape)
    assert counted == cost_of(model).macs


def test_kinds_and_presets_are_counted_by_name() -> None:
    result = CliRunner().invoke(app, ["vit", "paper"])
    assert result.exit_code == 0, result.output
    lines = [line.replace("│", " ").split() for line in result.output.splitlines()]
    assert ["paper", "16", "x", "224", "x", "224", "22.63", "21.88", "56.88"] in lines
    assert [line[1] for line in lines if line[:1] == ["vit"]] == ["tiny", "small", "base"]


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    result = CliRunner().invoke(app, ["nosuch"])
    assert result.exit_code == 2
    assert "timesformer" in " ".join(result.output.split())
