"""One whole round in memory: every party its own object, only bytes between them.

Invariants:

- a client's input is asked for when it masks, and never if it went silent before;
- a client that raises has dropped out, as it would on a network; the server decides whether enough remain;
- with a `SeededEntropy` each party draws from its own stream, derived by name: the round is reproducible,
  and worthless as protection.

Not here: networks that delay, reorder and forge (`secagg.testing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from secagg.client import Client
from secagg.client_state import Inputs
from secagg.conditional import RevealRule
from secagg.entropy import Entropy, SeededEntropy, system_entropy
from secagg.errors import ParameterError, TooFewClients
from secagg.identities import Identity, IdentityRoster
from secagg.parameters import Adversary, Graph, RoundParameters, Vector
from secagg.phases import STAGES, Phase
from secagg.recovery import Fault
from secagg.ring import Words
from secagg.server import Server

__all__ = ["RoundResult", "Simulation", "run_round", "simulate"]

Record = Callable[[str, int, bytes], None]


class RoundResult(NamedTuple):
    """What a round gave and what it cost.

    Attributes:
        totals: for each vector, the survivors' sum modulo 2^bits.
        survivors: ids of the clients in the sum, ascending.
        bytes_up_per_client: largest number of bytes one client sent.
        bytes_down_per_client: largest number of bytes one client received.
        revealed: for each survivor, its revealed conditional secrets by number.
        faults: what the server saw go wrong with shares.
    """

    totals: dict[str, Words]
    survivors: tuple[int, ...]
    bytes_up_per_client: int
    bytes_down_per_client: int
    revealed: dict[int, dict[int, bytes]]
    faults: tuple[Fault, ...]


def run_round(
    parameters: RoundParameters,
    client_ids: Sequence[int],
    inputs: Callable[..., Inputs],
    *,
    dropouts: Mapping[str, Iterable[int]] | None = None,
    entropy: SeededEntropy | None = None,
    record: Record | None = None,
    threads: int = 1,
    identities: Mapping[int, Identity] | None = None,
    rule: RevealRule | None = None,
) -> RoundResult:
    """Run a round between one server and its clients.

    Args:
        parameters: the round.
        client_ids: who takes part, each once.
        inputs: called with a client's id when that client masks; one unsigned array per vector. In a round
            with conditional secrets it is called with the id and the client's own secrets.
        dropouts: stage name to the ids that are silent from it on.
        entropy: None is the operating system; a seeded source makes the round reproducible.
        record: called with (stage, sender, bytes) for everything the server receives.
        threads: threads on which the server expands masks.
        identities: malicious mode: everyone's signing key, of this round's clients and any others; the trusted
            roster is made of them.
        rule: the rule of the conditional secrets.

    Returns:
        The sums and their cost.

    Raises:
        TooFewClients: fewer than the threshold or the floor remain; nothing was released.
        ParameterError: ids or stages that do not fit the round.

    >>> import numpy as np
    >>> parameters = RoundParameters.choose(clients=4, vectors=[Vector("v", 2, 8)], dropout=0.1,
    ...     corruption=0.1, task="t", round=0, model_hash=bytes(32), application=b"")
    >>> values = {"v": np.array([1, 200], dtype=np.uint8)}
    >>> result = run_round(parameters, range(4), lambda client: values, dropouts={"share": [3]})
    >>> result.totals["v"].tolist(), result.survivors
    ([3, 88], (0, 1, 2))

    Against a malicious server, with identities that outlive the round:

    >>> identities = {client: Identity.generate() for client in range(9)}
    >>> parameters = RoundParameters.choose(clients=5, vectors=[Vector("v", 2, 8)], dropout=0.1, corruption=0.1,
    ...     task="t", round=1, model_hash=bytes(32), application=b"", adversary="malicious",
    ...     roster_hash=IdentityRoster.of(identities).hash)
    >>> result = run_round(parameters, [0, 2, 4, 6, 8], lambda client: values, identities=identities)
    >>> result.totals["v"].tolist()
    [5, 232]
    """
    if len(client_ids) > parameters.clients or len(set(client_ids)) != len(client_ids):
        raise ParameterError(
            f"{len(client_ids)} client ids were given; use at most {parameters.clients}, each once"
        )
    if parameters.is_malicious and (lacking := set(client_ids) - (identities or {}).keys()):
        raise ParameterError(
            f"malicious mode needs everyone's identity and {len(lacking)} are missing; make them once with "
            "`Identity.generate`, name their `IdentityRoster.of(identities).hash` in the parameters, pass them here"
        )
    leaving = _leaving(dropouts or {})
    trusted = None if identities is None else IdentityRoster.of(identities)
    server = Server(
        parameters,
        entropy=_own_entropy(entropy, "server"),
        threads=threads,
        identities=trusted,
        rule=rule,
    )
    clients = {
        int(client_id): Client(
            parameters,
            int(client_id),
            entropy=_own_entropy(entropy, int(client_id)),
            identity=None if identities is None else identities[client_id],
            identities=trusted,
            rule=rule,
        )
        for client_id in client_ids
    }
    up, down = dict.fromkeys(clients, 0), dict.fromkeys(clients, 0)
    for stage in STAGES[parameters.adversary]:
        for client_id in sorted(leaving.get(stage, set()) & clients.keys()):
            del clients[client_id]
        for client_id in [c for c in clients if server.expects(c)]:
            message = server.message_for(client_id)
            answer = _answer(clients[client_id], message, inputs)
            down[client_id] += len(message)
            if answer is None:
                continue
            up[client_id] += len(answer)
            if record is not None:
                record(stage.value, client_id, answer)
            server.receive(client_id, answer)
        server.advance()
    totals, survivors, revealed = server.result
    return RoundResult(totals, survivors, max(up.values()), max(down.values()), revealed, server.faults)


def _answer(client: Client, message: bytes, inputs: Callable[..., Inputs]) -> bytes | None:
    """What the client answers; None where it left the round because too few of its neighbours remain."""
    try:
        answer = client.receive(message)
    except TooFewClients:
        return None
    if answer is None:
        own = client.conditional_secrets
        return client.mask(inputs(client.client_id, own) if own else inputs(client.client_id))
    return answer


def _own_entropy(entropy: SeededEntropy | None, party: str | int) -> Entropy:
    return system_entropy if entropy is None else entropy.derive(party)


def _leaving(dropouts: Mapping[str, Iterable[int]]) -> dict[Phase, set[int]]:
    """For each stage, everyone who is silent from it or from an earlier one on."""
    names = [stage.value for stage in STAGES["malicious"]]
    if unknown := set(dropouts) - set(names):
        raise ParameterError(f"there is no stage {min(unknown)!r}; dropouts name one of {names}")
    gone: set[int] = set()
    leaving = {}
    for stage in STAGES["malicious"]:
        gone = gone | {int(client) for client in dropouts.get(stage.value, ())}
        leaving[stage] = gone
    return leaving


class Simulation(NamedTuple):
    """What `simulate` gives.

    Attributes:
        total: the survivors' sum modulo 2^modulus_bits.
        survivors: ids of the clients in the sum.
        transcript: (stage, sender, bytes) of everything the server received, in order.
        parameters: the round that was run.
    """

    total: Words
    survivors: tuple[int, ...]
    transcript: list[tuple[str, int, bytes]]
    parameters: RoundParameters


def simulate(
    inputs: Mapping[int, npt.NDArray[np.unsignedinteger[Any]]],
    *,
    modulus_bits: int,
    graph: Graph | Literal["auto"] = "auto",
    neighbours: int | None = None,
    threshold: int | None = None,
    dropout: float = 0.1,
    corruption: float = 0.1,
    dropouts: Mapping[str, Iterable[int]] | None = None,
    adversary: Adversary = "semi_honest",
) -> Simulation:
    """Sum the clients' arrays with the whole protocol, in memory, with a script of dropouts.

    Args:
        inputs: client id to its unsigned integer array; equal lengths.
        modulus_bits: sums are modulo 2^modulus_bits, 1..62; values must lie below it.
        graph: "auto" is sparse where feasible with fewer than half the clients as neighbours.
        neighbours: k of the sparse graph; chosen where it is left out.
        threshold: t; chosen where it is left out.
        dropout: planned fraction that may go silent.
        corruption: planned fraction that may collude with the server.
        dropouts: stage ("advertise", "share", "masked_input", "consistency", "unmask") to the ids that are
            silent from it on.
        adversary: "semi_honest" or "malicious".

    Returns:
        The total, the survivors, what the server received, the parameters.

    Raises:
        TooFewClients: too few remained.
        ParameterError: arrays of different lengths, values or settings out of range.

    >>> import numpy as np
    >>> simulate({c: np.array([c, 255], dtype=np.uint8) for c in range(5)}, modulus_bits=8,
    ...     dropouts={"masked_input": [4]}).total.tolist()
    [6, 252]
    """
    lengths = {len(values) for values in inputs.values()}
    if len(lengths) != 1:
        raise ParameterError(f"the inputs have lengths {sorted(lengths)}; give one array each, equally long")
    identities = {c: Identity.generate() for c in inputs} if adversary == "malicious" else None
    parameters = RoundParameters.choose(
        clients=len(inputs),
        vectors=[Vector("values", lengths.pop(), modulus_bits)],
        roster_hash=b"" if identities is None else IdentityRoster.of(identities).hash,
        dropout=dropout,
        corruption=corruption,
        graph=graph,
        neighbours=neighbours,
        threshold=threshold,
        adversary=adversary,
        task="simulate",
        round=0,
        model_hash=bytes(32),
        application=b"",
    )
    transcript: list[tuple[str, int, bytes]] = []
    result = run_round(
        parameters,
        list(inputs),
        lambda client: {"values": inputs[client]},
        dropouts=dropouts,
        record=lambda *row: transcript.append(row),
        identities=identities,
    )
    return Simulation(result.totals["values"], result.survivors, transcript, parameters)
