"""Mechanisms: the noise that is left meets the stated multiplier, and what is not covered is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp.errors import ParameterError
from dp.keystream import Keystream
from dp.mechanisms import DistributedDiscreteGaussian, DistributedSkellam, NarrowDiscreteGaussian, integer_l1

GOOD = {"noise_multiplier": 1.5, "sensitivity": 1000.0, "dimension": 100, "honest_survivors": 50}


@given(st.floats(0.1, 100), st.floats(100, 1e7), st.integers(1, 10**5))
def test_the_honest_shares_alone_carry_the_multiplier(noise_multiplier, sensitivity, honest):
    try:
        mechanism = DistributedDiscreteGaussian(
            noise_multiplier=noise_multiplier, sensitivity=sensitivity, dimension=10, honest_survivors=honest
        )
    except ParameterError:
        assert noise_multiplier * sensitivity < 2 * math.sqrt(honest)
        return
    effective = math.sqrt(honest * mechanism.local_stddev**2 - 4) / sensitivity
    assert noise_multiplier <= effective * (1 + 1e-15)
    assert effective <= noise_multiplier * (1 + 1e-9)
    assert mechanism.event.noise_multiplier == noise_multiplier
    assert mechanism.stddev_of_sum(honest) == pytest.approx(math.sqrt(honest) * mechanism.local_stddev)


def test_a_share_is_discrete_gaussian_noise_of_the_stated_deviation():
    """Mean square of 20,000 coordinates within five standard errors; 2/3 and 3/2 of the deviation are outside."""
    mechanism = DistributedDiscreteGaussian(**{**GOOD, "dimension": 20_000})
    share = mechanism.share(Keystream.seeded(bytes(32)))
    assert share.dtype == "int64"
    assert share.shape == (20_000,)
    error = 5 * math.sqrt(2 / 20_000)
    for factor, inside in [(1, True), (2 / 3, False), (3 / 2, False)]:
        stddev = factor * mechanism.local_stddev
        assert (abs(float((share**2).mean()) / stddev**2 - 1) < error) == inside


def test_two_shares_are_never_the_same():
    mechanism = DistributedDiscreteGaussian(**GOOD)
    assert (mechanism.share(Keystream()) != mechanism.share(Keystream())).any()


def test_narrow_shares_are_refused_with_a_way_out():
    with pytest.raises(ParameterError, match=r"deviation 1\.\d+ .* below 2.*raise the encoding's resolution"):
        DistributedDiscreteGaussian(noise_multiplier=1.0, sensitivity=10.0, dimension=5, honest_survivors=60)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise_multiplier", 0),
        ("noise_multiplier", -1.0),
        ("noise_multiplier", math.nan),
        ("sensitivity", 0),
        ("sensitivity", math.inf),
        ("dimension", 0),
        ("dimension", 2.5),
        ("honest_survivors", 0),
    ],
)
def test_bad_parameters_are_named(name, value):
    with pytest.raises(ParameterError, match=name):
        DistributedDiscreteGaussian(**{**GOOD, name: value})


KINDS = {
    "distributed discrete Gaussian": DistributedDiscreteGaussian,
    "narrow discrete Gaussian": NarrowDiscreteGaussian,
    "distributed Skellam": DistributedSkellam,
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_description_is_json_and_complete(kind):
    assert KINDS[kind](**GOOD).describe() == {"kind": kind, **GOOD}
    assert KINDS[kind](**GOOD).trusted_server is False


@pytest.mark.parametrize("kind", [NarrowDiscreteGaussian, DistributedSkellam])
def test_narrow_shares_are_allowed_where_renyi_accounts_for_them(kind):
    """Mean square of 20,000 coordinates within five standard errors; 2/3 and 3/2 of the deviation are outside."""
    mechanism = kind(noise_multiplier=1.0, sensitivity=10.0, dimension=20_000, honest_survivors=60)
    assert mechanism.stddev_of_sum(60) == pytest.approx(10.0)
    share = mechanism.share(Keystream.seeded(bytes(32)))
    assert share.shape == (20_000,)
    error = 5 * math.sqrt(3 / 20_000)
    for factor, inside in [(1, True), (2 / 3, False), (3 / 2, False)]:
        variance = factor**2 * mechanism.stddev_of_sum(1) ** 2
        assert (abs(float((share**2).mean()) / variance - 1) < error) == inside


def test_the_l1_norm_of_integers_is_bounded_both_ways():
    assert integer_l1(3.0, 4) == 6.0
    assert integer_l1(3.0, 10**6) == 9.0
    assert integer_l1(0.5, 10**6) == 0.5
