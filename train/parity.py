"""Whether an exported graph computes what the network does: runtimes against torch.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, K classes of an output.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from engines.base import EngineUnavailableError
from engines.choose import usable_cores
from engines.openvino_cpu import OpenvinoEngine
from train.errors import ExportError
from train.models.heads import HEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from engines.bundle import Bundle, InputSpec

    Scores = Mapping[str, NDArray[np.float32]]

PARITY = 1e-4
"""Largest difference of any logit between torch and a runtime, both in float32: as it is, or of
logits above 1 as a share of the largest."""


def check_parity(
    score: Callable[[NDArray[np.uint8]], Scores], bundle: Bundle, *, allowed: float | None = None
) -> dict[str, float | None]:
    """Compare the runtimes with torch on two clips: noise, and even frames.

    Args:
        score: what torch makes of clips, uint8 [N, T, H, W, 3] -> [N, K] per head.
        bundle: what the runtimes are given.
        allowed: largest difference of a logit that passes; None for PARITY.

    Returns:
        Runtime -> largest difference of a logit; None where the runtime is not installed.

    Raises:
        ExportError: a larger difference.
    """
    clips_NTHWC = _check_clips(bundle.manifest.input)
    wanted = score(clips_NTHWC)
    session = onnxruntime.InferenceSession(
        bundle.file("model.onnx"), providers=["CPUExecutionProvider"]
    )
    names = list(bundle.manifest.outputs)
    found = dict(zip(names, session.run(names, {"clip": clips_NTHWC}), strict=True))
    parity: dict[str, float | None] = {"ONNX Runtime": _worst(found, wanted), "OpenVINO": None}
    with contextlib.suppress(EngineUnavailableError):
        engine = OpenvinoEngine(bundle, threads=usable_cores())
        parity["OpenVINO"] = _worst(engine.infer(clips_NTHWC), wanted)
    if allowed is None:
        largest = max(float(np.abs(wanted[head]).max()) for head in HEADS if head in wanted)
        allowed = PARITY * max(1.0, largest)
    for runtime, worst in parity.items():
        if worst is not None and not worst <= allowed:
            raise ExportError(
                f"checking the exported network: a logit of {runtime} is {worst:.2e} away from "
                f"torch's, allowed is {allowed:.0e}. Weights that are not finite or very large do "
                "this; train again with a lower learning rate, or report it with the checkpoint."
            )
    return parity


def _check_clips(wanted: InputSpec) -> NDArray[np.uint8]:
    """Noise, and frames of one colour each.  uint8 [2, T, H, W, 3]."""
    rng = np.random.default_rng(0)
    shape = (wanted.frames, wanted.height_px, wanted.width_px, 3)
    noise = rng.integers(0, 256, shape, dtype=np.uint8)
    colours = rng.integers(0, 256, (wanted.frames, 1, 1, 3), dtype=np.uint8)
    return np.stack([noise, np.broadcast_to(colours, shape)])


def _worst(found: Scores, wanted: Scores) -> float:
    """Largest difference of any logit; not a number if one is not a number."""
    heads = [head for head in HEADS if head in found]
    return float(np.max([np.abs(found[head] - wanted[head]).max() for head in heads]))
