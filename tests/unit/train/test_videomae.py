from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.tolerances import FP32_TOKEN
from train.models.geolocator import Geolocator
from train.models.teachers import TeacherConfig
from train.models.videomae import (
    SIZES,
    VideoMAEConfig,
    VideoMAEEncoder,
    load_transformers_state,
    random_tokens,
    sinusoids,
)

if TYPE_CHECKING:
    from torch import Tensor

    from train.models.teachers import SceneHead

ODD = VideoMAEConfig(
    frames=6, tubelet_frames=3, image_px=40, patch_px=8, width=36, depth=3, heads=3, mlp_width=50
)
CLASSES = {"city": 5, "state": 4, "country": 3, "continent": 2, "scene": 16}


def transformers_model(config: VideoMAEConfig) -> torch.nn.Module:
    """The reference, with random weights and biases."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.VideoMAEModel(
        transformers.VideoMAEConfig(
            image_size=config.image_px,
            patch_size=config.patch_px,
            num_frames=config.frames,
            tubelet_size=config.tubelet_frames,
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=config.mlp_width,
            layer_norm_eps=config.norm_eps,
            use_mean_pooling=True,
        )
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def clip(config: VideoMAEConfig, clips: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (clips, config.frames, 3, config.image_px, config.image_px)
    return torch.randn(shape, generator=generator)


@pytest.mark.parametrize(
    "config", [SIZES["small"], SIZES["tiny"], ODD], ids=["small", "tiny", "odd"]
)
def test_tokens_are_those_of_transformers(
    config: VideoMAEConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All weights are replaced; drawing truncated normals takes longer than the encoder.
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)
    reference = transformers_model(config)
    encoder = VideoMAEEncoder(config)
    load_transformers_state(encoder, reference.state_dict())
    pixels = clip(config)
    with torch.inference_mode():
        wanted, found = reference(pixels).last_hidden_state, encoder(pixels)
    assert found.shape == (1, config.tokens, config.width)
    assert (found - wanted).abs().max() <= FP32_TOKEN * wanted.abs().max()


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of published checkpoints, as a part of a classification model."""
    return {
        "videomae." + name.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): value
        for name, value in state.items()
    }


def test_biases_are_found_under_both_names() -> None:
    state = transformers_model(ODD).state_dict()
    if not any(name.endswith("query.bias") for name in state):  # transformers before 5
        state = {
            name.replace("q_bias", "query.bias").replace("v_bias", "value.bias"): value
            for name, value in state.items()
        }
    new, old = VideoMAEEncoder(ODD), VideoMAEEncoder(ODD)
    load_transformers_state(new, state)
    load_transformers_state(old, old_names(state))
    for (name, one), other in zip(new.state_dict().items(), old.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, msg=name)
    assert new.get_parameter("blocks.1.query.bias").abs().max() > 0


@pytest.mark.parametrize("damage", ["missing", "unknown", "shape"])
def test_loading_uses_every_tensor_or_refuses(damage: str) -> None:
    state = dict(transformers_model(ODD).state_dict())
    name = "encoder.layer.2.output.dense.weight"
    if damage == "missing":
        del state[name]
    elif damage == "unknown":
        state["layernorm.weight"] = torch.ones(36)
    else:
        state[name] = state[name].T.contiguous()
    with pytest.raises(ValueError, match=r"layernorm\.weight|blocks\.2\.fc2\.weight"):
        load_transformers_state(VideoMAEEncoder(ODD), state)


def test_small_is_the_published_size() -> None:
    with torch.device("meta"):
        encoder = VideoMAEEncoder(SIZES["small"])
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 21_879_168


def test_positions_follow_the_formula() -> None:
    table = sinusoids(1568, 384)
    assert table.dtype == np.float32
    for position, column in ((0, 0), (0, 1), (7, 10), (1567, 383), (1000, 200)):
        angle = position / 10000 ** (2 * (column // 2) / 384)
        wanted = math.cos(angle) if column % 2 else math.sin(angle)
        assert table[position, column] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"frames": 15}, {"image_px": 230}, {"heads": 5}, {"width": 9, "heads": 3}]
)
def test_shapes_that_do_not_divide_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="an encoder of"):
        VideoMAEConfig(**wrong)  # type: ignore[arg-type]


def test_a_token_sees_its_own_tubelet() -> None:
    """Without blocks one pixel changes one token; tokens go by time, then row, then column."""
    config = VideoMAEConfig(frames=4, image_px=48, width=12, heads=3, mlp_width=8, depth=0)
    encoder, pixels = VideoMAEEncoder(config), clip(VideoMAEConfig(frames=4, image_px=48))
    changed = pixels.clone()
    changed[0, 3, 1, 20, 40] += 1
    different = (encoder(pixels) != encoder(changed)).any(dim=-1)[0]
    assert different.nonzero().flatten().tolist() == [1 * 9 + 1 * 3 + 2]


def test_kept_tokens_are_what_they_are_among_all() -> None:
    config = VideoMAEConfig(frames=4, image_px=64, width=12, heads=3, mlp_width=8, depth=0)
    encoder = VideoMAEEncoder(config)
    tubelets = encoder.tubelets(torch.randn(3, 4, 64, 64, 3))
    kept = random_tokens(3, config.tokens, 0.5, torch.Generator().manual_seed(2))
    assert kept.shape == (3, 16)
    assert (kept.diff(dim=1) > 0).all()
    found = encoder.encode(tubelets.take_along_dim(kept[..., None], dim=1), kept)
    wanted = encoder.encode(tubelets).take_along_dim(kept[..., None], dim=1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_a_seed_decides_which_tokens_are_kept() -> None:
    first, again, other = (
        random_tokens(4, 50, 0.3, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize(("share", "kept"), [(1.0, 50), (0.5, 25), (1e-9, 1)])
def test_a_share_of_the_tokens_is_kept_and_never_none(share: float, kept: int) -> None:
    found = random_tokens(3, 50, share, torch.Generator().manual_seed(0))
    assert found.shape == (3, kept)
    assert all(len(set(row)) == kept for row in found.tolist())
    assert found.min() >= 0
    assert found.max() < 50


def test_dropping_tokens_changes_the_scores_and_all_of_them_does_not() -> None:
    torch.manual_seed(0)
    model = Geolocator(ODD, CLASSES).eval()
    pixels = torch.randint(0, 256, (2, 6, 40, 40, 3), dtype=torch.uint8)
    every = torch.arange(ODD.tokens).expand(2, -1)
    some = random_tokens(2, ODD.tokens, 0.5, torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole, same, half = (model(pixels, kept)["feature"] for kept in (None, every, some))
    torch.testing.assert_close(whole, same, rtol=0, atol=1e-5)
    assert not torch.allclose(whole, half, atol=1e-3)


def test_what_is_dropped_is_never_seen() -> None:
    torch.manual_seed(0)
    model = Geolocator(ODD, CLASSES).eval()
    pixels = torch.randint(0, 256, (1, 6, 40, 40, 3), dtype=torch.uint8)
    changed = pixels.clone()
    changed[0, 0, :8, :8] = 0  # the first tubelet, and nothing else
    without = torch.arange(1, ODD.tokens)[None]
    with torch.inference_mode():
        assert torch.equal(model(pixels, without)["city"], model(changed, without)["city"])
        assert not torch.equal(model(pixels)["city"], model(changed)["city"])


def test_the_feature_is_the_mean_token_of_the_normalised_clip() -> None:
    torch.manual_seed(0)
    model = Geolocator(ODD, CLASSES).eval()
    pixels = torch.randint(0, 256, (2, 6, 40, 40, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = ((pixels.double() / 255 - mean) / std).float().permute(0, 1, 4, 2, 3)
    with torch.inference_mode():
        outputs = model(pixels)
        feature = model.encoder(normalised).mean(dim=1)
        city = feature @ model.heads["city"].weight.T + model.heads["city"].bias
    torch.testing.assert_close(outputs["feature"], feature, rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs["city"], city, rtol=0, atol=1e-5)
    widths = {name: value.shape[1] for name, value in outputs.items()}
    assert widths == {**CLASSES, "feature": 36}


def test_a_new_model_knows_nothing() -> None:
    """First losses are those of guessing: ln K."""
    torch.manual_seed(0)
    model = Geolocator(SIZES["tiny"], {**CLASSES, "city": 24})
    pixels = torch.randint(0, 256, (2, 16, 112, 112, 3), dtype=torch.uint8)
    loss = torch.nn.functional.cross_entropy(model(pixels)["city"], torch.tensor([3, 20]))
    assert loss.item() == pytest.approx(math.log(24), abs=0.05)


@pytest.mark.parametrize("scene", ["linear", "attention"])
def test_every_parameter_learns(scene: SceneHead) -> None:
    torch.manual_seed(0)
    model = Geolocator(ODD, CLASSES, teachers=TeacherConfig(scene=scene, text_width=24))
    outputs = model(torch.randint(0, 256, (2, 6, 40, 40, 3), dtype=torch.uint8))
    labels = torch.tensor([0, 1])
    losses = [torch.nn.functional.cross_entropy(outputs[head], labels) for head in CLASSES]
    (torch.stack(losses).sum() + outputs["text"].square().sum()).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize(
    "clips",
    [
        torch.zeros(1, 6, 40, 40, 3),
        torch.zeros(1, 6, 3, 40, 40, dtype=torch.uint8),
        torch.zeros(6, 40, 40, 3, dtype=torch.uint8),
    ],
)
def test_clips_of_another_kind_are_refused(clips: Tensor) -> None:
    with pytest.raises(ValueError, match=r"takes uint8 \[N, 6, 40, 40, 3\]"):
        Geolocator(ODD, CLASSES)(clips)


@pytest.mark.parametrize(
    "classes", [{"city": 3}, {**CLASSES, "city": 0}, {**CLASSES, "weather": 3}]
)
def test_classes_must_be_the_five(classes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="building a Geolocator"):
        Geolocator(ODD, classes)
