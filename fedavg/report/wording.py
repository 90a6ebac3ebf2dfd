"""How figures are put into words, the same on the command line and on the page."""

from __future__ import annotations

import math

__all__ = ["bytes_text", "epsilon_text"]


def epsilon_text(epsilon: float) -> str:
    """Three figures, never rounded down: a privacy cost must not look smaller than it is.

    >>> [epsilon_text(value) for value in (0.0, 0.12341, 2.5301, 31.04, 123.4, math.inf)]
    ['0', '0.124', '2.54', '31.1', '124', 'infinite']
    """
    if not math.isfinite(epsilon):
        return "infinite"
    if epsilon <= 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(epsilon)))
    return f"{math.ceil(epsilon * 10**digits - 1e-9) / 10**digits:.{digits}f}"


def bytes_text(count: int) -> str:
    """A size in decimal units.

    >>> bytes_text(31_234), bytes_text(4_100_000)
    ('31.2 kB', '4.10 MB')
    """
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.2f} MB"
