"""How figures and promises are put into words, the same on the command line and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dp
from dp import epsilon_text

__all__ = ["Promise", "bytes_text", "epsilon_text", "is_simulation", "promises"]

_SIMULATION = "simulation, no guarantee"
_HEADINGS = {"readers": "Against readers of the model", "server": "Against the server"}


def bytes_text(count: int) -> str:
    """A size in decimal units.

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


def is_simulation(statements: dp.Statements) -> bool:
    """Whether the statements say that the run's randomness came from a seed."""
    return any(part.startswith(_SIMULATION) for part in statements.readers.assumptions)


def _sentence(part: str) -> str:
    return f"{part[:1].upper()}{part[1:]}."
