"""Losses and their gradients against `tests.reference`.

Shape suffixes: N clips, S scene groups, E width of a text's embedding.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from engines.bundle import LEVELS
from tests import reference
from tests.networks import FEW, ODD, TAUGHT, clips_of, encode, load, make_precise, precise
from tests.tolerances import FP64_DERIVATIVE, FP64_LOSS
from train.losses import NO_SCENE, LossConfig, Targets, alignment_loss, geo_loss, loss_sums

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.networks import Weights
    from tests.reference import Array
    from train.models.geolocator import Geolocator

TERMS = ("geo", "soft scene", "majority scene", "text")


def draw_targets(count: int, text_width: int) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    scene_NS = rng.dirichlet(np.ones(FEW["scene"]), count)
    text_NE = rng.standard_normal((count, text_width))
    return {
        "labels": {level: rng.integers(0, FEW[level], count) for level in LEVELS},
        "scene_NS": scene_NS,
        "scene_N": scene_NS.argmax(axis=1),
        "text_NE": text_NE / np.linalg.norm(text_NE, axis=1, keepdims=True),
    }


def as_targets(drawn: dict[str, Any]) -> Targets:
    labels = {level: torch.from_numpy(ids) for level, ids in drawn["labels"].items()}
    others = {name: torch.from_numpy(drawn[name]) for name in ("scene_NS", "scene_N", "text_NE")}
    return Targets(labels=labels, **others)


def wanted_loss(
    outputs: Mapping[str, Array], drawn: dict[str, Any], term: str, smoothing: float = 0
) -> float:
    match term:
        case "geo":
            return reference.place_loss(outputs, drawn["labels"], smoothing)
        case "soft scene":
            return reference.cross_entropy(outputs["scene"], drawn["scene_NS"])
        case "majority scene":
            target = reference.one_hot(drawn["scene_N"], FEW["scene"])
            return reference.cross_entropy(outputs["scene"], target)
        case _:
            return reference.alignment_loss(outputs["text"], drawn["text_NE"])


def loss_config(term: str, smoothing: float = 0) -> LossConfig:
    return LossConfig(
        label_smoothing=smoothing,
        scene_weight=float("scene" in term),
        scene_target="majority" if term == "majority scene" else "soft",
        text_weight=float(term == "text"),
    )


def found_loss(
    outputs: Mapping[str, torch.Tensor], drawn: dict[str, Any], term: str, smoothing: float = 0
) -> torch.Tensor:
    sums = loss_sums(outputs, as_targets(drawn), loss_config(term, smoothing))
    return sums[term.split()[-1]] / len(drawn["scene_N"])


def draw_outputs(count: int, text_width: int) -> dict[str, Array]:
    rng = np.random.default_rng(4)
    return {
        name: 4 * rng.standard_normal((count, classes))
        for name, classes in {**FEW, "text": text_width}.items()
    }


@pytest.mark.parametrize("smoothing", [0, 0.1, 1])
@pytest.mark.parametrize("term", TERMS)
def test_losses_are_what_the_formulas_say(term: str, smoothing: float) -> None:
    outputs, drawn = draw_outputs(5, 24), draw_targets(5, 24)
    tensors = {name: torch.from_numpy(values) for name, values in outputs.items()}
    found = found_loss(tensors, drawn, term, smoothing).item()
    assert found == pytest.approx(wanted_loss(outputs, drawn, term, smoothing), abs=FP64_LOSS)


def test_weights_of_the_losses_multiply_them() -> None:
    drawn = draw_targets(5, 24)
    tensors = {name: torch.from_numpy(values) for name, values in draw_outputs(5, 24).items()}
    once = loss_sums(tensors, as_targets(drawn), LossConfig(scene_weight=1, text_weight=1))
    more = loss_sums(tensors, as_targets(drawn), LossConfig(scene_weight=0.5, text_weight=12))
    ratios = {name: (more[name] / once[name]).item() for name in once}
    assert ratios == pytest.approx({"geo": 1, "scene": 0.5, "text": 12})


@pytest.mark.parametrize("term", ["soft scene", "majority scene"])
def test_a_clip_without_a_scene_costs_nothing(term: str) -> None:
    outputs, drawn = draw_outputs(5, 24), draw_targets(5, 24)
    known = {name: drawn[name][:3] for name in ("scene_NS", "scene_N")}
    wanted = 3 * wanted_loss({"scene": outputs["scene"][:3]}, known, term)
    drawn["scene_NS"][3:] = 0
    drawn["scene_N"][3:] = NO_SCENE
    tensors = {name: torch.from_numpy(values) for name, values in outputs.items()}
    assert 5 * found_loss(tensors, drawn, term).item() == pytest.approx(wanted, abs=FP64_LOSS)


# --- gradients ---


def derivative_by_differences(
    weights: dict[str, Array], name: str, direction: Array, drawn: dict[str, Any], term: str
) -> float:
    """Of a loss, when one tensor moves along a direction: central differences of the formulas."""
    step, clips = 1e-6, clips_of(ODD, 2)
    losses = []
    for sign in (1, -1):
        moved = {**weights, name: weights[name] + sign * step * direction}
        outputs = reference.answer(encode(ODD, clips, moved), moved)
        losses.append(wanted_loss(outputs, drawn, term))
    return (losses[0] - losses[1]) / (2 * step)


@pytest.mark.parametrize("term", TERMS)
def test_gradients_of_every_tensor_are_what_differences_say(term: str) -> None:
    model, weights = make_precise(TAUGHT)
    moving, _ = make_precise(TAUGHT)
    drawn, rng = draw_targets(2, 24), np.random.default_rng(5)
    outputs = model(torch.from_numpy(clips_of(ODD, 2)))
    found_loss(outputs, drawn, term).backward()
    reached = set()
    for name, values in weights.items():
        direction = rng.standard_normal(values.shape)
        direction /= np.linalg.norm(direction)
        still: Weights = {other: np.zeros(value.shape) for other, value in weights.items()}
        load(moving, {**still, name: direction})
        wanted = derivative_by_differences(precise(weights), name, direction, drawn, term)
        assert derivative_of(model, moving) == pytest.approx(wanted, abs=FP64_DERIVATIVE), name
        if abs(wanted) > 100 * FP64_DERIVATIVE:
            reached.add(name)
    assert reached >= {f"heads.{level}.weight" for level in LEVELS}
    assert reached >= {name for name in weights if name.endswith(("v_bias", "dense.weight"))}
    assert "embeddings.patch_embeddings.projection.weight" in reached
    taught = {"scene": {"scene", "attention"}, "text": {"text", "attention"}, "geo": set()}
    heads = {name.split(".")[1] for name in reached if name.startswith("teachers.")}
    assert heads == taught[term.split()[-1]]


def derivative_of(model: Geolocator, moving: Geolocator) -> float:
    """Of the loss that was propagated back, along what the weights of `moving` are."""
    return sum(
        float((parameter.grad * along.detach()).sum())
        for parameter, along in zip(model.parameters(), moving.parameters(), strict=True)
        if parameter.grad is not None
    )


# --- hand-made cases ---


@pytest.mark.parametrize(("smoothing", "classes"), [(0.0, 8), (0.3, 5)])
def test_equal_scores_cost_four_times_the_log_of_the_classes(
    smoothing: float, classes: int
) -> None:
    outputs = {str(level): torch.zeros(3, classes) for level in LEVELS}
    labels = {level: torch.tensor([0, 1, 2]) for level in LEVELS}
    found = geo_loss(outputs, labels, label_smoothing=smoothing).item() / 3
    assert found == pytest.approx(4 * math.log(classes), rel=1e-6)


def test_smoothing_spreads_the_target_over_all_classes() -> None:
    outputs = {str(level): torch.tensor([[3.0, 0.0]]) for level in LEVELS}
    labels = {level: torch.tensor([0]) for level in LEVELS}
    right, wrong = math.log(1 + math.exp(-3)), math.log(1 + math.exp(3))
    found = geo_loss(outputs, labels, label_smoothing=0.1).item()
    assert found == pytest.approx(4 * (0.9 * right + 0.1 * (right + wrong) / 2), rel=1e-6)


def test_alignment_goes_from_minus_one_to_one_whatever_the_length() -> None:
    wanted = torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.6, 0.8]])
    said = torch.tensor([[6.0, 8.0], [-0.3, -0.4], [-8.0, 6.0]])
    assert [alignment_loss(said[[row]], wanted[[row]]).item() for row in range(3)] == pytest.approx(
        [-1, 1, 0], abs=1e-6
    )


def test_pieces_of_a_batch_sum_to_the_batch() -> None:
    outputs, drawn = draw_outputs(5, 24), draw_targets(5, 24)
    whole = {name: torch.from_numpy(values) for name, values in outputs.items()}
    for term in TERMS:
        config = loss_config(term)
        wanted = torch.stack([*loss_sums(whole, as_targets(drawn), config).values()]).sum()
        found = []
        for rows in (slice(0, 2), slice(2, 5)):
            part = {name: values[rows] for name, values in whole.items()}
            found += loss_sums(part, as_targets(rows_of(drawn, rows)), config).values()
        assert torch.stack(found).sum().item() == pytest.approx(wanted.item(), abs=FP64_LOSS)


def rows_of(drawn: dict[str, Any], rows: slice) -> dict[str, Any]:
    labels = {level: ids[rows] for level, ids in drawn["labels"].items()}
    return {name: values[rows] for name, values in drawn.items() if name != "labels"} | {
        "labels": labels
    }


@pytest.mark.parametrize(
    ("head", "said"), [("scene", "the scene loss has weight 1"), ("text", "the text loss has")]
)
def test_a_loss_without_its_head_is_refused(head: str, said: str) -> None:
    tensors = {name: torch.from_numpy(values) for name, values in draw_outputs(2, 24).items()}
    del tensors[head]
    with pytest.raises(ValueError, match=said):
        loss_sums(tensors, as_targets(draw_targets(2, 24)), LossConfig(text_weight=2))


def test_terms_of_no_weight_need_no_head_and_no_target() -> None:
    drawn = as_targets(draw_targets(2, 24))
    drawn_outputs = draw_outputs(2, 24)
    outputs = {str(level): torch.from_numpy(drawn_outputs[level]) for level in LEVELS}
    found = loss_sums(outputs, replace(drawn, text_NE=None), LossConfig(scene_weight=0))
    assert set(found) == {"geo"}


def test_a_text_loss_without_texts_is_refused() -> None:
    drawn = as_targets(draw_targets(2, 24))
    tensors = {name: torch.from_numpy(values) for name, values in draw_outputs(2, 24).items()}
    with pytest.raises(ValueError, match="no table"):
        loss_sums(tensors, replace(drawn, text_NE=None), LossConfig(text_weight=1))
