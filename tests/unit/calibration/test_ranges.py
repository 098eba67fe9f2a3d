from __future__ import annotations

import math
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from calibration.errors import CalibrationError
from calibration.ranges import BINS, Family, candidate_limits, observe
from tests.lowered import TINY, batches, clips_of, draw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

QKV, FC2 = "blocks.1.qkv", "blocks.1.fc2"


class Echo(torch.nn.Module):
    """Reads bytes as they are: each clip is one token, its number in the first channel."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, clips_NTHWC: torch.Tensor) -> torch.Tensor:
        return self.linear(clips_NTHWC.flatten(1, 3).float())


ECHO = (Family(name="echo", linears=("linear",)),)


def numbered(count: int, tokens: int = 4) -> NDArray[np.uint8]:
    """[count, 1, 1, tokens, 3]: the number of the clip, the number of the token, and 1."""
    clips = np.ones((count, 1, 1, tokens, 3), np.uint8)
    clips[..., 0] = np.arange(count)[:, None, None, None]
    clips[..., 1] = np.arange(tokens)
    return clips


def test_the_largest_magnitudes_are_those_of_all_tokens_of_all_clips() -> None:
    model = draw()
    clips = clips_of(TINY, 7)
    seen: list[torch.Tensor] = []
    hook = model.encoder.blocks[1].key.register_forward_pre_hook(
        lambda _, given: seen.append(given[0])
    )
    with torch.inference_mode():
        model(torch.from_numpy(clips))
    hook.remove()
    found = observe(model, model.families(), batches(clips, 3), clips=7, rows=20)
    wanted = seen[0].abs().amax(dim=(0, 1)).numpy()
    np.testing.assert_allclose(found.families[QKV].absmax_I, wanted, rtol=1e-5)
    assert found.clips == 7
    assert set(found.families) == {family.name for family in model.families()}


def test_rows_are_tokens_of_the_clips() -> None:
    found = observe(Echo(), ECHO, batches(numbered(8)), clips=8, rows=16).families["echo"]
    assert found.rows_RI.shape == (16, 3)
    assert found.rows_RI.dtype == np.float32
    assert (found.rows_RI[:, 2] == 1).all()
    assert len({tuple(row) for row in found.rows_RI.tolist()}) == 16  # no token twice


@pytest.mark.parametrize(("clips", "rows"), [(8, 16), (52, 64), (100, 130), (200, 52)])
def test_rows_come_from_all_clips_alike(clips: int, rows: int) -> None:
    size = 4
    found = observe(Echo(), ECHO, batches(numbered(clips), size), clips=clips, rows=rows)
    kept = found.families["echo"].rows_RI
    assert len(kept) == rows
    each = np.bincount(kept[:, 0].astype(int) // size, minlength=-(-clips // size))
    assert each.min() >= math.floor(rows * size / clips)
    assert each.max() <= math.ceil(rows * size / clips)


def test_more_clips_take_no_more_memory() -> None:
    def peak(clips: int) -> int:
        made: Iterator[NDArray[np.uint8]] = (numbered(4, 500) for _ in range(clips // 4))
        tracemalloc.start()
        found = observe(Echo(), ECHO, made, clips=clips, rows=64)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.families["echo"].rows_RI.shape == (64, 3)
        return peak_bytes

    peak(8)  # what is loaded on first use
    assert peak(800) < 1.5 * peak(80)


def test_the_same_clips_give_the_same_rows() -> None:
    first, second = (
        observe(Echo(), ECHO, batches(numbered(40)), clips=40, rows=30).families["echo"].rows_RI
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    other = observe(Echo(), ECHO, batches(numbered(40)), clips=40, rows=30, seed=1)
    assert not np.array_equal(first, other.families["echo"].rows_RI)


def test_progress_is_told_and_the_network_is_left_as_it_was() -> None:
    model, told = draw(), []
    hooked = [module for module in model.modules() if module._forward_hooks]
    observe(model, model.families(), batches(clips_of(TINY, 7), 4), clips=7, advance=told.append)
    assert told == [4, 3]
    assert not hooked
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_no_clip_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="there was not one clip"):
        observe(Echo(), ECHO, iter(()), clips=0)


def test_a_family_of_layers_that_are_not_there_is_an_error() -> None:
    families = (Family(name="mine", linears=("linear", "missing")),)
    with pytest.raises(CalibrationError, match="mine: the network has no linear layer missing"):
        observe(Echo(), families, batches(numbered(4)), clips=4)


@pytest.mark.parametrize(
    ("layer", "value"),
    [
        ("encoder.blocks.0.fc1", "nan"),
        ("encoder.blocks.1.norm2", "nan"),
        ("encoder.blocks.0.value", "inf"),
        ("heads.city", "nan"),  # nothing comes after it
    ],
)
def test_the_first_layer_that_gives_no_numbers_is_named(layer: str, value: str) -> None:
    model = draw()
    with torch.no_grad():
        model.get_submodule(layer).bias[0] = float(value)
    with pytest.raises(CalibrationError, match=rf"activations: {layer} gave (nan|inf)"):
        observe(model, model.families(), batches(clips_of(TINY, 2)), clips=2)


# --- limits ---


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    """Long tails, as behind a GELU."""
    return np.random.default_rng(0).laplace(size=(1024, 24)).astype(np.float32)


def test_percentiles_are_those_of_numpy(rows: NDArray[np.float32]) -> None:
    found = candidate_limits(rows, float(np.abs(rows).max()))
    for percent in (99.9, 99.99, 99.999):
        low, high = (
            np.percentile(np.abs(rows), percent, method=method) for method in ("lower", "higher")
        )
        assert low <= found[f"{percent:g}"] <= high
    assert found["max"] == np.abs(rows).max()


def test_the_limit_of_least_squared_error_is_as_good_as_any(rows: NDArray[np.float32]) -> None:
    def error(limit: float) -> float:
        step = limit / 127
        return float(np.square(np.clip(np.round(rows / step), -127, 127) * step - rows).sum())

    largest = float(np.abs(rows).max())
    found = candidate_limits(rows, largest)["mse"]
    best = min(error(limit) for limit in np.linspace(largest / 50, largest, 500))
    assert error(found) <= 1.05 * best  # it looks at one limit in ten
    assert error(found) < 0.9 * error(largest)


def test_the_entropy_limit_is_that_of_the_published_rule(rows: NDArray[np.float32]) -> None:
    largest = float(np.abs(rows).max())
    found = candidate_limits(rows, largest)["entropy"]
    counts, edges = np.histogram(np.abs(rows), bins=BINS, range=(0, largest))
    divergences = {last: _divergence(counts.tolist(), last) for last in range(128, BINS + 1, 16)}
    best = min(divergences, key=lambda last: divergences[last])
    assert found == pytest.approx(edges[best])
    assert found < largest


def _divergence(counts: list[int], last: int) -> float:
    """Of clipping at a bin, bin by bin.  Source: Migacz, GTC 2017, slide 38."""
    wanted = [float(count) for count in counts[:last]]
    wanted[-1] += sum(counts[last:])
    told = [0.0] * last
    for step in range(128):
        members = [bin for bin in range(last) if bin * 128 // last == step]
        filled = [bin for bin in members if counts[bin]]
        for bin in filled:
            told[bin] = sum(counts[each] for each in members) / len(filled)
    total, told_total = sum(wanted), sum(told)
    divergence = 0.0
    for p, q in zip(wanted, told, strict=True):
        if p:
            divergence += p / total * math.log((p / total) / (q / told_total if q else 1e-9))
    return divergence


def test_a_tensor_of_zeros_has_a_range() -> None:
    assert candidate_limits(np.zeros((4, 3), np.float32), 0.0) == {"max": 1.0}


def test_rows_of_zeros_beside_a_value_that_was_seen_elsewhere_give_no_range_of_nothing() -> None:
    found = candidate_limits(np.zeros((4, 3), np.float32), 5.0)
    assert found["max"] == 5.0
    assert all(0 < limit <= 5.0 for limit in found.values())
