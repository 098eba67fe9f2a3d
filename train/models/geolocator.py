"""VideoMAE with classifiers: the network of CityGuessr, and the one that we ship.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, P patches, D width, K classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from calibration.ranges import Family
from train.models.base import FeatureModel, Kind, Loaded, Wanted
from train.models.videomae import SIZES, VideoMAEConfig, VideoMAEEncoder
from train.warmstart import warm_start

if TYPE_CHECKING:
    import onnx

BLOCK_FAMILIES: tuple[tuple[str, tuple[str, ...], str | None], ...] = (
    ("qkv", ("query", "key", "value"), "norm1"),
    ("proj", ("proj",), "value"),
    ("fc1", ("fc1",), "norm2"),
    ("fc2", ("fc2",), None),  # GELU lies between it and anything that could be scaled
)
"""Of each block: a name, the layers, and what puts out the tensor that they read."""


class Geolocator(FeatureModel):
    """A video transformer whose mean token four linear classifiers read, and maybe teachers."""

    kind = "videomae"

    def add_layers(self, config: VideoMAEConfig) -> None:
        """The encoder; weights begin at random."""
        self.tokens = config.tokens
        self.encoder = VideoMAEEncoder(config)
        self.add_heads()

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

    def features(self, clip_NTHWC: Tensor, kept_NP: Tensor | None = None) -> Tensor:
        """Mean token of each clip.  uint8 [N, T, H, W, 3] -> [N, D]; see `forward`."""
        self.check_clip(clip_NTHWC)
        tubelets_NPV = self.encoder.tubelets(clip_NTHWC)
        if kept_NP is not None:  # chosen as bytes: what is dropped is never normalised
            tubelets_NPV = tubelets_NPV.take_along_dim(kept_NP[..., None], dim=1)
        feature_ND: Tensor = self.encoder.encode(self.normalise(tubelets_NPV), kept_NP).mean(dim=1)
        return feature_ND


def load(wanted: Wanted) -> Loaded:
    """VideoMAE's published weights; the shape is theirs, but for single pictures."""
    from train.models.pretrained import load_pretrained

    shape, encoder, report = load_pretrained(
        wanted.source,
        num_heads=wanted.num_heads,
        is_accepted=wanted.is_accepted,
        tell=wanted.tell,
    )
    if wanted.is_still:
        shape, encoder = as_picture(shape, encoder)
    tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    return Loaded(shape=shape, tensors=tensors, report=report)


def one_frame(shape: VideoMAEConfig) -> VideoMAEConfig:
    """The shape for single pictures: a tubelet is a patch."""
    return replace(shape, frames=1, tubelet_frames=1)


def as_picture(
    shape: VideoMAEConfig, encoder: VideoMAEEncoder
) -> tuple[VideoMAEConfig, VideoMAEEncoder]:
    """A video transformer as one of single pictures, for a picture that stands still.

    Its tubelets then hold the same patch `tubelet_frames` times, so that the weights over time add
    up; positions are those of the first step. What differs from video is the frames alone.
    Source: the inverse of inflation (Carreira and Zisserman, CVPR 2017, section 2.1).
    """
    picture = VideoMAEEncoder(one_frame(shape))
    state = encoder.state_dict()
    by_time = state["patch.weight"].unflatten(1, (shape.tubelet_frames, -1))
    picture.load_state_dict({**state, "patch.weight": by_time.sum(dim=1)})
    return picture.config, picture


def graph(model: Geolocator) -> onnx.GraphProto:
    """The network as ONNX, node by node."""
    from train.onnx_graph import build_graph

    return build_graph(model)


KIND = Kind(
    title="VideoMAE",
    noun="a video transformer",
    model=Geolocator,
    shape=VideoMAEConfig,
    sizes=SIZES,
    one_frame=one_frame,
    takes=frozenset(("keep_tokens", "num_heads", "warm_start")),
    load=load,
    warm_start=warm_start,
    graph=graph,
)
