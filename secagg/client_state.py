"""What a client remembers during a round, and what it checks before one and before its input.

Invariant: everything secret is in `Secrets`, which the client lets go of when the round ends or fails.

Not here: the round itself (`secagg.client`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from secagg.agreement import KeySet, Pairs
from secagg.errors import ParameterError
from secagg.graph import Positions
from secagg.identities import Identity, IdentityRoster
from secagg.messages import Roster
from secagg.parameters import RoundParameters, Vector
from secagg.ring import Words, checked, word_dtype
from secagg.secrecy import hidden, refuse_copies

__all__ = ["Inputs", "Place", "Secrets", "SingleUse", "require_trust", "with_checks"]

Inputs = Mapping[str, npt.NDArray[np.unsignedinteger[Any]]]


class SingleUse(Protocol):
    """Where a client records that an input was used; see `secagg.records.Records`."""

    def claim(self, *, task: str, round: int) -> None:
        """Record this round durably, or raise `RecordError`; called once, before an input leaves."""


class Secrets:
    """Everything that must be gone when the round is over. Lists run over the neighbours, by position."""

    __slots__ = ("keys", "own_row", "pairs", "rows", "seeds")

    keys: KeySet
    pairs: Pairs
    seeds: list[bytes]
    rows: list[bytes | None]
    own_row: bytes

    __repr__ = hidden
    __reduce__ = refuse_copies

    def drop_all_but_shares(self) -> None:
        """Forget what no later step needs, once the input is masked."""
        del self.keys, self.seeds
        self.pairs.drop_all_but_tags()


class Place:
    """Where this client stands in the roster and on the graph; all public."""

    __slots__ = ("clients", "holders", "neighbours", "own", "own_place", "peers", "sealers")

    def __init__(self, roster: Roster, own: int, holders: Positions) -> None:
        self.clients = len(roster.ids)
        self.own = own
        self.holders = holders
        self.own_place = int(np.searchsorted(holders, own))
        self.neighbours = np.delete(holders, self.own_place)
        self.peers: list[int] = roster.ids[self.neighbours].tolist()
        self.sealers = np.zeros(len(self.peers), np.bool_)


def require_trust(
    parameters: RoundParameters,
    client_id: int,
    identity: Identity | None,
    identities: IdentityRoster | None,
) -> None:
    """Raise unless the identity and the roster are there and are those of the round."""
    if identity is None or identities is None:
        raise ParameterError(
            "malicious mode needs this client's identity and the trusted roster; give identity= and identities="
        )
    if identities.hash != parameters.roster_hash or identities.get(client_id) != identity.public:
        raise ParameterError(
            f"client {client_id} does not stand with this identity in the roster that the parameters name; "
            "give the roster whose hash they hold"
        )


def with_checks(values: npt.ArrayLike, vector: Vector) -> Words:
    """The values followed by the check coordinates, as fresh words."""
    if np.shape(values) != (vector.length,):
        raise ParameterError(
            f"the input {vector.name!r} has shape {np.shape(values)}; the round takes ({vector.length},)"
        )
    words = np.ones(vector.padded_length, word_dtype(vector.modulus_bits))
    words[: vector.length] = checked(values, vector.modulus_bits)
    return words
