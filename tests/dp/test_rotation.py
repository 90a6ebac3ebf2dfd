"""The rotation against the matrix it stands for, and the flatness it is for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import hadamard

from dp import ParameterError
from dp.rotation import Rotation, _hadamard

KEY = bytes(range(32))


@pytest.mark.parametrize("power", range(13))
def test_products_are_the_hadamard_matrix(power: int) -> None:
    vector = np.random.default_rng(1).normal(size=1 << power)
    np.testing.assert_allclose(_hadamard(vector.copy()), hadamard(1 << power) @ vector, atol=1e-9)


def test_long_vectors_are_cut_into_several_products() -> None:
    """Column j of the matrix of order 2^17 is (-1)^(bits common to i and j)."""
    size = 1 << 17
    for j in (0, 1, 4_097, 99_999, size - 1):
        unit = np.zeros(size)
        unit[j] = 1.0
        common = np.array([(i & j).bit_count() for i in range(size)])
        np.testing.assert_array_equal(_hadamard(unit), 1 - 2 * (common % 2))


@pytest.mark.parametrize(
    ("length", "padded"), [(1, 1), (2, 2), (3, 4), (7_850, 8_192), (8_192, 8_192), (8_193, 16_384)]
)
def test_inverse_undoes_it_and_norms_are_kept(length: int, padded: int) -> None:
    rotation = Rotation(length, KEY)
    vector = np.random.default_rng(2).normal(size=length)
    rotated = rotation.forward(np.pad(vector, (0, padded - length)))
    assert rotated.shape == (padded,)
    assert rotation.padded_length == padded
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(vector), rel=1e-12)
    kept = rotated.copy()
    np.testing.assert_allclose(rotation.inverse(rotated), vector, atol=1e-12)
    np.testing.assert_array_equal(rotated, kept)


def test_worst_vectors_become_flat() -> None:
    """A constant vector, whose plain Hadamard transform has all its norm in one place: its largest coordinate
    stays below 6 deviations (d = 2^14, alpha 3e-5), and the spread is that of the norm; without signs it is 128.
    """
    size = 1 << 14
    for vector in (np.ones(size), np.cos(np.arange(size)), np.eye(1, size)[0]):
        rotated = Rotation(size, KEY).forward(vector / np.linalg.norm(vector)) * math.sqrt(size)
        assert np.max(np.abs(rotated)) < 6
        assert np.mean(rotated**2) == pytest.approx(1)


def test_signs_depend_on_the_key_and_are_balanced() -> None:
    """n = 100,000 signs, 5 standard errors."""
    signs = [np.sign(Rotation(100_000, key)._signs) for key in (KEY, bytes(32))]
    assert all(abs(s.mean()) < 5 / math.sqrt(len(s)) for s in signs)
    assert abs(np.mean(signs[0] * signs[1])) < 5 / math.sqrt(len(signs[0]))
    np.testing.assert_array_equal(signs[0], np.sign(Rotation(100_000, KEY)._signs))


def test_key_of_wrong_length_is_refused() -> None:
    with pytest.raises(ParameterError, match="16 bytes; it needs exactly 32"):
        Rotation(5, bytes(16))
    with pytest.raises(ParameterError, match="length is 0"):
        Rotation(0, KEY)
