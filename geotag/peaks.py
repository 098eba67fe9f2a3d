"""The most that a machine multiplies: what the speed of a network is a share of.

Source: Ampere's tensor cores do 1,024 fp16 or 2,048 int8 dense MACs a clock and multiprocessor
(NVIDIA, A100 white paper: 312 TFLOPS = 108 x 1.41 GHz x 1,024 x 2). NVIDIA's figures for Orin
modules count zeros that are skipped and the DLA as well; halved and without it they agree: AGX
Orin 64 GB, 16 multiprocessors at 1.3 GHz, 85 dense INT8 TOPS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engines.bundle import Precision
    from geotag.device.jetson import Jetson

_MACS_A_CLOCK: dict[Precision, int] = {"fp32": 128, "fp16": 1024, "int8": 2048}
"""Of an Orin's multiprocessor; fp32 on its CUDA cores, since no engine of ours rounds to TF32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """An upper limit, and how it is known."""

    macs_a_second: float
    is_measured: bool
    """In this run, on large matrices; otherwise by the data sheet at the present clock."""
    how: str


def known_peak(
    jetson: Jetson | None,
    precision: Precision,
    gpu_mhz: float | None,
    *,
    multiprocessors: int | None = None,
) -> Peak | None:
    """The dense peak of a Jetson's GPU at a clock; None where no data sheet tells it.

    Args:
        jetson: where this runs.
        precision: of the multiplications.
        gpu_mhz: the present clock.
        multiprocessors: how many CUDA sees: low power modes switch some of them off. None takes
            all that the module has.
    """
    if jetson is None or jetson.multiprocessors is None or not gpu_mhz:
        return None
    count = multiprocessors or jetson.multiprocessors
    each = _MACS_A_CLOCK[precision]
    return Peak(
        macs_a_second=count * each * gpu_mhz * 1e6,
        is_measured=False,
        how=f"{count} multiprocessors x {each:,} {precision} MAC at {gpu_mhz:.0f} MHz",
    )
