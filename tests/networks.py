"""Networks with drawn weights, which `tests.reference` takes as well.

Weights of the encoder are drawn in the layout of published checkpoints and go into ours through
its loader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests import reference
from train.models.base import IMAGENET_MEAN, IMAGENET_STD
from train.models.geolocator import Geolocator
from train.models.teachers import TeacherConfig
from train.models.videomae import VideoMAEConfig, load_transformers_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from tests.reference import Array

    Weights = dict[str, NDArray[Any]]

ODD = VideoMAEConfig(
    frames=6, tubelet_frames=3, image_px=40, patch_px=8, width=36, depth=2, heads=3, mlp_width=50
)
"""No two sizes alike, so that axes that are mixed up do not fit."""
FEW = {"city": 9, "state": 7, "country": 5, "continent": 3, "scene": 16}
TAUGHT = TeacherConfig(scene="attention", text_width=24)


def encoder_shapes(config: VideoMAEConfig) -> dict[str, tuple[int, ...]]:
    kernel = (config.width, 3, config.tubelet_frames, config.patch_px, config.patch_px)
    sizes = {"D": config.width, "F": config.mlp_width}
    shapes = {
        "embeddings.patch_embeddings.projection.weight": kernel,
        "embeddings.patch_embeddings.projection.bias": (config.width,),
    }
    for number in range(config.depth):
        for name, axes in reference.PUBLISHED_BLOCK.items():
            shapes[f"encoder.layer.{number}.{name}"] = tuple(sizes[axis] for axis in axes)
    return shapes


def draw_weights(model: Geolocator, seed: int = 0) -> Weights:
    """Weights large enough for logits of several units and uneven attention, float32."""
    rng = np.random.default_rng(seed)
    shapes = encoder_shapes(model.config)
    rest = {name for name in model.state_dict() if not name.startswith("encoder.")}
    shapes |= {name: tuple(model.state_dict()[name].shape) for name in sorted(rest)}
    drawn: Weights = {}
    for name, shape in shapes.items():
        gain = {"heads": 0.6, "teachers": 1.2}.get(name.split(".")[0], 1.5)
        spread = 0.2 if len(shape) == 1 else gain / np.prod(shape[1:]) ** 0.5
        centre = 1 if "layernorm" in name and name.endswith("weight") else 0
        drawn[name] = (centre + spread * rng.standard_normal(shape)).astype(np.float32)
    return drawn


def load(model: Geolocator, weights: Weights) -> None:
    tensors = {name: torch.from_numpy(value.copy()) for name, value in weights.items()}
    of_encoder = {name: tensors.pop(name) for name in encoder_shapes(model.config)}
    load_transformers_state(model.encoder, of_encoder)
    missing, unknown = model.load_state_dict(tensors, strict=False)
    assert not unknown
    assert all(name.startswith("encoder.") for name in missing)


def make(
    config: VideoMAEConfig, classes: Mapping[str, int], teachers: TeacherConfig = TAUGHT
) -> tuple[Geolocator, Weights]:
    with pytest.MonkeyPatch.context() as patch:  # all weights are replaced
        patch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)
        model = Geolocator(config, classes, teachers=teachers)
    weights = draw_weights(model)
    load(model, weights)
    return model, weights


def clips_of(config: VideoMAEConfig, count: int) -> NDArray[np.uint8]:
    shape = (count, config.frames, config.image_px, config.image_px, 3)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def precise(weights: Weights) -> dict[str, Array]:
    return {name: value.astype(np.float64) for name, value in weights.items()}


def encode(config: VideoMAEConfig, clips: NDArray[np.uint8], weights: Weights) -> Array:
    shape = reference.Shape(
        tubelet_frames=config.tubelet_frames, patch_px=config.patch_px, heads=config.heads
    )
    return reference.encode(clips, precise(weights), shape)


def make_precise(teachers: TeacherConfig) -> tuple[Geolocator, Weights]:
    """A model in float64, its constants too: those of training are rounded to float32."""
    model, weights = make(ODD, FEW, teachers)
    model.double().train()
    model.mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float64)
    model.std = torch.tensor(IMAGENET_STD, dtype=torch.float64)
    model.encoder.positions = torch.from_numpy(reference.positions(ODD.tokens, ODD.width))
    return model, weights
