"""Joint and per-layer clipping: what a block may be, and that either way covers the same sensitivity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dp import ParameterError
from dp.blocks import Block, per_layer
from dp.encoding import Encoding
from dp.keystream import Keystream


def decode_one(plan: Encoding, vectors: dict[str, Any]) -> dict[str, np.ndarray]:
    """What a single client's vector comes back as; 60 bits never wrap."""
    encoded = plan.encode(vectors, Keystream.seeded(bytes(32)))
    return plan.decode(encoded.view(np.uint64) & np.uint64((1 << 60) - 1), modulus_bits=60)


def test_joint_parts_are_clipped_by_their_common_norm() -> None:
    """A weight of 3 beside an update of norm 4 at bound 2.5: both are halved, their ratio stays."""
    plan = Encoding.plan(
        [Block.joint({"update": 100, "weight": 1}, l2_bound=2.5, weight=1.0)], resolution=1e6
    )
    decoded = decode_one(plan, {"update": np.full(100, 0.4), "weight": 3.0})
    np.testing.assert_allclose(decoded["update"], 0.2, rtol=1e-5)
    np.testing.assert_allclose(decoded["weight"], [1.5], rtol=1e-5)
    assert plan.scale("update") == plan.scale("weight")
    assert (plan.length("update"), plan.length("weight"), plan.dimension) == (100, 1, 101)
    assert set(plan.zeros()) == {"update", "weight"}


def test_layers_are_clipped_each_by_itself() -> None:
    plan = Encoding.plan(per_layer({"a": 400, "b": 100}, l2_bound={"a": 3.0, "b": 4.0}), resolution=1e6)
    decoded = decode_one(plan, {"a": np.full(400, 0.05), "b": np.full(100, 100.0)})
    np.testing.assert_allclose(decoded["a"], 0.05, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(decoded["b"]), 4.0, rtol=1e-5)


def test_layers_share_one_scale_and_the_joint_sensitivity() -> None:
    """Bounds 3 and 4: noise and sensitivity are those of joint clipping to 5, up to the rounding of short layers."""
    layered = Encoding.plan(
        per_layer({"a": 6_400, "b": 3_600}, l2_bound={"a": 4.0, "b": 3.0}), resolution=100.0
    )
    assert layered.scale("a") == pytest.approx(layered.scale("b"), rel=1e-3)
    assert [block.weight for block in layered.blocks] == pytest.approx([0.64, 0.36])
    assert layered.sensitivity == pytest.approx(1.01 * layered.scale("a") * 5.0, rel=1e-3)


def test_one_bound_is_shared_by_coordinates() -> None:
    blocks = per_layer({"a": 300, "b": 100}, l2_bound=2.0, weight=0.9)
    assert math.fsum(block.l2_bound**2 for block in blocks) == pytest.approx(4.0)
    assert math.fsum(block.weight for block in blocks) == pytest.approx(0.9)
    assert blocks[0].l2_bound == pytest.approx(math.sqrt(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"l2_bound": {"a": 1.0}}, r"bounds for \['a'\]; give one for each layer of \['a', 'b'\]"),
        ({"l2_bound": {"a": 1.0, "b": 0.0}}, "l2_bound of 'b' is 0"),
        ({"l2_bound": 0.0}, "l2_bound is 0"),
        ({"l2_bound": 1.0, "weight": 2.0}, "weight of block 'a'"),
    ],
)
def test_layers_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        per_layer({"a": 5, "b": 1}, **arguments)


def test_joint_blocks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ParameterError, match="length of part 'b' is 0"):
        Block.joint({"a": 5, "b": 0}, l2_bound=1.0, weight=1.0)
    with pytest.raises(ParameterError, match="do not add up to its length 4"):
        Block("a", 4, 1.0, 1.0, (("b", 3),))
    with pytest.raises(ParameterError, match="repeat"):
        Encoding.plan([Block.joint({"a": 5, "b": 1}, l2_bound=1.0, weight=0.5), Block("b", 3, 1.0, 0.5)])
    with pytest.raises(ParameterError, match="block 'b' has 2 coordinates; it needs 1"):
        decode_one(
            Encoding.plan([Block.joint({"a": 2, "b": 1}, l2_bound=1.0, weight=1.0)]),
            {"a": np.zeros(2), "b": np.zeros(2)},
        )
