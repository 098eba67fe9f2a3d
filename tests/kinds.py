"""Every kind of network in miniature, and what it is trained on in tests."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engines.bundle import LEVELS
from train.graphs import graph_of
from train.losses import LossConfig, Targets, loss_sums
from train.models.geodecoder import GeoDecoderConfig
from train.models.isns import IsnsConfig
from train.models.kinds import find_kind
from train.models.planet import PlanetConfig
from train.models.teachers import TeacherConfig
from train.models.timesformer import TimeSformerConfig
from train.models.videomae import VideoMAEConfig
from train.models.vit import ViTConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx
    from torch import Tensor

    from train.models.base import GeoModel

CLASSES = {"city": 9, "state": 7, "country": 5, "continent": 3, "scene": 16}
_TRANSFORMER: dict[str, Any] = {"image_px": 32, "width": 32, "depth": 2, "heads": 2,
                                "mlp_width": 48, "patch_px": 8}  # fmt: skip
_ONE_LAYER: dict[str, Any] = {"depth": 1}
_DECODER: dict[str, Any] = {
    "image_px": 32, "width": 32, "depth": 2, "heads": 2, "mlp_width": 48,
    "vit_patch_px": 8, "vit_width": 32, "vit_depth": 1, "vit_heads": 2, "vit_mlp_width": 48,
    "swin_width": 12, "swin_depths": (2, 1), "swin_heads": (1, 2), "swin_window": 2,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "videomae": VideoMAEConfig(frames=4, **_TRANSFORMER),
    "timesformer": TimeSformerConfig(frames=3, **_TRANSFORMER),
    "vit": ViTConfig(frames=1, **_TRANSFORMER),
    "vit, frames averaged": ViTConfig(frames=3, pooling="mean", **_TRANSFORMER | _ONE_LAYER),
    "planet": PlanetConfig(frames=1, image_px=64, backbone="resnet-tiny"),
    "planet, album": PlanetConfig(
        frames=3, image_px=64, backbone="resnet-tiny", album=True, album_width=96
    ),
    "isns": IsnsConfig(frames=1, image_px=64, backbone="resnet-tiny"),
    "isns, soft": IsnsConfig(
        frames=2,
        image_px=64,
        backbone="resnet-tiny",
        gate="soft",
        superclasses="paper",
        standardised=True,
    ),
    "geodecoder": GeoDecoderConfig(frames=1, **_DECODER),
    "geodecoder, frames averaged": GeoDecoderConfig(frames=3, **_DECODER | _ONE_LAYER),
    "geodecoder, of Swin": GeoDecoderConfig(frames=1, encoder="swin", **_DECODER | _ONE_LAYER),
}
"""By kind; what follows a comma is another form of it, and the last form has most of its own."""


def build(name: str) -> GeoModel:
    """One of SMALL with random weights and, where it can have one, a linear scene head."""
    kind = find_kind(name.partition(",")[0])
    scene = "linear" if "linear" in kind.scenes else kind.scenes[-1]
    torch.manual_seed(0)
    return kind.model(SMALL[name], CLASSES, teachers=TeacherConfig(scene=scene))


@cache
def loud_graph(name: str) -> onnx.GraphProto:
    """Of one of SMALL, made loud; tracing takes seconds, and several tests look at it."""
    return graph_of(make_loud(build(name)).eval())


def make_loud(model: GeoModel) -> GeoModel:
    """Weights and biases large enough for logits that differ from clip to clip."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1 and name.rpartition(".")[2] not in model.undecayed:
                value.copy_(torch.randn(value.shape, generator=generator))
                value.mul_(1.2 * value[0].numel() ** -0.5)
            else:
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return model


def clips_for(model: GeoModel, count: int) -> Tensor:
    """Coarse patches of colour, each clip its own, under noise that changes with every frame."""
    frames, height, width, _ = model.clip_shape
    rng = np.random.default_rng(0)
    steady = rng.uniform(0, 255, (count, 1, 4, 4, 3)).repeat(height // 4, 2).repeat(width // 4, 3)
    noisy = steady + rng.normal(0, 20, (count, frames, height, width, 3))
    return torch.from_numpy(np.clip(noisy, 0, 255).astype(np.uint8))


def targets_for(count: int) -> Targets:
    """Each clip its own city as far as there are cities."""
    ids = torch.arange(count)
    scene_N = 3 * ids % CLASSES["scene"]  # a few of them of all kinds of scene
    return Targets(
        labels={level: ids % CLASSES[level] for level in LEVELS},
        scene_NS=torch.nn.functional.one_hot(scene_N, CLASSES["scene"]).float(),
        scene_N=scene_N,
    )


def loss_of(model: GeoModel, clips: Tensor, targets: Targets) -> Tensor:
    """All that it is taught, a mean over clips."""
    has_scene = "scene" in model.outputs
    outputs = model.taught(model(clips), targets)
    sums = loss_sums(outputs, targets, LossConfig(scene_weight=1.0 if has_scene else 0.0))
    return _sum({**sums, **model.extra_losses(outputs, targets)}.values()) / len(clips)


def _sum(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum()
