"""Which graph, how many neighbours, which threshold: the choice behind `RoundParameters.choose`, and its check.

- The numbers C of corrupted and D of silent clients are absolute, from the *planned* clients.
- In malicious mode clients accept rosters down to nine tenths of the planned clients, so k and t are chosen,
  and checked, for the smallest such roster with the same C and D: a server gains nothing by leaving some out.
- "auto" is sparse where feasible with k < n/2, else complete. Where a fraction of a few clients comes to nobody it
  still plans for one: a ring on which nobody may drop out is no choice to make for anyone.

Not here: the conditions E1 to E5 themselves (`secagg.graph_parameters`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypedDict

from secagg.errors import ParameterError
from secagg.graph_parameters import Adversary, complete_threshold, graph_parameters, unmet_conditions

if TYPE_CHECKING:
    from secagg.parameters import Graph, RoundParameters

__all__ = ["choose_graph", "least_roster", "least_survivors", "require_malicious_conditions", "share_of"]

_ROSTER_SHARE = 0.9


class _Conditions(TypedDict):
    dropout: float
    corruption: float
    adversary: Adversary
    security_bits: int
    failure_bits: int


def share_of(fraction: float, clients: int) -> int:
    """The number of clients that a fraction stands for; exact where it is a decimal (floor(.29 * 100) = 29)."""
    return math.floor(fraction * clients + 1e-9)


def least_roster(clients: int) -> int:
    """Fewest clients of a roster that a client accepts from a server it does not trust: nine tenths."""
    return max(2, math.ceil(_ROSTER_SHARE * clients - 1e-9))


def least_survivors(graph: Graph, threshold: int, *, clients: int, dropout: float, corruption: float) -> int:
    """The floor M where nobody sets one: what planned dropouts leave on a ring, and two honest clients anywhere.

    On the complete graph t is above C. On the sparse graph it counts a neighbourhood and may lie far below C, so that
    it bounds no sum: colluders could take part and leave one honest client's input as the rest.
    """
    least = max(threshold, share_of(corruption, clients) + 2)
    if graph == "sparse":
        least = max(least, clients - max(1, share_of(dropout, clients)))
    return min(least, clients)


def choose_graph(
    graph: Graph | Literal["auto"],
    neighbours: int | None,
    threshold: int | None,
    *,
    clients: int,
    dropout: float,
    corruption: float,
    adversary: Adversary,
    security_bits: int,
    failure_bits: int,
) -> tuple[Graph, int, int]:
    """Find what the caller left out of graph, neighbours and threshold.

    Raises:
        ParameterError: nothing meets the conditions.
    """
    # Where a fraction of a few clients comes to nobody, a ring still plans for one.
    dropped, corrupted = max(share_of(dropout, clients), 1), max(share_of(corruption, clients), 1)
    roster = least_roster(clients) if adversary == "malicious" else clients
    # Privacy must hold for the smallest roster that clients go on with: the same corrupted among fewer.
    smallest = roster if adversary == "malicious" else clients - dropped
    conditions = _Conditions(
        dropout=dropped / roster,
        corruption=corrupted / roster,
        adversary=adversary,
        security_bits=security_bits,
        failure_bits=failure_bits,
    )
    if graph != "complete" and neighbours is not None:
        return "sparse", neighbours, threshold or _least_threshold(roster, neighbours, conditions)
    if graph != "complete":
        try:
            found = graph_parameters(roster, **conditions, smallest_roster=smallest)
        except ParameterError:
            if graph == "sparse":
                raise
        else:
            if graph == "sparse" or 2 * found.neighbours < clients:
                return "sparse", found.neighbours, threshold or found.threshold
    if threshold is None:
        threshold = complete_threshold(clients, dropout=dropout, corruption=corruption)
    return "complete", clients - 1 if neighbours is None else neighbours, threshold


def _least_threshold(roster: int, neighbours: int, conditions: _Conditions) -> int:
    """The smallest threshold with which the given neighbours meet every condition."""
    for threshold in range(2, neighbours + 2):
        if not unmet_conditions(roster, neighbours, threshold, **conditions):
            return threshold
    raise ParameterError(
        f"no threshold makes {neighbours} neighbours among {roster} clients meet the conditions; leave the "
        "neighbours out, or give a threshold as well"
    )


def require_malicious_conditions(parameters: RoundParameters) -> None:
    """Refuse neighbours and thresholds that an active server could exploit.

    Raises:
        ParameterError: names the conditions that are not met.
    """
    least = least_roster(parameters.clients)
    if parameters.graph == "complete":
        needed = complete_threshold(
            parameters.clients, dropout=parameters.dropout, corruption=parameters.corruption
        )
        unmet: tuple[str, ...] = () if parameters.threshold >= needed else ("the complete graph's bound",)
    else:
        unmet = unmet_conditions(
            least,
            parameters.neighbours,
            parameters.threshold,
            dropout=parameters.dropped / least,
            corruption=parameters.corrupted / least,
            adversary="malicious",
            security_bits=parameters.security_bits,
            failure_bits=parameters.failure_bits,
        )
    if unmet:
        raise ParameterError(
            f"{parameters.neighbours} neighbours with threshold {parameters.threshold} do not meet "
            f"{', '.join(unmet)} against an active server; let RoundParameters.choose find them"
        )
