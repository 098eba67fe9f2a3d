from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from engines.bundle import LEVELS
from tests.kinds import CLASSES, SMALL, build, clips_for, make_loud
from train.config import load_preset
from train.models.planet import KIND, Lstm, Planet
from train.tables import recipe

if TYPE_CHECKING:
    from torch import Tensor


def scores(model: torch.nn.Module, clips: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        found: dict[str, Tensor] = model(clips)
    return found


def test_the_lstm_computes_what_torch_does() -> None:
    torch.manual_seed(0)
    ours, theirs = Lstm(5, 7), torch.nn.LSTM(5, 7, batch_first=True)
    theirs.weight_ih_l0.data.copy_(ours.read.weight)
    theirs.weight_hh_l0.data.copy_(ours.recall.weight)
    theirs.bias_ih_l0.data.copy_(ours.read.bias)
    theirs.bias_hh_l0.data.zero_()
    features = torch.randn(3, 6, 5)
    with torch.inference_mode():
        wanted = theirs(features)[1][0][0]
        torch.testing.assert_close(ours(features), wanted, rtol=0, atol=1e-6)


def test_an_album_reads_frames_in_their_order_and_single_pictures_do_not() -> None:
    album = make_loud(build("planet, album")).eval()
    clips = clips_for(album, 4)
    clips[:, 0] = clips[:, 0].flip(1)
    there, back = scores(album, clips), scores(album, clips.flip(1))
    assert float((there["city"] - back["city"]).abs().max()) > 0.05
    single = make_loud(Planet(replace(SMALL["planet"], frames=3), CLASSES)).eval()
    there, back = scores(single, clips), scores(single, clips.flip(1))
    torch.testing.assert_close(there["city"], back["city"], rtol=0, atol=1e-5)


def test_single_pictures_of_a_clip_are_scored_alone_and_log_probabilities_averaged() -> None:
    still = make_loud(build("planet")).eval()
    video = Planet(replace(SMALL["planet"], frames=3), CLASSES).eval()
    video.load_state_dict(still.state_dict())
    clips = clips_for(video, 4)
    found = scores(video, clips)
    each = [scores(still, clips[:, number : number + 1]) for number in range(3)]
    for level in LEVELS:
        wanted = torch.stack([one[level].log_softmax(1) for one in each]).mean(0)
        torch.testing.assert_close(found[level], wanted, rtol=0, atol=1e-4)


def test_the_album_sees_whole_clips_and_the_other_a_random_frame() -> None:
    single, album = load_preset("planet").model, load_preset("planet-album").model
    assert (single.still, single.options) == ("random", {})
    assert (album.still, album.options) == ("none", {"album": True})
    small = recipe("planet-album", like="demo").model
    assert (small.size, small.keep_tokens, small.warm_start) == ("tiny", 1.0, True)
    assert small.options == {"album": True}
    vit = load_preset("planet", model_size="vit-base", pretrained="facebook/vit-mae-base").model
    assert KIND.sizes[vit.size].backbone == "vit-base"


def test_layers_learn_by_the_depth_of_the_backbone() -> None:
    album = build("planet, album")
    found = {name: album.layer_of(name) for name, _ in album.named_parameters()}
    assert found["encoder.conv1.weight"] == 0
    assert found["encoder.layer3.0.conv2.weight"] == 3
    assert found["album.recall.weight"] == 5
    vit = KIND.model(KIND.sizes["tiny-vit"], CLASSES)
    found = {name: vit.layer_of(name) for name, _ in vit.named_parameters()}
    assert (found["encoder.positions"], found["encoder.blocks.2.fc1.weight"]) == (0, 3)
    assert found["encoder.norm.weight"] == 0
    assert not vit.decays("encoder.positions", vit.encoder.positions)
