import math

import pytest
import torch

from train.losses import geo_loss

LEVELS = ("city", "state", "country", "continent")


def uniform_outputs(classes: int) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(3, classes) for name in (*LEVELS, "scene")}


def labels_zero() -> dict[str, torch.Tensor]:
    return {name: torch.zeros(3, dtype=torch.long) for name in (*LEVELS, "scene")}


def test_four_equal_levels_of_eight_classes_cost_four_log_eight() -> None:
    loss = geo_loss(uniform_outputs(8), labels_zero(), scene_weight=0.0)
    assert loss.item() == pytest.approx(4 * math.log(8), rel=1e-6)


def test_the_scene_adds_its_weighted_cross_entropy() -> None:
    loss = geo_loss(uniform_outputs(8), labels_zero(), scene_weight=0.5)
    assert loss.item() == pytest.approx(4.5 * math.log(8), rel=1e-6)


def test_one_level_equals_a_hand_computation() -> None:
    outputs, labels = uniform_outputs(2), labels_zero()
    outputs["city"] = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    # -log softmax of class 0: log(1 + e^-2), log(1 + e), log 2; averaged over the three clips.
    city = (math.log(1 + math.exp(-2)) + math.log(1 + math.e) + math.log(2)) / 3
    loss = geo_loss(outputs, labels, scene_weight=0.0)
    assert loss.item() == pytest.approx(city + 3 * math.log(2), rel=1e-6)


def test_label_smoothing_spreads_the_target_over_all_classes() -> None:
    outputs, labels = uniform_outputs(2), labels_zero()
    outputs["city"] = torch.tensor([[3.0, 0.0]]).repeat(3, 1)
    right, wrong = math.log(1 + math.exp(-3)), math.log(1 + math.exp(3))
    city = 0.9 * right + 0.1 * (right + wrong) / 2
    loss = geo_loss(outputs, labels, scene_weight=0.0, label_smoothing=0.1)
    assert loss.item() == pytest.approx(city + 3 * math.log(2), rel=1e-6)
