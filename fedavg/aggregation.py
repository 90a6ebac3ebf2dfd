"""Where secure aggregation and differential privacy meet, and the only place where they do.

A plan fixes, before anybody is invited, everything a round's promise rests on, and proves what neither room can
alone: that the modulus holds the worst sum with the noise on top, and that the noise left by the *fewest allowed
honest survivors* (cohort less tolerated dropouts less colluders) still meets the stated noise multiplier.

One client's values travel in one vector of three blocks' worth of content and nothing travels beside it:

* `update`: the change of the weights, clipped to `l2_clip_norm`;
* `scalars`: 1 for having contributed, 1 for having failed, and each declared metric over its bound, in [-1, 1];
  clipped jointly to the square root of their number.

Both blocks are scaled so that together they have integer L2 sensitivity `encoding.sensitivity`: one noise, one event.
A client that was invited only to fill the cohort, or whose step failed, sends the same form with zeros in `update`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import dp
import secagg
from fedavg.entropy import RunEntropy
from fedavg.errors import ParameterError
from fedavg.step import Trained

__all__ = ["DROPOUT_STAGES", "AggregationPlan", "Contribution", "Record", "RoundSum", "SecureAggregation"]

# The stages of a semi-honest round at which a client may fall silent; from "unmask" on its input is in the sum.
DROPOUT_STAGES = ("advertise", "share", "masked_input", "unmask")

Record = Callable[[str, int, bytes], None]  # (stage, sender, what the server received)
_RULE = "veilsum excess noise 1"
Mechanism = dp.DistributedDiscreteGaussian | dp.RemovableDiscreteGaussian
Contribution = Trained | Literal["padding", "failed"]


@dataclass(frozen=True, kw_only=True)
class SecureAggregation:
    """How the sum is taken: real masks by default.

    Guarantee: a server that follows the protocol, together with at most `corruption` of the cohort, learns the sum of
    at least cohort * (1 - dropout) inputs and nothing else about any of them (Bonawitz et al. 2017; Bell et al. 2020).

    Args:
        dropout: Share of the cohort that may fall silent before the round is given up, in [0, 1).
        corruption: Share of the cohort assumed to collude with the server, in [0, 1); their noise is not counted.
        graph: "sparse", "complete", or "auto": sparse where feasible with fewer than half the cohort as neighbours.
        neighbours: Neighbours of each client (sparse graph only); chosen from the rest when None.
        threshold: Shares that unmask; chosen from the rest when None.
        modulus_bits: Bits of the ring, at most 62; the fewest that hold the worst sum when None.
        excess_noise: "keep" leaves in the sum what shares sized for the most dropouts hold too much when fewer
            drop out; "remove" takes it off again, by seeds that clients share (`dp.RemovableDiscreteGaussian`).
    """

    dropout: float = 0.1
    corruption: float = 0.1
    graph: Literal["auto", "sparse", "complete"] = "auto"
    neighbours: int | None = None
    threshold: int | None = None
    modulus_bits: int | None = None
    excess_noise: Literal["keep", "remove"] = "keep"
    masked: bool = field(default=True, repr=False)

    def __post_init__(self) -> None:
        for name in ("dropout", "corruption"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ParameterError(
                    f"{name} is {value}; give a share of the cohort from 0 up to, not including, 1"
                )

    @classmethod
    def ideal(cls, **settings: Any) -> SecureAggregation:
        """The same integers summed without any cryptography: for sweeps and tests, hides nothing from anybody.

        Bit-identical to the real protocol for the same entropy.
        """
        return cls(masked=False, **settings)


@dataclass(frozen=True)
class RoundSum:
    """What the server learnt from one round: decoded, noised sums, and who was in them."""

    sums: Mapping[str, NDArray[np.float64]]
    survivors: int
    bytes_up_per_client: int


@dataclass(frozen=True)
class AggregationPlan:
    """Everything about a round that is fixed and public before anybody is invited."""

    cohort: int
    minimum_survivors: int
    honest_survivors: int
    metrics: Mapping[str, float]
    secure: SecureAggregation
    encoding: dp.Encoding
    mechanism: Mechanism
    modulus_bits: int

    @classmethod
    def choose(
        cls,
        *,
        size: int,
        cohort: int,
        privacy: dp.Privacy,
        noise_multiplier: float,
        secure: SecureAggregation,
        metrics: Mapping[str, float],
    ) -> AggregationPlan:
        """Plan rounds of `cohort` clients who send `size` weights and the declared metrics.

        Raises:
            ParameterError: too few honest survivors, a metric bound that is not positive.
            dp.ParameterError: the modulus cannot hold the worst sum, the noise shares are too small.
        """
        lost, corrupted = _share(secure.dropout, cohort), _share(secure.corruption, cohort)
        honest = cohort - lost - corrupted
        if honest < 1:
            raise ParameterError(
                f"a cohort of {cohort} less {lost} dropouts and {corrupted} colluders leaves {honest} honest survivors;"
                " lower dropout= or corruption=, or draw a larger cohort"
            )
        for name, bound in metrics.items():
            if not 0 < bound < np.inf:
                raise ParameterError(
                    f"metric {name} has bound {bound}; give the largest absolute value it can take"
                )
        scalars = 2 + len(metrics)
        share = privacy.metrics_share
        encoding = dp.Encoding.plan(
            (
                dp.Block("update", length=size, l2_bound=privacy.l2_clip_norm, weight=1 - share),
                dp.Block("scalars", length=scalars, l2_bound=sqrt(scalars), weight=share),
            )
        )
        mechanism = _mechanism(
            secure, encoding, noise_multiplier, cohort=cohort, lost=lost, corrupted=corrupted
        )
        bits = encoding.check_bits(
            secure.modulus_bits, summands=cohort, noise_stddev=mechanism.local_stddev * sqrt(cohort)
        )
        return cls(cohort, cohort - lost, honest, dict(metrics), secure, encoding, mechanism, bits)

    @property
    def count_stddev(self) -> float:
        """Standard deviation of the noise in a released count (contributed, failed), with the full cohort's shares."""
        return self.mechanism.stddev_of_sum(self.cohort) / self.encoding.scale("scalars")

    def canonical(self) -> bytes:
        """The DP parameters as bytes: what the protocol binds every mask to, so that no client can be told others."""
        encoding, mechanism = self.encoding, self.mechanism
        facts = (
            "veilsum aggregation 1",
            encoding.canonical(),
            sorted(mechanism.describe().items()),
            mechanism.local_stddev,
            self.minimum_survivors,
            self.honest_survivors,
            sorted(self.metrics.items()),
        )
        return hashlib.sha256(repr(facts).encode()).digest()

    def encode(
        self, contribution: Contribution, keystream: dp.Keystream, seeds: Sequence[bytes] = ()
    ) -> NDArray[Any]:
        """What one client hands to the masks: clipped, rounded, with its noise share, modulo 2^modulus_bits.

        Guarantee: whatever the contribution, the integers before the noise have L2 norm at most
        `encoding.sensitivity`, and the noise share is drawn in every case.
        """
        mechanism = self.mechanism
        if isinstance(mechanism, dp.RemovableDiscreteGaussian):
            share = mechanism.share(keystream, seeds)
        else:
            share = mechanism.share(keystream)
        return self._ring(self.encoding.encode(self._blocks(contribution), keystream) + share)

    def sum_round(
        self,
        contribution: Callable[[int], Contribution],
        *,
        clients: Sequence[int],
        number: int,
        model_hash: bytes,
        dropouts: Mapping[str, Collection[int]],
        entropy: RunEntropy,
        record: Record | None = None,
    ) -> RoundSum:
        """Take one round's sum over the invited clients.

        Args:
            contribution: What each client has to send, asked only of those still there when masking.
            clients: The invited, `cohort` of them.
            number: Round number, never used before.
            model_hash: 32 bytes naming the broadcast model.
            dropouts: Stage to the clients silent from it on.
            entropy: Where keys, masks, rounding and noise come from.
            record: Called with what the server receives.

        Raises:
            secagg.TooFewClients: more dropped out than tolerated; nothing was released.
        """

        def masked_input(client: int, seeds: Sequence[bytes] = ()) -> NDArray[Any]:
            return self.encode(contribution(client), entropy.keystream("noise", number, client), seeds)

        if not self.secure.masked:
            return self._ideal(masked_input, clients, dropouts, number, entropy)
        result = secagg.run_round(
            self.protocol(number, model_hash),
            clients,
            lambda client, *seeds: {"values": masked_input(client, *seeds)},
            dropouts=dropouts,
            entropy=entropy.protocol("round", number),
            record=record,
            rule=self._rule(),
        )
        revealed = [(part, seed) for parts in result.revealed.values() for part, seed in parts.items()]
        return self._open(
            result.totals["values"], revealed, len(result.survivors), result.bytes_up_per_client
        )

    def protocol(self, number: int, model_hash: bytes) -> secagg.RoundParameters:
        """The round's parameters as the protocol sees them.

        Raises:
            secagg.ParameterError: no graph withstands what is asked for, or the given one does not.
        """
        secure = self.secure
        parameters = secagg.RoundParameters.choose(
            clients=self.cohort,
            vectors=(secagg.Vector("values", self.encoding.dimension, self.modulus_bits),),
            dropout=secure.dropout,
            corruption=secure.corruption,
            graph=secure.graph,
            neighbours=secure.neighbours,
            threshold=secure.threshold,
            minimum_survivors=self.minimum_survivors,
            task="fedavg",
            round=number,
            model_hash=model_hash,
            application=self.canonical(),
            conditional_secrets=self._seeds,
            reveal_rule=_RULE if self._seeds else "",
        )

        if secure.neighbours is not None or secure.threshold is not None:
            _refuse_weak(parameters)
        return parameters

    @property
    def _seeds(self) -> int:
        return self.mechanism.seeds if isinstance(self.mechanism, dp.RemovableDiscreteGaussian) else 0

    def _rule(self) -> secagg.RevealRule | None:
        """Which parts of the noise are taken off: by how many of the planned cohort are missing, nothing else."""
        mechanism = self.mechanism
        if not isinstance(mechanism, dp.RemovableDiscreteGaussian) or not mechanism.seeds:
            return None
        return secagg.RevealRule(
            _RULE,
            lambda parameters, _, survivors: mechanism.revealed(parameters.clients - int(survivors.sum())),
        )

    def _ring(self, integers: NDArray[np.int64]) -> NDArray[Any]:
        """Integers modulo 2^modulus_bits, unsigned."""
        return integers.view(np.uint64) & np.uint64((1 << self.modulus_bits) - 1)

    def _open(
        self, total: NDArray[Any], revealed: Sequence[tuple[int, bytes]], survivors: int, bytes_up: int
    ) -> RoundSum:
        """Take off the excess noise, if any was revealed, and decode."""
        if isinstance(self.mechanism, dp.RemovableDiscreteGaussian):
            excess = self.mechanism.excess(revealed)
            total = self._ring(total.astype(np.uint64).view(np.int64) - excess)
        return RoundSum(self.encoding.decode(total, modulus_bits=self.modulus_bits), survivors, bytes_up)

    def _blocks(self, contribution: Contribution) -> Mapping[str, NDArray[Any]]:
        scalars = np.zeros(2 + len(self.metrics))
        update = np.zeros(self.encoding.length("update"))
        if contribution == "failed":
            scalars[1] = 1.0
        elif isinstance(contribution, Trained):
            scalars[0] = 1.0
            for i, (name, bound) in enumerate(self.metrics.items(), start=2):
                scalars[i] = min(max(contribution.metrics[name] / bound, -1.0), 1.0)
            update = contribution.delta
        return {"update": update, "scalars": scalars}

    def _ideal(
        self,
        value: Callable[[int, Sequence[bytes]], NDArray[Any]],
        clients: Sequence[int],
        dropouts: Mapping[str, Collection[int]],
        number: int,
        entropy: RunEntropy,
    ) -> RoundSum:
        silent = {client for stage in DROPOUT_STAGES[:3] for client in dropouts.get(stage, ())}
        survivors = [client for client in clients if client not in silent]
        if len(survivors) < self.minimum_survivors:
            raise secagg.TooFewClients(have=len(survivors), need=self.minimum_survivors)
        parts = range(1, self._seeds + 1)
        total = np.zeros(self.encoding.dimension, np.uint64)
        seeds = {
            client: [entropy.secret("seed", number, client, part) for part in parts] for client in survivors
        }
        for client in survivors:
            total += value(client, seeds[client])
        mechanism = self.mechanism
        numbers: tuple[int, ...] = ()
        if isinstance(mechanism, dp.RemovableDiscreteGaussian):
            numbers = mechanism.revealed(self.cohort - len(survivors))
        revealed = [(part, seeds[client][part - 1]) for client in survivors for part in numbers]
        return self._open(self._ring(total.view(np.int64)), revealed, len(survivors), 0)


def _refuse_weak(parameters: secagg.RoundParameters) -> None:
    """Refuse neighbours and a threshold of the caller's that do not keep the promise of `SecureAggregation`."""
    n, graph = parameters.clients, (parameters.neighbours, parameters.threshold)
    if parameters.graph == "complete":
        least = secagg.complete_threshold(n, dropout=parameters.dropout, corruption=parameters.corruption)
        unmet = {f"a threshold of at least {least}"} if parameters.threshold < least else set()
    else:
        fewest = parameters.minimum_roster
        corruption = parameters.corrupted / fewest
        unmet = {
            *secagg.unmet_conditions(n, *graph, dropout=parameters.dropout, corruption=parameters.corruption)
        }
        unmet |= {*secagg.unmet_conditions(fewest, *graph, dropout=0.0, corruption=corruption)}
    if unmet:
        raise secagg.ParameterError(
            f"{graph[0]} neighbours and threshold {graph[1]} among {n} clients do not meet {', '.join(sorted(unmet))}"
            f" at dropout {parameters.dropout} and corruption {parameters.corruption}; leave them out"
        )


def _mechanism(
    secure: SecureAggregation,
    encoding: dp.Encoding,
    noise_multiplier: float,
    *,
    cohort: int,
    lost: int,
    corrupted: int,
) -> Mechanism:
    if secure.excess_noise == "remove":
        return dp.RemovableDiscreteGaussian(
            noise_multiplier=noise_multiplier,
            sensitivity=encoding.sensitivity,
            dimension=encoding.dimension,
            cohort=cohort,
            dropouts=lost,
            colluders=corrupted,
        )
    return dp.DistributedDiscreteGaussian(
        noise_multiplier=noise_multiplier,
        sensitivity=encoding.sensitivity,
        dimension=encoding.dimension,
        honest_survivors=cohort - lost - corrupted,
    )


def _share(fraction: float, cohort: int) -> int:
    """floor(fraction * cohort), with the float product's own error forgiven (0.29 * 100 is 28.999...)."""
    return int(fraction * cohort + 1e-9)
