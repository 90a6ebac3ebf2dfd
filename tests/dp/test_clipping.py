"""Clipping of any finite vector, and the refusal of others."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dp import NonFiniteInput, ParameterError
from dp.clipping import clip_l2

FINITE = st.floats(-1e307, 1e307)


@given(arrays(np.float64, st.integers(0, 20), elements=FINITE), st.floats(1e-300, 1e300))
def test_norm_is_bounded_and_direction_kept(vector: np.ndarray, bound: float) -> None:
    before = vector.copy()
    clipped, norm = clip_l2(vector, bound)
    assert math.hypot(*clipped) <= bound * (1 + 1e-12)
    assert norm == pytest.approx(math.hypot(*vector), rel=1e-12)
    np.testing.assert_array_equal(vector, before)
    largest = np.max(np.abs(vector), initial=0.0)
    if math.hypot(*vector) <= bound * (1 - 1e-12):
        np.testing.assert_array_equal(clipped, vector)
    elif largest > 1e-290:
        kept = np.max(np.abs(clipped))
        np.testing.assert_allclose(clipped / kept, vector / largest, rtol=1e-9, atol=1e-15)


def test_shape_and_other_types_are_kept_and_converted() -> None:
    clipped, norm = clip_l2(np.full((2, 3), 2, dtype=np.float32), 1.0)
    assert clipped.shape == (2, 3)
    assert clipped.dtype == np.float64
    assert norm == pytest.approx(math.sqrt(24))
    assert clip_l2([], 1.0)[1] == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_is_refused_without_telling_the_data(bad: float) -> None:
    with pytest.raises(NonFiniteInput, match="NaN or infinity; send zeros") as caught:
        clip_l2([1.25, bad], 1.0)
    assert "1.25" not in str(caught.value)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf])
def test_bad_bound_is_refused(bound: float) -> None:
    with pytest.raises(ParameterError, match="bound is"):
        clip_l2([1.0], bound)
