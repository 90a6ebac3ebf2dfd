"""Compressed encodings: the error they promise against the error that is there, and bits that are too few."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dp import ParameterError
from dp.blocks import Block
from dp.compression import compressed
from dp.discrete_gaussian import DiscreteGaussian
from dp.encoding import Encoding
from dp.keystream import Keystream
from dp.rounding import squared_norm

KEY = bytes(range(32))
CLIENTS = 20


def plan_for(length: int = 5_000, *, bits: int | None = None, excess: float = 0.05) -> Encoding:
    blocks = [Block("update", length, 0.5, 0.96), Block("scalars", 3, 1.5, 0.04)]
    return compressed(
        blocks,
        rotation_key=KEY,
        summands=CLIENTS,
        noise_multiplier=1.0,
        modulus_bits=bits,
        excess=excess,
    )


def mean_squared_error(plan: Encoding, bits: int) -> tuple[float, float]:
    """Of both blocks, over that of a central Gaussian; every client sends the same worst-case vector."""
    stream = Keystream.seeded(KEY)
    vectors = {"update": np.full(5_000, 0.5 / math.sqrt(5_000)), "scalars": np.full(3, math.sqrt(0.75))}
    total = DiscreteGaussian(stddev=plan.sensitivity).sample(plan.dimension, stream)
    for _ in range(CLIENTS):
        total += plan.encode(vectors, stream)
    decoded = plan.decode(total.view(np.uint64) & np.uint64((1 << bits) - 1), modulus_bits=bits)
    bounds = {"update": 0.5 / math.sqrt(0.96), "scalars": 1.5 / math.sqrt(0.04)}
    errors = [(decoded[name] - CLIENTS * vectors[name]) / bounds[name] for name in bounds]
    return float(np.mean(errors[0] ** 2)), float(np.mean(errors[1] ** 2))


@pytest.mark.parametrize("excess", [0.01, 0.05, 0.5])
def test_error_is_that_of_a_central_gaussian_but_for_the_promised_excess(excess: float) -> None:
    """d = 5,003 in 8,192; the mean square of 5,000 Gaussians has a standard error of 2%: five of them."""
    plan = plan_for(excess=excess)
    bits = plan.check_bits(None, summands=CLIENTS, noise_stddev=plan.sensitivity)
    update, scalars = mean_squared_error(plan, bits)
    assert 0.9 < update < (1 + excess) * 1.1
    assert scalars < 10
    assert plan.dimension == 8_192


def test_fewer_bits_than_planned_are_refused_and_would_be_wrong() -> None:
    plan = plan_for()
    bits = plan.check_bits(None, summands=CLIENTS, noise_stddev=plan.sensitivity)
    with pytest.raises(ParameterError, match=f"modulus_bits is {bits - 1}"):
        plan.check_bits(bits - 1, summands=CLIENTS, noise_stddev=plan.sensitivity)
    assert mean_squared_error(plan, bits - 2)[0] < 0.9, "the noise itself wraps and is no longer Gaussian"
    with pytest.raises(ParameterError, match="modulus_bits is"):
        plan.check_bits(bits, summands=4 * CLIENTS, noise_stddev=2 * plan.sensitivity)


@pytest.mark.parametrize(
    ("bits", "excess", "needed"), [(18, 0.01, None), (16, 0.03, None), (16, 0.01, 17), (14, 0.03, 16)]
)
def test_bits_for_a_million_coordinates(bits: int, excess: float, needed: int | None) -> None:
    """n = 1,000, z = 1: within 1% of the central Gaussian at 18 bits, 3% at 16, where plain needs 28."""

    def plan() -> Encoding:
        return compressed(
            [Block("update", 1 << 20, 1.0, 1.0)],
            rotation_key=KEY,
            summands=1_000,
            noise_multiplier=1.0,
            modulus_bits=bits,
            excess=excess,
        )

    if needed is None:
        assert plan().check_bits(bits, summands=1_000, noise_stddev=plan().sensitivity) == bits
    else:
        with pytest.raises(ParameterError, match=f"modulus_bits is {bits}; .* need {needed} to 48"):
            plan()


def test_more_bits_than_needed_are_used() -> None:
    few, many = plan_for(), plan_for(bits=30)
    assert many.scale("update") > 4 * few.scale("update")
    assert many.check_bits(30, summands=CLIENTS, noise_stddev=many.sensitivity) == 30


def test_norms_hold_exactly() -> None:
    """Worst vectors, few bits: the joint norm of the rotated, rounded whole stays within the limit."""
    plan = plan_for(excess=0.5)
    for key in range(20):
        stream = Keystream.seeded(bytes([key]) * 32)
        vectors: dict[str, Any] = {"update": np.zeros(5_000), "scalars": [9.0, -9.0, 9.0]}
        vectors["update"][key] = 1e6
        encoded = plan.encode(vectors, stream)
        assert encoded.shape == (8_192,)
        assert squared_norm(encoded) <= plan.limits[0]
        assert math.sqrt(plan.limits[0]) <= plan.sensitivity
        assert squared_norm(encoded) > 0.8 * plan.limits[0]
    np.testing.assert_array_equal(plan.encode(plan.zeros(), Keystream()), 0)


def test_rotated_encoding_decodes_each_part() -> None:
    plan = Encoding.plan(
        [Block("a", 10, 1.0, 0.5), Block.joint({"b": 3, "c": 4}, l2_bound=2.0, weight=0.5)],
        rotation_key=KEY,
        resolution=1e5,
    )
    vectors = {"a": np.arange(10) / 20, "b": np.array([0.5, -0.5, 0.25]), "c": np.full(4, -0.1)}
    encoded = plan.encode(vectors, Keystream.seeded(KEY))
    decoded = plan.decode(encoded.view(np.uint64) & np.uint64((1 << 50) - 1), modulus_bits=50)
    for name, vector in vectors.items():
        np.testing.assert_allclose(decoded[name], vector, atol=1e-4)
    assert plan.canonical() != Encoding.plan(plan.blocks, rotation_key=bytes(32), resolution=1e5).canonical()
    assert plan.canonical() != Encoding.plan(plan.blocks, resolution=1e5).canonical()


@pytest.mark.parametrize(
    "wrong",
    [
        {"summands": 0},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.nan},
        {"excess": 0.0},
        {"excess": 1e-30},
        {"modulus_bits": 1},
        {"modulus_bits": 60},
        {"rotation_key": bytes(3)},
    ],
)
def test_bad_values_are_refused(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {"rotation_key": KEY, "summands": 10, "noise_multiplier": 1.0}
    with pytest.raises(ParameterError):
        compressed([Block("a", 100, 1.0, 1.0)], **{**good, **wrong})
