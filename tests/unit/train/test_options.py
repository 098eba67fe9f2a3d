"""Classifiers by cosine and levels that nest: options of every network that makes a feature.

Shape suffixes: N clips, D width, K classes of a level, C cities.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch

from calibration.dialect import find_breaches
from calibration.half import halve_graph, rounded_graph
from calibration.quantize import quantize_graph
from engines.bundle import LEVELS
from tests.kinds import SMALL, clips_for, make_loud
from tests.lowered import model_of, quantized
from tests.options import CLASSES, OPTIONS, TEXTS, build, places_csv, targets_for, tree
from tests.tolerances import FP16_GRAPH, FP32_LOGIT
from train.checkpoint import load_checkpoint, save_checkpoint
from train.count import cost_of
from train.graphs import graph_of, wide_starts
from train.losses import LossConfig, loss_sums
from train.models.base import GeoModel
from train.models.geolocator import Geolocator
from train.models.labels import CosineLabels
from train.models.teachers import TeacherConfig
from train.models.videomae import VideoMAEConfig
from train.optim import parameter_groups
from train.warmstart import StandardisedHeads

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CLIPS = 6
VIDEO = SMALL["videomae"]
every_option = pytest.mark.parametrize("option", list(OPTIONS))
cosine = pytest.mark.parametrize("option", ["cosine", "cosine, marginal"])
marginal = pytest.mark.parametrize("option", ["marginal", "cosine, marginal"])


def loss_of(model: GeoModel, clips: torch.Tensor, count: int) -> torch.Tensor:
    outputs = model(clips)
    has_scene = float("scene" in model.outputs)
    sums = loss_sums(outputs, targets_for(count), LossConfig(scene_weight=has_scene))
    return torch.stack(list(sums.values())).sum() / count


def scores(model: GeoModel, clips: torch.Tensor) -> dict[str, NDArray[np.float32]]:
    with torch.inference_mode():
        return {name: value.numpy() for name, value in model.eval()(clips).items()}


def run(graph: Any, clips: torch.Tensor) -> dict[str, NDArray[np.float32]]:  # noqa: ANN401
    session = onnxruntime.InferenceSession(
        model_of(graph).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [port.name for port in graph.output]
    return dict(zip(names, session.run(names, {"clip": clips.numpy()}), strict=True))


def plain_network() -> Geolocator:
    """With linear classifiers."""
    return Geolocator(VIDEO, CLASSES, teachers=TeacherConfig(scene="linear")).eval()


def assert_near(found: Any, wanted: Any, allowed: float) -> None:  # noqa: ANN401
    for name, values in wanted.items():
        assert np.isfinite(found[name]).all(), name
        np.testing.assert_allclose(found[name], values, rtol=0, atol=allowed, err_msg=name)


# --- what it answers ---


def test_cosine_classifiers_answer_what_the_formula_says() -> None:
    model = make_loud(build("cosine", "videomae", VIDEO))
    clips = clips_for(model, CLIPS)
    found = scores(model, clips)
    held = {name: value.double().numpy() for name, value in model.state_dict().items()}
    taken = {"continent": held["labels.embeddings.continent"]}
    for gate, (level, coarser) in reversed(
        list(zip(held["labels.gates"], pairwise(LEVELS), strict=True))
    ):
        above = [taken[coarser][place.parent] for place in tree().places[level]]
        taken[level] = held[f"labels.embeddings.{level}"] + gate * np.array(above)
    seen_ND = found["feature"] * held["labels.unit.gain"] + held["labels.unit.shift"]
    for number, level in enumerate(LEVELS):
        for clip, seen_D in enumerate(seen_ND):
            for k, embedding in enumerate(taken[level]):
                there = held["labels.projection.weight"] @ embedding
                angle = seen_D @ there / np.linalg.norm(seen_D) / np.linalg.norm(there)
                wanted = min(100, np.exp(held["labels.log_scales"][number])) * angle
                assert found[level][clip, k] == pytest.approx(wanted, abs=FP32_LOGIT)
    assert max(float(np.ptp(found[level], axis=0).max()) for level in LEVELS) > 1


@marginal
def test_coarser_probabilities_are_sums_over_cities(option: str) -> None:
    model = make_loud(build(option, "videomae", VIDEO))
    for mode in (model.train(), model.eval()):
        with torch.no_grad():
            found = mode(clips_for(model, CLIPS))
        probs = {level: found[level].double().softmax(1).numpy() for level in LEVELS}
        for level in LEVELS[1:]:
            for k in range(CLASSES[level]):
                cities = tree().ancestors[level] == k
                total = probs["city"][:, cities].sum(axis=1)
                np.testing.assert_allclose(probs[level][:, k], total, rtol=1e-5, atol=1e-7)
            # The logits are logarithms of the sums: their softmax changes nothing.
            np.testing.assert_allclose(found[level].exp().sum(1), 1, rtol=1e-5)
        for fine, coarse in pairwise(LEVELS):  # what a place holds is never likelier than it
            above = probs[coarse][:, tree().parents[fine]]
            assert (probs[fine] <= above + 1e-6).all()


@marginal
def test_a_truth_however_unlikely_is_learned_from(option: str) -> None:
    """The sum of a country's probabilities is 0 in float32; its logarithm is not."""
    model = build(option, "videomae", VIDEO).train()
    city_NC = torch.full((1, CLASSES["city"]), -300.0)
    city_NC[0, 0] = 0.0
    city_NC.requires_grad_()
    assert model.nested is not None
    found = model.nested(city_NC)["country"]
    assert float(found[0, 4].detach()) == pytest.approx(-300)
    (-found[0, 4]).backward()
    assert city_NC.grad is not None
    assert city_NC.grad[0, 0] == pytest.approx(1)
    assert city_NC.grad[0, 8] == pytest.approx(-1)


# --- how it learns ---


@pytest.mark.parametrize("name", ["videomae", "timesformer", "vit, frames averaged"])
@every_option
def test_every_parameter_learns(option: str, name: str) -> None:
    model = make_loud(build(option, name.partition(",")[0], SMALL[name])).train()
    loss_of(model, clips_for(model, CLIPS), CLIPS).backward()
    still = [
        name
        for name, value in model.named_parameters()
        if value.grad is None or not float(value.grad.abs().max()) > 1e-9
    ]
    assert not [name for name in still if not name.endswith("key.bias")]


@every_option
def test_it_learns_one_batch_by_heart(option: str) -> None:
    model = build(option, "videomae", VIDEO).train()
    clips = clips_for(model, CLIPS)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    losses = []
    for _ in range(200):
        optimiser.zero_grad()
        loss = loss_of(model, clips, CLIPS)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        if losses[-1] < 0.05:
            break
    assert losses[0] > 3
    assert losses[-1] < 0.05


@cosine
def test_temperatures_and_gates_do_not_decay(option: str) -> None:
    model = build(option, "videomae", VIDEO)
    still = {
        id(parameter)
        for group in parameter_groups(model, weight_decay=0.05, layer_decay=0.5)
        if not group["weight_decay"] and group["lr_scale"] == 1
        for parameter in group["params"]
    }
    assert isinstance(model.labels, CosineLabels)
    labels = model.labels
    for parameter in (labels.log_scales, labels.gates, labels.unit.gain, labels.unit.shift):
        assert id(parameter) in still


def test_a_city_hears_of_its_country_and_of_no_other() -> None:
    """Moving what a country began as moves its cities' directions, and those alone."""
    model = build("cosine", "videomae", VIDEO)
    assert isinstance(model.labels, CosineLabels)
    before = model.labels.matrices()["city"].detach()
    with torch.no_grad():
        model.labels.embeddings["country"][1].add_(3.0)
    moved = (model.labels.matrices()["city"].detach() - before).abs().amax(dim=1) > 1e-4
    assert moved.tolist() == (tree().ancestors["country"] == 1).tolist()


@every_option
def test_a_folded_warm_start_scores_what_the_standardised_one_did(option: str) -> None:
    learner = StandardisedHeads(make_loud(build(option, "videomae", VIDEO))).train()
    clips = clips_for(learner.model, CLIPS)
    for _ in range(30):
        learner(clips)
    learner.eval()
    folded = copy.deepcopy(learner.model)
    with torch.no_grad():
        before = learner(clips)
        learner.fold_into(folded)
        after = folded(clips)
    for head in CLASSES:
        torch.testing.assert_close(after[head], before[head], rtol=1e-3, atol=1e-3)


# --- kept, exported, made smaller ---


@every_option
def test_it_comes_back_from_its_checkpoint_with_its_tree(option: str, tmp_path: Path) -> None:
    model = make_loud(build(option, "videomae", VIDEO)).eval()
    save_checkpoint(tmp_path, model, places_csv=places_csv(), facts={})
    found, record = load_checkpoint(tmp_path)
    assert found.teaching == model.teaching
    assert record["teachers"]["label_width"] == (TEXTS if "cosine" in option else 0)
    clips = clips_for(model, 2)
    assert_near(scores(found, clips), scores(model, clips), 0)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        *((option, "videomae") for option in OPTIONS),
        ("cosine, marginal", "timesformer"),
        ("cosine, marginal", "vit, frames averaged"),
    ],
)
def test_its_graph_computes_what_torch_does(option: str, name: str) -> None:
    if name != "videomae":
        pytest.importorskip("onnxscript")
    model = make_loud(build(option, name.partition(",")[0], SMALL[name])).eval()
    graph = graph_of(model)
    assert not find_breaches(model_of(graph))
    assert not [held.name for held in graph.initializer if "embedding" in held.name]
    for count in (1, 3):
        clips = clips_for(model, count)
        assert_near(run(graph, clips), scores(model, clips), 2 * FP32_LOGIT)
    half = halve_graph(graph, float32_from=wide_starts(graph))
    rounded = run(rounded_graph(model_of(half)), clips)
    for output, wanted in scores(model, clips).items():
        off = np.abs(rounded[output] - wanted).max() / np.abs(wanted).max()
        assert off < 2 * FP16_GRAPH, output


@pytest.mark.parametrize("name", ["videomae", "vit, frames averaged"])
def test_a_long_feature_does_not_overflow_float16(name: str) -> None:
    """Its squares would: 32 values of 200 make 1.3 million."""
    if name != "videomae":
        pytest.importorskip("onnxscript")
    model = make_loud(build("cosine", name.partition(",")[0], SMALL[name])).eval()
    assert isinstance(model.labels, CosineLabels)
    with torch.no_grad():
        model.labels.unit.shift.add_(200.0)
    graph = graph_of(model)
    half = halve_graph(graph, float32_from=wide_starts(graph))
    clips = clips_for(model, 2)
    found = run(rounded_graph(model_of(half)), clips)
    assert_near(found, {"city": scores(model, clips)["city"]}, 0.1)


def test_cosine_costs_what_linear_does_and_a_feature_of_length_1() -> None:
    graph = graph_of(build("cosine", "videomae", VIDEO).eval())
    plain = graph_of(plain_network())
    kinds, usual = ([node.op_type for node in each.node] for each in (graph, plain))
    assert kinds.count("MatMul") == usual.count("MatMul")
    for kind in set(kinds) | set(usual):
        more = kinds.count(kind) - usual.count(kind)
        # Scale, shift, length, and no biases of four levels.
        assert more == {"Mul": 1, "Add": -3, "ReduceL2": 1, "Max": 1, "Div": 1}.get(kind, 0), kind
    shapes = {held.name: list(held.dims) for held in graph.initializer}
    assert shapes["city.weight"] == [VIDEO.width, CLASSES["city"]]
    assert cost_of(build("cosine", "videomae", VIDEO)).macs == cost_of(plain_network()).macs


@every_option
def test_int8_leaves_its_classifiers_in_floats(option: str) -> None:
    shape = VideoMAEConfig(frames=4, image_px=32, width=32, depth=1, heads=2, mlp_width=64)
    model: Any = make_loud(build(option, "videomae", shape)).eval()
    held = quantized(model)
    kept = {linear for family in held.state.families.values() for linear in family.linears}
    graph = quantize_graph(graph_of(held.corrected(kept)), held.state)
    assert not find_breaches(model_of(graph))
    stored = {each.name for each in graph.initializer}
    assert "city.weight" in stored
    assert "blocks.0.fc1.weight.quantized" in stored
    assert not [name for name in stored if name.startswith("city") and "quantized" in name]
    clips = clips_for(model, 8)
    found, wanted = run(graph, clips), scores(model, clips)
    spread = wanted["city"].max() - wanted["city"].min()
    assert np.abs(found["city"] - wanted["city"]).max() < 0.1 * spread
    typed = halve_graph(graph, float32_from=wide_starts(graph))
    assert not find_breaches(model_of(typed))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classifier": "cosine"}, "cosine the width"),
        ({"label_width": 3}, "linear has 0"),
        ({"classifier": "dot"}, "classifiers 'dot'"),
        ({"hierarchy": "product"}, "separate, marginal"),
    ],
)
def test_what_is_no_option_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TeacherConfig(**changes)
