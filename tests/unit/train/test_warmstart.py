import pytest
import torch

from train.models.geolocator import Geolocator
from train.models.videomae import VideoMAEConfig
from train.warmstart import StandardisedHeads, start_from_components, widen_weights

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


def test_a_folded_model_scores_what_the_standardised_one_did(
    model: Geolocator, clips: torch.Tensor
) -> None:
    learner = StandardisedHeads(model).train()
    for _ in range(30):
        learner(clips)
    learner.eval()
    with torch.no_grad():
        before = learner(clips)
        learner.fold()
        after = model(clips)
    for head, scores in before.items():
        torch.testing.assert_close(after[head], scores, rtol=1e-3, atol=1e-4)


def test_folding_twice_is_refused(model: Geolocator) -> None:
    learner = StandardisedHeads(model).eval()
    learner.fold()
    with pytest.raises(RuntimeError, match="before"):
        learner.fold()


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


def test_wide_weights_have_the_variance_of_their_fan_in(model: Geolocator) -> None:
    widen_weights(model.encoder)
    for block in model.encoder.blocks:
        assert block.fc2.weight.std().item() == pytest.approx(64**-0.5, rel=0.1)
        assert block.query.weight.std().item() == pytest.approx(32**-0.5, rel=0.1)
        assert not block.fc1.bias.any()
