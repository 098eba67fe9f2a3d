"""The network that is trained, exported and scanned with: encoder, classifiers, teachers.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, P patches, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from calibration.ranges import Family
from engines.bundle import LEVELS
from train.models.heads import HEADS, Heads
from train.models.teachers import TeacherConfig, Teachers
from train.models.videomae import VideoMAEConfig, VideoMAEEncoder

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of R, G, B in [0, 1]: what VideoMAE's published weights were trained with."""
PLAIN = TeacherConfig(scene="linear")
"""Five linear classifiers and no teachers."""


BLOCK_FAMILIES: tuple[tuple[str, tuple[str, ...], str | None], ...] = (
    ("qkv", ("query", "key", "value"), "norm1"),
    ("proj", ("proj",), "value"),
    ("fc1", ("fc1",), "norm2"),
    ("fc2", ("fc2",), None),  # GELU lies between it and anything that could be scaled
)
"""Of each block: a name, the layers, and what puts out the tensor that they read."""


class Geolocator(nn.Module):
    """Clips of bytes to the scores of four place levels and, with a scene head, of scene groups."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        config: VideoMAEConfig,
        classes: Mapping[str, int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        teachers: TeacherConfig = PLAIN,
    ) -> None:
        """Build with random weights.

        Args:
            config: shape of the encoder.
            classes: how many classes each of city, state, country, continent and scene has.
            mean: of R, G, B in [0, 1]; subtracted inside the network.
            std: of R, G, B in [0, 1]; divided by inside the network.
            teachers: which of them there are, and what kind of scene head.

        Raises:
            ValueError: `classes` does not name exactly the five heads, or has an empty one.
        """
        if set(classes) != set(HEADS) or min(classes.values()) < 1:
            raise ValueError(
                f"building a Geolocator with classes {dict(classes)}: "
                f"needed is a positive count for each of {', '.join(HEADS)}."
            )
        super().__init__()
        self.config = config
        self.classes = {head: int(classes[head]) for head in HEADS}
        self.encoder = VideoMAEEncoder(config)
        linear = HEADS if teachers.scene == "linear" else LEVELS
        self.heads = Heads(config.width, {head: self.classes[head] for head in linear})
        places = sum(self.classes[level] for level in LEVELS)
        self.teachers = Teachers(teachers, classes=places, scenes=self.classes["scene"])
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the exported network answers, in their order."""
        scene = () if self.teachers.config.scene == "none" else ("scene",)
        return (*LEVELS, *scene, "feature")

    @property
    def widths(self) -> dict[str, int]:
        """Width of every head and of the feature."""
        return {**self.classes, "feature": self.config.width}

    def families(self) -> tuple[Family, ...]:
        """Linear layers of the blocks that read one tensor, for quantization; see `Family`."""
        return tuple(
            Family(
                name=f"blocks.{number}.{name}",
                linears=tuple(f"encoder.blocks.{number}.{linear}" for linear in linears),
                source=None if source is None else f"encoder.blocks.{number}.{source}",
            )
            for number in range(self.config.depth)
            for name, linears, source in BLOCK_FAMILIES
        )

    def forward(self, clip_NTHWC: Tensor, kept_NP: Tensor | None = None) -> dict[str, Tensor]:
        """Score clips.  uint8 [N, T, H, W, 3] -> logits [N, K] per head, and `feature` [N, D].

        The feature is the mean of the last block's tokens; the classifiers are linear in it.
        `text` [N, E] is there as well while a model with a text head trains.

        Args:
            clip_NTHWC: clips.
            kept_NP: tubelets that each clip is seen through, as `random_tokens` draws them: half of
                them train in less than half the time (PatchDropout, Liu et al., WACV 2023). None
                for all.

        Raises:
            ValueError: another type or shape.
        """
        return self.answer(self.features(clip_NTHWC, kept_NP))

    def answer(self, feature_ND: Tensor) -> dict[str, Tensor]:
        """What the classifiers and teachers make of a feature; see `forward`."""
        found = self.heads(feature_ND)
        taught = self.teachers([found[level] for level in LEVELS], text=self.training)
        return {**found, **taught, "feature": feature_ND}

    def features(self, clip_NTHWC: Tensor, kept_NP: Tensor | None = None) -> Tensor:
        """Mean token of each clip.  uint8 [N, T, H, W, 3] -> [N, D]; see `forward`."""
        expected = (self.config.frames, self.config.image_px, self.config.image_px, 3)
        if clip_NTHWC.dtype != torch.uint8 or tuple(clip_NTHWC.shape[1:]) != expected:
            raise ValueError(
                f"a Geolocator takes uint8 [N, {', '.join(map(str, expected))}], "
                f"was given {clip_NTHWC.dtype} {list(clip_NTHWC.shape)}."
            )
        tubelets_NPV = self.encoder.tubelets(clip_NTHWC)
        if kept_NP is not None:  # chosen as bytes: what is dropped is never normalised
            tubelets_NPV = tubelets_NPV.take_along_dim(kept_NP[..., None], dim=1)
        feature_ND: Tensor = self.encoder.encode(self.normalise(tubelets_NPV), kept_NP).mean(dim=1)
        return feature_ND

    def normalise(self, tubelets_NPV: Tensor) -> Tensor:
        """Bytes to what the encoder takes: (value / 255 - mean) / std, colour by colour."""
        pixels = self.config.token_values // 3
        scale_V = (1 / (255 * self.std)).repeat(pixels)
        shift_V = (-self.mean / self.std).repeat(pixels)
        return tubelets_NPV * scale_V + shift_V
