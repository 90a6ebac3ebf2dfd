"""Pipelines to audit: an honest one, and the same with one planted bug each."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

import dp
import fedavg
from fedavg.aggregation import AggregationPlan
from secagg.messages import HEADER_BYTES
from secagg.ring import pack, packed_size, unpack


def honest(*, cohort=60, length=2000, noise_multiplier=1.5, secure=None):
    """A plan as runs make it: an update and its scalars, one noise."""
    privacy = dp.Privacy(delta=1e-5, l2_clip_norm=0.5, noise_multiplier=noise_multiplier)
    blocks = (
        dp.Block("update", length=length, l2_bound=0.5, weight=0.99),
        dp.Block("scalars", length=4, l2_bound=2.0, weight=0.01),
    )
    return AggregationPlan.choose(
        blocks,
        cohort=cohort,
        privacy=privacy,
        noise_multiplier=noise_multiplier,
        secure=secure or fedavg.SecureAggregation.ideal(dropout=0.1, corruption=0.1),
    )


@dataclass(frozen=True, kw_only=True)
class LessNoise(dp.DistributedDiscreteGaussian):
    """Every share is drawn at a part of its deviation."""

    divisor: float

    @cached_property
    def _sampler(self):
        return dp.DiscreteGaussian(stddev=self.local_stddev / self.divisor)


def noise_divided(plan, divisor):
    return replace(plan, mechanism=LessNoise(**_figures(plan.mechanism), divisor=divisor))


def noise_halved(plan):
    return noise_divided(plan, 2)


@dataclass(frozen=True)
class NoClip(dp.Encoding):
    """States its bounds, and encodes with bounds that never bind."""

    def encode(self, vectors, keystream):
        blocks = tuple(replace(block, l2_bound=1e6 * block.l2_bound) for block in self.blocks)
        limits = tuple(10**12 * limit for limit in self.limits)
        unbound = dp.Encoding(blocks, self.scales, limits, self.retry_probability, self.rotation)
        return unbound.encode(vectors, keystream)


def clip_not_applied(plan):
    return replace(plan, encoding=NoClip(**vars(replace(plan.encoding))))


@dataclass(frozen=True)
class OtherUnderMasks(AggregationPlan):
    """What is masked is not what was encoded."""

    def encode(self, values, keystream, seeds=()):
        encoded = super().encode(values, keystream, seeds)
        encoded[0] ^= 1
        return encoded


def masked_otherwise(plan):
    return OtherUnderMasks(**vars(replace(plan)))


class SameNoise(fedavg.RunEntropy):
    """Forgets the round's number where noise is drawn."""

    def keystream(self, *labels):
        return super().keystream(*(("noise", 0, labels[2]) if labels[0] == "noise" else labels))


@dataclass(frozen=True)
class FixedSize(dp.PaddedPoisson):
    """Draws exactly the expected number, and says that it flips coins."""

    def draw(self, keystream, *, number=0, capped=()):
        order = np.argsort(keystream.words(self.population, np.uint64))
        contributes = np.zeros(self.population, bool)
        contributes[order[: int(self.expected)]] = True
        return dp.Draw(np.arange(self.population), contributes)


@dataclass(frozen=True)
class TurnByTurn(dp.PaddedPoisson):
    """Everybody in turn, in a fixed order, as shuffled epochs do."""

    def draw(self, keystream, *, number=0, capped=()):
        size = int(self.expected)
        contributes = np.zeros(self.population, bool)
        contributes[(number * size + np.arange(size)) % self.population] = True
        return dp.Draw(np.arange(self.population), contributes)


def rewrite(path, change):
    """Rewrite the messages of a transcript: `change` gives what stands in the place of each."""
    head, *lines = path.read_text().splitlines()
    kept = [head]
    for line in lines:
        row = json.loads(line)
        changed = change(row["stage"], row["sender"], base64.b64decode(row["message"]))
        kept += [
            json.dumps({"stage": stage, "sender": sender, "message": base64.b64encode(data).decode()})
            for stage, sender, data in changed
        ]
    path.write_text("\n".join(kept) + "\n")


def metric_beside(stage, sender, data):
    """A client reports its loss beside its masked vector."""
    if stage != "masked_input":
        return [(stage, sender, data)]
    return [(stage, sender, data), ("metrics", sender, b'{"loss": 0.31, "accuracy": 0.9}')]


def metric_unmasked(length, bits, *, seed):
    """A client adds no mask to its last value, a small count."""
    rng = np.random.default_rng(seed)

    def change(stage, sender, data):
        if stage != "masked_input":
            return [(stage, sender, data)]
        size = packed_size(length, bits)
        words = unpack(data[HEADER_BYTES : HEADER_BYTES + size], length=length, bits=bits).copy()
        words[-4] = rng.integers(1, 20)
        body = pack(words, bits)
        return [(stage, sender, data[:HEADER_BYTES] + bytes(body) + data[HEADER_BYTES + size :])]

    return change


def vector_unmasked(length, bits, *, sender):
    """One client sends its rounded, noised vector as it is."""
    rng = np.random.default_rng(sender)

    def change(stage, who, data):
        if (stage, who) != ("masked_input", sender):
            return [(stage, who, data)]
        words = rng.normal(0, 500, length).round().astype(np.int64) & ((1 << bits) - 1)
        body = bytes(pack(words.astype(np.uint32), bits))
        return [(stage, who, data[:HEADER_BYTES] + body + data[HEADER_BYTES + len(body) :])]

    return change


def record_round(path, plan, *, seed, rounds=1):
    """Record masked rounds of a plan over canary-like inputs."""
    entropy = fedavg.RunEntropy.seeded(seed)
    rng = np.random.default_rng(seed)
    with fedavg.auditing.Recorder(path, plan) as recorder:
        for number in range(1, rounds + 1):
            plan.sum_round(
                lambda client: {name: rng.normal(size=value.shape) for name, value in plan.zeros().items()},
                clients=range(plan.cohort),
                number=number,
                model_hash=bytes(32),
                dropouts={"masked_input": [1, 2], "unmask": [3]},
                entropy=entropy,
                record=recorder,
            )


def _figures(mechanism):
    names = ("noise_multiplier", "sensitivity", "dimension", "honest_survivors")
    return {name: getattr(mechanism, name) for name in names}
