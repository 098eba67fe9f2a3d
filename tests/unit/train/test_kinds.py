"""What every kind of network must do, whatever it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch

from calibration.dialect import find_breaches
from calibration.half import halve_graph, rounded_graph
from engines.bundle import LEVELS
from tests.kinds import (
    CLASSES,
    SMALL,
    build,
    clips_for,
    loss_of,
    loud_graph,
    make_loud,
    targets_for,
)
from tests.lowered import model_of
from tests.tolerances import FP32_LOGIT
from train.checkpoint import load_checkpoint, save_checkpoint
from train.errors import ExportError
from train.graphs import graph_of, wide_starts
from train.models.kinds import KINDS, find_kind, size_of

if TYPE_CHECKING:
    from train.models.base import GeoModel

CLIPS = 6
every_kind = pytest.mark.parametrize("name", list(SMALL))
TRACED = [name for name in SMALL if name != "videomae"]
traced = pytest.mark.parametrize("name", TRACED)


def places_csv() -> str:
    rows = [f"c{i},s{i % 7},n{i % 5},k{i % 3},{i},{i}" for i in range(CLASSES["city"])]
    return "\n".join(["city,state,country,continent,lat_deg,lon_deg", *rows]) + "\n"


def test_every_kind_of_the_table_is_tested_here() -> None:
    assert {name.partition(",")[0] for name in SMALL} == set(KINDS)
    for name in KINDS:
        assert "tiny" in find_kind(name).sizes


@every_kind
def test_it_answers_with_the_scores_of_every_level(name: str) -> None:
    model = build(name).eval()
    with torch.inference_mode():
        found = model(clips_for(model, CLIPS))
    assert model.outputs[: len(LEVELS)] == LEVELS
    assert model.outputs[-1] == "feature"
    for output in model.outputs:
        assert found[output].shape == (CLIPS, model.widths[output]), output
        assert found[output].dtype == torch.float32


@every_kind
def test_the_same_clip_has_the_same_scores_whatever_it_is_scored_with(name: str) -> None:
    model = make_loud(build(name)).eval()
    clips = clips_for(model, CLIPS)
    with torch.inference_mode():
        together, alone = model(clips)["city"], model(clips[2:3])["city"]
    torch.testing.assert_close(together[2:3], alone, rtol=0, atol=1e-4)
    assert float((together[0] - together[1]).abs().max()) > 0.05  # and others have others


@every_kind
def test_every_parameter_learns(name: str) -> None:
    model = make_loud(build(name)).train()
    loss_of(model, clips_for(model, CLIPS), targets_for(CLIPS)).backward()
    still = [
        name
        for name, value in model.named_parameters()
        if value.grad is None or not float(value.grad.abs().max()) > 1e-9
    ]
    # A bias of the keys adds the same to all scores of a query: it cannot matter.
    assert not [name for name in still if not name.endswith("key.bias")]


@every_kind
def test_it_learns_one_batch_by_heart(name: str) -> None:
    model = build(name).train()
    clips, targets = clips_for(model, CLIPS), targets_for(CLIPS)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    losses = []
    for _ in range(300):
        optimiser.zero_grad()
        loss = loss_of(model, clips, targets)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        if losses[-1] < 0.05:
            break
    assert losses[0] > 3
    assert losses[-1] < 0.05


@every_kind
def test_it_comes_back_from_its_checkpoint(name: str, tmp_path: Path) -> None:
    model = make_loud(build(name)).eval()
    save_checkpoint(tmp_path, model, places_csv=places_csv(), facts={})
    found, record = load_checkpoint(tmp_path)
    assert type(found) is type(model)
    assert found.config == model.config
    assert record["kind"] == model.kind
    clips = clips_for(model, 2)
    with torch.inference_mode():
        torch.testing.assert_close(found(clips), model(clips), rtol=0, atol=0)


@pytest.mark.parametrize("name", list(KINDS))
def test_sizes_have_their_names_for_clips_and_for_single_pictures(name: str) -> None:
    kind = find_kind(name)
    for size, shape in kind.sizes.items():
        assert size_of(kind, shape) == size_of(kind, kind.one_frame(shape)) == size


@every_kind
def test_layers_are_named_from_the_pixels_to_the_heads(name: str) -> None:
    model = build(name)
    layers = {layer: model.layer_of(layer) for layer, _ in model.named_parameters()}
    assert set(layers.values()) <= set(range(model.depth + 2))
    heads = {layer for layer in layers if layer.startswith("heads.")}
    assert len(heads) >= 2 * len(LEVELS)
    assert {layers[head] for head in heads} == {model.depth + 1}
    assert min(layers.values()) == 0


@traced
def test_its_graph_computes_what_torch_does_for_any_number_of_clips(name: str) -> None:
    pytest.importorskip("onnxscript")
    model = make_loud(build(name)).eval()
    graph = loud_graph(name)
    proto = model_of(graph)
    assert not find_breaches(proto)
    stored = proto.SerializeToString(deterministic=True)
    told = [(node.doc_string, list(node.metadata_props)) for node in graph.node]
    assert set(map(str, told)) == {str(("", []))}
    assert str(Path(__file__).parents[3]).encode() not in stored
    for count in (1, 3):
        check(stored, model, count, FP32_LOGIT)
    half = halve_graph(graph, float32_from=wide_starts(graph))
    rounded = model_of(rounded_graph(model_of(half))).SerializeToString()
    check(rounded, model, 2, 0.02)


@pytest.mark.parametrize("name", list({name.partition(",")[0]: name for name in TRACED}.values()))
def test_the_same_weights_give_the_same_graph(name: str) -> None:
    pytest.importorskip("onnxscript")
    again = graph_of(make_loud(build(name)).eval())
    assert again.SerializeToString(deterministic=True) == loud_graph(name).SerializeToString(
        deterministic=True
    )


def check(stored: bytes, model: GeoModel, count: int, allowed: float) -> None:
    """Largest difference of any output from torch's."""
    clips = clips_for(model, count)
    session = onnxruntime.InferenceSession(stored, providers=["CPUExecutionProvider"])
    found = dict(
        zip(model.outputs, session.run(list(model.outputs), {"clip": clips.numpy()}), strict=True)
    )
    with torch.inference_mode():
        wanted = model(clips)
    for output in model.outputs:
        assert found[output].dtype == np.float32
        np.testing.assert_allclose(
            found[output], wanted[output].numpy(), rtol=0, atol=allowed, err_msg=output
        )


@traced
def test_its_graph_keeps_norms_and_gelus_whole_and_folds_batch_norms(name: str) -> None:
    pytest.importorskip("onnxscript")
    model = build(name).eval()
    kinds = [node.op_type for node in loud_graph(name).node]
    modules = list(model.modules())
    norms = sum(isinstance(module, torch.nn.LayerNorm) for module in modules)
    assert kinds.count("LayerNormalization") == norms
    assert kinds.count("Conv") == sum(isinstance(each, torch.nn.Conv2d) for each in modules)
    assert not {"Erf", "BatchNormalization", "LSTM"} & set(kinds)
    assert "Constant" not in kinds


def test_what_cannot_be_traced_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    model = build("vit").eval()
    whole = model.features

    def choosy(clips: torch.Tensor, kept: torch.Tensor | None = None) -> torch.Tensor:
        return whole(clips) if clips.sum() > 0 else whole(255 - clips)

    monkeypatch.setattr(model, "features", choosy)
    with pytest.raises(ExportError, match=r"(?s)cannot trace it.*no `if` may ask a tensor"):
        graph_of(model)
