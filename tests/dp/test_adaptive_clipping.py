"""Adaptive clipping: the split of the noise, the way of the clip, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dp import ParameterError
from dp.adaptive_clipping import AdaptiveClip
from dp.blocks import Block
from dp.clipping import clip_l2
from dp.discrete_gaussian import DiscreteGaussian
from dp.encoding import Encoding
from dp.keystream import Keystream

KEY = bytes(range(32))


def clip_to(adaptive: AdaptiveClip, clip: float, *, noise_multiplier: float, length: int = 400) -> Encoding:
    indicator = adaptive.block(noise_multiplier=noise_multiplier)
    return Encoding.plan([Block("update", length, clip, 1 - indicator.weight), indicator])


@pytest.mark.parametrize("noise_multiplier", [0.5, 1.0, 4.0])
def test_noise_is_split_as_published(noise_multiplier: float) -> None:
    """z_update = (z^-2 - (2 sigma_b)^-2)^(-1/2), and sigma_b clients of noise on the count."""
    adaptive = AdaptiveClip(expected_clients=100, smallest=0.1, largest=10, indicator_stddev=5.0)
    plan = clip_to(adaptive, 0.7, noise_multiplier=noise_multiplier, length=10_000)
    noise = noise_multiplier * plan.sensitivity
    update = (noise_multiplier**-2 - (2 * 5.0) ** -2) ** -0.5
    assert noise / plan.scale("update") == pytest.approx(update * 0.7 * 1.01, rel=1e-4)
    assert noise / plan.scale("below_clip") / 2 == pytest.approx(5.0, rel=0.01)


def test_integer_noise_and_sensitivity_do_not_depend_on_the_clip() -> None:
    adaptive = AdaptiveClip(expected_clients=100, smallest=0.1, largest=10)
    plans = [clip_to(adaptive, clip, noise_multiplier=1.0) for clip in (0.1, 1.0, 9.0)]
    assert len({plan.sensitivity for plan in plans}) == 1
    assert len({plan.limits for plan in plans}) == 1


def test_clip_follows_the_quantile_through_noised_sums() -> None:
    """200 clients with log-normal norms, z = 1: from ten times too large and too small, the clip settles within 15% of
    the 0.7 quantile; at 2/3 or 3/2 of it, it would not.
    """
    adaptive = AdaptiveClip(expected_clients=200, smallest=1e-3, largest=1e3, quantile=0.7)
    norms = np.exp(np.random.default_rng(3).normal(size=200))
    target = float(np.quantile(norms, 0.7))
    stream = Keystream.seeded(KEY)
    for clip in (target * 10, target / 10):
        path = []
        for _ in range(70):
            plan = clip_to(adaptive, clip, noise_multiplier=1.0, length=4)
            bits = plan.check_bits(None, summands=200, noise_stddev=plan.sensitivity)
            total = DiscreteGaussian(stddev=plan.sensitivity).sample(plan.dimension, stream)
            for norm in norms:
                clipped, before = clip_l2(np.full(4, norm / 2), clip)
                total += plan.encode(
                    {"update": clipped, "below_clip": adaptive.indicator(before, clip=clip)}, stream
                )
            decoded = plan.decode(total.view(np.uint64) & np.uint64((1 << bits) - 1), modulus_bits=bits)
            clip = adaptive.next_clip(clip, noised_sum=float(decoded["below_clip"][0]))
            path.append(clip)
        assert math.exp(np.mean(np.log(path[-20:]))) == pytest.approx(target, rel=0.15)


def test_step_is_geometric_clamped_and_survives_any_noise() -> None:
    adaptive = AdaptiveClip(expected_clients=10, smallest=0.5, largest=2.0, learning_rate=0.2)
    assert adaptive.next_clip(1.0, noised_sum=0.0) == 1.0
    assert adaptive.next_clip(1.0, noised_sum=10.0) == pytest.approx(math.exp(-0.1))
    assert adaptive.next_clip(1.0, noised_sum=-10.0) == pytest.approx(math.exp(0.1))
    assert adaptive.next_clip(1.0, noised_sum=1e9) == 0.5
    assert adaptive.next_clip(1.0, noised_sum=-1e9) == 2.0


def test_indicator_is_one_at_the_clip_itself() -> None:
    adaptive = AdaptiveClip(expected_clients=10, smallest=0.5, largest=2.0)
    assert [adaptive.indicator(norm, clip=1.0) for norm in (0.0, 1.0, 1.0001)] == [1.0, 1.0, -1.0]


@pytest.mark.parametrize("noise_multiplier", [10.0, 11.0])
def test_noise_multiplier_of_twice_the_indicator_noise_is_refused(noise_multiplier: float) -> None:
    adaptive = AdaptiveClip(expected_clients=100, smallest=0.1, largest=10)
    with pytest.raises(ParameterError, match=r"must stay below 10: raise indicator_stddev"):
        adaptive.block(noise_multiplier=noise_multiplier)


@pytest.mark.parametrize(
    "wrong",
    [
        {"expected_clients": 0},
        {"expected_clients": math.nan},
        {"smallest": 0.0},
        {"smallest": 20.0},
        {"largest": math.inf},
        {"quantile": 1.0},
        {"quantile": math.nan},
        {"learning_rate": 0.0},
        {"indicator_stddev": -1.0},
    ],
)
def test_bad_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        AdaptiveClip(**{"expected_clients": 10, "smallest": 0.1, "largest": 10.0, **wrong})


@pytest.mark.parametrize(("clip", "noised_sum"), [(0.0, 1.0), (math.nan, 1.0), (1.0, math.nan)])
def test_bad_steps_are_refused(clip: float, noised_sum: float) -> None:
    with pytest.raises(ParameterError):
        AdaptiveClip(expected_clients=10, smallest=0.1, largest=10.0).next_clip(clip, noised_sum=noised_sum)
