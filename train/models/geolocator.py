"""The network that is trained, exported and scanned with: an encoder and one linear head a task.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, P patches, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from engines.bundle import LEVELS
from train.models.videomae import VideoMAEConfig, VideoMAEEncoder, initialise

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of R, G, B in [0, 1]: what VideoMAE's published weights were trained with."""

HEADS = (*LEVELS, "scene")


class Geolocator(nn.Module):
    """Clips of bytes to the scores of four place levels and of the scene groups."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        config: VideoMAEConfig,
        classes: Mapping[str, int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        """Build with random weights.

        Args:
            config: shape of the encoder.
            classes: how many classes each of city, state, country, continent and scene has.
            mean: of R, G, B in [0, 1]; subtracted inside the network.
            std: of R, G, B in [0, 1]; divided by inside the network.

        Raises:
            ValueError: `classes` does not name exactly the five heads, or has an empty one.
        """
        super().__init__()
        if set(classes) != set(HEADS) or min(classes.values()) < 1:
            raise ValueError(
                f"building a Geolocator with classes {dict(classes)}: "
                f"needed is a positive count for each of {', '.join(HEADS)}."
            )
        self.config = config
        self.classes = {head: int(classes[head]) for head in HEADS}
        self.encoder = VideoMAEEncoder(config)
        self.heads = nn.ModuleDict(
            {head: nn.Linear(config.width, count) for head, count in self.classes.items()}
        )
        for head in self.heads.values():
            initialise(head, std=0.002)  # first losses near ln(classes), first gradients small
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def forward(self, clip_NTHWC: Tensor, keep_tokens: float = 1.0) -> dict[str, Tensor]:
        """Score clips.  uint8 [N, T, H, W, 3] -> logits [N, K] per head, and `feature` [N, D].

        The feature is the mean of the last block's tokens; the heads are linear in it.
        `keep_tokens` below 1 is for training: see `VideoMAEEncoder.encode`.

        Raises:
            ValueError: another type or shape.
        """
        expected = (self.config.frames, self.config.image_px, self.config.image_px, 3)
        if clip_NTHWC.dtype != torch.uint8 or tuple(clip_NTHWC.shape[1:]) != expected:
            raise ValueError(
                f"a Geolocator takes uint8 [N, {', '.join(map(str, expected))}], "
                f"was given {clip_NTHWC.dtype} {list(clip_NTHWC.shape)}."
            )
        pixels_NTHWC = (clip_NTHWC / 255 - self.mean) / self.std
        feature_ND = self.encoder.encode(pixels_NTHWC, keep_tokens).mean(dim=1)
        scores: dict[str, Tensor] = {
            head: linear(feature_ND) for head, linear in self.heads.items()
        }
        return {**scores, "feature": feature_ND}
