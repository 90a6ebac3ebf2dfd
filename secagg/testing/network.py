"""A scripted network between one server and its clients: it drops, delays, duplicates, reorders and forges.

`play` carries a whole round between real machines, as a transport would, with a list of rules between them.
A rule looks at one letter and says what arrives instead, now or some stages later. What either side refuses
is kept, not raised: the end of the story is a sum or a typed error. Invariants:

- nothing is random: letters are reordered by a seed that the script gives;
- a rule sees every letter, in both directions, and only the rules change anything;
- only errors of `secagg` are kept; any other exception comes out of `play`, as the bug that it is.

Not here: servers and clients that misbehave themselves (`secagg.testing.adversaries`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from secagg.client import Client
from secagg.client_state import Inputs
from secagg.entropy import SeededEntropy
from secagg.errors import SecAggError
from secagg.phases import Phase
from secagg.server import Server, Sum

__all__ = [
    "SERVER",
    "Letter",
    "Network",
    "Outcome",
    "Refusal",
    "Rule",
    "delay",
    "drop",
    "duplicate",
    "extend",
    "flip",
    "play",
    "replay",
    "rewrite",
    "truncate",
]

SERVER = -1
"""The server's name in letters; clients have their ids."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One message on its way.

    Attributes:
        stage: the stage in which it was sent.
        sender: a client id or `SERVER`.
        receiver: a client id or `SERVER`.
        data: the bytes.
    """

    stage: str
    sender: int
    receiver: int
    data: bytes


Rule = Callable[[Letter], Sequence[tuple[int, Letter]]]
"""From a letter to what arrives instead: pairs of (stages from now, letter)."""


class Refusal(NamedTuple):
    """A letter that its receiver refused, and why.

    Attributes:
        letter: What was refused.
        error: Why.
    """

    letter: Letter
    error: SecAggError


class Outcome(NamedTuple):
    """How a round ended.

    Attributes:
        sum: the server's result, or None.
        error: what ended the server's round, or None.
        refusals: letters that were refused, in order.
        delivered: letters that were delivered, in order; what an observer of the network saw.
    """

    sum: Sum | None
    error: SecAggError | None
    refusals: list[Refusal]
    delivered: list[Letter]


class Network:
    """The letters of one round and the rules they pass.

    Args:
        *rules: applied in order; a letter that a rule adds passes the later rules only.
        shuffle: seed (32 bytes) of the order in which letters to the server arrive within a stage, or None.
    """

    def __init__(self, *rules: Rule, shuffle: bytes | None = None) -> None:
        self._rules = rules
        self._order = None if shuffle is None else SeededEntropy(shuffle)
        self._late: list[tuple[int, Letter]] = []

    def send(self, letter: Letter) -> list[Letter]:
        """Hand a letter over; return what arrives now, and keep what arrives in later stages."""
        moving = [(0, letter)]
        for rule in self._rules:
            moving = [(wait + more, out) for wait, sent in moving for more, out in rule(sent)]
        self._late += [(wait, out) for wait, out in moving if wait > 0]
        return [out for wait, out in moving if wait <= 0]

    def next_stage(self) -> list[Letter]:
        """Let one stage pass; return the late letters that arrive at its start."""
        self._late = [(wait - 1, letter) for wait, letter in self._late]
        arrived = [letter for wait, letter in self._late if wait <= 0]
        self._late = [(wait, letter) for wait, letter in self._late if wait > 0]
        return arrived

    def arranged(self, letters: list[Letter]) -> list[Letter]:
        """The letters in the order in which they arrive."""
        if self._order is None:
            return letters
        keyed = [(self._order(8), place) for place in range(len(letters))]
        return [letters[place] for _, place in sorted(keyed)]


def play(
    server: Server,
    clients: Mapping[int, Client],
    inputs: Callable[[int], Inputs],
    *,
    network: Network | None = None,
) -> Outcome:
    """Carry one round from its first message to its end.

    Args:
        server: the server machine, before its first stage.
        clients: the client machines by id; each its own object.
        inputs: called with a client's id when it masks.
        network: what happens to the letters; a faithful network where it is left out.

    Returns:
        The sum or the error, and everything that was refused and delivered on the way.

    >>> import numpy as np
    >>> from secagg import RoundParameters, Vector
    >>> parameters = RoundParameters.choose(clients=5, vectors=[Vector("v", 2, 8)], dropout=0.2,
    ...     corruption=0, task="t", round=0, model_hash=bytes(32), application=b"")
    >>> clients = {c: Client(parameters, c) for c in range(5)}
    >>> values = {"v": np.array([1, 2], dtype=np.uint8)}
    >>> network = Network(drop(stage="masked_input", sender=4), flip(9, stage="unmask", sender=3))
    >>> outcome = play(Server(parameters), clients, lambda client: values, network=network)
    >>> outcome.sum.totals["v"].tolist(), [refusal.letter.sender for refusal in outcome.refusals]
    ([4, 8], [3])
    """
    network = network or Network()
    outcome = Outcome(None, None, [], [])
    while server.phase is not Phase.DONE:
        stage = server.phase.value
        late = network.next_stage()
        downward = [letter for letter in late if letter.receiver != SERVER]
        upward = [letter for letter in late if letter.receiver == SERVER]
        for client_id in [client_id for client_id in clients if server.expects(client_id)]:
            downward += network.send(Letter(stage, SERVER, client_id, server.message_for(client_id)))
        for letter in downward:
            answer = _deliver_down(clients, letter, inputs, outcome)
            if answer is not None:
                upward += network.send(Letter(stage, letter.receiver, SERVER, answer))
        for letter in network.arranged(upward):
            _deliver_up(server, letter, outcome)
        try:
            server.advance()
        except SecAggError as error:
            return outcome._replace(error=error)
    return outcome._replace(sum=server.result)


def drop(*, stage: str | None = None, sender: int | None = None, receiver: int | None = None) -> Rule:
    """Lose the letters of a stage, sender or receiver; None is any."""
    return _where(lambda letter: [], stage, sender, receiver)


def delay(
    stages: int = 1, *, stage: str | None = None, sender: int | None = None, receiver: int | None = None
) -> Rule:
    """Deliver some stages later.

    Args:
        stages: How many.
        stage: Of the letters it applies to; None is any.
        sender: Likewise.
        receiver: Likewise.
    """
    return _where(lambda letter: [(stages, letter)], stage, sender, receiver)


def duplicate(
    copies: int = 2, *, stage: str | None = None, sender: int | None = None, receiver: int | None = None
) -> Rule:
    """Deliver several times.

    Args:
        copies: How often in all.
        stage: Of the letters it applies to; None is any.
        sender: Likewise.
        receiver: Likewise.
    """
    return _where(lambda letter: [(0, letter)] * copies, stage, sender, receiver)


def replay(
    stages: int = 1, *, stage: str | None = None, sender: int | None = None, receiver: int | None = None
) -> Rule:
    """Deliver now, and again some stages later.

    Args:
        stages: How many.
        stage: Of the letters it applies to; None is any.
        sender: Likewise.
        receiver: Likewise.
    """
    return _where(lambda letter: [(0, letter), (stages, letter)], stage, sender, receiver)


def flip(
    bit: int, *, stage: str | None = None, sender: int | None = None, receiver: int | None = None
) -> Rule:
    """Flip one bit, counted from the start of the message and around its end.

    Args:
        bit: Which.
        stage: Of the letters it applies to; None is any.
        sender: Likewise.
        receiver: Likewise.
    """

    def flipped(data: bytes) -> bytes:
        place, shift = divmod(bit % (8 * len(data)), 8)
        return data[:place] + bytes([data[place] ^ 1 << shift]) + data[place + 1 :]

    return rewrite(flipped, stage=stage, sender=sender, receiver=receiver)


def truncate(
    count: int = 1, *, stage: str | None = None, sender: int | None = None, receiver: int | None = None
) -> Rule:
    """Cut off the last `count` bytes.

    Args:
        count: How many.
        stage: Of the letters it applies to; None is any.
        sender: Likewise.
        receiver: Likewise.

    Returns:
        The rule.
    """
    return rewrite(lambda data: data[:-count], stage=stage, sender=sender, receiver=receiver)


def extend(
    tail: bytes = b"\0", *, stage: str | None = None, sender: int | None = None, receiver: int | None = None
) -> Rule:
    """Append bytes.

    Args:
        tail: The bytes.
        stage: Of the letters it applies to; None is any.
        sender: Likewise.
        receiver: Likewise.
    """
    return rewrite(lambda data: data + tail, stage=stage, sender=sender, receiver=receiver)


def rewrite(
    change: Callable[[bytes], bytes],
    *,
    stage: str | None = None,
    sender: int | None = None,
    receiver: int | None = None,
) -> Rule:
    """Replace the bytes by what `change` makes of them.

    Args:
        change: Bytes in, bytes out.
        stage: Of the letters it applies to; None is any.
        sender: Likewise.
        receiver: Likewise.
    """
    return _where(lambda letter: [(0, replace(letter, data=change(letter.data)))], stage, sender, receiver)


def _where(action: Rule, stage: str | None, sender: int | None, receiver: int | None) -> Rule:
    """Apply a rule to the letters that match, and let the others pass."""

    def rule(letter: Letter) -> Sequence[tuple[int, Letter]]:
        wanted = (stage, sender, receiver)
        found = (letter.stage, letter.sender, letter.receiver)
        matches = all(want in (None, have) for want, have in zip(wanted, found, strict=True))
        return action(letter) if matches else [(0, letter)]

    return rule


def _deliver_down(
    clients: Mapping[int, Client], letter: Letter, inputs: Callable[[int], Inputs], outcome: Outcome
) -> bytes | None:
    """Give a client a letter and return its answer, if it has one."""
    client = clients.get(letter.receiver)
    if client is None:
        return None
    outcome.delivered.append(letter)
    try:
        answer = client.receive(letter.data)
        if client.phase is Phase.READY:
            answer = client.mask(inputs(letter.receiver))
    except SecAggError as error:
        outcome.refusals.append(Refusal(letter, error))
        return None
    return answer


def _deliver_up(server: Server, letter: Letter, outcome: Outcome) -> None:
    """Give the server a letter."""
    outcome.delivered.append(letter)
    try:
        server.receive(letter.sender, letter.data)
    except SecAggError as error:
        outcome.refusals.append(Refusal(letter, error))
