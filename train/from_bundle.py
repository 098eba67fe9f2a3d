"""A network out of an exported bundle again, so that smaller precisions can be made of it.

The float32 graph of a bundle holds the encoder and the classifiers whole. What it does not hold is
Self-Cross Attention, whose linear maps were folded: a bundle with such a scene output is not read,
nor one whose classifiers were.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import onnx
import torch
from onnx import numpy_helper

from engines.bundle import LEVELS
from train.checkpoint import CheckpointError
from train.models.geolocator import Geolocator
from train.models.teachers import TeacherConfig
from train.models.videomae import SIZES

if TYPE_CHECKING:
    from engines.bundle import Bundle

_PREFIXES = ("encoder.", "heads.")


def load_bundle_model(bundle: Bundle) -> Geolocator:
    """Rebuild the network of a bundle's `model.onnx`.

    Args:
        bundle: exported from a checkpoint of a known size.

    Returns:
        The model on the CPU, in evaluation mode. Whether it computes what the graph does is for the
        caller to check.

    Raises:
        CheckpointError: the bundle is of another kind, or its graph is not that of its size.
    """
    manifest = bundle.manifest
    size = str(manifest.training.get("size"))
    kind = str(manifest.training.get("model_kind") or Geolocator.kind)
    if manifest.zero_shot is not None or size not in SIZES or kind != Geolocator.kind:
        raise CheckpointError(
            f"reading the network of {bundle.label}: it was not trained by python -m train.fit as "
            f"VideoMAE in one of the sizes {', '.join(SIZES)}. Give the run folder instead."
        )
    graph = onnx.load(bundle.file("model.onnx")).graph
    held = {each.name: each for each in graph.initializer}
    scene = "none" if not manifest.scenes else "linear" if "scene.weight" in held else "attention"
    if scene == "attention":
        raise CheckpointError(
            f"reading the network of {bundle.label}: its scene attention was folded when it was "
            "exported. Give the run folder instead."
        )
    said = manifest.training
    form = said.get("model_classifier"), said.get("model_hierarchy")
    if form[0] not in (None, "linear") or form[1] not in (None, "separate"):
        raise CheckpointError(
            f"reading the network of {bundle.label}: its classifiers ({form[0]}, {form[1]}) were "
            "folded when it was exported. Give the run folder instead."
        )
    # A model counts scenes even where it has no head for them.
    counts = {level: manifest.outputs[level] for level in LEVELS}
    classes: dict[str, int] = dict(counts)  # type: ignore[arg-type]
    classes["scene"] = manifest.outputs.get("scene", 1)
    mean, std = _normalisation(held)
    model = Geolocator(SIZES[size], classes, mean, std, TeacherConfig(scene=scene))  # type: ignore[arg-type]
    state = model.state_dict()
    try:
        for name in state:
            state[name] = _weight(held, name, state[name])
        model.load_state_dict(state)
    except (KeyError, RuntimeError) as exc:
        raise CheckpointError(
            f"reading the network of {bundle.label}: its graph is not that of a VideoMAE-{size} "
            f"({exc}). Give the run folder instead."
        ) from exc
    return model.eval()


def facts_of(bundle: Bundle) -> dict[str, Any]:
    """How its footage is read, as a checkpoint's record would say it."""
    manifest = bundle.manifest
    sampling = asdict(manifest.sampling)
    sampling.pop("policies")
    return {
        "data": manifest.training.get("data"),
        "splitting": manifest.training.get("splitting") or "official",
        "sampling": sampling,
        "input": {"picking": manifest.training.get("input_picking") or "uniform"},
    }


def _weight(held: dict[str, onnx.TensorProto], name: str, wanted: torch.Tensor) -> torch.Tensor:
    short = name
    for prefix in _PREFIXES:
        short = short.removeprefix(prefix)
    values = numpy_helper.to_array(held[short])
    # The graph holds matrices as [in, out].
    return torch.from_numpy((values.T if values.ndim == 2 else values).copy()).to(wanted.dtype)


def _normalisation(
    held: dict[str, onnx.TensorProto],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of R, G, B, from what the graph multiplies and adds."""
    scale = numpy_helper.to_array(held["patch.scale"])[:3].astype(float)
    shift = numpy_helper.to_array(held["patch.shift"])[:3].astype(float)
    std = 1 / (255 * scale)
    mean = -shift * std
    return tuple(round(float(each), 6) for each in mean), tuple(
        round(float(each), 6) for each in std
    )
