from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from train.models.geolocator import Geolocator
from train.models.teachers import TeacherConfig
from train.models.videomae import VideoMAEConfig
from train.warmstart import StandardisedHeads, start_from_components, widen_weights

if TYPE_CHECKING:
    from train.models.teachers import SceneHead

CONFIG = VideoMAEConfig(frames=4, image_px=32, width=32, depth=2, heads=2, mlp_width=64)
CLASSES = {"city": 5, "state": 4, "country": 3, "continent": 2, "scene": 6}


@pytest.fixture
def clips() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (8, 4, 32, 32, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture
def model() -> Geolocator:
    torch.manual_seed(0)
    return Geolocator(CONFIG, CLASSES)


def taught(scene: SceneHead) -> Geolocator:
    torch.manual_seed(0)
    return Geolocator(CONFIG, CLASSES, teachers=TeacherConfig(scene=scene, text_width=8))


@pytest.mark.parametrize("scene", ["linear", "attention"])
def test_a_folded_model_scores_what_the_standardised_one_did(
    scene: SceneHead, clips: torch.Tensor
) -> None:
    learner = StandardisedHeads(taught(scene)).train()
    for _ in range(30):
        learner(clips)
    learner.eval()
    folded = copy.deepcopy(learner.model)
    with torch.no_grad():
        before = learner(clips)
        learner.fold_into(folded)
        after = folded(clips)
    del before["feature"], after["feature"]  # one standardised, one as it is
    assert set(before) == set(after) == set(CLASSES)
    for head, scores in before.items():
        torch.testing.assert_close(after[head], scores, rtol=1e-3, atol=1e-4)


def test_folding_into_a_copy_leaves_the_learner_as_it_is(clips: torch.Tensor) -> None:
    learner = StandardisedHeads(taught("linear")).train()
    learner(clips)
    learner.eval()
    folded = copy.deepcopy(learner.model)
    with torch.no_grad():
        before = learner(clips)["city"]
        learner.fold_into(folded)
        assert torch.equal(learner(clips)["city"], before)
        assert not torch.allclose(folded.heads["city"].weight, learner.model.heads["city"].weight)


def test_heads_see_features_of_mean_zero_and_variance_one(
    model: Geolocator, clips: torch.Tensor
) -> None:
    learner = StandardisedHeads(model).train()
    feature = learner(clips)["feature"]
    assert feature.mean(dim=0).abs().max() < 1e-4
    # Features that hardly vary stay below one: EPSILON is added to their variance.
    assert ((feature.var(dim=0, correction=0) - 1) < 1e-3).all()
    own = model.features(clips)
    normed = torch.nn.functional.batch_norm(own, None, None, training=True, eps=1e-5)
    torch.testing.assert_close(feature, normed, rtol=1e-3, atol=1e-4)


def test_running_moments_are_those_of_batch_norm(model: Geolocator, clips: torch.Tensor) -> None:
    learner = StandardisedHeads(model).train()
    norm = torch.nn.BatchNorm1d(CONFIG.width, eps=1e-5, momentum=0.05, affine=False)
    with torch.no_grad():
        for part in (clips[:5], clips[5:], clips):
            learner(part)
            norm(model.features(part))
    torch.testing.assert_close(learner.mean, norm.running_mean)
    torch.testing.assert_close(learner.variance, norm.running_var)


def test_the_patch_embedding_starts_centred_and_with_even_strength(
    model: Geolocator, clips: torch.Tensor
) -> None:
    start_from_components(model, clips)
    with torch.no_grad():
        tokens = model.encoder.patch(model.normalise(model.encoder.tubelets(clips)))
    tokens = tokens.flatten(0, 1)
    assert tokens.mean(dim=0).abs().max() < 1e-3
    # Equally strong components, mixed by a rotation: every coordinate varies about as much.
    spread = tokens.std(dim=0)
    assert spread.max() < 2 * spread.min()


def test_a_patch_embedding_wider_than_a_patch_has_values_starts_too(clips: torch.Tensor) -> None:
    narrow = replace(CONFIG, patch_px=2)  # 2 frames of 2 x 2 pixels of 3 colours: 24 values
    model = Geolocator(narrow, CLASSES)
    start_from_components(model, clips)
    with torch.no_grad():
        tokens = model.encoder.patch(model.normalise(model.encoder.tubelets(clips))).flatten(0, 1)
    assert tokens.mean(dim=0).abs().max() < 1e-3
    strengths = torch.linalg.svdvals(tokens)
    assert strengths[23] > 0.3 * strengths[0]  # all that a patch shows comes through
    assert strengths[24] < 1e-3 * strengths[0]


def test_wide_weights_have_the_variance_of_their_fan_in(model: Geolocator) -> None:
    widen_weights(model.encoder)
    for block in model.encoder.blocks:
        assert block.fc2.weight.std().item() == pytest.approx(64**-0.5, rel=0.1)
        assert block.query.weight.std().item() == pytest.approx(32**-0.5, rel=0.1)
        assert not block.fc1.bias.any()
