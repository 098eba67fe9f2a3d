from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.bundle import LEVELS
from tests.kinds import CLASSES, clips_for, make_loud
from tests.tolerances import FP32_TOKEN
from train.errors import WeightsError
from train.models.base import Wanted
from train.models.vit import SIZES, ViT, ViTConfig, ViTEncoder, load

transformers = pytest.importorskip("transformers")

if TYPE_CHECKING:
    from pathlib import Path

    from train.models.base import Loaded

ODD = ViTConfig(frames=1, image_px=40, patch_px=8, width=36, depth=2, heads=3, mlp_width=50)
"""No two sizes alike, so that axes that are mixed up do not fit."""
_SAID = {
    "image_size": ODD.image_px,
    "patch_size": ODD.patch_px,
    "hidden_size": ODD.width,
    "num_hidden_layers": ODD.depth,
    "num_attention_heads": ODD.heads,
    "intermediate_size": ODD.mlp_width,
}
_DECODER = {
    "decoder_hidden_size": 24,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 30,
}
PUBLISHED = {
    "google's": (transformers.ViTModel, transformers.ViTConfig, {}),
    "google's, with its classifier": (
        transformers.ViTForImageClassification,
        transformers.ViTConfig,
        {},
    ),
    "image MAE": (transformers.ViTMAEModel, transformers.ViTMAEConfig, _DECODER),
    "image MAE, with its decoder": (
        transformers.ViTMAEForPreTraining,
        transformers.ViTMAEConfig,
        _DECODER,
    ),
}


def reference(name: str, **changes: object) -> torch.nn.Module:
    """A network of transformers with random weights and biases."""
    torch.manual_seed(0)
    kind, config, more = PUBLISHED[name]
    model = kind(config(**_SAID, **more, **changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def read(folder: Path, shape: ViTConfig = ODD) -> Loaded:
    return load(Wanted(source=str(folder), shape=shape, is_still=True))


def encoder_of(loaded: Loaded) -> ViTEncoder:
    encoder = ViTEncoder(loaded.shape).eval()
    encoder.load_state_dict(
        {name.removeprefix("encoder."): value for name, value in loaded.tensors.items()}
    )
    return encoder


def pixels() -> torch.Tensor:
    shape = (2, 3, ODD.image_px, ODD.image_px)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def tokens(encoder: ViTEncoder) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = encoder(encoder.tubelets(pixels().permute(0, 2, 3, 1)[:, None]))
    return found


def unmasked(model: torch.nn.Module) -> torch.Tensor:
    """What transformers makes of whole pictures; image MAE shuffles the patches even so."""
    base = getattr(model, "vit", model)
    is_mae = model.config.model_type == "vit_mae"
    given = {}
    if is_mae:
        base.config.mask_ratio = 0.0
        given = {"noise": torch.arange(ODD.patches).expand(2, -1).float()}  # leaves their order
    with torch.inference_mode():
        found: torch.Tensor = base(pixels(), **given).last_hidden_state
    return found


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_it_computes_what_transformers_does(name: str, tmp_path: Path) -> None:
    model = reference(name)
    model.save_pretrained(tmp_path)
    loaded = read(tmp_path)
    assert loaded.shape == ODD
    wanted, found = unmasked(model), tokens(encoder_of(loaded))
    assert (found - wanted).abs().max() <= FP32_TOKEN * wanted.abs().max()
    outside = {entry.split(".")[0] for entry in loaded.report.left_out}
    assert outside <= {"pooler", "classifier", "decoder"}
    stored = set(load_file(tmp_path / "model.safetensors"))
    assert set(loaded.report.used) | set(loaded.report.left_out) == stored


@pytest.mark.parametrize("name", ["google's", "image MAE"])
def test_attention_without_biases_has_zeros_for_them(name: str, tmp_path: Path) -> None:
    model = reference(name, qkv_bias=False)
    model.save_pretrained(tmp_path)
    loaded = read(tmp_path)
    wanted, found = unmasked(model), tokens(encoder_of(loaded))
    assert (found - wanted).abs().max() <= FP32_TOKEN * wanted.abs().max()
    assert "6 begin at 0" in loaded.report.notes[0]


def test_image_mae_sees_every_patch_here_and_a_quarter_of_them_in_transformers(
    tmp_path: Path,
) -> None:
    model = reference("image MAE")
    model.save_pretrained(tmp_path)
    kept = json.loads((tmp_path / "config.json").read_text())["mask_ratio"]
    assert kept == 0.75
    with torch.inference_mode():
        theirs = model(pixels()).last_hidden_state
    assert theirs.shape[1] == 1 + ODD.patches // 4  # of a network that is only looked at
    loaded = read(tmp_path)
    ours = tokens(encoder_of(loaded))
    assert ours.shape[1] == 1 + ODD.patches
    torch.testing.assert_close(ours, tokens(encoder_of(loaded)), rtol=0, atol=0)  # none by chance
    assert "every patch is seen" in loaded.report.notes[0]


@pytest.mark.parametrize(("mean", "told"), [(0.5, (0.5,) * 3), (None, None)])
def test_what_pixels_were_trained_with_is_read(
    mean: float | None, told: tuple[float, ...] | None, tmp_path: Path
) -> None:
    reference("google's").save_pretrained(tmp_path)
    if mean is not None:
        said = {"image_mean": [mean] * 3, "image_std": [0.25] * 3}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    found = read(tmp_path).normalisation
    assert found == (None if told is None else (told, (0.25,) * 3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "dinov2"}, "takes vit, vit_mae"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"patch_size": 4}, "of another shape"),
        ({"image_size": 48}, "of another shape"),
    ],
)
def test_another_network_is_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    reference("google's").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(WeightsError, match=said):
        read(tmp_path)


def test_nothing_is_left_out_silently(tmp_path: Path) -> None:
    reference("google's").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["encoder.layer.0.layer_scale"] = torch.ones(ODD.width)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="layer_scale"):
        read(tmp_path)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_frames_of_a_clip_are_scored_alone_and_their_log_probabilities_averaged(
    pooling: str,
) -> None:
    still = make_loud(ViT(replace(ODD, pooling=pooling), CLASSES)).eval()
    video = ViT(replace(ODD, pooling=pooling, frames=3), CLASSES).eval()
    video.load_state_dict(still.state_dict())
    clips = clips_for(video, 4)
    with torch.inference_mode():
        found = video(clips)
        each = [still(clips[:, number : number + 1]) for number in range(3)]
    for level in LEVELS:
        wanted = torch.stack([one[level].log_softmax(1) for one in each]).mean(0)
        torch.testing.assert_close(found[level], wanted, rtol=0, atol=1e-4)
    wanted = torch.stack([one["feature"] for one in each]).mean(0)
    torch.testing.assert_close(found["feature"], wanted, rtol=0, atol=1e-4)


def test_dropped_patches_are_the_same_in_every_frame_of_a_clip() -> None:
    model = make_loud(ViT(replace(ODD, frames=2), CLASSES)).eval()
    still = ViT(ODD, CLASSES).eval()
    still.load_state_dict(model.state_dict())
    clips, kept = clips_for(model, 2), torch.tensor([[0, 3, 7], [1, 2, 24]])
    with torch.inference_mode():
        found = model(clips, kept)["feature"]
        each = [still(clips[:, number : number + 1], kept)["feature"] for number in range(2)]
        everything = torch.arange(ODD.patches).expand(2, -1)
        torch.testing.assert_close(model(clips, everything), model(clips), rtol=0, atol=1e-5)
    torch.testing.assert_close(found, torch.stack(each).mean(0), rtol=0, atol=1e-5)


def test_the_published_size_is_the_default() -> None:
    said, base = transformers.ViTMAEConfig(), SIZES["base"]
    assert base == ViTConfig()
    found = (said.hidden_size, said.num_hidden_layers, said.num_attention_heads)
    assert found == (base.width, base.depth, base.heads)
    assert (said.image_size, said.patch_size, said.layer_norm_eps) == (224, 16, base.norm_eps)
