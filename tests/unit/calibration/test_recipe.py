from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from calibration.errors import CalibrationError
from calibration.ranges import Observed
from calibration.recipe import NAIVE, Recipe, graph_name, quantize_model
from tests.lowered import (
    TINY,
    assert_near,
    clips_of,
    corrected_graph,
    draw,
    fake_quantized,
    kinds_of,
    observed,
    torch_scores,
)
from tests.tolerances import FOLDED
from train.onnx_graph import build_graph

if TYPE_CHECKING:
    from calibration.recipe import Quantized
    from train.models.geolocator import Geolocator

FIRST = "blocks.0.qkv"


@pytest.fixture(scope="module")
def model() -> Geolocator:
    return draw()


@pytest.fixture(scope="module")
def seen(model: Geolocator) -> Observed:
    return observed(model)


@pytest.fixture(scope="module")
def held(model: Geolocator, seen: Observed) -> Quantized[Geolocator]:
    return quantize_model(model, model.families(), seen)


@pytest.fixture(scope="module")
def naive(model: Geolocator, seen: Observed) -> Quantized[Geolocator]:
    return quantize_model(model, model.families(), seen, recipe=NAIVE)


# --- folding ---


@pytest.mark.parametrize("exponent", [0.3, 0.5, 0.85, 1.0])
def test_what_is_folded_leaves_the_network_as_it_was(
    exponent: float, model: Geolocator, seen: Observed
) -> None:
    # No folding is tried as well: outliers are put where folding pays.
    loud = draw()
    with torch.no_grad():
        for block in loud.encoder.blocks:
            for source, readers in (
                (block.norm1, (block.query, block.key, block.value)),
                (block.norm2, (block.fc1,)),
                (block.value, (block.proj,)),
            ):
                source.weight[7] *= 50
                source.bias[7] *= 50
                for linear in readers:
                    linear.weight[:, 7] /= 50
    found = quantize_model(
        loud, loud.families(), observed(loud), recipe=Recipe(exponents=(exponent,))
    )
    folded = [each for each in found.reports if each.exponent == exponent]
    assert len(folded) == 3 * TINY.depth  # all but what GELU stands before
    clips = clips_of(TINY, 6, seed=4)
    assert_near(torch_scores(found.model, clips), torch_scores(loud, clips), FOLDED)
    weights = (loud.encoder.blocks[0].norm1.weight, found.model.encoder.blocks[0].norm1.weight)
    assert abs(weights[1][7].item()) < 0.5 * abs(weights[0][7].item())


def test_no_operation_is_added(model: Geolocator, held: Quantized[Geolocator]) -> None:
    plain = build_graph(model)
    assert any(each.exponent is not None for each in held.reports)
    for graph in (build_graph(held.model), corrected_graph(held)):
        assert kinds_of(graph) == kinds_of(plain)
        assert [node.name for node in graph.node] == [node.name for node in plain.node]


def test_the_network_that_was_given_is_left_alone(seen: Observed) -> None:
    model = draw()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantize_model(model, model.families(), seen)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


# --- what is chosen ---


def test_every_family_is_at_least_as_good_as_without_a_choice(
    held: Quantized[Geolocator], naive: Quantized[Geolocator]
) -> None:
    assert [each.name for each in held.reports] == [each.name for each in naive.reports]
    for mine, other in zip(held.reports, naive.reports, strict=True):
        assert mine.error <= other.error, mine.name
    assert {each.range for each in naive.reports} == {"max"}


def test_the_error_of_a_family_by_hand(
    model: Geolocator, seen: Observed, naive: Quantized[Geolocator]
) -> None:
    rows_RI = seen.families[FIRST].rows_RI.astype(np.float64)
    family = naive.state.families[FIRST]
    read_RI = np.clip(np.rint(rows_RI / family.scale), -128, 127) * family.scale
    assert family.scale >= np.abs(seen.families[FIRST].absmax_I).max() / 127
    shares = []
    for name in ("query", "key", "value"):
        weight_IO = getattr(model.encoder.blocks[0], name).weight.detach().double().numpy().T
        held = family.linears[f"blocks.0.{name}"]
        wanted = rows_RI @ weight_IO
        found = read_RI @ (held.weight_IO * held.scales_O.astype(np.float64))
        shares.append(np.square(found - wanted).mean() / wanted.var(axis=0).mean())
    (report,) = [each for each in naive.reports if each.name == FIRST]
    assert report.error == pytest.approx(float(np.mean(shares)), rel=1e-3)


def test_a_bias_makes_up_for_the_mean_error(model: Geolocator, seen: Observed) -> None:
    recipe = Recipe(exponents=(), ranges=("99.9",))
    held = quantize_model(model, model.families(), seen, recipe=recipe)
    for name in ("blocks.0.fc1", "blocks.0.fc2", "blocks.1.proj"):
        family = held.state.families[name]
        (graph_linear,) = family.linears
        module = dict(model.named_modules())[f"encoder.{graph_linear}"]
        rows = torch.from_numpy(seen.families[name].rows_RI)
        wanted = torch.nn.functional.linear(rows, module.weight, module.bias).detach()
        read = (rows / family.scale).round().clamp(-128, 127) * family.scale
        stored = family.linears[graph_linear]
        weight = torch.from_numpy(stored.weight_IO * stored.scales_O)
        bias = held.corrections[f"encoder.{graph_linear}"]
        without = (read @ weight + module.bias.detach() - wanted).mean(dim=0).abs()
        with_it = (read @ weight + bias - wanted).mean(dim=0).abs()
        assert float(with_it.max()) < 1e-4
        assert float(without.max()) > 10 * float(with_it.max())


def test_the_recipe_is_nearer_to_float32_than_the_naive_one(model: Geolocator) -> None:
    seen = observed(model, 1024, rows=2048)
    clips = clips_of(TINY, 300, seed=5)
    wanted = torch_scores(model, clips)["feature"]
    off = [
        float(np.square(torch_scores(fake_quantized(each), clips)["feature"] - wanted).mean())
        for each in (
            quantize_model(model, model.families(), seen),
            quantize_model(model, model.families(), seen, recipe=NAIVE),
        )
    ]
    assert off[0] < 0.9 * off[1]


def test_the_same_activations_give_the_same_bits(
    model: Geolocator, seen: Observed, held: Quantized[Geolocator]
) -> None:
    again = quantize_model(model, model.families(), seen)
    assert again.reports == held.reports
    graphs = [corrected_graph(each).SerializeToString(deterministic=True) for each in (held, again)]
    assert graphs[0] == graphs[1]
    for name, family in held.state.families.items():
        other = again.state.families[name]
        assert family.scale == other.scale
        for linear, weight in family.linears.items():
            np.testing.assert_array_equal(weight.weight_IO, other.linears[linear].weight_IO)
            np.testing.assert_array_equal(weight.scales_O, other.linears[linear].scales_O)


def test_layers_that_stay_in_floating_point_keep_their_bias(
    model: Geolocator, held: Quantized[Geolocator]
) -> None:
    found = held.corrected({"blocks.0.fc1"}).encoder.blocks
    corrected = held.corrections["encoder.blocks.0.fc1"]
    assert torch.equal(found[0].fc1.bias, corrected)
    assert not torch.equal(found[0].fc1.bias, model.encoder.blocks[0].fc1.bias)
    assert torch.equal(found[0].fc2.bias, model.encoder.blocks[0].fc2.bias)
    assert graph_name("encoder.blocks.0.fc1") == "blocks.0.fc1"


def test_a_channel_that_is_never_used_does_no_harm() -> None:
    model = draw()
    with torch.no_grad():
        model.encoder.blocks[0].norm1.weight[3] = 0
        model.encoder.blocks[0].norm1.bias[3] = 0
        model.encoder.blocks[1].fc1.weight[:, 5] = 0
        model.encoder.blocks[1].value.weight.zero_()
        model.encoder.blocks[1].value.bias.zero_()  # nothing at all goes into proj
    held = quantize_model(model, model.families(), observed(model))
    clips = clips_of(TINY, 4)
    found = torch_scores(fake_quantized(held), clips)["feature"]
    assert np.isfinite(found).all()
    assert_near({"feature": found}, {"feature": torch_scores(model, clips)["feature"]}, 0.05)


# --- what cannot be ---


def test_a_family_that_nobody_watched_is_named(model: Geolocator, seen: Observed) -> None:
    families = {name: each for name, each in seen.families.items() if name != "blocks.1.fc1"}
    part = Observed(families=families, peaks=seen.peaks, clips=seen.clips)
    with pytest.raises(CalibrationError, match=r"blocks\.1\.fc1: it was not observed"):
        quantize_model(model, model.families(), part)


def test_a_range_that_is_not_known_is_named(model: Geolocator, seen: Observed) -> None:
    with pytest.raises(CalibrationError, match="'mean'"):
        quantize_model(model, model.families(), seen, recipe=Recipe(ranges=("mean",)))


def test_progress_is_told_for_each_family(model: Geolocator, seen: Observed) -> None:
    told = []
    quantize_model(model, model.families(), seen, recipe=NAIVE, advance=lambda: told.append(1))
    assert len(told) == 4 * TINY.depth
