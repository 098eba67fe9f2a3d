from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tolerances import FP32_TOKEN
from train.errors import WeightsError
from train.models.backbones import (
    BACKBONES,
    ResNetConfig,
    build_backbone,
    find_backbone,
    load_backbone,
)
from train.models.base import Wanted
from train.models.vit import ViTConfig

transformers = pytest.importorskip("transformers")

if TYPE_CHECKING:
    from pathlib import Path

    from train.models.base import Loaded


@dataclass(frozen=True)
class Shape:
    backbone: str
    image_px: int = 64


def resnet(name: str, *, classifier: bool = False) -> torch.nn.Module:
    """A ResNet of transformers in the shape of a backbone, with random weights and statistics."""
    shape = BACKBONES[name]
    assert isinstance(shape, ResNetConfig)
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        depths=list(shape.depths),
        embedding_size=shape.stem,
        hidden_sizes=[4 * shape.stem << stage for stage in range(len(shape.depths))],
    )
    kind = transformers.ResNetForImageClassification if classifier else transformers.ResNetModel
    model: torch.nn.Module = kind(config).eval()
    for entry, value in model.state_dict().items():
        if entry.endswith(("running_var", "normalization.weight")):
            value.uniform_(0.5, 1.5)
        elif entry.endswith(("running_mean", "normalization.bias")):
            value.normal_(std=0.1)
    return model


def read(folder: Path, backbone: str, image_px: int = 64) -> Loaded:
    shape = Shape(backbone, image_px)
    return load_backbone(Wanted(source=str(folder), shape=shape, is_still=True))


def described(loaded: Loaded, pixels_BCHW: torch.Tensor) -> torch.Tensor:
    encoder = build_backbone(loaded.shape.backbone, loaded.shape.image_px).eval()
    tensors = {name.removeprefix("encoder."): value for name, value in loaded.tensors.items()}
    missing = encoder.load_state_dict(tensors, strict=False)
    assert not missing.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in missing.missing_keys)
    with torch.inference_mode():
        return encoder.describe(pixels_BCHW.permute(0, 2, 3, 1))


def pictures(px: int) -> torch.Tensor:
    return torch.randn(2, 3, px, px, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "classifier"), [("resnet50", True), ("resnet-tiny", False)], ids=["50", "tiny"]
)
def test_a_resnet_computes_what_transformers_does(
    name: str, classifier: bool, tmp_path: Path
) -> None:
    model = resnet(name, classifier=classifier)
    model.save_pretrained(tmp_path)
    loaded = read(tmp_path, name)
    with torch.inference_mode():
        wanted = getattr(model, "resnet", model)(pictures(64)).pooler_output.flatten(1)
    found = described(loaded, pictures(64))
    assert (found - wanted).abs().max() <= FP32_TOKEN * wanted.abs().max()
    assert float(wanted.std(dim=0).max()) > 1e-3 * float(wanted.abs().max())
    stored = set(load_file(tmp_path / "model.safetensors"))
    assert set(loaded.report.used) | set(loaded.report.left_out) == stored
    assert {
        entry for entry in loaded.report.left_out if not entry.endswith("num_batches_tracked")
    } == ({"classifier.1.weight", "classifier.1.bias"} if classifier else set())


def test_weights_of_another_known_resnet_are_told_by_its_name(tmp_path: Path) -> None:
    resnet("resnet-tiny").save_pretrained(tmp_path)
    assert read(tmp_path, "resnet50").shape.backbone == "resnet-tiny"


def test_a_vit_is_that_of_image_mae_with_every_patch(tmp_path: Path) -> None:
    shape = BACKBONES["vit-tiny"]
    assert isinstance(shape, ViTConfig)
    torch.manual_seed(0)
    model = transformers.ViTMAEModel(
        transformers.ViTMAEConfig(
            image_size=48,
            hidden_size=shape.width,
            num_hidden_layers=shape.depth,
            num_attention_heads=shape.heads,
            intermediate_size=shape.mlp_width,
            mask_ratio=0.0,
        )
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path)
    loaded = read(tmp_path, "vit-tiny")
    assert loaded.shape == Shape("vit-tiny", 48)
    in_order = torch.arange(9).expand(2, -1).float()
    with torch.inference_mode():
        wanted = model(pictures(48), noise=in_order).last_hidden_state[:, 0]
    found = described(loaded, pictures(48))
    assert (found - wanted).abs().max() <= FP32_TOKEN * wanted.abs().max()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "regnet"}, "takes resnet"),
        ({"layer_type": "basic"}, "layer_type"),
        ({"downsample_in_bottleneck": True}, "downsample_in_bottleneck"),
        ({"depths": [1, 1, 2, 1]}, "missing"),
        ({"hidden_sizes": [64, 128, 256, 500]}, "needed are \\[64, 128, 256, 512\\]"),
        ({"depths": None}, "describes no ResNet"),
        ({"depths": [0, 1, 1, 1]}, "depths \\[0, 1, 1, 1\\]"),
    ],
)
def test_another_network_is_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    resnet("resnet-tiny").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(WeightsError, match=said):
        read(tmp_path, "resnet-tiny")


def test_a_resnet_that_no_backbone_has_the_shape_of_is_refused(tmp_path: Path) -> None:
    sizes = [64, 128]
    config = transformers.ResNetConfig(depths=[1, 1], embedding_size=16, hidden_sizes=sizes)
    transformers.ResNetModel(config).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="no backbone has its shape"):
        read(tmp_path, "resnet-tiny")


@pytest.mark.parametrize("stem", ["encoder.stages.0.layers.0.attention", "head"])
def test_nothing_is_left_out_silently(stem: str, tmp_path: Path) -> None:
    resnet("resnet-tiny").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[f"{stem}.weight"] = torch.ones(4)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"attention|head"):
        read(tmp_path, "resnet-tiny")


def test_an_unknown_backbone_is_told_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="resnet50, resnet101"):
        find_backbone("inception", 224)
    with pytest.raises(ValueError, match="multiple of patch_px"):
        find_backbone("vit-base", 100)
