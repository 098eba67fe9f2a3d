"""What the activations of a network do, seen through hooks while clips run through it.

Of every tensor that linear layers read it keeps the largest magnitude of each channel over all
clips, and a fixed number of rows (tokens) drawn from all clips alike: enough to try scales on, and
as much memory for ten clips as for ten thousand.

Shape suffixes: N clips, T frames, H and W pixels, R rows, I channels of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from calibration.errors import CalibrationError
from calibration.quantize import LARGEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

ROWS = 2048
"""Rows kept of each tensor: 260 MB of all tensors of VideoMAE-S."""
LARGE = 3e4
"""Half of what float16 holds: above it, no float16 model is made."""
BINS = 2048
"""Of the histogram of the entropy range.  Source: Migacz, GTC 2017 (TensorRT's calibrator)."""

RangeName = str
"""`max`, `mse`, `entropy`, or a percentile such as `99.99`."""
PERCENTILES = (99.9, 99.99, 99.999)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Linear layers of a network that read one tensor."""

    name: str
    """Such as `blocks.0.qkv`: what `--int8-skip` calls it."""
    linears: tuple[str, ...]
    """Names of modules, `nn.Linear` all of them."""
    source: str | None = None
    """Module whose output channels may be scaled in place of the tensor's: a LayerNorm right before
    the family, or the Linear of the values before an attention's output projection."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """The tensor that a family reads."""

    absmax_I: NDArray[np.float32]
    """Largest magnitude of each channel, over all tokens of all clips."""
    rows_RI: NDArray[np.float32]
    """Some of its rows, from all clips."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observed:
    """What `observe` saw."""

    families: Mapping[str, Observation]
    peaks: Mapping[str, float]
    """Largest magnitude that went into or came out of each layer."""
    clips: int

    def too_large(self) -> dict[str, float]:
        """Layers whose values come close to what float16 cannot hold."""
        return {name: peak for name, peak in self.peaks.items() if not peak <= LARGE}


def observe(
    model: nn.Module,
    families: Sequence[Family],
    batches: Iterable[NDArray[np.uint8]],
    *,
    clips: int,
    rows: int = ROWS,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> Observed:
    """Run clips through a network and keep what its linear layers read.

    Args:
        model: takes uint8 [N, T, H, W, 3]; left as it was.
        families: what is watched.
        batches: the clips, `clips` of them in all.
        clips: how many there are, so that each gives its share of the rows.
        rows: kept of each tensor.
        seed: which rows.
        advance: told how many clips are done.

    Raises:
        CalibrationError: there was no clip, or a value was not finite.
    """
    watch = _Watch(families, seed=seed)
    seen = 0
    with ExitStack() as hooks, torch.inference_mode():
        watch.attach(model, hooks)
        for clips_NTHWC in batches:
            seen += len(clips_NTHWC)
            watch.wanted = min(rows, rows * seen // max(clips, 1))
            model(torch.from_numpy(clips_NTHWC))
            advance(len(clips_NTHWC))
    if not seen:
        raise CalibrationError(
            "watching activations: there was not one clip. Give footage with --calib."
        )
    watch.check_finite()
    return Observed(families=watch.observations(), peaks=dict(watch.peaks), clips=seen)


class _Watch:
    """Hooks, and what they keep."""

    def __init__(self, families: Sequence[Family], *, seed: int) -> None:
        self.wanted = 0
        """Rows of each tensor that there shall be once the clips of now have run."""
        self.peaks: dict[str, float] = {}
        self._families = families
        self._kept: dict[str, list[NDArray[np.float32]]] = {each.name: [] for each in families}
        self._absmax: dict[str, Tensor] = {}
        self._rngs = {
            each.name: np.random.default_rng([seed, number]) for number, each in enumerate(families)
        }

    def attach(self, model: nn.Module, hooks: ExitStack) -> None:
        modules = dict(model.named_modules())
        for family in self._families:
            for name in family.linears:
                if not isinstance(modules.get(name), nn.Linear):
                    raise CalibrationError(
                        f"watching {family.name}: the network has no linear layer {name}."
                    )
            handle = modules[family.linears[0]].register_forward_pre_hook(self._keeping(family))
            hooks.callback(handle.remove)
        for name, module in modules.items():
            if isinstance(module, (nn.Linear, nn.LayerNorm)):
                hooks.callback(module.register_forward_hook(self._peaking(name)).remove)

    def _keeping(self, family: Family) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            values_RI = given[0].detach().reshape(-1, given[0].shape[-1])
            largest_I = values_RI.abs().amax(dim=0)
            before = self._absmax.get(family.name)
            self._absmax[family.name] = (
                largest_I if before is None else torch.maximum(before, largest_I)
            )
            kept = self._kept[family.name]
            missing = min(self.wanted - sum(map(len, kept)), len(values_RI))
            if missing > 0:
                drawn = self._rngs[family.name].choice(len(values_RI), missing, replace=False)
                kept.append(values_RI[np.sort(drawn)].float().cpu().numpy())

        return keep

    def _peaking(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def peak(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            largest = float(np.maximum(_peak(given[0]), _peak(out)))  # max() may lose a NaN
            held = self.peaks.get(name, 0.0)
            if np.isfinite(held) and not largest <= held:  # not a number comes in, and stays
                self.peaks[name] = largest

        return peak

    def check_finite(self) -> None:
        for name, peak in self.peaks.items():
            if not np.isfinite(peak):
                raise CalibrationError(
                    f"watching activations: {name} gave {peak}. The weights do not belong to a "
                    "network that works; evaluate the run, and train again if need be."
                )

    def observations(self) -> dict[str, Observation]:
        return {
            family.name: Observation(
                absmax_I=self._absmax[family.name].float().cpu().numpy(),
                rows_RI=np.concatenate(self._kept[family.name]),
            )
            for family in self._families
        }


def _peak(values: Tensor) -> float:
    low, high = torch.aminmax(values.detach())
    return max(abs(float(low)), abs(float(high)))


def candidate_limits(rows_RI: NDArray[np.float32], largest: float) -> dict[RangeName, float]:
    """Magnitudes up to which a tensor may be quantized; values beyond are clipped.

    Args:
        rows_RI: some rows of the tensor.
        largest: magnitude over all of it.
    """
    magnitudes = np.sort(np.abs(rows_RI), axis=None)
    if not largest > 0:
        return {"max": 1.0}
    limits = {"max": largest}
    for percent in PERCENTILES:
        place = int(np.ceil(percent / 100 * (len(magnitudes) - 1)))
        limits[f"{percent:g}"] = float(magnitudes[place])
    limits["mse"] = _mse_limit(magnitudes, largest)
    limits["entropy"] = _entropy_limit(magnitudes, largest)
    return {name: limit for name, limit in limits.items() if limit > 0}


def _mse_limit(magnitudes: NDArray[np.float32], largest: float) -> float:
    """The limit of least squared error, of 40 in equal ratios down to a fiftieth of the largest."""
    step = max(1, len(magnitudes) // 100_000)
    some = magnitudes[::step].astype(np.float64)

    def error(limit: float) -> float:
        scale = limit / LARGEST
        return float(np.square(np.minimum(np.rint(some / scale), LARGEST) * scale - some).sum())

    return float(min(largest * np.geomspace(1.0, 0.02, 40), key=error))


def _entropy_limit(magnitudes: NDArray[np.float32], largest: float) -> float:
    """The limit whose 128 steps tell most of the distribution (least Kullback-Leibler divergence).

    Source: Migacz, "8-bit inference with TensorRT", GTC 2017, slides 35 to 38.
    """
    # As shares of the largest: there are no 2048 bins below a subnormal number.
    shares = magnitudes.astype(np.float64) / largest
    counts, edges = np.histogram(shares, bins=BINS, range=(0.0, 1.0))
    steps = LARGEST + 1
    best, best_divergence = largest, np.inf
    for last in range(steps, BINS + 1, 16):
        clipped = counts[:last].astype(np.float64)
        clipped[-1] += counts[last:].sum()
        told = _told(counts[:last].astype(np.float64), steps)
        divergence = _divergence(clipped, told)
        if divergence < best_divergence:
            best, best_divergence = largest * float(edges[last]), divergence
    return best


def _told(counts: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Counts after quantization: within each step spread over the bins that hold something."""
    step_of = np.arange(len(counts)) * steps // len(counts)
    sums = np.bincount(step_of, counts, minlength=steps)
    filled = np.bincount(step_of, counts > 0, minlength=steps)
    each = np.divide(sums, filled, out=np.zeros_like(sums), where=filled > 0)
    return np.where(counts > 0, each[step_of], 0.0)


def _divergence(wanted: NDArray[np.float64], told: NDArray[np.float64]) -> float:
    if not told.sum() > 0:
        return float(np.inf)
    p, q = wanted / wanted.sum(), told / told.sum()
    # What is clipped onto a bin that was empty is not told at all: as good as a tiny share.
    q = np.where((p > 0) & (q == 0), 1e-9, q)
    used = p > 0
    return float((p[used] * np.log(p[used] / q[used])).sum())
