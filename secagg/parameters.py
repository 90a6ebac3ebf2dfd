"""What a round is: its vectors, its graph and thresholds, and the promises a client pins.

A `RoundParameters` is the whole public agreement about one round. Client and server each build their own;
the server's offer carries the server's canonical bytes, and a client takes part only where they equal the
bytes of the parameters it built from its own settings. So nothing that decides privacy (mode, graph, key
agreement, planned clients, corruption, dropout, floors, the application's parameters) can be set by the
server. Invariants:

- the canonical bytes are injective in the fields (`secagg.binding.enc`), so equal bytes mean equal rounds;
- the number of corrupted clients is `floor(corruption * clients + 1e-9)` of the *planned* clients, an
  absolute number, never recomputed from a smaller roster;
- in malicious mode neighbours and threshold that do not meet the conditions cannot be constructed.

Not here: the choice of graph and threshold (`secagg.choice`), the message layouts (`secagg.messages`).
Source: Bonawitz et al. 2017 (complete graph), Bell et al. 2020 (sparse graph).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from secagg.binding import enc, split
from secagg.choice import choose_graph, least_roster, least_survivors, require_malicious_conditions, share_of
from secagg.errors import ParameterError
from secagg.hybrid import require_support
from secagg.ring import word_dtype
from secagg.shamir import MAX_SHARES

__all__ = ["Adversary", "Graph", "KeyAgreement", "RoundParameters", "Vector"]

Graph = Literal["complete", "sparse"]
Adversary = Literal["semi_honest", "malicious"]
KeyAgreement = Literal["x25519", "x25519-mlkem768"]

MAX_CLIENTS = 10**6
MAX_LENGTH = 2**32
MAX_MESSAGE_BYTES = 2**31 - 1  # what one call of AES-GCM takes
_CHECK_BITS = 64


@dataclass(frozen=True, slots=True)
class Vector:
    """One named vector of a round: so many values modulo 2^modulus_bits.

    Attributes:
        name: unique in its round.
        length: number of values, at least 1.
        modulus_bits: 1..62.

    >>> Vector("update", length=1000, modulus_bits=24).checks
    3
    """

    name: str
    length: int
    modulus_bits: int

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        word_dtype(self.modulus_bits)
        _within("the length of a vector", self.length, 1, MAX_LENGTH)

    @property
    def checks(self) -> int:
        """How many check coordinates (constant ones) travel behind the values: ceil(64 / bits)."""
        return -(-_CHECK_BITS // self.modulus_bits)

    @property
    def padded_length(self) -> int:
        """Values plus check coordinates: what is masked and sent."""
        return self.length + self.checks


@dataclass(frozen=True, kw_only=True)
class RoundParameters:
    """The public agreement about one round; build it with `choose`.

    Attributes:
        vectors: what is summed, in order.
        clients: planned number of clients, n.
        graph: "complete", or "sparse" (a ring in random order, each client joined to k/2 on either side).
        neighbours: k; n-1 in the complete graph.
        threshold: t, share holders needed to unmask; of the k+1 that hold a client's shares, itself included.
        dropout: fraction of the planned clients that may go silent and the round still succeed.
        corruption: fraction of the planned clients that may collude with the server.
        adversary: "semi_honest", or "malicious" (an active server).
        key_agreement: "x25519", or "x25519-mlkem768" against whoever records now and breaks X25519 later.
        conditional_secrets: m, extra seeds of every client; complete graph only in malicious mode.
        reveal_rule: name of the rule that says which of them are revealed.
        minimum_survivors: floor M; a client helps to unmask no sum over fewer.
        task: what the rounds belong to; part of the single-use key.
        round: number of the round in its task, rising.
        model_hash: 32 bytes that name the model the inputs were computed from.
        application: the application's own canonical parameters (its noise, its budget), opaque here.
        roster_hash: malicious mode: hash of the trusted identity keys; else empty.
        security_bits: sigma; the round leaks with probability at most 2^-sigma.
        failure_bits: eta; planned dropouts break the round with probability at most 2^-eta.
    """

    vectors: tuple[Vector, ...]
    clients: int
    graph: Graph
    neighbours: int
    threshold: int
    dropout: float
    corruption: float
    adversary: Adversary
    key_agreement: KeyAgreement = "x25519"
    conditional_secrets: int = 0
    reveal_rule: str = ""
    minimum_survivors: int
    task: str
    round: int
    model_hash: bytes
    application: bytes
    roster_hash: bytes = b""
    security_bits: int = 40
    failure_bits: int = 30

    @classmethod
    def choose(
        cls,
        *,
        clients: int,
        vectors: Sequence[Vector],
        dropout: float,
        corruption: float,
        task: str,
        round: int,
        model_hash: bytes,
        application: bytes,
        graph: Graph | Literal["auto"] = "auto",
        neighbours: int | None = None,
        threshold: int | None = None,
        adversary: Adversary = "semi_honest",
        key_agreement: KeyAgreement = "x25519",
        conditional_secrets: int = 0,
        reveal_rule: str = "",
        minimum_survivors: int | None = None,
        roster_hash: bytes = b"",
        security_bits: int = 40,
        failure_bits: int = 30,
    ) -> RoundParameters:
        """Choose graph, neighbours and threshold for a planned number of clients.

        Guarantee: with the values chosen here (neighbours and threshold left out), a server that colludes
        with at most `corruption` of the clients learns more than sums with probability at most
        2^-security_bits. Neighbours and threshold given together are taken as they are; in malicious mode
        all are refused that do not meet the conditions.

        Args:
            clients: planned number, 2..10^6.
            vectors: what to sum.
            dropout: fraction in [0, 1) that may go silent.
            corruption: fraction in [0, 1) that may collude with the server.
            task: name of the task.
            round: number of the round, 0..2^63-1.
            model_hash: 32 bytes.
            application: the application's canonical parameters.
            graph: "auto" is sparse where feasible with k < n/2, else complete.
            neighbours: k, even; implies the sparse graph under "auto".
            threshold: t.
            adversary: "semi_honest" or "malicious".
            key_agreement: how pairs agree on keys.
            conditional_secrets: m.
            reveal_rule: name of their rule.
            minimum_survivors: floor M on the clients in the sum. Where it is left out: max(t, C + 2), and on the
                sparse graph, whose t says nothing about the whole ring, no fewer than clients - max(1, D).
            roster_hash: malicious mode: hash of the trusted identity keys.
            security_bits: sigma.
            failure_bits: eta.

        Returns:
            The parameters.

        Raises:
            ParameterError: a value out of range, or no values meet the conditions.

        >>> RoundParameters.choose(clients=100, vectors=[Vector("update", 10, 24)], dropout=0.05,
        ...     corruption=0.05, task="t", round=0, model_hash=bytes(32), application=b"").neighbours
        12
        """
        _within("the number of clients", clients, 2, MAX_CLIENTS)
        _fraction("dropout", dropout)
        _fraction("corruption", corruption)
        graph, neighbours, threshold = choose_graph(
            graph,
            neighbours,
            threshold,
            clients=clients,
            dropout=dropout,
            corruption=corruption,
            adversary=adversary,
            security_bits=security_bits,
            failure_bits=failure_bits,
        )
        return cls(
            vectors=tuple(vectors),
            clients=clients,
            graph=graph,
            neighbours=neighbours,
            threshold=threshold,
            dropout=float(dropout),
            corruption=float(corruption),
            adversary=adversary,
            key_agreement=key_agreement,
            conditional_secrets=conditional_secrets,
            reveal_rule=reveal_rule,
            minimum_survivors=minimum_survivors
            if minimum_survivors is not None
            else least_survivors(graph, threshold, clients=clients, dropout=dropout, corruption=corruption),
            task=task,
            round=round,
            model_hash=model_hash,
            application=application,
            roster_hash=roster_hash,
            security_bits=security_bits,
            failure_bits=failure_bits,
        )

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _within("the number of clients", self.clients, 2, MAX_CLIENTS)
        _within("the round", self.round, 0, 2**63 - 1)
        if self.neighbours >= MAX_SHARES:
            raise ParameterError(
                f"{self.neighbours} neighbours need {self.neighbours + 1} shares of a secret and there are "
                f"{MAX_SHARES}; use graph='sparse'"
            )
        _within("the threshold", self.threshold, 2, self.neighbours + 1)
        _within("the number of conditional secrets", self.conditional_secrets, 0, 1000)
        _within("the floor of survivors", self.minimum_survivors, 2, self.clients)
        if self.graph == "complete":
            _within("the neighbours of a complete graph", self.neighbours, self.clients - 1, self.clients - 1)
        elif self.neighbours % 2 or not 2 <= self.neighbours < self.clients:
            raise ParameterError(
                f"{self.neighbours} neighbours among {self.clients} clients; use an even number below the clients"
            )
        if self.threshold <= self.corrupted and self.graph == "complete":
            raise ParameterError(
                f"a threshold of {self.threshold} lets {self.corrupted} corrupted clients unmask anyone; raise it"
            )
        if len(self.model_hash) != 32:
            raise ParameterError(f"the model hash has {len(self.model_hash)} bytes; it takes 32")
        if self.key_agreement not in ("x25519", "x25519-mlkem768"):
            raise ParameterError(
                f"key agreement {self.key_agreement!r} is not known; use 'x25519' or 'x25519-mlkem768'"
            )
        if self.is_hybrid:
            require_support()
        if self.is_malicious:
            self._require_malicious_conditions()
        names = [vector.name for vector in self.vectors]
        if not names or len(set(names)) != len(names):
            raise ParameterError(f"the vectors are named {names}; give at least one, each its own name")
        self._require_messages_fit()

    def _require_messages_fit(self) -> None:
        """Refuse a round in which an honest client would send more than a server takes as one message."""
        from secagg.messages import Codec  # which needs the parameters

        largest = Codec(self, b"").largest_from_client(self.neighbours)
        if largest > MAX_MESSAGE_BYTES:
            raise ParameterError(
                f"a client's largest message has {largest} bytes and one holds {MAX_MESSAGE_BYTES}; sum fewer values, "
                "in fewer bits, in several tasks, or take fewer neighbours or conditional secrets"
            )

    def _require_malicious_conditions(self) -> None:
        """Refuse what an active server could exploit: weak k and t, no trusted roster, non-unique sets."""
        if len(self.roster_hash) != 32:
            raise ParameterError("malicious mode needs the hash of a trusted roster of identity keys")
        if self.conditional_secrets and self.graph == "sparse":
            raise ParameterError("conditional secrets against an active server need graph='complete'")
        require_malicious_conditions(self)

    @property
    def dropped(self) -> int:
        """D: how many clients may go silent; absolute, from the planned clients."""
        return share_of(self.dropout, self.clients)

    @property
    def corrupted(self) -> int:
        """C: how many clients may collude with the server; absolute, from the planned clients."""
        return share_of(self.corruption, self.clients)

    @property
    def minimum_roster(self) -> int:
        """Fewest advertised clients a client goes on with."""
        least = max(self.threshold, self.minimum_survivors)
        if self.adversary == "malicious":
            return max(least, least_roster(self.clients))
        if self.graph == "sparse":
            # k and t were chosen for a roster less the planned dropouts, and for none smaller.
            return max(least, self.clients - max(1, self.dropped))
        return least

    @property
    def is_malicious(self) -> bool:
        """Whether the server is assumed to be active."""
        return self.adversary == "malicious"

    @property
    def is_hybrid(self) -> bool:
        """Whether pairs agree on post-quantum keys as well."""
        return self.key_agreement == "x25519-mlkem768"

    @cached_property
    def canonical(self) -> bytes:
        """Injective bytes of every field, vectors as encoded triples; what offers carry and sessions hash."""
        fields = [getattr(self, name) for name in _FIELDS]
        vectors = enc(*(part for v in self.vectors for part in (v.name, v.length, v.modulus_bits)))
        return enc(vectors, *fields)

    def differences(self, canonical: bytes) -> list[str]:
        """Names of the fields in which an offer's canonical bytes differ from these parameters."""
        names = ["vectors", *_FIELDS]
        mine, offered = split(self.canonical), split(canonical)
        if len(offered) != len(names):
            return names
        return [name for name, a, b in zip(names, mine, offered, strict=True) if a != b]


_FIELDS = [field.name for field in dataclasses.fields(RoundParameters) if field.name != "vectors"]


def _within(what: str, value: int, least: int, most: int) -> None:
    """Raise unless least <= value <= most."""
    if not least <= value <= most:
        raise ParameterError(f"{what} is {value}; it must lie in {least}..{most}")


def _fraction(what: str, value: float) -> None:
    """Raise unless 0 <= value < 1."""
    if not 0 <= value < 1:
        raise ParameterError(f"{what} is {value}; it must be at least 0 and below 1")
