"""How figures and promises are put into words, the same on the command line and on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import dp
from dp import epsilon_text

__all__ = [
    "Promise",
    "bytes_text",
    "epsilon_text",
    "is_padded",
    "is_self_sampled",
    "is_simulation",
    "plain",
    "promises",
    "right_guesses",
    "trusts_server",
]

_WEAK = 3.0  # Above it a guess may be right 95 times in 100.
_SIMULATION = "simulation, no guarantee"
_TRUSTED = "the server is trusted with the sum before the noise"
_PADDED, _SELF_SAMPLING = "(padded Poisson sampling)", "(self-sampling)"
_HEADINGS = {"readers": "Against readers of the model", "server": "Against the server"}


def bytes_text(count: int) -> str:
    """A size of `count` bytes in decimal units.

    >>> bytes_text(31_234), bytes_text(4_100_000)
    ('31.2 kB', '4.10 MB')
    """
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.2f} MB"


@dataclass(frozen=True)
class Promise:
    """One observer's statement as it is shown: what it rests on alone; what both rest on stands once, below."""

    observer: str
    heading: str
    epsilon: str
    claim: str
    assumptions: Sequence[str]


def promises(statements: dp.Statements) -> tuple[list[Promise], list[str]]:
    """Both statements, and the assumptions they share, as sentences; together they hold every word of both."""
    both = (statements.readers, statements.server)
    shared = [part for part in both[0].assumptions if part in both[1].assumptions]
    cards = [
        Promise(
            one.observer,
            _HEADINGS[one.observer],
            epsilon_text(one.epsilon),
            one.claim,
            [_sentence(part) for part in one.assumptions if part not in shared],
        )
        for one in both
    ]
    return cards, [_sentence(part) for part in shared]


def right_guesses(epsilon: float, delta: float) -> float:
    """Most often that anybody guesses right whether one client's data was used, when a fair coin decided it.

    >>> round(right_guesses(1.0, 0.0), 4), right_guesses(float("inf"), 0.0)
    (0.7311, 1.0)
    """
    return (1 + delta * math.exp(-epsilon)) / (1 + math.exp(-epsilon))


def plain(statements: dp.Statements, *, masked: bool, fewest: int) -> list[str]:
    """What is promised, for somebody who is no mathematician: a paragraph each.

    Args:
        statements: Both.
        masked: Whether sums were taken under masks.
        fewest: Clients in every sum, at least.
    """
    readers, server = statements.readers, statements.server
    paragraphs = [
        "Suppose a coin decides whether one client's data is used: heads as it is, tails replaced by nothing. Somebody"
        " who wants to know how the coin fell, and who may know everything about everybody else, reads every model and"
        f" every figure that this run published. {_guesses(readers, 'They guess')} Without reading anything they"
        " guess right half of the time. The nearer the two, the better the promise.",
    ]
    if not math.isfinite(server.epsilon):
        paragraphs.append(
            "The server sees what noise has not covered, so nothing is promised against it: it has to be trusted."
            if trusts_server(statements)
            else "The budget that this run shares sets no limit against the server, so nothing is promised against it."
        )
        return paragraphs
    sums = (
        f" Day to day it is the masks that keep a client's vector from it: it can open only sums over at least"
        f" {fewest:,} clients."
        if masked
        else ""
    )
    weak = " A figure so near 100% promises little by itself." if server.epsilon > _WEAK else ""
    paragraphs.append(
        "The server, and whoever holds its lists, also knows who was drawn in every round, so there is less to hide"
        f" behind. {_guesses(server, 'Guessing the same way, it is')}{weak}{sums}"
    )
    return paragraphs


def _guesses(statement: dp.Statement, who: str) -> str:
    return (
        f"{who} right at most {_percent_up(right_guesses(statement.epsilon, statement.delta))} of the time."
    )


def _percent_up(share: float) -> str:
    """A percentage with two figures of what is missing to 100, never rounded down.

    >>> _percent_up(0.92621), _percent_up(0.9999767), _percent_up(1.0)
    ('93%', '99.998%', '100%')
    """
    missing = 100 * (1 - share)
    if missing <= 0:
        return "100%"
    digits = max(0, -math.floor(math.log10(missing)))
    return f"{100 - math.floor(missing * 10**digits) / 10**digits:.{digits}f}%"


def is_simulation(statements: dp.Statements) -> bool:
    """Whether the statements say that the run's randomness came from a seed."""
    return any(part.startswith(_SIMULATION) for part in statements.readers.assumptions)


def trusts_server(statements: dp.Statements) -> bool:
    """Whether the statements say that the server sees sums before their noise."""
    return any(part.startswith(_TRUSTED) for part in statements.server.assumptions)


def is_self_sampled(statements: dp.Statements) -> bool:
    """Whether the statements say that clients flip coins of their own, which the server does not see."""
    return any(_SELF_SAMPLING in part for part in statements.readers.assumptions)


def is_padded(statements: dp.Statements) -> bool:
    """Whether the statements say that cohorts are padded, so that nobody is told how many were drawn."""
    padded = any(_PADDED in part for part in statements.readers.assumptions)
    return padded or is_self_sampled(statements)


def _sentence(part: str) -> str:
    return f"{part[:1].upper()}{part[1:]}."
