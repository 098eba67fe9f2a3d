from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from engines.bundle import LEVELS
from tests.kinds import CLASSES, SMALL, clips_for, make_loud, targets_for
from train.count import cost_of, lay_out
from train.data.city_tree import cityguessr_tree
from train.data.clips import class_counts
from train.data.world import SCENE_GROUPS
from train.errors import WeightsError
from train.losses import NO_SCENE, Targets, geo_loss
from train.models.base import Wanted
from train.models.geodecoder import SIZES, Decoder, GeoDecoder, GeoDecoderConfig, load
from train.models.teachers import TeacherConfig

transformers = pytest.importorskip("transformers")

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SCENES, ENCODERS = CLASSES["scene"], ("vit", "swin")
DEEP: GeoDecoderConfig = replace(
    SMALL["geodecoder"], depth=3, swin_depths=(1, 2, 1), swin_heads=(1, 2, 3)
)


def build(config: GeoDecoderConfig = DEEP) -> GeoDecoder:
    torch.manual_seed(0)
    model = make_loud(GeoDecoder(config, CLASSES))
    assert isinstance(model, GeoDecoder)
    return model.eval()


def answered_by_hand(model: GeoDecoder, scenes: list[int]) -> Tensor:
    """Queries as a decoder might answer them, where each picture shows a scene.  [B, S, L, D].

    The first channel of one query of the scene is large; that of the other scenes is less on the
    mean, though one of theirs is the largest of all.
    """
    drawn = torch.Generator().manual_seed(3)
    found = torch.randn((len(scenes), SCENES, len(LEVELS), model.width), generator=drawn)
    found[..., 0] = 0
    for picture, scene in enumerate(scenes):
        found[picture, scene, :, 0] = torch.tensor([1.0, 0.0, 2.0, 1.0])
        found[picture, scene - 1, :, 0] = torch.tensor([5.0, -4.0, 0.0, 0.0])
    return found


def patch_ask(monkeypatch: pytest.MonkeyPatch, model: GeoDecoder, answered: Tensor) -> None:
    monkeypatch.setattr(model, "ask", lambda tokens: answered)


# --- the decoder ---


def layer_by_hand(layer: nn.Module, queries: Tensor, tokens: Tensor) -> Tensor:
    """One layer in torch's own modules, from its description (method of Clark et al., 2023)."""

    def attend(ours: nn.Module, asking: Tensor, asked: Tensor) -> Tensor:
        width = asking.shape[-1]
        theirs = nn.MultiheadAttention(width, ours.heads, batch_first=True)
        parts = (ours.query, ours.key, ours.value)
        with torch.no_grad():
            theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
            theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj = ours.proj
        found: Tensor = theirs(asking, asked, asked, need_weights=False)[0]
        return found

    queries = queries + attend(layer.cross, layer.norm1(queries), tokens)
    normed = layer.norm2(queries)
    queries = queries + attend(layer.attention, normed, normed)
    return queries + layer.fc2(F.gelu(layer.fc1(layer.norm3(queries))))


def test_each_layer_goes_on_from_the_one_before() -> None:
    model = build()
    drawn = torch.Generator().manual_seed(2)
    tokens = torch.randn((2, 7, DEEP.width), generator=drawn)
    queries = model.queries.flatten(0, 1).expand(2, -1, -1)
    with torch.no_grad():
        wanted = queries
        for layer in model.decoder.blocks:
            wanted = layer_by_hand(layer, wanted, tokens)
        found = model.decoder(queries, tokens)
        restarted = layer_by_hand(model.decoder.blocks[-1], queries, tokens)
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)
    assert (found - restarted).abs().max() > 0.1  # the released code: the last layer alone counts
    answered = model.ask(tokens)
    torch.testing.assert_close(answered, found.unflatten(1, (SCENES, 4)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("number", range(DEEP.depth))
def test_every_layer_matters(number: int) -> None:
    model = build()
    clips, targets = clips_for(model, 3), targets_for(3)
    geo_loss(model.train()(clips), targets.labels).backward()
    layer = model.decoder.blocks[number]
    still = [
        name
        for name, value in layer.named_parameters()
        if value.grad is None or not float(value.grad.abs().max()) > 1e-7
    ]
    assert not [name for name in still if not name.endswith("key.bias")]
    with torch.no_grad():
        before = model.eval()(clips)["city"]
        for value in layer.cross.proj.parameters():
            value.mul_(1.5)
        assert (model(clips)["city"] - before).abs().max() > 1e-3


# --- who answers ---


def test_the_queries_of_the_scene_that_shows_most_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, scenes = build(), [4, 0, 15]
    answered = answered_by_hand(model, scenes)
    patch_ask(monkeypatch, model, answered)
    with torch.no_grad():
        found = model(clips_for(model, 3))
        for picture, scene in enumerate(scenes):
            own = answered[picture, scene]
            for level, query in zip(LEVELS, own, strict=True):
                wanted = model.heads[level](query)
                torch.testing.assert_close(found[level][picture], wanted, rtol=0, atol=1e-5)
            torch.testing.assert_close(found["feature"][picture], own.mean(0), rtol=0, atol=1e-6)
            assert found["scene"][picture, scene] == 1.0  # the mean of 1, 0, 2 and 1
            assert found["scene"][picture, scene - 1] == 0.25
    assert model.routing(found)["queries"].argmax(1).tolist() == scenes
    assert model.routing(found)["queries"].sum(1).tolist() == [1.0, 1.0, 1.0]
    assert model.route_names()["queries"] == SCENE_GROUPS


def test_in_training_the_labelled_scene_answers_and_without_a_label_the_predicted_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build().train()
    answered = answered_by_hand(model, [4, 7, 9]).requires_grad_()
    patch_ask(monkeypatch, model, answered)
    targets = replace_scenes(targets_for(3), [4, 2, NO_SCENE])
    outputs = model(clips_for(model, 3))
    found = model.taught(outputs, targets)
    geo_loss(found, targets.labels).backward()
    assert answered.grad is not None
    reached = answered.grad.abs().amax(dim=(2, 3)) > 0
    assert reached.nonzero().tolist() == [[0, 4], [1, 2], [2, 9]]
    torch.testing.assert_close(found["scene"], outputs["scene"])  # what is predicted stays
    with torch.no_grad():
        wanted = model.heads["state"](answered[1, 2, 1]).log_softmax(0)
    torch.testing.assert_close(found["state"][1].detach(), wanted, rtol=0, atol=1e-5)
    with torch.no_grad():  # outside of training the picture alone decides
        measured = model.eval()(clips_for(model, 3))
        assert model.taught(measured, targets) == measured


def test_queries_of_every_scene_learn_places_from_a_batch_that_shows_it() -> None:
    model = build().train()
    targets = replace_scenes(targets_for(SCENES), list(range(SCENES)))
    caught = {}
    ask = model.ask

    def watch(tokens: Tensor) -> Tensor:
        caught["answered"] = ask(tokens)
        caught["answered"].retain_grad()
        return caught["answered"]

    model.ask = watch  # type: ignore[method-assign]
    outputs = model.taught(model(clips_for(model, SCENES)), targets)
    geo_loss(outputs, targets.labels).backward()
    by_query = caught["answered"].grad.abs().amax(dim=(0, 3))
    assert bool((by_query > 1e-6).all())


def replace_scenes(targets: Targets, scenes: list[int]) -> Targets:
    return replace(targets, scene_N=torch.tensor(scenes))


def test_frames_are_answered_alone_and_their_log_probabilities_averaged() -> None:
    still = build(replace(DEEP, frames=1))
    video = GeoDecoder(replace(DEEP, frames=3), CLASSES).eval()
    video.load_state_dict(still.state_dict())
    clips = clips_for(video, 4)
    with torch.inference_mode():
        found = video(clips)
        each = [still(clips[:, number : number + 1]) for number in range(3)]
    for head in (*LEVELS, "scene"):
        wanted = torch.stack([one[head].log_softmax(1) for one in each]).mean(0)
        torch.testing.assert_close(found[head], wanted, rtol=0, atol=1e-4)
    shares = torch.stack([one["asked"] for one in each]).mean(0)
    torch.testing.assert_close(video.routing(found)["queries"], shares)


# --- sizes ---


@pytest.mark.parametrize(
    ("encoder", "encoder_m", "bridge_m", "encoder_gmac"),
    [
        # ViT-B/16 at 224 px: 85.8 M and 17.6 G. Swin-B: 88 M with its classifier of 1,000, 15.4 G.
        ("vit", 85.80, 0.0, 17.58),
        ("swin", 86.74, 0.79, 15.4),
    ],
)
def test_it_has_the_parts_that_are_known(
    encoder: str, encoder_m: float, bridge_m: float, encoder_gmac: float
) -> None:
    shape = replace(SIZES["base"], frames=1, encoder=encoder)
    classes = class_counts(cityguessr_tree().hierarchy)
    model = lay_out("geodecoder", shape, classes, TeacherConfig(scene="own"))
    assert isinstance(model, GeoDecoder)

    def count(part: nn.Module) -> int:
        return sum(value.numel() for value in part.parameters())

    assert count(model.encoder) / 1e6 == pytest.approx(encoder_m, abs=0.01)
    assert count(model.bridge) / 1e6 == pytest.approx(bridge_m, abs=0.01)
    assert count(model.decoder) / 1e6 == pytest.approx(37.8, abs=0.03)
    assert model.queries.numel() == 16 * 4 * 768 == 49_152
    assert count(model.heads) == (166 + 157 + 91 + 6) * 769 == 322_980
    cost = cost_of(model)
    assert cost.parameters == sum(map(count, model.children())) + 49_152
    tokens = 197 if encoder == "vit" else 49
    assert (cost.macs - decoder_macs(tokens)) / 1e9 == pytest.approx(encoder_gmac, rel=0.005)


def decoder_macs(tokens: int) -> int:
    """Of six layers, bridge aside, counted by hand."""
    queries, width, mlp = 64, 768, 1024
    square = width * width
    cross = 2 * queries * square + 2 * tokens * square + 2 * queries * tokens * width
    among = 4 * queries * square + 2 * queries * queries * width
    return 6 * (cross + among + 2 * queries * width * mlp)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("size", list(SIZES))
def test_every_size_has_both_encoders(size: str, encoder: str) -> None:
    shape = replace(SIZES[size], encoder=encoder)
    model = lay_out("geodecoder", shape, CLASSES, TeacherConfig(scene="own"))
    assert model.depth == (shape.vit_depth if encoder == "vit" else sum(shape.swin_depths))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": "resnet"}, "one of vit, swin"),
        ({"width": 33}, "width must be a multiple of heads"),
        ({"image_px": 36}, "image_px must be a multiple of patch_px"),
        ({"encoder": "swin", "image_px": 40}, "must be a multiple of 32"),
    ],
)
def test_shapes_that_do_not_divide_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(DEEP, **changes)  # type: ignore[arg-type]


def test_what_merges_the_patches_of_swin_learns_with_the_block_after_it() -> None:
    model = GeoDecoder(replace(DEEP, encoder="swin"), CLASSES)  # stages of 1, 2 and 1 blocks
    layers = {name: model.layer_of(name) for name, _ in model.named_parameters()}
    assert layers["encoder.blocks.0.fc1.weight"] == 1
    assert layers["encoder.merges.0.linear.weight"] == layers["encoder.blocks.1.fc1.weight"] == 2
    assert layers["encoder.merges.1.linear.weight"] == layers["encoder.blocks.3.fc1.weight"] == 4
    assert layers["decoder.blocks.0.fc1.weight"] == layers["queries"] == model.depth + 1 == 5


# --- published weights ---


def write(folder: Path, encoder: str) -> nn.Module:
    """A small network of transformers with random weights."""
    torch.manual_seed(1)
    if encoder == "vit":
        config = transformers.ViTConfig(
            image_size=32, patch_size=8, hidden_size=24, num_hidden_layers=2,
            num_attention_heads=3, intermediate_size=40,
        )  # fmt: skip
        model = transformers.ViTModel(config)
    else:
        config = transformers.SwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 2], num_heads=[1, 2],
            window_size=2, mlp_ratio=3.0,
        )  # fmt: skip
        model = transformers.SwinModel(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(folder)
    return model


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_encoder_begins_with_published_weights_and_the_decoder_at_random(
    encoder: str, tmp_path: Path
) -> None:
    theirs = write(tmp_path, encoder)
    asked = replace(SMALL["geodecoder"], encoder=encoder)
    loaded = load(Wanted(source=str(tmp_path), shape=asked, is_still=True))
    shape = loaded.shape
    assert (shape.width, shape.depth, shape.encoder) == (asked.width, asked.depth, encoder)
    torch.manual_seed(0)
    model = GeoDecoder(shape, CLASSES, mean=(0.5,) * 3, std=(0.5,) * 3).eval()
    found = model.load_state_dict(dict(loaded.tensors), strict=False)
    assert not found.unexpected_keys
    assert {name.split(".")[0] for name in found.missing_keys} >= {"queries", "decoder", "heads"}
    assert not [name for name in found.missing_keys if name.startswith("encoder.")]
    clips = clips_for(model, 2)
    with torch.inference_mode():
        pixels = clips[:, 0].permute(0, 3, 1, 2) / 255 * 2 - 1
        tokens = theirs(pixels).last_hidden_state
        decoder = Decoder(shape)
        decoder.load_state_dict(model.decoder.state_dict())
        queries = model.queries.flatten(0, 1).expand(2, -1, -1)
        answered = decoder(queries, model.bridge(tokens)).unflatten(1, (SCENES, 4))
        scene = answered[..., 0].mean(2)
        torch.testing.assert_close(model(clips)["scene"], scene, rtol=0, atol=2e-5)


def test_weights_of_the_other_encoder_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "swin")
    with pytest.raises(WeightsError, match="takes vit, vit_mae"):
        load(Wanted(source=str(tmp_path), shape=SMALL["geodecoder"], is_still=True))
