"""ResNet of bottlenecks (He et al., CVPR 2016): one picture to a feature, or to scores of classes.

The bottleneck strides in its 3x3 convolution, as the published weights of torchvision and of
Places365 do ("v1.5"), and parameters carry the names of those files, so that they load unchanged.

Shape suffixes: N pictures, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

if TYPE_CHECKING:
    from torch import Tensor

DEPTHS_50, DEPTHS_101 = (3, 4, 6, 3), (3, 4, 23, 3)
"""Blocks of the four stages; He et al., table 1."""
STEM_CHANNELS = 64
EXPANSION = 4
"""How many times more channels leave a bottleneck than its 3x3 convolution has."""


class Trunk(nn.Module):
    """A residual network of bottlenecks without a classifier."""

    def __init__(self, depths: Sequence[int] = DEPTHS_50, stem: int = STEM_CHANNELS) -> None:
        """Build with random weights (He et al., ICCV 2015; norms begin as the identity).

        Args:
            depths: blocks of each stage; every stage has twice the channels of the one before.
            stem: channels of the first convolution, a quarter of what leaves the first stage.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        came = stem
        for stage, depth in enumerate(depths):
            self.add_module(f"layer{stage + 1}", make_stage(came, stem << stage, depth, stage > 0))
            came = EXPANSION * stem << stage
        self.stages = len(depths)
        self.width = came
        draw(self)

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        """The last map; see `maps`."""
        return self.maps(pixels_NCHW)

    def features(self, pixels_NCHW: Tensor) -> Tensor:
        """Mean of the last map.  float [N, 3, H, W] -> [N, width]; H and W of 32 or more."""
        return self.maps(pixels_NCHW).mean(dim=(2, 3))

    def maps(self, pixels_NCHW: Tensor) -> Tensor:
        """The last map.  float [N, 3, H, W] -> [N, width, H / 32, W / 32] after four stages."""
        maps_NCHW = F.relu(self.bn1(self.conv1(pixels_NCHW)))
        maps_NCHW = F.max_pool2d(maps_NCHW, 3, stride=2, padding=1)
        for stage in range(1, self.stages + 1):
            maps_NCHW = self.get_submodule(f"layer{stage}")(maps_NCHW)
        return maps_NCHW


class ResNet(Trunk):
    """A residual network of bottlenecks with one linear classifier."""

    def __init__(self, classes: int, depths: Sequence[int] = DEPTHS_50) -> None:
        """Build with random weights; see `Trunk`.

        Args:
            classes: width of the classifier; 365 for Places365.
            depths: blocks of each stage.
        """
        super().__init__(depths)
        self.fc = nn.Linear(self.width, classes)

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        """Score normalised pictures.  float [N, 3, H, W] -> logits [N, K]."""
        scores_NK: Tensor = self.fc(self.features(pixels_NCHW))
        return scores_NK


def make_stage(came: int, inner: int, depth: int, is_halving: bool = True) -> nn.Sequential:
    """Bottlenecks one after another, the first of which may halve height and width.

    Args:
        came: channels that come in.
        inner: channels of the 3x3 convolutions; four times as many go out.
        depth: how many blocks.
        is_halving: every stage but the first does.
    """
    widths = (came, *(inner * EXPANSION,) * (depth - 1))
    strides = (2 if is_halving else 1, *(1,) * (depth - 1))
    blocks = zip(widths, strides, strict=True)
    return nn.Sequential(*(Bottleneck(width, inner, stride) for width, stride in blocks))


def draw(network: nn.Module) -> None:
    """Random convolutions (He et al., ICCV 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, added to what came in."""

    def __init__(self, came: int, inner: int, stride: int) -> None:
        """Build one block.

        Args:
            came: channels that come in.
            inner: channels of the 3x3 convolution; four times as many go out.
            stride: of the 3x3 convolution.
        """
        super().__init__()
        out = inner * EXPANSION
        self.conv1 = nn.Conv2d(came, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        """Where the sizes differ: what came in, brought to the size of what goes out."""
        if stride != 1 or came != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(came, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        """One block.  [N, came, H, W] -> [N, 4 inner, H / stride, W / stride]."""
        same = maps_NCHW if self.downsample is None else self.downsample(maps_NCHW)
        maps_NCHW = F.relu(self.bn1(self.conv1(maps_NCHW)))
        maps_NCHW = F.relu(self.bn2(self.conv2(maps_NCHW)))
        return F.relu(self.bn3(self.conv3(maps_NCHW)) + same)


def build_resnet50(classes: int) -> ResNet:
    """ResNet-50 with random weights: 23,508,032 in the trunk and 2,049 for each class."""
    return ResNet(classes)
