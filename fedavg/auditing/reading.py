"""A transcript's messages taken apart, each with the protocol's own codec, so that every byte of it has a name.

Read are the four stages of a round against a server that follows the protocol and the five against one that does not;
what workers of a backend hand up in place of their clients' masked vectors (`secagg.PartialSum`, from senders below 0);
and the identity keys of simulated clients, against which signatures are then verified.

Not here: what ought to look random and whether it does (`fedavg.auditing.transcript`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedavg.auditing.recording import Message
from secagg import IdentityRoster, MalformedMessage, RoundParameters, SecAggError
from secagg.binding import advert_statement, ring_seed
from secagg.graph import holder_table
from secagg.identities import SIGNATURE_BYTES
from secagg.messages import HASH_BYTES, HEADER_BYTES, SALT_BYTES, Codec, Mask, kind_of
from secagg.partial_sum import decode_part
from secagg.phases import Kind
from secagg.ring import packed_size, unpack
from secagg.routing import Routing
from secagg.shamir import PRIME

__all__ = ["BINS", "Reading", "at_least"]

BINS = 16
_IDENTITY = "identity"
_STAGES = {
    "advertise": Kind.ADVERTISE,
    "share": Kind.SHARE,
    "masked_input": Kind.MASKED_INPUT,
    "consistency": Kind.CONSISTENCY,
    "unmask": Kind.UNMASK,
}
_IDS = 2**63
_ORDER = (
    2**252 + 27742317777372353535851937790883648493
)  # Of Ed25519's group: the second half of a signature is less.


class Session:
    """What is known of one round from its earlier messages.

    Args:
        parameters: Of the rounds.
        name: The 32 bytes in every header.
        identities: Identity keys of its clients; empty where none were recorded.
    """

    def __init__(self, parameters: RoundParameters, name: bytes, identities: dict[int, bytes]) -> None:
        self.codec, self.name = Codec(parameters, name), name
        self.roster = IdentityRoster(identities) if identities else None
        self.adverts: dict[int, bytes] = {}
        self.shared: set[int] = set()
        self.seen: set[tuple[str, int]] = set()
        self._graph: tuple[list[int], Mask, Routing] | None = None

    def graph(self, neighbours: int) -> tuple[list[int], Mask, Routing]:
        """Who is in the roster, who of them shared, and who holds whose shares: settled before the masked inputs."""
        if self._graph is None:
            known = self.codec.decode_roster(self.codec.encode_roster(self.adverts))
            table = holder_table(len(known.ids), neighbours=neighbours, seed=ring_seed(known.hash))
            ids: list[int] = known.ids.tolist()
            self._graph = ids, np.isin(known.ids, list(self.shared)), Routing(table)
        return self._graph


@dataclass
class Reading:
    """What is gathered on the way through a transcript.

    Args:
        parameters: Of its rounds.
    """

    parameters: RoundParameters
    sessions: dict[bytes, Session] = field(default_factory=dict)
    messages: Counter[str] = field(default_factory=Counter)
    contents: Counter[str] = field(default_factory=Counter)
    random_bytes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    vectors: int = 0
    oddest: float = 1.0  # Smallest p-value of a vector's fullest bin, and the share of values in it.
    fullest: float = 0.0
    sealed: int = 0
    oddest_sealed: float = 1.0  # The same of a message's sealed bytes.
    fullest_sealed: float = 0.0
    identities: dict[int, bytes] = field(default_factory=dict)  # Of the round that comes next.

    def __post_init__(self) -> None:
        values = sum(vector.padded_length for vector in self.parameters.vectors)
        self.coordinates = np.zeros((BINS, values), np.int32)  # How often each coordinate fell into each bin.

    def read(self, message: Message) -> str | None:
        """Take one message apart; what is wrong with it, if anything."""
        try:
            if message.stage == _IDENTITY:
                parts = self._identity(message)
            elif message.stage == "masked_input" and message.sender < 0:
                parts = self._partial_sum(message.data)
            else:
                parts = {"headers": HEADER_BYTES, **self._from_client(message)}
        except SecAggError as error:
            return str(error)
        self.messages[message.stage] += 1
        self.contents.update(parts)
        return None

    def _identity(self, message: Message) -> dict[str, int]:
        """The identity key of a simulated client; they come before the round's first message."""
        if message.sender in self.identities:
            self.identities = {}  # The round before ended without a message.
        IdentityRoster({message.sender: message.data})
        if not self.parameters.is_malicious:
            raise MalformedMessage("an identity key in rounds that have none")
        self.identities[message.sender] = message.data
        return {"identity keys": len(message.data)}

    def _from_client(self, message: Message) -> dict[str, int]:
        data = message.data
        if not 0 <= message.sender < _IDS:
            raise MalformedMessage(f"the sender is {message.sender}, which is no client's id")
        if message.stage not in _STAGES:
            raise MalformedMessage(f"{len(data)} bytes at a stage that the protocol does not have")
        kind = kind_of(data)
        if kind is not _STAGES[message.stage]:
            raise MalformedMessage(f"a message of kind {kind.name.lower()}")
        if kind is Kind.CONSISTENCY and not self.parameters.is_malicious:
            raise MalformedMessage(
                "a stage that rounds against a server that follows the protocol do not have"
            )
        session = self._session(data[HEADER_BYTES - HASH_BYTES : HEADER_BYTES])
        if (message.stage, message.sender) in session.seen:
            raise MalformedMessage("a second message at one stage of one round")
        session.seen.add((message.stage, message.sender))
        return _PARTS[kind](self, session, message)

    def _session(self, name: bytes) -> Session:
        if name not in self.sessions:
            self.sessions[name] = Session(self.parameters, name, self.identities)
            self.identities = {}
        return self.sessions[name]

    def _advertise(self, session: Session, message: Message) -> dict[str, int]:
        publics, signature = session.codec.decode_advertise(message.data, sender=message.sender)
        if session.roster is not None:
            roster = session.roster
            statement = advert_statement(session.name, message.sender, roster.hash, publics)
            roster.verify(message.sender, signature, statement)
        elif int.from_bytes(signature[SIGNATURE_BYTES // 2 :], "little") >= _ORDER:
            raise MalformedMessage("64 bytes that are nobody's signature")
        self._looks_random(
            signature[: SIGNATURE_BYTES - 1]
        )  # The last byte of a number below the order is not.
        session.adverts[message.sender] = publics + signature
        return {"public keys": len(publics), "signatures": len(signature)}

    def _share(self, session: Session, message: Message) -> dict[str, int]:
        codec = session.codec
        fixed = HEADER_BYTES + (codec.secrets - 1) * HASH_BYTES + codec.hash_row_bytes
        # How many neighbours a client has follows from the roster, which never holds more than are planned.
        rows = (len(message.data) - fixed) // (codec.row_bytes + codec.hash_row_bytes)
        neighbours = min(max(rows, 0), self.parameters.neighbours)
        parts = codec.decode_share(message.data, neighbours=neighbours, edges=0, sender=message.sender)
        self._looks_random(parts.commitments + parts.rows + parts.hashes)
        session.shared.add(message.sender)
        return {
            "commitments": len(parts.commitments),
            "sealed shares": len(parts.rows),
            "hashes of shares": len(parts.hashes),
        }

    def _masked_input(self, session: Session, message: Message) -> dict[str, int]:
        vectors = self.parameters.vectors
        size = sum(packed_size(vector.padded_length, vector.modulus_bits) for vector in vectors)
        bitmap = len(message.data) - HEADER_BYTES - size
        neighbours = min(max(8 * bitmap, 0), self.parameters.neighbours)
        _, packed = session.codec.decode_masked_input(
            message.data, neighbours=neighbours, sender=message.sender
        )
        self._vectors(packed)
        return {"masked vectors": sum(map(len, packed)), "bitmaps": bitmap}

    def _partial_sum(self, data: bytes) -> dict[str, int]:
        """A worker's clients' masked vectors, added up where they were made."""
        session = self.sessions.get(data[:HASH_BYTES])
        if session is None:
            raise MalformedMessage("a sum of masked vectors of no round that was begun")
        ids, shared, routing = session.graph(self.parameters.neighbours)
        part = decode_part(data, session.name, self.parameters.vectors, routing, shared)
        inside = {("masked_input", ids[position]) for position in part.senders}
        if twice := inside & session.seen:
            raise MalformedMessage(f"the masked vector of client {min(twice)[1]} is in a sum a second time")
        if not inside:
            raise MalformedMessage("a sum of nobody's masked vectors")
        session.seen |= inside
        self._vectors(part.packed)
        size = sum(map(len, part.packed))
        return {
            "headers": HASH_BYTES,
            "sums of masked vectors": size,
            "bitmaps": len(data) - HASH_BYTES - size,
        }

    def _consistency(self, session: Session, message: Message) -> dict[str, int]:
        ids, _, routing = session.graph(self.parameters.neighbours)
        survivors = {client for stage, client in session.seen if stage == "masked_input"}
        if message.sender not in survivors or message.sender not in ids:
            raise MalformedMessage("tags of a client that sent no masked vector, or had no keys")
        neighbours = routing.neighbours(ids.index(message.sender))
        tags = sum(ids[position] in survivors for position in neighbours)
        body = session.codec.decode_consistency(message.data, neighbours=tags, sender=message.sender)
        self._looks_random(body)
        return {"consistency tags": len(body)}

    def _unmask(self, session: Session, message: Message) -> dict[str, int]:
        codec, parameters = session.codec, self.parameters
        most = (parameters.neighbours + 1) * (1 + parameters.conditional_secrets)
        records = min((len(message.data) - HEADER_BYTES) // codec.record_bytes, most)
        body = codec.decode_unmask(message.data, records=records, sender=message.sender)
        table = np.frombuffer(body, np.uint8).reshape(records, codec.record_bytes)
        words = table[:, codec.salt_bytes :].copy().view("<u2")
        if words.size and int(words.max()) >= PRIME:
            raise MalformedMessage(f"a share holds {int(words.max())}, outside its field of {PRIME}")
        salts = records * SALT_BYTES if codec.salt_bytes else 0
        self._looks_random(table[:, : codec.salt_bytes].tobytes())
        return {"shares": len(body) - salts, "salts": salts}

    def _looks_random(self, data: bytes | memoryview) -> None:
        counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
        self.random_bytes += counts
        self.sealed += 1
        if (p := at_least(int(counts.max()), len(data), 1 / 256)) < self.oddest_sealed:
            self.oddest_sealed, self.fullest_sealed = p, int(counts.max()) / len(data)

    def _vectors(self, packed: Sequence[memoryview]) -> None:
        """Count how the values of masked vectors spread over the ring."""
        start = 0
        for vector, data in zip(self.parameters.vectors, packed, strict=True):
            words = unpack(data, length=vector.padded_length, bits=vector.modulus_bits)
            bins = (words.astype(np.uint64) >> np.uint64(max(vector.modulus_bits - 4, 0))).astype(np.intp)
            self.coordinates[bins, np.arange(start, start + len(bins))] += 1
            self.vectors += 1
            most = int(np.bincount(bins, minlength=BINS).max())
            if (p := at_least(most, len(bins), 1 / BINS)) <= self.oddest:
                self.oddest, self.fullest = p, most / len(bins)
            start += len(bins)


_PARTS = {
    Kind.ADVERTISE: Reading._advertise,
    Kind.SHARE: Reading._share,
    Kind.MASKED_INPUT: Reading._masked_input,
    Kind.CONSISTENCY: Reading._consistency,
    Kind.UNMASK: Reading._unmask,
}


def at_least(count: int, trials: int, chance: float) -> float:
    """The probability of so many hits or more."""
    from scipy.stats import binom

    return float(binom.sf(count - 1, trials, chance))
