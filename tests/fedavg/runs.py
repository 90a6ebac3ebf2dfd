"""A small run that the tests of runs share."""

import numpy as np

import dp
from fedavg import RunEntropy

PRIVACY = dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0)
CLIENTS = [np.full(4, float(i % 3)) for i in range(60)]


def step(weights, data):
    moved = {
        name: array + 0.1 * (data[: array.size].reshape(array.shape) - array)
        for name, array in weights.items()
    }
    return moved, {"loss": float(data.mean())}


def settings(**changes):
    return {
        "weights": {"w": np.zeros((2, 2)), "b": np.zeros(1)},
        "rounds": 2,
        "cohort_size": 20,
        "privacy": PRIVACY,
        "metrics": {"loss": 2.0},
        "entropy": RunEntropy.seeded(5),
        **changes,
    }


def assert_same_weights(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name])
