"""Removable noise: exactly the target in the honest shares, whoever drops out, and a seed revealed is a part gone."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import dp
from dp.removable_noise import RemovableDiscreteGaussian


def make(**changes):
    return RemovableDiscreteGaussian(
        **{
            "noise_multiplier": 1.0,
            "sensitivity": 3000.0,
            "dimension": 2000,
            "cohort": 30,
            "dropouts": 6,
            "colluders": 3,
            **changes,
        }
    )


@given(
    st.integers(1, 400),
    st.floats(0, 0.5),
    st.floats(0, 0.4),
    st.floats(0.3, 8),
    st.floats(500, 1e6),
    st.data(),
)
def test_the_honest_shares_hold_the_target_and_hardly_more_at_every_dropout(
    n, lost, colluding, z, size, data
):
    dropouts, colluders = int(lost * n), int(colluding * n)
    mechanism = make(
        noise_multiplier=z,
        sensitivity=size * 100,
        cohort=n,
        dropouts=dropouts,
        colluders=min(colluders, n - dropouts - 1),
    )
    missing = data.draw(st.integers(0, dropouts))
    survivors = n - missing
    honest = survivors - mechanism.colluders
    kept = mechanism.stddev_of_sum(survivors) * math.sqrt(honest / survivors)
    target = math.hypot(z * mechanism.sensitivity, 2.0)
    spread = (n - mechanism.colluders) / mechanism.honest_survivors - 1
    most = 1.000001 + spread / (2**mechanism.seeds - 1 if mechanism.seeds else 1)
    assert target <= kept <= target * most


def test_with_few_dropouts_the_sum_holds_less_than_static_noise_would():
    mechanism = make(cohort=400, dropouts=80, colluders=0)
    static = dp.DistributedDiscreteGaussian(
        noise_multiplier=1.0, sensitivity=3000.0, dimension=2000, honest_survivors=320
    )
    assert mechanism.stddev_of_sum(400) < static.stddev_of_sum(400) * 0.9
    assert mechanism.stddev_of_sum(320) == pytest.approx(static.stddev_of_sum(320), rel=1e-4)


def decoded(mechanism, survivors, rng_seed, *, colluders=0):
    """The noise left in a sum: everybody's shares, the excess taken off, colluders' shares subtracted."""
    streams = [
        dp.Keystream.seeded(bytes([rng_seed, client]) + bytes(30)) for client in range(mechanism.cohort)
    ]
    seeds = [
        [streams[c].words(8, np.uint32).tobytes() for _ in range(mechanism.seeds)]
        for c in range(mechanism.cohort)
    ]
    shares = [mechanism.share(stream, own) for stream, own in zip(streams, seeds, strict=True)]
    numbers = mechanism.revealed(mechanism.cohort - survivors)
    total = sum(shares[:survivors])
    total = total - mechanism.excess((part, seeds[c][part - 1]) for c in range(survivors) for part in numbers)
    for c in range(colluders):
        known = shares[c] - mechanism.excess((part, seeds[c][part - 1]) for part in numbers)
        total = total - known
    return total


@pytest.mark.parametrize("missing", [0, 1, 3, 6])
@pytest.mark.parametrize("colluders", [0, 3])
def test_the_noise_that_is_left_has_the_stated_variance(missing, colluders):
    """5 sums of 2,000 values: chi-square at alpha 1e-4; 2/3 and 3/2 of the deviation are rejected."""
    mechanism = make()
    survivors = mechanism.cohort - missing
    left = np.concatenate([decoded(mechanism, survivors, seed, colluders=colluders) for seed in range(5)])
    stated = mechanism.stddev_of_sum(survivors) * math.sqrt((survivors - colluders) / survivors)
    low, high = stats.chi2.ppf([5e-5, 1 - 5e-5], left.size) / left.size
    ratio = np.mean(left.astype(float) ** 2) / stated**2
    assert low < ratio < high
    assert not low < ratio * 9 / 4 < high
    assert not low < ratio * 4 / 9 < high
    if colluders == mechanism.colluders:
        assert stated >= mechanism.noise_multiplier * mechanism.sensitivity


def test_more_missing_than_allowed_is_refused():
    with pytest.raises(dp.ParameterError, match="7 of 30 are missing"):
        make().revealed(7)


def test_fewer_missing_reveal_no_less():
    sizes = [sum(2 ** (part - 1) for part in make().revealed(missing)) for missing in range(7)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 0


def test_no_tolerance_needs_no_seeds_and_small_noise_fewer_parts():
    assert make(dropouts=0).seeds == 0
    assert make(dropouts=0).stddev_of_sum(30) >= math.sqrt(30 / 27) * 3000
    small = make(sensitivity=30.0)
    assert 0 <= small.seeds < 8
    assert small.event.slack < 1e-6


@pytest.mark.parametrize(
    "changes",
    [
        {"noise_multiplier": 0.0},
        {"sensitivity": -1.0},
        {"dropouts": 20, "colluders": 10},
        {"cohort": 0},
        {"sensitivity": 2.0},
        {"dropouts": -1},
    ],
)
def test_what_cannot_be_promised_is_refused(changes):
    with pytest.raises(dp.ParameterError):
        make(**changes)


def test_a_wrong_number_of_seeds_is_refused():
    with pytest.raises(dp.ParameterError, match="needs 8"):
        make().share(dp.Keystream(), [bytes(32)])
