from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.kinds import CLASSES
from tests.tolerances import FP32_TOKEN
from train.errors import WeightsError
from train.models.base import Wanted
from train.models.timesformer import (
    SIZES,
    TimeSformer,
    TimeSformerConfig,
    TimeSformerEncoder,
    load,
    nearest_times,
)

transformers = pytest.importorskip("transformers")

if TYPE_CHECKING:
    from pathlib import Path

    from train.models.base import Loaded

ODD = TimeSformerConfig(frames=3, image_px=40, patch_px=8, width=36, depth=2, heads=3, mlp_width=50)
"""No two sizes alike, so that axes that are mixed up do not fit."""


def reference(*, classifier: bool = False, **changes: object) -> torch.nn.Module:
    """A network of transformers with random weights and biases."""
    torch.manual_seed(0)
    shape = transformers.TimesformerConfig(
        **{
            "image_size": ODD.image_px,
            "patch_size": ODD.patch_px,
            "num_frames": ODD.frames,
            "hidden_size": ODD.width,
            "num_hidden_layers": ODD.depth,
            "num_attention_heads": ODD.heads,
            "intermediate_size": ODD.mlp_width,
            **changes,
        }
    )
    kinds = (transformers.TimesformerModel, transformers.TimesformerForVideoClassification)
    model = kinds[classifier](shape).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def read(folder: Path, shape: TimeSformerConfig = ODD) -> Loaded:
    return load(Wanted(source=str(folder), shape=shape, is_still=False))


def encoder_of(loaded: Loaded) -> TimeSformerEncoder:
    encoder = TimeSformerEncoder(loaded.shape).eval()
    encoder.load_state_dict(
        {name.removeprefix("encoder."): value for name, value in loaded.tensors.items()}
    )
    return encoder


def assert_same_tokens(encoder: TimeSformerEncoder, model: torch.nn.Module) -> None:
    """Ours go frame by frame; theirs hold the frames of a patch side by side."""
    config = encoder.config
    shape = (2, config.frames, 3, config.image_px, config.image_px)
    pixels = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = getattr(model, "timesformer", model)(pixels).last_hidden_state
        found = encoder(encoder.tubelets(pixels.permute(0, 1, 3, 4, 2)))
    patches = wanted[:, 1:].unflatten(1, (config.patches, config.frames)).transpose(1, 2)
    wanted = torch.cat((wanted[:, :1], patches.flatten(1, 2)), dim=1)
    assert (found - wanted).abs().max() <= FP32_TOKEN * wanted.abs().max()


@pytest.mark.parametrize("classifier", [False, True])
def test_it_computes_what_transformers_does(classifier: bool, tmp_path: Path) -> None:
    model = reference(classifier=classifier)
    model.save_pretrained(tmp_path)
    loaded = read(tmp_path)
    assert loaded.shape == ODD
    assert_same_tokens(encoder_of(loaded), model)
    left_out = {"classifier.weight", "classifier.bias"} if classifier else set()
    assert set(loaded.report.left_out) == left_out
    assert set(loaded.report.used) | left_out == set(load_file(tmp_path / "model.safetensors"))


def test_attention_without_biases_has_zeros_for_them(tmp_path: Path) -> None:
    model = reference(qkv_bias=False)
    model.save_pretrained(tmp_path)
    loaded = read(tmp_path)
    assert_same_tokens(encoder_of(loaded), model)
    assert "12 begin at 0" in loaded.report.notes[0]  # 2 blocks, twice 3 biases
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"qkv_bias": false', '"qkv_bias": true'))
    with pytest.raises(WeightsError, match="missing"):
        read(tmp_path)


def test_its_feature_is_the_cls_token_of_normalised_pixels(tmp_path: Path) -> None:
    model = reference()
    model.save_pretrained(tmp_path)
    ours = TimeSformer(ODD, CLASSES).eval()
    ours.load_state_dict(dict(read(tmp_path).tensors), strict=False)
    shape = (2, *ours.clip_shape)
    clips = torch.randint(256, shape, generator=torch.Generator().manual_seed(2)).byte()
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    pixels = ((clips / 255 - mean) / std).permute(0, 1, 4, 2, 3)
    with torch.inference_mode():
        wanted, found = model(pixels).last_hidden_state[:, 0], ours(clips)["feature"]
    assert (found - wanted).abs().max() <= FP32_TOKEN * wanted.abs().max()


def test_other_numbers_of_frames_take_the_times_of_the_nearest(tmp_path: Path) -> None:
    reference().save_pretrained(tmp_path)
    loaded = read(tmp_path, TimeSformerConfig(frames=6))
    assert loaded.shape.frames == 6
    times, before = loaded.tensors["encoder.times"], read(tmp_path).tensors["encoder.times"]
    torch.testing.assert_close(times, before.repeat_interleave(2, dim=0), rtol=0, atol=0)
    assert "trained with 3 frames" in loaded.report.notes[0]
    assert nearest_times(before, 2).shape == (2, ODD.width)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "videomae"}, "takes timesformer"),
        ({"attention_type": "joint_space_time"}, "divided_space_time"),
        ({"hidden_size": 48}, "of another shape"),
        ({"num_hidden_layers": 3}, "missing"),
        ({"num_attention_heads": 5}, "must be a multiple"),
        ({"num_attention_heads": "many"}, "no such network"),
    ],
)
def test_another_network_is_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    reference().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(WeightsError, match=said):
        read(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), None])
def test_damaged_weights_are_refused(value: float | None, tmp_path: Path) -> None:
    reference().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "encoder.layer.1.temporal_dense.weight"
    if value is None:
        tensors["encoder.layer.1.surprise.weight"] = tensors[name].clone()
    else:
        tensors[name][0, 0] = value
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="not finite" if value is not None else "surprise"):
        read(tmp_path)


def test_the_published_size_is_the_default() -> None:
    assert SIZES["base"] == TimeSformerConfig()
    said = transformers.TimesformerConfig()
    found = (said.hidden_size, said.num_hidden_layers, said.num_attention_heads, said.num_frames)
    base = SIZES["base"]
    assert found == (base.width, base.depth, base.heads, base.frames)
    assert (said.image_size, said.patch_size, said.layer_norm_eps) == (224, 16, base.norm_eps)
