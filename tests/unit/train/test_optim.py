import numpy as np
import pytest
import torch

from train.config import load_preset
from train.data.clips import class_counts, rendered_hierarchy
from train.models.geolocator import Geolocator
from train.models.teachers import TeacherConfig
from train.models.videomae import VideoMAEConfig
from train.optim import RunningMean, learning_rate, parameter_groups

SHAPE = VideoMAEConfig(frames=2, image_px=32, width=16, depth=3, heads=2, mlp_width=32)


@pytest.fixture
def model() -> Geolocator:
    torch.manual_seed(0)
    classes = class_counts(rendered_hierarchy())
    return Geolocator(SHAPE, classes, teachers=TeacherConfig(text_width=8))


@pytest.mark.parametrize("preset", ["demo", "geotag"])
def test_the_learning_rate_rises_then_falls_to_its_share(preset: str) -> None:
    config = load_preset(preset).optimiser
    rates = [learning_rate(step, 200, config) for step in range(200)]
    peak = int(np.argmax(rates))
    assert max(rates) == pytest.approx(config.lr)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 1.2 * config.lr * config.min_lr_share


def test_the_reference_learns_at_a_constant_rate() -> None:
    config = load_preset("reference").optimiser
    assert {learning_rate(step, 50, config) for step in range(50)} == {1e-3}


def test_biases_and_norms_do_not_decay(model: Geolocator) -> None:
    groups = parameter_groups(model, weight_decay=0.05)
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_lower_layers_learn_slower(model: Geolocator) -> None:
    scales = {
        id(parameter): group["lr_scale"]
        for group in parameter_groups(model, weight_decay=0.05, layer_decay=0.5)
        for parameter in group["params"]
    }
    found = {name: scales[id(parameter)] for name, parameter in model.named_parameters()}
    assert found["encoder.patch.weight"] == 0.5**4
    assert found["encoder.blocks.0.fc1.bias"] == 0.5**3
    assert found["encoder.blocks.2.query.weight"] == 0.5
    assert found["heads.city.weight"] == found["teachers.scene.0.bias"] == 1.0


def test_the_running_mean_of_still_weights_is_the_weights(model: Geolocator) -> None:
    mean = RunningMean(model, 0.9)
    for step in range(5):
        mean.update(model, step)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(mean.weights[name], parameter.detach())


def test_what_batch_norms_have_seen_is_averaged_too() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    mean, wanted = RunningMean(network, 0.5), 0.0
    for step in range(8):
        network[1].running_mean.fill_(float(step))
        network[1].num_batches_tracked += 1
        mean.update(network, step)
        decay = min(0.5, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * step
    mean.copy_to(network)
    torch.testing.assert_close(network[1].running_mean, torch.full((4,), wanted))
    assert network[1].num_batches_tracked == 8


def test_the_running_mean_equals_a_hand_computation() -> None:
    weight = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        weight.weight.fill_(0.0)
    mean, wanted = RunningMean(weight, 0.3), 0.0
    for step in range(6):
        with torch.no_grad():
            weight.weight.fill_(float(step))
        mean.update(weight, step)
        decay = min(0.3, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * step
    assert mean.weights["weight"].item() == pytest.approx(wanted, rel=1e-6)
