from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from typer.testing import CliRunner

from engines.macs import count_macs
from tests.kinds import SMALL, build, loud_graph
from train.count import app, cost_of, lay_out
from train.data.city_tree import cityguessr_tree
from train.data.clips import class_counts
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
        # torchvision at 224 px: 25.6 M and 4.09 G, 44.5 M and 7.80 G, with 1,000 classes.
        ("planet", "resnet50", {"frames": 1}, 23.51, 4.09),
        ("planet", "resnet101", {"frames": 1}, 42.50, 7.80),
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


def test_scene_experts_cost_the_last_stage_three_times() -> None:
    classes = class_counts(cityguessr_tree().hierarchy)
    shape = replace(find_kind("isns").sizes["resnet50"], frames=1)
    cost = cost_of(lay_out("isns", shape, classes, TeacherConfig(scene="own")))
    # A bottleneck of 512 channels: 1x1, 3x3 and 1x1, each with two numbers a channel for its norm.
    inner = 9 * 512**2 + 512 * 2048 + 2 * (512 + 512 + 2048)
    last = 3 * inner + 512 * (1024 + 2 * 2048) + 1024 * 2048 + 2 * 2048
    assert cost.trunk == 23_508_032 + 2 * last
    heads = 3 * PLACES * (2048 + 1) + 16 * (1024 + 1)
    assert cost.parameters - cost.trunk == heads
    at_7 = 49 * (3 * (9 * 512**2 + 512 * 2048) + 1024 * 2048 + 2 * 2048 * 512)
    last_macs = at_7 + 196 * 1024 * 512  # its first convolution still sees 14 x 14
    assert cost.macs / 1e9 == pytest.approx(4.09 + 2 * last_macs / 1e9, rel=0.005)


def test_an_album_costs_its_lstm() -> None:
    classes = class_counts(cityguessr_tree().hierarchy)
    plain = TeacherConfig(scene="none")
    shape = replace(find_kind("planet").sizes["resnet50"], album=True)
    album = cost_of(lay_out("planet", shape, classes, plain))
    single = cost_of(lay_out("planet", replace(shape, album=False, frames=1), classes, plain))
    assert album.trunk - single.trunk == 4 * 512 * (2048 + 512 + 1)
    lstm = 16 * 4 * 512 * 2048 + 15 * 4 * 512 * 512  # the first frame finds no state
    heads = PLACES * (16 * 2048 - 512)
    assert album.macs == 16 * single.macs - heads + lstm


def test_the_trunk_of_resnet_50_has_what_is_known() -> None:
    with torch.device("meta"):
        network = ResNet(1000)
    counted = sum(value.numel() for value in network.parameters())
    assert (counted - network.fc.weight.numel() - 1000) / 1e6 == pytest.approx(23.5, abs=0.05)


@pytest.mark.parametrize("name", list(SMALL))
def test_the_exported_graph_does_as_many_multiplications(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    model = build(name).eval()  # the graph is of a loud one: alike, experts would be one
    write_graph(loud_graph(name), tmp_path / "model.onnx")
    counted = count_macs(tmp_path / "model.onnx", clip_shape=model.clip_shape)
    assert counted == cost_of(model).macs


def test_kinds_and_presets_are_counted_by_name() -> None:
    result = CliRunner().invoke(app, ["vit", "paper"])
    assert result.exit_code == 0, result.output
    lines = [line.replace("│", " ").split() for line in result.output.splitlines()]
    assert ["paper", "16", "x", "224", "x", "224", "22.63", "21.88", "56.88"] in lines
    assert [line[1] for line in lines if line[:1] == ["vit"]] == ["tiny", "small", "base"]


def test_a_preset_that_is_called_as_its_kind_is_counted_beside_its_sizes() -> None:
    result = CliRunner().invoke(app, ["planet"])
    lines = [line.replace("│", " ").split() for line in result.output.splitlines()]
    assert ["planet", "1", "x", "224", "x", "224", "24.37", "23.51", "4.09"] in lines
    assert ["planet", "resnet50", "16", "x", "224", "x", "224", "24.37", "23.51", "65.41"] in lines


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    result = CliRunner().invoke(app, ["nosuch"])
    assert result.exit_code == 2
    assert result.output.count("mae-random") == 1
    assert "timesformer" in " ".join(result.output.split())
