"""What one round of a plan moves and computes: bytes from the codec, CPU from unit costs measured on the spot.

Bytes are exact for a round in which nobody drops out. CPU is an estimate: the few operations that a round is made of
are timed here, small, and multiplied; `veilsum bench secagg` measures whole rounds.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

import dp
from fedavg.aggregation import AggregationPlan
from secagg import RoundParameters
from secagg.messages import HEADER_BYTES, Codec
from secagg.ring import add_packed, pack, packed_size

__all__ = ["RoundCost", "UnitCosts", "cpu_seconds", "round_cost", "unit_costs"]

_LENGTH = 2**15
_COMMITMENT_BYTES = 32


@dataclass(frozen=True)
class RoundCost:
    """What a round without dropouts moves.

    Args:
        cohort: Clients invited.
        neighbours: With how many each of them shares masks.
        values: Integers in a masked vector.
        modulus_bits: Bits of each.
        bytes_up_per_client: What a client sends: keys, shares, masked vector, shares again.
    """

    cohort: int
    neighbours: int
    values: int
    modulus_bits: int
    bytes_up_per_client: int

    @property
    def bytes_up_round(self) -> int:
        """What the server receives."""
        return self.cohort * self.bytes_up_per_client


def round_cost(plan: AggregationPlan) -> RoundCost:
    """Count the bytes of a round from the messages' own layout.

    Raises:
        secagg.ParameterError: no graph withstands what the plan asks for.
    """
    parameters = plan.protocol(0, bytes(32))
    return RoundCost(
        parameters.clients,
        parameters.neighbours,
        parameters.vectors[0].padded_length,
        parameters.vectors[0].modulus_bits,
        _bytes_up(parameters),
    )


def _bytes_up(parameters: RoundParameters) -> int:
    codec, neighbours = Codec(parameters, bytes(32)), parameters.neighbours
    advertise = codec.public_bytes
    share = _COMMITMENT_BYTES * (codec.secrets - 1) + neighbours * codec.row_bytes
    masked = sum(packed_size(v.padded_length, v.modulus_bits) for v in parameters.vectors) + -(
        -neighbours // 8
    )
    unmask = (neighbours + 1) * codec.record_bytes
    return 4 * HEADER_BYTES + advertise + share + masked + unmask


@dataclass(frozen=True)
class UnitCosts:
    """CPU seconds: of a value for the first four, of a neighbour or a client for the others."""

    encode: float
    mask: float
    pack: float
    add: float
    agree: float
    recover: float


def cpu_seconds(cost: RoundCost, *, dropped: int) -> tuple[float, float]:
    """CPU seconds of one client and of the server for a round, on this machine, one thread each, about.

    Args:
        cost: The round.
        dropped: Clients that fall silent after sharing their keys, whose masks the server takes off.
    """
    unit, values, neighbours = unit_costs(), cost.values, cost.neighbours
    client = values * (unit.encode + unit.pack + (neighbours + 1) * unit.mask) + neighbours * unit.agree
    survivors = cost.cohort - dropped
    masks = survivors + dropped * neighbours
    server = values * (survivors * unit.add + masks * unit.mask) + cost.cohort * unit.recover
    return client, server


@cache
def unit_costs() -> UnitCosts:
    """Time the operations that a round is made of, once in a process; takes a fraction of a second."""
    from secagg import keys
    from secagg.binding import vector_fields
    from secagg.masking import apply_masks
    from secagg.parameters import Vector
    from secagg.shamir import reconstruct, share

    bits = 24
    encoding = dp.Encoding.plan((dp.Block("update", length=_LENGTH, l2_bound=1.0, weight=1.0),))
    mechanism = dp.DistributedDiscreteGaussian(
        noise_multiplier=1.0, sensitivity=encoding.sensitivity, dimension=_LENGTH, honest_survivors=100
    )
    stream, values = dp.Keystream(), {"update": np.full(_LENGTH, 1e-3)}
    words = np.zeros(_LENGTH, np.uint32)
    packed = pack(words, bits)
    masks = [(os.urandom(32), 1) for _ in range(8)]
    own, peer = keys.new_channel_pair(os.urandom(32)), keys.new_channel_pair(os.urandom(32)).public
    context = bytes(32)
    fields = [vector_fields(0, Vector("v", _LENGTH, bits))]
    dealt = share([os.urandom(32)], threshold=21, shares=39, entropy=os.urandom)
    points = tuple(range(1, 22))

    def encode() -> None:
        encoding.encode(values, stream)
        mechanism.share(stream)

    def agree() -> None:
        keys.channel_root(own, peer, context, 2)
        keys.mask_keys(own, peer, context, 1, 2, fields)

    return UnitCosts(
        encode=_seconds(encode) / _LENGTH,
        mask=_seconds(lambda: apply_masks(words, masks, bits=bits)) / _LENGTH / len(masks),
        pack=_seconds(lambda: pack(words, bits)) / _LENGTH,
        add=_seconds(lambda: add_packed(words, packed, bits)) / _LENGTH,
        agree=_seconds(agree, calls=20) / 20,
        recover=_seconds(lambda: reconstruct(points, dealt[:, :21]), calls=20) / 20,
    )


def _seconds(work: Callable[[], object], *, calls: int = 1) -> float:
    """Median over seven runs of the CPU time of `calls` calls, the first run not counted."""
    spent = []
    for _ in range(8):
        begin = time.process_time()
        for _ in range(calls):
            work()
        spent.append(time.process_time() - begin)
    return statistics.median(spent[1:])
