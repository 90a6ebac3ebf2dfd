"""Where secure aggregation and differential privacy meet, and the only place where they do.

A plan fixes, before anybody is invited, everything a round's promise rests on, and proves what neither room can
alone: that the modulus holds the worst sum with the noise on top, and that the noise left by the *fewest allowed
honest survivors* (cohort less tolerated dropouts less colluders) still meets the stated noise multiplier.

One client's values travel in one vector of named blocks and nothing travels beside it. Each block is clipped to its own
bound; all are scaled so that together they have integer L2 sensitivity `encoding.sensitivity`: one noise, one event.

Not here: what the blocks mean (`fedavg.layout`), which noise (`fedavg.noise`), who is drawn (`fedavg.federation`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

import dp
import secagg
from fedavg.entropy import RunEntropy
from fedavg.noise import Central, Distributed, Noise
from fedavg.own_dice import OwnDice, kept
from fedavg.secure_aggregation import SecureAggregation, refuse_weak

__all__ = ["DROPOUT_STAGES", "AggregationPlan", "Record", "RoundSum", "SecureAggregation", "UnmaskedPart"]

# The stages at which the simulator silences clients; from "unmask" on its input is in the sum.
DROPOUT_STAGES = ("advertise", "share", "masked_input", "unmask")

Record = Callable[[str, int, bytes], None]  # (stage, sender, what the server received)
Values = Mapping[str, ArrayLike]
_RULE = "veilsum excess noise 1"
_VALUES_AT_ONCE = 1 << 21
_WORD_BITS = 32
_RESOLUTION, _FINEST = 100.0, 1e9


@dataclass(frozen=True)
class RoundSum:
    """What a round released: decoded, noised sums of each block, and how many clients were in them.

    `memory` is what the server must keep for the next round of correlated noise: secret, empty otherwise.
    """

    sums: Mapping[str, NDArray[np.float64]]
    survivors: int
    bytes_up_per_client: int
    memory: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)


class UnmaskedPart(NamedTuple):
    """Some clients' part of a sum without masks: modulo 2^64, how many are in it, each one's noise seeds by part."""

    total: NDArray[np.int64]
    clients: int
    seeds: list[list[bytes]]


@dataclass(frozen=True)
class AggregationPlan:
    """Everything about a kind of round that is fixed and public before anybody is invited."""

    cohort: int
    minimum_survivors: int
    honest_survivors: int
    secure: SecureAggregation
    encoding: dp.Encoding
    mechanism: Distributed | Central
    modulus_bits: int
    noise_in_sum: float
    """Deviation of the noise in the sum of a whole cohort under its masks, in integer units."""
    task: str
    rotation_key: bytes

    @classmethod
    def choose(
        cls,
        blocks: Iterable[dp.Block],
        *,
        cohort: int,
        privacy: dp.Privacy,
        noise_multiplier: float,
        secure: SecureAggregation,
        task: str = "fedavg",
        rotation_key: bytes = bytes(32),
    ) -> AggregationPlan:
        """Plan rounds in which `cohort` clients send these blocks.

        Args:
            blocks: Named parts of a client's vector with their bounds; their weights add up to 1.
            cohort: Number of clients invited to every round.
            privacy: The promise: which mechanism, and whether the server is trusted.
            noise_multiplier: z, as `dp.calibrate` gives it.
            secure: How the sum is taken.
            task: What the rounds are for; masks of one task are of no use in another.
            rotation_key: 32 public bytes that do not depend on the clients' data; used with compression="rotation".

        Raises:
            ParameterError: too few honest survivors, noise that cannot be drawn, or settings that exclude each other.
            dp.ParameterError: the modulus cannot hold the worst sum, the noise shares are too small.
        """
        noise = Noise(privacy, secure, cohort, noise_multiplier)
        encoding = _encoding(tuple(blocks), noise, secure, cohort, rotation_key)
        mechanism = noise.mechanism(sensitivity=encoding.sensitivity, dimension=encoding.dimension)
        noise.check_drawable(mechanism)
        in_sum = noise.in_masked_sum(mechanism)
        bits = encoding.check_bits(secure.modulus_bits, summands=cohort, noise_stddev=in_sum)
        return cls(
            cohort=cohort,
            minimum_survivors=cohort - noise.lost,
            honest_survivors=noise.honest_survivors,
            secure=secure,
            encoding=encoding,
            mechanism=mechanism,
            modulus_bits=bits,
            noise_in_sum=in_sum,
            task=task,
            rotation_key=rotation_key,
        )

    def rescaled(self, bounds: Mapping[str, float]) -> AggregationPlan:
        """The same plan with other bounds for some blocks: scales follow, integers, noise and cost stay as they are."""
        blocks, scales = [], []
        for block, scale in zip(self.encoding.blocks, self.encoding.scales, strict=True):
            bound = bounds.get(block.name, block.l2_bound)
            blocks.append(replace(block, l2_bound=bound))
            scales.append(scale if bound == block.l2_bound else scale * (block.l2_bound / bound))
        return replace(self, encoding=replace(self.encoding, blocks=tuple(blocks), scales=tuple(scales)))

    def stddev_of_sum(self, block: str, survivors: int | None = None) -> float:
        """Deviation of the noise in a released coordinate of a block, in its own unit, with so many survivors (all).

        Correlated noise: in a run's first round; later ones have more (`dp.CentralMatrix.stddev_of_release`).
        """
        mechanism = self.mechanism
        if isinstance(mechanism, dp.CentralMatrix):
            noise = mechanism.stddev_of_release()
        elif isinstance(mechanism, dp.CentralGaussian):
            noise = mechanism.stddev
        else:
            noise = mechanism.stddev_of_sum(self.cohort if survivors is None else survivors)
        return noise / self.encoding.scale(block)

    def canonical(self) -> bytes:
        """The DP parameters as 32 bytes: what the protocol binds every mask to, so that no client is told others."""
        encoding, mechanism = self.encoding, self.mechanism
        facts = (
            "veilsum aggregation 2",
            encoding.canonical(),
            sorted(mechanism.describe().items()),
            self.noise_in_sum,
            self.minimum_survivors,
            self.honest_survivors,
        )
        return hashlib.sha256(repr(facts).encode()).digest()

    def zeros(self) -> Mapping[str, NDArray[np.float64]]:
        """What a client with nothing to say encodes."""
        return self.encoding.zeros()

    def encode(self, values: Values, keystream: dp.Keystream, seeds: Sequence[bytes] = ()) -> NDArray[Any]:
        """What one client hands to the masks: clipped, rounded, with its noise share, modulo 2^modulus_bits.

        Guarantee: whatever the values, the integers before the noise have L2 norm at most `encoding.sensitivity`, and
        the noise share is drawn in every case. A central mechanism has no shares: it trusts the server.

        Args:
            values: One array for each block.
            keystream: The client's own randomness, for rounding and noise.
            seeds: Its conditional secrets, for noise whose excess can be removed.
        """
        return self._ring(self._noised(values, keystream, seeds))

    def sum_round(
        self,
        values: Callable[[int], Values],
        *,
        clients: Sequence[int],
        number: int,
        model_hash: bytes,
        dropouts: Mapping[str, Collection[int]],
        entropy: RunEntropy,
        record: Record | None = None,
        memory: Mapping[str, NDArray[Any]] | None = None,
    ) -> RoundSum:
        """Take one round's sum over the invited clients.

        Args:
            values: What each client has to send, asked only of those still there when masking.
            clients: The invited, `cohort` of them.
            number: Round number, never used before.
            model_hash: 32 bytes naming what was broadcast.
            dropouts: Stage to the clients silent from it on.
            entropy: Where keys, masks, rounding and noise come from.
            record: Called with what the server receives.
            memory: The last round's `RoundSum.memory`.

        Raises:
            secagg.TooFewClients: more dropped out than tolerated; nothing was released.
        """
        own = self.own_dice(number, entropy).before(values)

        def masked_input(client: int, seeds: Sequence[bytes] = ()) -> NDArray[Any]:
            return self.encode(own(client), entropy.keystream("noise", number, client), seeds)

        keystream = entropy.keystream("server noise", number)
        if not self.secure.masked:
            silent = {client for stage in DROPOUT_STAGES[:3] for client in dropouts.get(stage, ())}
            there = [client for client in clients if client not in silent]
            part = self.unmasked_part(values, there, number=number, entropy=entropy)
            total, survivors, revealed = self.unmasked_sum([part], number=number, entropy=entropy)
            return self.open(total, survivors, revealed=revealed, keystream=keystream, memory=memory)
        identities = self._simulated_identities(clients)
        with kept():
            result = secagg.run_round(
                self.protocol(
                    number, model_hash, secagg.IdentityRoster.of(identities) if identities else None
                ),
                clients,
                lambda client, *seeds: {"values": masked_input(client, *seeds)},
                dropouts=dropouts,
                entropy=entropy.protocol("round", number),
                record=record,
                identities=identities,
                rule=self.rule(),
            )
        revealed = [(part, seed) for parts in result.revealed.values() for part, seed in parts.items()]
        return self.open(
            result.totals["values"],
            len(result.survivors),
            revealed=revealed,
            bytes_up=result.bytes_up_per_client,
            keystream=keystream,
            memory=memory,
        )

    def own_dice(self, number: int, entropy: RunEntropy) -> OwnDice:
        """The global random generators of a round's clients, so that none draws what depends on another's work."""
        return OwnDice(entropy.secret("dice", number))

    def unmasked_part(
        self,
        values: Callable[[int], Values],
        clients: Sequence[int],
        *,
        number: int,
        entropy: RunEntropy,
    ) -> UnmaskedPart:
        """What some clients' vectors add up to, without masks; arguments are those of `sum_round`."""
        total = np.zeros(self.encoding.dimension, np.int64)
        all_seeds = []
        own, keystream = self.own_dice(number, entropy).before(values), entropy.keystreams("noise", number)
        at_once = max(1, _VALUES_AT_ONCE // self.encoding.dimension)
        with kept():
            for start in range(0, len(clients), at_once):
                # A few clients train, then all of these are noised: either keeps the processor's cache to itself.
                held = [(client, own(client)) for client in clients[start : start + at_once]]
                for client, value in held:
                    seeds = [entropy.secret("seed", number, client, part + 1) for part in range(self._seeds)]
                    total += self._noised(value, keystream(client), seeds)
                    all_seeds.append(seeds)
        return UnmaskedPart(total, len(clients), all_seeds)

    def unmasked_sum(
        self, parts: Iterable[UnmaskedPart], *, number: int, entropy: RunEntropy
    ) -> tuple[NDArray[Any], int, list[tuple[int, bytes]]]:
        """What masks would have left of all parts: total modulo 2^modulus_bits, survivors, revealed seeds.

        Raises:
            secagg.TooFewClients: more dropped out than tolerated.
        """
        total = np.zeros(self.encoding.dimension, np.int64)
        survivors, all_seeds = 0, []
        for part in parts:
            total += part.total
            survivors += part.clients
            all_seeds += part.seeds
        if survivors < self.minimum_survivors:
            raise secagg.TooFewClients(have=survivors, need=self.minimum_survivors)
        mechanism = self.mechanism
        numbers: tuple[int, ...] = ()
        if isinstance(mechanism, dp.RemovableDiscreteGaussian):
            numbers = mechanism.revealed(self.cohort - survivors)
        elif self.secure.one_draw and isinstance(
            mechanism, dp.DistributedDiscreteGaussian | dp.DistributedSkellam
        ):
            total += mechanism.one_draw(entropy.keystream("sum of noise", number), survivors)
        revealed = [(part, seeds[part - 1]) for seeds in all_seeds for part in numbers]
        return self._ring(total), survivors, revealed

    def protocol(
        self, number: int, model_hash: bytes, roster: secagg.IdentityRoster | None = None
    ) -> secagg.RoundParameters:
        """The round's parameters as the protocol sees them.

        Args:
            number: Round number, never used before.
            model_hash: 32 bytes naming what was broadcast.
            roster: Against a malicious server: the identities that every client trusts.

        Raises:
            secagg.ParameterError: no graph withstands what is asked for, or the given one does not.
        """
        secure = self.secure
        parameters = secagg.RoundParameters.choose(
            clients=self.cohort,
            vectors=(secagg.Vector("values", self.encoding.dimension, self.modulus_bits),),
            dropout=secure.dropout,
            corruption=secure.corruption,
            graph="complete" if secure.adversary == "malicious" else secure.graph,
            adversary=secure.adversary,
            key_agreement=secure.key_agreement,
            roster_hash=b"" if roster is None else roster.hash,
            neighbours=secure.neighbours,
            threshold=secure.threshold,
            minimum_survivors=self.minimum_survivors,
            task=self.task,
            round=number,
            model_hash=model_hash,
            application=self.canonical(),
            conditional_secrets=self._seeds,
            reveal_rule=_RULE if self._seeds else "",
        )

        if secure.neighbours is not None or secure.threshold is not None:
            refuse_weak(parameters)
        return parameters

    @cached_property
    def terms_of_statements(self) -> Mapping[str, Any]:
        """What `dp.statements` has to be told of how the sums are taken."""
        return {
            "mechanism": self.mechanism,
            "minimum_survivors": self.minimum_survivors,
            "masked": self.secure.masked,
            "active_server": self.secure.adversary == "malicious",
            "quantum_safe": self.secure.key_agreement != "x25519",
            "sparse": self.secure.masked and self.check_graph() == "sparse",
        }

    def check_graph(self) -> Literal["complete", "sparse"]:
        """The graph of the masks; settings that none withstands are refused, before anything is charged.

        Raises:
            secagg.ParameterError: says which.
        """
        anybody = self._simulated_identities((0,))
        return self.protocol(0, bytes(32), secagg.IdentityRoster.of(anybody) if anybody else None).graph

    def rule(self) -> secagg.RevealRule | None:
        """Which parts of the noise are taken off: by how many of the planned cohort are missing, nothing else."""
        mechanism = self.mechanism
        if not isinstance(mechanism, dp.RemovableDiscreteGaussian) or not mechanism.seeds:
            return None
        return secagg.RevealRule(
            _RULE,
            lambda parameters, _, survivors: mechanism.revealed(parameters.clients - int(survivors.sum())),
        )

    def open(
        self,
        total: NDArray[Any],
        survivors: int,
        *,
        revealed: Sequence[tuple[int, bytes]] = (),
        bytes_up: int = 0,
        keystream: dp.Keystream | None = None,
        memory: Mapping[str, NDArray[Any]] | None = None,
    ) -> RoundSum:
        """From the unmasked sum to what is released: excess noise off, or a trusted server's noise on; then decoded.

        Args:
            total: The sum modulo 2^modulus_bits.
            survivors: Number of clients in it.
            revealed: (part, seed) of the noise to take off.
            bytes_up: Most bytes one client sent.
            keystream: Randomness of a trusted server's noise; from the operating system when None.
            memory: The last round's `RoundSum.memory`.
        """
        mechanism = self.mechanism
        state: Mapping[str, NDArray[Any]] = {}
        if isinstance(mechanism, dp.RemovableDiscreteGaussian):
            total = self._ring(total.astype(np.uint64).view(np.int64) - mechanism.excess(revealed))
        values: NDArray[Any] = self.encoding.lift(total, modulus_bits=self.modulus_bits)
        if isinstance(mechanism, dp.CentralGaussian):
            values = values + mechanism.noise(keystream or dp.Keystream())
        elif isinstance(mechanism, dp.CentralMatrix):
            release = mechanism.start(memory)
            values, state = release.next(values, keystream or dp.Keystream()), release.state
        return RoundSum(self.encoding.read(values), survivors, bytes_up, state)

    def _simulated_identities(self, clients: Sequence[int]) -> Mapping[int, secagg.Identity] | None:
        """Signing keys for a cohort that is played in one process; a deployment has its own, and its own roster."""
        if self.secure.adversary == "semi_honest":
            return None
        return {client: secagg.Identity.generate() for client in clients}

    @property
    def _seeds(self) -> int:
        return self.mechanism.seeds if isinstance(self.mechanism, dp.RemovableDiscreteGaussian) else 0

    def _noised(self, values: Values, keystream: dp.Keystream, seeds: Sequence[bytes]) -> NDArray[np.int64]:
        encoded = self.encoding.encode(values, keystream)
        if isinstance(self.mechanism, Central) or self.secure.one_draw:
            return encoded
        if isinstance(self.mechanism, dp.RemovableDiscreteGaussian):
            self.mechanism.add_share(encoded, keystream, seeds)
        else:
            self.mechanism.add_share(encoded, keystream)
        return encoded

    def _ring(self, integers: NDArray[np.int64]) -> NDArray[Any]:
        """Integers modulo 2^modulus_bits, unsigned, in words no wider than the masks'."""
        words: NDArray[Any] = integers.astype(np.uint32 if self.modulus_bits <= _WORD_BITS else np.uint64)
        words &= words.dtype.type((1 << self.modulus_bits) - 1)
        return words


def _uncompressed(blocks: tuple[dp.Block, ...], noise: Noise) -> dp.Encoding:
    """Integer units as coarse as usual, or finer where a share of the noise would be too narrow in them.

    A share falls with the root of the cohort and units grow with that of the longest block: few values, many clients.
    """
    resolution = _RESOLUTION
    encoding = dp.Encoding.plan(blocks, resolution=resolution)
    while not noise.is_wide_enough(encoding) and resolution < _FINEST:
        resolution *= 2
        encoding = dp.Encoding.plan(blocks, resolution=resolution)
    return encoding


def _encoding(
    blocks: tuple[dp.Block, ...], noise: Noise, secure: SecureAggregation, cohort: int, rotation_key: bytes
) -> dp.Encoding:
    if secure.compression == "none":
        return _uncompressed(blocks, noise)
    return dp.compressed(
        blocks,
        rotation_key=rotation_key,
        summands=cohort,
        noise_multiplier=noise.full_multiplier,
        modulus_bits=secure.modulus_bits,
    )
