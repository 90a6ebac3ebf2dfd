"""Parties that misbehave: a server that lies client by client, and a client that deals, answers or counts wrong.

Both are the real machines with a few steps bent, so that they work on every graph, in both modes and under
both key agreements, and what is not bent stays honest. Use them in place of `secagg.Server` and
`secagg.Client`, in `secagg.testing.play` or behind your own transport. Invariants:

- a bent server keeps everything that clients send, also what an honest server refuses;
- `BendableServer.unmasked` says which clients both of whose secrets could be recovered: in a round that is
  sound it stays empty, whatever is bent.

Not here: what the network does (`secagg.testing.network`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from secagg.client import Client
from secagg.client_state import Secrets
from secagg.dealing import MASK_KEY, SELF_MASK
from secagg.messages import HASH_BYTES, HEADER_BYTES, Mask, kind_of
from secagg.parameters import RoundParameters
from secagg.phases import Kind, Phase
from secagg.server import Server
from secagg.shamir import PRIME

__all__ = ["BendableServer", "ByzantineClient", "Delta", "no_secret", "one_wrong_share", "too_high_a_degree"]

Bend = Callable[[int, bytes], bytes]
Delta = Callable[[int, int], Mapping[int, int]]
"""From (secret, point) to what is added to the words of that share: word index to amount, modulo 65521."""


class BendableServer(Server):
    """A server that can lie.

    Args:
        parameters: the round.
        floors: False to go on with however few clients remain.
        reflect_tags: True to give clients their own consistency tags back as if they were their neighbours'.
        **options: as for `secagg.Server`.

    Attributes:
        received: (stage, sender, bytes) of everything that arrived, in order.

    >>> from secagg import RoundParameters, Vector
    >>> parameters = RoundParameters.choose(clients=6, vectors=[Vector("v", 2, 8)], dropout=0.2,
    ...     corruption=0, task="t", round=0, model_hash=bytes(32), application=b"")
    >>> server = BendableServer(parameters)
    >>> server.show_survivors([0], among=[1, 2, 3, 4, 5])
    """

    def __init__(
        self, parameters: RoundParameters, *, floors: bool = True, reflect_tags: bool = False, **options: Any
    ) -> None:
        super().__init__(parameters, **options)
        self.received: list[tuple[str, int, bytes]] = []
        self._floors = floors
        self._reflects = reflect_tags
        self._bends: list[tuple[Kind, Bend]] = []
        self._shown_shared: dict[int, Collection[int]] = {}
        self._shown_survivors: dict[int, Collection[int]] = {}
        self._spoiled: set[tuple[int, int]] = set()
        self._heard: dict[tuple[int, int], bytes] = {}

    def bend(self, kind: Kind, change: Bend) -> None:
        """Let `change(client, message)` rewrite every outgoing message of a kind."""
        self._bends.append((kind, change))

    def show_shared(self, to: Iterable[int], *, among: Collection[int]) -> None:
        """Tell some clients that exactly the clients `among` shared (U2).

        Args:
            to: Who is told.
            among: The set they are told.
        """
        self._shown_shared.update(dict.fromkeys(to, among))

    def show_survivors(self, to: Iterable[int], *, among: Collection[int]) -> None:
        """Tell some clients that exactly the clients `among` are in the sum (U3).

        Args:
            to: Who is told.
            among: The set they are told.
        """
        self._shown_survivors.update(dict.fromkeys(to, among))

    def spoil_row(self, dealer: int, holder: int) -> None:
        """Deliver zeros in place of the row of shares from client `dealer` to client `holder`."""
        self._spoiled.add((dealer, holder))

    @property
    def unmasked(self) -> tuple[int, ...]:
        """Clients of whom at least `threshold` holders revealed the one secret, and as many the other.

        Whoever has both takes the input of such a client out of its masks.
        """
        if not hasattr(self, "_shares"):
            return ()
        holders: dict[tuple[int, int], set[int]] = defaultdict(set)
        for stage, sender, data in self.received:
            if stage == "unmask" and len(data) > HEADER_BYTES:
                position = self._ids.index(sender)
                shown = self._shared_for(sender), self._survivors_for(sender)
                answer = self._shares.answer(position, *shown, self._numbers)
                for dealer, secret in zip(answer.dealers.tolist(), answer.secrets.tolist(), strict=True):
                    holders[dealer, secret].add(position)
        enough = {key for key, who in holders.items() if len(who) >= self._parameters.threshold}
        both = [d for d in range(len(self._ids)) if {(d, SELF_MASK), (d, MASK_KEY)} <= enough]
        return tuple(self._ids[dealer] for dealer in both)

    def message_for(self, client_id: int) -> bytes:
        """The message of the present stage, bent as asked for."""
        if self.phase is Phase.UNMASK and self._parameters.is_malicious and client_id in self._expected:
            message = self._codec.encode_tags(self._tags_for(client_id))
        else:
            message = super().message_for(client_id)
        if kind_of(message) is Kind.SURVIVORS and client_id in self._shown_survivors:
            message = self._codec.encode_survivors(self._survivors_for(client_id))
        for kind, change in self._bends:
            if kind_of(message) is kind:
                message = change(client_id, message)
        return message

    def receive(self, sender: int, data: bytes) -> None:
        """Keep what arrived, then take it as an honest server would."""
        self.received.append((self.phase.value, sender, data))
        super().receive(sender, data)

    def _inbox(self, position: int) -> bytes:
        client, truth = self._ids[position], self._shared
        self._shared = shown = self._shared_for(client)
        try:
            message = super()._inbox(position)
        finally:
            self._shared = truth
        row_bytes = self._codec.row_bytes
        begin = HEADER_BYTES + -(-len(self._ids) // 8)
        for dealer in self._routing.incoming(position, shown)[0].tolist():
            if (self._ids[dealer], client) in self._spoiled:
                message = message[:begin] + bytes(row_bytes) + message[begin + row_bytes :]
            begin += row_bytes
        return message

    def _on_consistency(self, sender: int, data: bytes) -> None:
        neighbours = self._alive_neighbours(sender)
        tags = self._codec.decode_consistency(data, neighbours=len(neighbours), sender=sender)
        for turn, receiver in enumerate(neighbours):
            self._heard[sender, receiver] = bytes(tags[turn * HASH_BYTES : (turn + 1) * HASH_BYTES])

    def _on_unmask(self, sender: int, data: bytes) -> None:
        if sender not in {*self._shown_shared, *self._shown_survivors}:
            super()._on_unmask(sender, data)

    def _require(self, have: int, need: int, what: str) -> None:
        if self._floors:
            super()._require(have, need, what)

    def _tags_for(self, client: int) -> bytes:
        """The tags that the client expects, as they are or as they are reflected; zeros for missing ones."""
        ends = [
            (client, other) if self._reflects else (other, client) for other in self._alive_neighbours(client)
        ]
        return b"".join(self._heard.get(pair, bytes(HASH_BYTES)) for pair in ends)

    def _alive_neighbours(self, client: int) -> list[int]:
        """Neighbours of a client that are in the sum, as that client was told."""
        neighbours = self._routing.neighbours(self._ids.index(client))
        return [self._ids[p] for p in neighbours[self._survivors_for(client)[neighbours]].tolist()]

    def _shared_for(self, client: int) -> Mask:
        return self._told(self._shown_shared, client, self._shared)

    def _survivors_for(self, client: int) -> Mask:
        return self._told(self._shown_survivors, client, self._survivors)

    def _told(self, shown: Mapping[int, Collection[int]], client: int, truth: Mask) -> Mask:
        return np.isin(self._ids, list(shown[client])) if client in shown else truth


class ByzantineClient(Client):
    """A client that may deal wrong shares, complain of good ones, or reveal others than it was dealt.

    Args:
        parameters: the round.
        client_id: its id.
        delta: what is added to the shares it deals; None deals honestly.
        unreadable_for: clients whose row does not open.
        wrong_hashes: whether the hashes that it sends for its shares are of other shares.
        denounce: neighbours whose good shares it complains about.
        reveals_falsely: whether the shares it reveals are not those it was dealt.
        **options: as for `secagg.Client`.
    """

    def __init__(
        self,
        parameters: RoundParameters,
        client_id: int,
        *,
        delta: Delta | None = None,
        unreadable_for: Collection[int] = (),
        wrong_hashes: bool = False,
        denounce: Collection[int] = (),
        reveals_falsely: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(parameters, client_id, **options)
        self._delta = delta
        self._unreadable_for = unreadable_for
        self._wrong_hashes = wrong_hashes
        self._denounce = denounce
        self._reveals_falsely = reveals_falsely

    def _rows(self, secrets: Secrets) -> list[bytes]:
        rows = super()._rows(secrets)
        delta = self._delta
        if delta is None:
            return rows
        return [
            self._shifted(row, partial(self._delta_at, delta, point))
            for point, row in enumerate(rows, start=1)
        ]

    @staticmethod
    def _delta_at(delta: Delta, point: int, secret: int) -> Mapping[int, int]:
        return delta(secret, point)

    def _deal(self, secrets: Secrets) -> bytes:
        message = super()._deal(secrets)
        peers, width = self._place.peers, self._codec.row_bytes
        edges = len(secrets.pairs.edge_messages)
        parts = self._codec.decode_share(message, neighbours=len(peers), edges=edges, sender=self._id)
        rows = [
            bytes(width) if peer in self._unreadable_for else parts.rows[index * width : (index + 1) * width]
            for index, peer in enumerate(peers)
        ]
        hashes = bytes(len(parts.hashes)) if self._wrong_hashes else parts.hashes
        return self._codec.encode_share([parts.commitments], rows, [hashes], secrets.pairs.edge_messages)

    def _on_inbox(self, data: bytes, secrets: Secrets) -> None:
        super()._on_inbox(data, secrets)
        for index, peer in enumerate(self._place.peers):
            if peer in self._denounce:
                secrets.rows[index] = None

    def _unmask(self, secrets: Secrets) -> bytes:
        if self._reveals_falsely:
            secrets.rows = [
                None if row is None else self._shifted(row, lambda secret: {0: 1}) for row in secrets.rows
            ]
        return super()._unmask(secrets)

    def _shifted(self, row: bytes, delta: Callable[[int], Mapping[int, int]]) -> bytes:
        """A row of records with something added to the words of its shares."""
        salt = self._codec.salt_bytes
        records = np.frombuffer(row, np.uint8).reshape(self._codec.secrets, -1)
        words = np.ascontiguousarray(records[:, salt:]).view("<u2").astype(np.int64)
        for secret, shares in enumerate(words):
            for word, amount in delta(secret).items():
                shares[word] = (shares[word] + amount) % PRIME
        changed = words.astype("<u2").view(np.uint8)
        return np.concatenate([records[:, :salt], changed], axis=1).tobytes()


def too_high_a_degree(threshold: int) -> Delta:
    """Deal polynomials of degree `threshold`: no `threshold` shares fit together with the others."""
    return lambda secret, point: {0: pow(point, threshold, PRIME)}


def one_wrong_share(wrong_point: int) -> Delta:
    """Deal the holder at one point a share off the polynomial.

    Args:
        wrong_point: The holder's point, from 1.
    """
    return lambda secret, point: {0: 1} if point == wrong_point else {}


def no_secret() -> Delta:
    """Deal shares of words that no 32-byte secret has."""
    return lambda secret, point: {17: 2}
