"""The network that is trained, exported and scanned with: an encoder and one linear head a task.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, P patches, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from train.models.heads import HEADS, Heads
from train.models.videomae import VideoMAEConfig, VideoMAEEncoder, random_tokens

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of R, G, B in [0, 1]: what VideoMAE's published weights were trained with."""


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
        self.config = config
        self.encoder = VideoMAEEncoder(config)
        self.heads = Heads(config.width, classes)
        self.classes = {head: int(classes[head]) for head in HEADS}
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def forward(self, clip_NTHWC: Tensor, keep_tokens: float = 1.0) -> dict[str, Tensor]:
        """Score clips.  uint8 [N, T, H, W, 3] -> logits [N, K] per head, and `feature` [N, D].

        The feature is the mean of the last block's tokens; the heads are linear in it.
        With `keep_tokens` below 1 each clip is seen through that random share of its tubelets:
        half of them train in less than half the time (PatchDropout, Liu et al., WACV 2023).

        Raises:
            ValueError: another type or shape.
        """
        feature_ND = self.features(clip_NTHWC, keep_tokens)
        return {**self.heads(feature_ND), "feature": feature_ND}

    def features(self, clip_NTHWC: Tensor, keep_tokens: float = 1.0) -> Tensor:
        """Mean token of each clip.  uint8 [N, T, H, W, 3] -> [N, D]; see `forward`."""
        expected = (self.config.frames, self.config.image_px, self.config.image_px, 3)
        if clip_NTHWC.dtype != torch.uint8 or tuple(clip_NTHWC.shape[1:]) != expected:
            raise ValueError(
                f"a Geolocator takes uint8 [N, {', '.join(map(str, expected))}], "
                f"was given {clip_NTHWC.dtype} {list(clip_NTHWC.shape)}."
            )
        tubelets_NPV, kept_NP = self.encoder.tubelets(clip_NTHWC), None
        if keep_tokens < 1:  # chosen as bytes: what is dropped is never normalised
            kept_NP = random_tokens(len(clip_NTHWC), self.config.tokens, keep_tokens)
            kept_NP = kept_NP.to(clip_NTHWC.device)
            tubelets_NPV = tubelets_NPV.take_along_dim(kept_NP[..., None], dim=1)
        feature_ND: Tensor = self.encoder.encode(self.normalise(tubelets_NPV), kept_NP).mean(dim=1)
        return feature_ND

    def normalise(self, tubelets_NPV: Tensor) -> Tensor:
        """Bytes to what the encoder takes: (value / 255 - mean) / std, colour by colour."""
        pixels = self.config.token_values // 3
        scale_V = (1 / (255 * self.std)).repeat(pixels)
        shift_V = (-self.mean / self.std).repeat(pixels)
        return tubelets_NPV * scale_V + shift_V
