"""The embedded digits are scikit-learn's."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

from fedavg.datasets import load


def test_digits_are_scikit_learns():
    expected = pytest.importorskip("sklearn.datasets").load_digits()
    digits = load("digits")
    test = np.arange(1797) % 5 == 4
    np.testing.assert_array_equal(digits.train_x * 16, expected.data[~test])
    np.testing.assert_array_equal(digits.test_x * 16, expected.data[test])
    np.testing.assert_array_equal(digits.train_y, expected.target[~test])
    np.testing.assert_array_equal(digits.test_y, expected.target[test])


def test_digits_have_the_promised_form():
    digits = load("digits")
    assert (digits.features, digits.classes) == (64, 10)
    assert digits.train_x.dtype == digits.test_x.dtype == np.float32
    assert digits.train_y.dtype == digits.test_y.dtype == np.int64
    assert digits.train_x.min() == 0
    assert digits.train_x.max() == 1
    assert repr(digits) == "Dataset(digits: 1,438 training and 359 test examples)"


def test_their_licence_is_shipped_beside_them():
    text = (files("fedavg.datasets") / "data" / "digits.LICENSE").read_text()
    assert "BSD 3-Clause License" in text
    assert "The scikit-learn developers" in text
