"""How weights move: parameter groups, the learning rate over time, and the running mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from train.config import OptimiserConfig
    from train.models.base import GeoModel


def make_optimiser(
    model: GeoModel, config: OptimiserConfig, *, fused: bool = False
) -> torch.optim.Optimizer:
    """The optimiser of a model; each group carries `lr_scale`, its share of the learning rate.

    Args:
        model: whose parameters move.
        config: the recipe.
        fused: one kernel for all parameters, on a GPU.
    """
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    groups = parameter_groups(
        model, weight_decay=config.weight_decay, layer_decay=config.layer_decay
    )
    return kind(groups, lr=config.lr, betas=config.betas, fused=fused or None)


def parameter_groups(
    model: GeoModel, *, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Parameters by depth and by whether they decay, in a fixed order.

    Matrices decay, biases and norms do not (common practice since BERT). A block learns at
    `layer_decay` times the rate of the block above it, the patch embedding lowest of all, heads at
    the full rate (Clark et al., ELECTRA, ICLR 2020; Bao et al., BEiT, ICLR 2022).
    """
    depth = model.depth
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        key = (model.layer_of(name), model.decays(name, parameter))
        groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if decays else 0.0,
            "lr_scale": layer_decay ** (depth + 1 - layer),
        }
        for (layer, decays), parameters in sorted(groups.items())
    ]


def learning_rate(step: int, steps: int, config: OptimiserConfig) -> float:
    """Linear warm-up, then constant, or a cosine down to `min_lr_share` of the peak."""
    warmup = round(config.warmup_share * steps)
    if config.schedule == "cosine":
        warmup = max(1, warmup)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    progress = (step - warmup) / max(1, steps - warmup)
    low = config.min_lr_share
    return config.lr * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)))


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_scale"]


class RunningMean:
    """An exponential mean of the weights, often better than the last (Polyak and Juditsky, 1992).

    The first steps count less: the decay of step t is at most (1 + t) / (10 + t), as in
    TensorFlow's ExponentialMovingAverage. What batch norms have seen counts as a weight: means and
    variances of the last weights would not be those of the mean ones.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin with the weights as they are."""
        self.decay = decay
        self.weights = {name: value.clone() for name, value in _averaged(model).items()}

    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after a step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.weights.values()), list(_averaged(model).values()), 1 - decay
        )

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from a mean that was kept."""
        for name, value in self.weights.items():
            value.copy_(weights[name])

    def copy_to(self, model: nn.Module) -> None:
        """Give a model the mean weights."""
        with torch.no_grad():
            for name, value in _averaged(model).items():
                value.copy_(self.weights[name])


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint holds, but for whole numbers, such as counters and class trees."""
    return {
        name: value.detach()
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }
