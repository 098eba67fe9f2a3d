"""Image backbones by name: ResNet and ViT, from a picture to one feature, and their weights.

A network of single pictures names its backbone, so that what it adds to it can be told apart from
what the backbone brings. Published weights are those of `transformers.ResNetModel`, and those that
`train.models.vit` reads.

Shape suffixes: B pictures, H and W pixels, C = 3 colours, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from train.errors import WeightsError
from train.models.base import Loaded, Wanted
from train.models.published import CLASSIFIER, Published, load_encoder, read_published, renamed
from train.models.resnet import DEPTHS_50, DEPTHS_101, EXPANSION, STEM_CHANNELS, Trunk
from train.models.vit import ViTConfig, ViTEncoder
from train.models.vit import load as load_vit


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetConfig:
    """Shape of a ResNet."""

    depths: tuple[int, ...] = DEPTHS_50
    """Blocks of each stage."""
    stem: int = STEM_CHANNELS
    """Channels of the first convolution; the first stage puts out four times as many, and each
    further one twice as many as the one before."""

    @property
    def width(self) -> int:
        """D: channels of the last stage."""
        return EXPANSION * self.stem << (len(self.depths) - 1)

    @property
    def depth(self) -> int:
        """Layers that learn at rates of their own."""
        return len(self.depths)


BACKBONES: Mapping[str, ResNetConfig | ViTConfig] = {
    "resnet-tiny": ResNetConfig(depths=(1, 1, 1, 1), stem=16),
    "resnet50": ResNetConfig(),
    "resnet101": ResNetConfig(depths=DEPTHS_101),
    "vit-tiny": ViTConfig(frames=1, width=160, depth=4, heads=5, mlp_width=640),
    "vit-small": ViTConfig(frames=1, width=384, heads=6, mlp_width=1536),
    "vit-base": ViTConfig(frames=1),
}
"""Shapes; the size of a ViT's picture is that of the network it is in. `vit-small` is that of DINO
(`facebook/dino-vits16`), `vit-base` that of ImageNet-21k's and image MAE's."""
LISTED_PX = 224
"""Size of picture that the ViTs among them are listed with."""
RESNETS = tuple(name for name, shape in BACKBONES.items() if isinstance(shape, ResNetConfig))


class ResNetBackbone(Trunk):
    """The trunk of a ResNet, whose feature is the mean of its last map."""

    def __init__(self, shape: ResNetConfig) -> None:
        """Build with random weights."""
        super().__init__(shape.depths, shape.stem)

    def describe(self, pixels_BHWC: Tensor) -> Tensor:
        """Feature of normalised pictures.  [B, H, W, 3] -> [B, D]."""
        return self.features(pixels_BHWC.permute(0, 3, 1, 2))

    def layer_of(self, name: str) -> int:
        """Depth of a parameter: 0 for the first convolution, then the stages."""
        return stage_of(name)


class ViTBackbone(ViTEncoder):
    """An image transformer, whose feature is its CLS token."""

    def describe(self, pixels_BHWC: Tensor) -> Tensor:
        """Feature of normalised pictures.  [B, H, W, 3] -> [B, D]."""
        tokens_BPD = self(self.tubelets(pixels_BHWC[:, None]))
        return tokens_BPD[:, 0]

    def layer_of(self, name: str) -> int:
        """Depth of a parameter: 0 for the embeddings, then the blocks."""
        return 1 + int(name.split(".")[1]) if name.startswith("blocks.") else 0


def stage_of(name: str) -> int:
    """Depth of a parameter of a ResNet: 0 for the first convolution, then the stages from 1."""
    first = name.partition(".")[0]
    return int(first.removeprefix("layer")) if first.startswith("layer") else 0


def find_backbone(name: str, image_px: int) -> ResNetConfig | ViTConfig:
    """The shape of a backbone.

    Raises:
        ValueError: there is none of this name, or it cannot see pictures of this size.
    """
    if name not in BACKBONES:
        raise ValueError(f"a backbone {name!r}: it is one of {', '.join(BACKBONES)}.")
    shape = BACKBONES[name]
    return replace(shape, image_px=image_px) if isinstance(shape, ViTConfig) else shape


def build_backbone(name: str, image_px: int) -> ResNetBackbone | ViTBackbone:
    """A backbone with random weights."""
    shape = find_backbone(name, image_px)
    return ViTBackbone(shape) if isinstance(shape, ViTConfig) else ResNetBackbone(shape)


# --- published weights ---

_TYPES = {"resnet": "microsoft/resnet-50"}
_MUST = {
    "layer_type": "bottleneck",
    "hidden_act": "relu",
    "num_channels": 3,
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
}
_NAMES = (
    ("embedder.embedder.", "first."),
    ("encoder.stages.", "layer"),
    ("shortcut.convolution.", "downsample.0."),
    ("shortcut.normalization.", "downsample.1."),
)
"""Theirs and ours, in the order in which they are replaced."""
_COUNTER = "num_batches_tracked"


def load_backbone(wanted: Wanted) -> Loaded:
    """Weights of the family of the backbone that is wanted, a ResNet's or a ViT's, as `encoder`.

    Args:
        wanted: its shape names a `backbone`, and has `image_px`; found is the same shape with the
            backbone that the weights fit, and the size of picture that a ViT of them sees.

    Raises:
        WeightsError: they cannot be read, or are of a shape that no backbone here has.
    """
    usual = find_backbone(wanted.shape.backbone, wanted.shape.image_px)
    if isinstance(usual, ViTConfig):
        loaded = load_vit(replace(wanted, shape=usual))
        px, listed = loaded.shape.image_px, replace(loaded.shape, image_px=LISTED_PX)
    else:
        published = read_published(wanted, model_types=_TYPES, must=_MUST)
        loaded = load_encoder(published, _uncounted, _shape_of(published), rename)
        px, listed = wanted.shape.image_px, loaded.shape
    shape = replace(wanted.shape, backbone=_name_of(listed, wanted), image_px=px)
    return replace(loaded, shape=shape)


def _uncounted(shape: ResNetConfig) -> ResNetBackbone:
    trunk = ResNetBackbone(shape)
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = None  # no weight: it is not asked for
    return trunk


def _shape_of(published: Published) -> ResNetConfig:
    """The shape that config.json describes.

    Raises:
        WeightsError: it describes none.
    """
    said = published.said
    try:
        stem = int(said.get("embedding_size", STEM_CHANNELS))
        depths = tuple(map(int, said["depths"]))
        widths = tuple(map(int, said["hidden_sizes"]))
    except (KeyError, TypeError, ValueError) as exc:
        raise WeightsError(
            f"reading the encoder {published.name}: config.json describes no ResNet ({exc!r}). "
            "Needed are depths and hidden_sizes, whole numbers for each stage."
        ) from exc
    wanted = tuple(EXPANSION * stem << stage for stage in range(len(depths)))
    if widths != wanted or min(depths, default=0) < 1:
        raise WeightsError(
            f"reading the encoder {published.name}: config.json gives the stages hidden_sizes "
            f"{list(widths)} and depths {list(depths)}; with an embedding_size of {stem} needed "
            f"are {list(wanted)}. Take weights such as {_TYPES['resnet']}."
        )
    return ResNetConfig(depths=depths, stem=stem)


def _name_of(shape: ResNetConfig | ViTConfig, wanted: Wanted) -> str:
    found = next((name for name, known in BACKBONES.items() if known == shape), None)
    if found is None:
        raise WeightsError(
            f"reading the encoder {wanted.source}: no backbone has its shape, {shape}. There are "
            f"{', '.join(BACKBONES)}; add a line to BACKBONES in train/models/backbones.py."
        )
    return found


def rename(name: str, value: Tensor) -> Mapping[str, Tensor] | str:
    """Where a tensor of transformers goes; see `train.models.published.Rename`."""
    ours = name.removeprefix("resnet.")
    if ours.endswith(_COUNTER):
        return "counter of training steps, which no picture depends on"
    if ours.startswith("classifier."):
        return CLASSIFIER
    ours = renamed(ours, _NAMES)
    if ours.startswith("first."):
        ours = ours.replace("first.convolution", "conv1").replace("first.normalization", "bn1")
        return {ours: value}
    stage, _, rest = ours.partition(".layers.")
    if not stage.startswith("layer") or not stage.removeprefix("layer").isdigit():
        return {}
    block, _, part = rest.partition(".")
    pieces = part.split(".")
    if pieces[0] == "layer" and len(pieces) == 4 and pieces[1].isdigit():
        kind = {"convolution": "conv", "normalization": "bn"}.get(pieces[2], pieces[2])
        part = f"{kind}{int(pieces[1]) + 1}.{pieces[3]}"
    return {f"layer{int(stage.removeprefix('layer')) + 1}.{block}.{part}": value}
