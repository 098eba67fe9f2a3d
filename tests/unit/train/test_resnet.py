from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import torch

from tests.tolerances import FP32_LOGIT
from train.models.resnet import ResNet, build_resnet50

if TYPE_CHECKING:
    from torch import Tensor


def reference(classes: int, depths: tuple[int, ...]) -> torch.nn.Module:
    """ResNet of transformers with random weights and statistics."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    model = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            num_labels=classes,
            depths=list(depths),
            hidden_sizes=[256 << stage for stage in range(len(depths))],
            layer_type="bottleneck",
        )
    ).eval()
    for name, value in model.state_dict().items():
        if name.endswith("running_var") or name.endswith("normalization.weight"):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(std=0.1)
    return model


def torchvision_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of transformers to those that published weights of ResNet-50 have."""
    renamed = {}
    for name, value in state.items():
        name = re.sub(r"^resnet\.embedder\.embedder\.convolution", "conv1", name)
        name = re.sub(r"^resnet\.embedder\.embedder\.normalization", "bn1", name)
        name = re.sub(
            r"^resnet\.encoder\.stages\.(\d)\.layers\.",
            lambda found: f"layer{int(found[1]) + 1}.",
            name,
        )
        name = name.replace("shortcut.convolution", "downsample.0")
        name = name.replace("shortcut.normalization", "downsample.1")
        name = re.sub(
            r"\.layer\.(\d)\.convolution", lambda found: f".conv{int(found[1]) + 1}", name
        )
        name = re.sub(
            r"\.layer\.(\d)\.normalization", lambda found: f".bn{int(found[1]) + 1}", name
        )
        renamed[name.replace("classifier.1.", "fc.")] = value
    return renamed


@pytest.mark.parametrize("depths", [(3, 4, 6, 3), (2, 1)], ids=["50", "short"])
def test_features_and_scores_are_those_of_transformers(depths: tuple[int, ...]) -> None:
    theirs = reference(7, depths)
    ours = ResNet(7, depths).eval()
    ours.load_state_dict(torchvision_names(theirs.state_dict()), strict=True)
    pixels = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = theirs(pixels).logits
        feature = theirs.resnet(pixels).pooler_output.flatten(1)
        found, ours_feature = ours(pixels), ours.features(pixels)
    scale = wanted.abs().max()
    assert (found - wanted).abs().max() <= FP32_LOGIT * scale
    assert (ours_feature - feature).abs().max() <= FP32_LOGIT * feature.abs().max()
    assert wanted.std(dim=0).max() > 1e-3 * scale  # the pictures are told apart at all


def test_parameters_are_as_many_as_published() -> None:
    with torch.device("meta"):
        model = build_resnet50(1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == 25_557_032


def test_every_parameter_learns() -> None:
    model = ResNet(3, (1, 1))
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
