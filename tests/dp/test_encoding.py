"""The encoding: norms that hold exactly, sums that decode, and plans that are refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp import NonFiniteInput, ParameterError, encoding, rounding
from dp.encoding import Block, Encoding
from dp.keystream import Keystream
from dp.rounding import squared_norm

KEY = bytes(range(32))


def two_blocks(length: int = 2_000, *, scalars: int = 3, weight: float = 0.04) -> Encoding:
    return Encoding.plan(
        [
            Block("update", length, l2_bound=0.5, weight=1 - weight),
            Block("scalars", scalars, l2_bound=math.sqrt(scalars), weight=weight),
        ]
    )


def modular_sum(vectors: list[np.ndarray], bits: int) -> np.ndarray:
    total = np.zeros(len(vectors[0]), dtype=np.uint64)
    for vector in vectors:
        total += vector.view(np.uint64)
    return total & np.uint64((1 << bits) - 1)


def test_sensitivity_is_the_clip_inflated_by_one_percent() -> None:
    plan = two_blocks(10_000)
    assert plan.sensitivity == pytest.approx(1.01 * plan.scale("update") * 0.5 / math.sqrt(0.96), rel=1e-6)
    assert plan.sensitivity**2 >= sum(plan.limits)
    for block, scale, limit in zip(plan.blocks, plan.scales, plan.limits, strict=True):
        assert limit == pytest.approx(plan.sensitivity**2 * block.weight, rel=1e-5)
        assert scale * block.l2_bound + math.sqrt(block.length) == pytest.approx(math.sqrt(limit), rel=1e-5)


@settings(max_examples=60)
@given(st.data())
def test_norms_hold_exactly_whatever_the_input(data: st.DataObject) -> None:
    length, scalars = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 5))
    plan = two_blocks(max(length, scalars), scalars=scalars, weight=0.5)
    finite = st.floats(allow_nan=False, allow_infinity=False)
    vectors = {
        block.name: data.draw(st.lists(finite, min_size=block.length, max_size=block.length))
        for block in plan.blocks
    }
    encoded = plan.encode(vectors, Keystream.seeded(KEY))
    assert encoded.dtype == np.int64
    ends = np.cumsum([block.length for block in plan.blocks])[:-1]
    norms = [squared_norm(part) for part in np.split(encoded, ends)]
    assert all(norm <= limit for norm, limit in zip(norms, plan.limits, strict=True))
    assert math.sqrt(sum(norms)) <= plan.sensitivity
    assert int(np.abs(encoded).sum()) <= plan.l1_sensitivity


@pytest.mark.parametrize("length", [1, 2, 7, 1000])
def test_worst_vectors_reach_the_bound_but_never_pass_it(length: int) -> None:
    """A vector clipped hard, whose coordinates all round away from zero for some keys."""
    plan = two_blocks(length, scalars=1, weight=0.3)
    for key in range(40):
        stream = Keystream.seeded(bytes([key]) * 32)
        encoded = plan.encode({"update": np.full(length, 1e9), "scalars": [-1e9]}, stream)
        assert squared_norm(encoded[:length]) <= plan.limits[0]
        assert math.sqrt(squared_norm(encoded[:length])) > 0.95 * plan.scale("update") * 0.5
        assert encoded[length] < 0


def test_block_whose_rounding_fails_the_norm_is_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = two_blocks(50)
    vector = np.full(50, -1.0)
    expected = np.trunc(-0.5 / math.sqrt(50) * plan.scale("update"))

    def away_from_zero(values: np.ndarray, keystream: Keystream, *, factor: float) -> np.ndarray:
        values = values * factor
        return np.sign(values).astype(np.int64) * (np.ceil(np.abs(values)).astype(np.int64) + 5)

    monkeypatch.setattr(rounding, "stochastic_round", away_from_zero)
    encoded = plan.encode({**plan.zeros(), "update": vector}, Keystream.seeded(KEY))
    np.testing.assert_array_equal(encoded[:50], expected)


def test_vector_that_was_not_clipped_is_replaced_by_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with clipping broken, the integer check alone keeps the sensitivity."""
    plan = two_blocks(50)
    monkeypatch.setattr(encoding, "clip_factor", lambda vector, bound: (np.asarray(vector, float), 1.0, 0.0))
    encoded = plan.encode({"update": np.full(50, 3.0), "scalars": [0.5, 0, 0]}, Keystream.seeded(KEY))
    np.testing.assert_array_equal(encoded[:50], 0)
    assert encoded[50] > 0


def test_zeros_are_encoded_as_zeros() -> None:
    plan = two_blocks()
    np.testing.assert_array_equal(plan.encode(plan.zeros(), Keystream()), 0)


@pytest.mark.parametrize("clients", [1, 40])
def test_sum_decodes_to_the_sum(clients: int) -> None:
    """Rounding alone: error below 6 standard errors, deviation at most sqrt(n)/2 units; rejects 3/2 of it."""
    plan = two_blocks()
    rng = np.random.default_rng(7)
    updates = rng.normal(size=(clients, 2_000)) * 0.01
    counts = rng.uniform(-1, 1, size=(clients, 3))
    stream = Keystream.seeded(KEY)
    bits = plan.check_bits(None, summands=clients, noise_stddev=0.0)
    encoded = [plan.encode({"update": u, "scalars": c}, stream) for u, c in zip(updates, counts, strict=True)]
    decoded = plan.decode(modular_sum(encoded, bits), modulus_bits=bits)
    error = (decoded["update"] - updates.sum(0)) * plan.scale("update")
    worst = math.sqrt(clients) / 2
    assert np.max(np.abs(error)) < 6 * worst
    expected = math.sqrt(clients / 6)
    assert expected * 0.9 < error.std() < expected * 1.1
    np.testing.assert_allclose(
        decoded["scalars"], counts.sum(0), atol=6 * worst / plan.scale("scalars"), rtol=0
    )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("bits", [None, 62])
def test_worst_sum_with_worst_noise_does_not_wrap(sign: int, bits: int | None) -> None:
    """All clients put their whole norm on one coordinate, and the noise stands at nine deviations."""
    plan = two_blocks(400)
    clients, stddev = 100, 5_000.0
    chosen = plan.check_bits(bits, summands=clients, noise_stddev=stddev)
    update = np.zeros(400)
    update[3] = sign
    encoded = [plan.encode({**plan.zeros(), "update": update}, Keystream()) for _ in range(clients)]
    noise = np.zeros(plan.dimension, dtype=np.int64)
    noise[3] = sign * int(9 * stddev)
    decoded = plan.decode(modular_sum([*encoded, noise], chosen), modulus_bits=chosen)["update"][3]
    exact = sign * (clients * 0.5 + int(9 * stddev) / plan.scale("update"))
    assert decoded == pytest.approx(exact, rel=1e-3)
    if bits is None:
        one_less = plan.decode(modular_sum([*encoded, noise], chosen - 1), modulus_bits=chosen - 1)
        assert one_less["update"][3] != pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize(("clients", "bits"), [(100, 25), (1_000, 28), (10_000, 31)])
def test_bits_for_a_million_coordinates(clients: int, bits: int) -> None:
    """The known answers at z = 1."""
    plan = Encoding.plan([Block("update", 10**6, l2_bound=1.0, weight=1.0)])
    assert plan.check_bits(None, summands=clients, noise_stddev=plan.sensitivity) == bits
    with pytest.raises(ParameterError, match=f"modulus_bits is {bits - 1}; .* need {bits} to 62"):
        plan.check_bits(bits - 1, summands=clients, noise_stddev=plan.sensitivity)


def test_resolution_trades_bits_for_sensitivity() -> None:
    coarse = Encoding.plan([Block("update", 10**6, l2_bound=1.0, weight=1.0)], resolution=10.0)
    assert coarse.sensitivity == pytest.approx(11_000)
    assert coarse.check_bits(None, summands=100, noise_stddev=coarse.sensitivity) == 22


@pytest.mark.parametrize("bits", [1, 5, 31, 32, 33, 62])
def test_lift_is_centred(bits: int) -> None:
    plan = Encoding.plan([Block("x", 3, l2_bound=1.0, weight=1.0)])
    total = np.array([0, (1 << (bits - 1)) - 1, 1 << (bits - 1)], dtype=np.uint64)
    lifted = plan.decode(total, modulus_bits=bits)["x"] * plan.scale("x")
    np.testing.assert_allclose(lifted, [0, (1 << (bits - 1)) - 1, -(1 << (bits - 1))], rtol=1e-12)


def test_canonical_bytes_tell_encodings_apart() -> None:
    plans = [two_blocks(), two_blocks(weight=0.05), two_blocks(2_001), two_blocks(scalars=2)]
    assert len({plan.canonical() for plan in plans}) == len(plans)
    assert two_blocks().canonical() == two_blocks().canonical()


@pytest.mark.parametrize(
    ("vectors", "error"),
    [
        ({"update": np.full(2_000, math.nan)}, NonFiniteInput),
        ({"update": np.full(1_999, 0.0)}, ParameterError),
        ({"other": np.zeros(3)}, ParameterError),
        ({"scalars": [math.inf, 0, 0]}, NonFiniteInput),
    ],
)
def test_vectors_that_do_not_fit_are_refused(vectors: dict[str, Any], error: type[Exception]) -> None:
    plan = two_blocks()
    with pytest.raises(error):
        plan.encode({**plan.zeros(), **vectors}, Keystream())


def test_missing_block_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"got blocks \['update'\]"):
        two_blocks().encode({"update": np.zeros(2_000)}, Keystream())
    with pytest.raises(ParameterError, match="no block 'other'"):
        two_blocks().scale("other")


def test_totals_that_do_not_fit_are_refused() -> None:
    plan = two_blocks()
    with pytest.raises(ParameterError, match="shape"):
        plan.decode(np.zeros(5, dtype=np.uint64), modulus_bits=20)
    with pytest.raises(ParameterError, match=r"holds 1048576; it must stay below 2\^20"):
        plan.decode(np.full(plan.dimension, 1 << 20, dtype=np.uint64), modulus_bits=20)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], "no blocks"),
        ([("a", 5, 1.0, 0.5), ("a", 5, 1.0, 0.5)], "repeat"),
        ([("a", 5, 1.0, 0.5), ("b", 5, 1.0, 0.4)], "add up to 0.9"),
        ([("a", 10_000, 1.0, 0.9999999), ("b", 10_000, 1.0, 1e-7)], "raise the weight"),
        ([("a", 5, 0.0, 1.0)], "l2_bound of block 'a' is 0"),
        ([("a", 5, math.nan, 1.0)], "l2_bound"),
        ([("a", 5, 1e-308, 1.0)], "too small to scale"),
        ([("a", 0, 1.0, 1.0)], "length of block 'a' is 0"),
        ([("a", 5, 1.0, 1.5)], "weight of block 'a' is 1.5"),
        ([("a", 5, 1.0, math.nan)], "weight of block 'a' is nan"),
    ],
)
def test_plans_that_cannot_be_are_refused(blocks: list[Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Encoding.plan([Block(*block) for block in blocks])


@pytest.mark.parametrize("resolution", [0.0, math.nan, 1e16])
def test_bad_resolution_is_refused(resolution: float) -> None:
    with pytest.raises(ParameterError, match="resolution"):
        Encoding.plan([Block("a", 5, 1.0, 1.0)], resolution=resolution)


@pytest.mark.parametrize(
    ("summands", "noise"), [(0, 1.0), (10, -1.0), (10, math.nan), (2**50, 1.0), (10, 1e30)]
)
def test_sums_that_no_modulus_holds_are_refused(summands: int, noise: float) -> None:
    with pytest.raises(ParameterError):
        two_blocks().check_bits(None, summands=summands, noise_stddev=noise)
