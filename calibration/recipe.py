"""How each family of linear layers is quantized: chosen by the error of what the layers put out.

For every family, on rows of its tensor that `calibration.ranges` kept:

1. SmoothQuant: channels of the tensor are divided by s and the rows of the weights multiplied by
   it, s = max|x|^a / max|w|^(1 - a). The division is folded into the LayerNorm (or the Linear of
   the values) that the tensor comes from, so no operation is added. Source: Xiao et al., ICML
   2023. The exponent a is tried from 0 (nothing) to 1.
2. The range of the tensor: its maximum, percentiles, least squared error, or entropy.
   Exponent and range are chosen together, by the squared error of the layers' outputs.
3. The scale of each output channel of a weight: of several clips of its range the one with the
   least squared error of that channel's output.
4. The mean error that is left goes into the bias. Source: Nagel et al., ICCV 2019, section 4.2.

Shape suffixes: R rows, I inputs and O outputs of a linear layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from calibration.errors import CalibrationError
from calibration.quantize import (
    LARGEST,
    QuantizedFamily,
    QuantizedLinear,
    QuantizedState,
    quantize_weight,
    usable_scale,
)
from calibration.ranges import Family, Observation, Observed, candidate_limits

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

Network = TypeVar("Network", bound=nn.Module)

EXPONENTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.85)
"""Of SmoothQuant, besides none; the paper's own is 0.5, of networks with outliers 0.75."""
CLIPS = tuple(np.linspace(1.0, 0.6, 17).tolist())
"""Shares of a weight channel's range that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is tried."""

    exponents: tuple[float, ...] = EXPONENTS
    ranges: tuple[str, ...] | None = None
    """Names of `candidate_limits`; None for all."""
    clips: tuple[float, ...] = CLIPS
    corrects_bias: bool = True


NAIVE = Recipe(exponents=(), ranges=("max",), clips=(1.0,), corrects_bias=False)
"""Largest values as ranges and nothing else: what there is to improve on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyReport:
    """What was chosen for a family, and what it costs."""

    name: str
    exponent: float | None
    """Of SmoothQuant; None where nothing was folded."""
    range: str
    error: float
    """Squared error of the outputs, as a share of their variance; of several layers, the mean."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quantized(Generic[Network]):
    """A network made ready for int8, and its int8 weights."""

    model: Network
    """A copy with what was folded; in float32 it computes what the network did."""
    corrections: Mapping[str, Tensor]
    """Bias of each linear layer whose bias was corrected, by its name in the network."""
    state: QuantizedState
    reports: tuple[FamilyReport, ...]
    """In the order of the families."""

    def corrected(self, kept: Collection[str]) -> Network:
        """A copy with the corrected biases of the layers that are quantized.

        Args:
            kept: their names in the graph; the others stay in floating point, as they were.
        """
        model = copy.deepcopy(self.model)
        modules = dict(model.named_modules())
        with torch.no_grad():
            for name, bias_O in self.corrections.items():
                if graph_name(name) in kept:
                    modules[name].bias.copy_(bias_O)
        return model


def graph_name(linear: str) -> str:
    """What the graph calls a linear layer of the network."""
    return linear.removeprefix("encoder.")


def quantize_model(
    model: Network,
    families: Sequence[Family],
    observed: Observed,
    *,
    recipe: Recipe | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Quantized[Network]:
    """Choose scales and int8 weights for all families of a network.

    Args:
        model: left as it is.
        families: what is quantized; a family whose source is a layer of another family comes
            after it in the list, as an output projection comes after the values.
        observed: of this network, by `observe`.
        recipe: what is tried; None for everything.
        advance: told after each family.

    Raises:
        CalibrationError: a family was not observed.
    """
    recipe = recipe or Recipe()
    folded = copy.deepcopy(model)
    modules = dict(folded.named_modules())
    reports: dict[str, FamilyReport] = {}
    quantized: dict[str, QuantizedFamily] = {}
    corrections: dict[str, Tensor] = {}
    # From behind: what is folded into the values must be there when the values are quantized.
    for family in reversed(families):
        if family.name not in observed.families:
            raise CalibrationError(f"quantizing {family.name}: it was not observed.")
        linears = {name: modules[name] for name in family.linears}
        task = _Task.of(family, linears, observed.families[family.name])
        chosen = _choose(task, recipe, is_smooth=family.source is not None)
        if family.source is not None and chosen.exponent is not None:
            _fold(modules[family.source], list(linears.values()), chosen.smoothing_I)
        weights = _weights(chosen, recipe)
        outputs = chosen.outputs(weights)
        shifts = [
            (wanted - found).mean(dim=0)
            for wanted, found in zip(task.outputs, outputs, strict=True)
        ]
        if recipe.corrects_bias:
            for (name, linear), shift_O in zip(linears.items(), shifts, strict=True):
                if linear.bias is not None:
                    corrections[name] = linear.bias.detach() + shift_O
            outputs = [
                found + (shift_O if linear.bias is not None else 0.0)
                for found, shift_O, linear in zip(outputs, shifts, linears.values(), strict=True)
            ]
        names = map(graph_name, family.linears)
        quantized[family.name] = QuantizedFamily(
            scale=float(chosen.scale), linears=dict(zip(names, weights, strict=True))
        )
        reports[family.name] = FamilyReport(
            name=family.name,
            exponent=chosen.exponent,
            range=chosen.range,
            error=_error(task.outputs, outputs),
        )
        advance()
    order = [family.name for family in families]
    return Quantized(
        model=folded,
        corrections=corrections,
        state=QuantizedState(families={name: quantized[name] for name in order}),
        reports=tuple(reports[name] for name in order),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Task:
    """A family with what its layers read and put out in float32, without their biases."""

    rows_RI: Tensor
    absmax_I: Tensor
    weights: list[Tensor]
    """[I, O] of each layer."""
    outputs: list[Tensor]
    """[R, O] of each layer."""

    @staticmethod
    def of(family: Family, linears: Mapping[str, nn.Module], seen: Observation) -> _Task:
        rows_RI = torch.from_numpy(seen.rows_RI)
        weights = [linear.weight.detach().float().T for linear in linears.values()]  # type: ignore[operator]
        return _Task(
            rows_RI=rows_RI,
            absmax_I=torch.from_numpy(seen.absmax_I),
            weights=weights,
            outputs=[rows_RI @ weight_IO for weight_IO in weights],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Choice:
    """A scaling and a range for a family, with the rows as they are then read."""

    exponent: float | None
    smoothing_I: Tensor
    range: str
    scale: float
    rows_RI: Tensor
    """Smoothed and quantized, as the products see them."""
    weights: list[Tensor]
    """Smoothed."""

    def outputs(self, weights: Sequence[QuantizedLinear]) -> list[Tensor]:
        return [self.rows_RI @ _dequantized(held) for held in weights]


def _choose(task: _Task, recipe: Recipe, *, is_smooth: bool) -> _Choice:
    best: tuple[float, _Choice] | None = None
    for exponent in (None, *(recipe.exponents if is_smooth else ())):
        smoothing_I = _smoothing(task, exponent)
        rows_RI = task.rows_RI / smoothing_I
        weights = [weight_IO * smoothing_I[:, None] for weight_IO in task.weights]
        rounded = [_dequantized(quantize_weight(*_with_scales(weight))) for weight in weights]
        largest = float((task.absmax_I / smoothing_I).max())
        for name, limit in candidate_limits(rows_RI.numpy(), largest).items():
            if recipe.ranges is not None and name not in recipe.ranges:
                continue
            scale = float(usable_scale(limit / LARGEST))
            read_RI = _rounded(rows_RI, scale)
            error = _error(task.outputs, [read_RI @ weight_IO for weight_IO in rounded])
            if best is None or error < best[0]:
                best = (
                    error,
                    _Choice(
                        exponent=exponent,
                        smoothing_I=smoothing_I,
                        range=name,
                        scale=scale,
                        rows_RI=read_RI,
                        weights=weights,
                    ),
                )
    if best is None:
        raise CalibrationError(f"choosing a range: none of {recipe.ranges} is known.")
    return best[1]


def _smoothing(task: _Task, exponent: float | None) -> Tensor:
    """What each channel is divided by, its geometric mean 1; channels that are never used: 1."""
    if exponent is None:
        return torch.ones_like(task.absmax_I)
    weight_I = torch.stack([weight.abs().amax(dim=1) for weight in task.weights]).amax(dim=0)
    used_I = (task.absmax_I > 0) & (weight_I > 0)
    ratio_I = task.absmax_I.clamp(min=1e-5) ** exponent
    ratio_I = ratio_I / weight_I.clamp(min=1e-5) ** (1 - exponent)
    logs_I = torch.where(used_I, ratio_I.log(), torch.zeros_like(ratio_I))
    centre = logs_I.sum() / used_I.sum().clamp(min=1)
    return torch.where(used_I, (logs_I - centre).exp(), torch.ones_like(logs_I))


def _fold(source: nn.Module, linears: Sequence[nn.Module], smoothing_I: Tensor) -> None:
    """Divide what a module puts out, and multiply what the linear layers make of it."""
    with torch.no_grad():
        weight, bias = source.weight, source.bias
        weight.div_(smoothing_I[:, None] if weight.ndim == 2 else smoothing_I)  # type: ignore[operator]
        if bias is not None:
            bias.div_(smoothing_I)  # type: ignore[operator]
        for linear in linears:
            linear.weight.mul_(smoothing_I)  # type: ignore[operator]


def _weights(chosen: _Choice, recipe: Recipe) -> list[QuantizedLinear]:
    """int8 weights, the range of each output channel clipped where that makes its output better."""
    moments_II = chosen.rows_RI.T @ chosen.rows_RI
    found = []
    for weight_IO in chosen.weights:
        full_O = weight_IO.abs().amax(dim=0)
        best_O = torch.full_like(full_O, torch.inf)
        share_O = torch.ones_like(full_O)
        for share in recipe.clips:
            held = quantize_weight(weight_IO.numpy(), (full_O * share / LARGEST).numpy())
            off_IO = _dequantized(held) - weight_IO
            error_O = ((moments_II @ off_IO) * off_IO).sum(dim=0)
            better_O = error_O < best_O
            best_O = torch.where(better_O, error_O, best_O)
            share_O = torch.where(better_O, torch.full_like(share_O, share), share_O)
        found.append(quantize_weight(weight_IO.numpy(), (full_O * share_O / LARGEST).numpy()))
    return found


def _with_scales(weight_IO: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return weight_IO.numpy(), (weight_IO.abs().amax(dim=0) / LARGEST).numpy()


def _dequantized(held: QuantizedLinear) -> Tensor:
    return torch.from_numpy(held.weight_IO.astype(np.float32) * held.scales_O)


def _rounded(rows_RI: Tensor, scale: float) -> Tensor:
    """As QuantizeLinear and DequantizeLinear make them: half to even, both ends clipped."""
    return (rows_RI / scale).round().clamp(-LARGEST - 1, LARGEST) * scale


def _error(wanted: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Squared error as a share of the variance of what is wanted; the mean over the layers."""
    shares = [
        float((have - want).square().mean() / want.var(dim=0, correction=0).mean().clamp(min=1e-12))
        for want, have in zip(wanted, found, strict=True)
    ]
    return sum(shares) / len(shares)
