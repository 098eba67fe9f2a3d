"""Ranges of tensors of any shape and size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from calibration.quantize import SMALLEST_SCALE, quantize_weight, usable_scale
from calibration.ranges import PERCENTILES, candidate_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = {"max", "mse", "entropy", *(f"{percent:g}" for percent in PERCENTILES)}
VALUES = st.floats(-1e6, 1e6, width=32)


@given(
    arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2), elements=VALUES),
    st.floats(1.0, 10.0),
)
def test_limits_are_positive_and_no_larger_than_the_largest_value(
    rows: NDArray[np.float32], beyond: float
) -> None:
    """Rows are a part of a tensor, whose largest value may be elsewhere."""
    largest = float(np.abs(rows).max()) * beyond
    found = candidate_limits(rows, largest)
    assert "max" in found
    assert set(found) <= NAMES
    for name, limit in found.items():
        assert 0 < limit <= (largest or 1.0) * (1 + 1e-6), name


@given(st.floats(0, 65504))
def test_a_usable_scale_is_a_float16_just_above(wanted: float) -> None:
    found = float(usable_scale(wanted))
    assert found == float(np.float16(found)) >= wanted
    assert found <= max(wanted * (1 + 2**-10), SMALLEST_SCALE)


@given(
    arrays.arrays(np.float32, (5, 3), elements=st.floats(-100, 100, width=32)),
    st.floats(0.25, 1.0),
)
def test_weights_are_at_most_half_a_step_away_where_they_are_not_clipped(
    weight_IO: NDArray[np.float32], share: float
) -> None:
    full_O = np.abs(weight_IO).max(axis=0)
    held = quantize_weight(weight_IO, full_O * share / 127)
    assert np.abs(held.weight_IO).max(initial=0) <= 127
    back_IO = held.weight_IO * held.scales_O.astype(np.float64)
    inside = np.abs(weight_IO) <= 127 * held.scales_O
    off_IO = np.abs(back_IO - weight_IO)
    assert (off_IO <= held.scales_O / 2 * (1 + 1e-9))[inside].all()
    assert (np.sign(back_IO) == np.sign(weight_IO))[~inside].all()
