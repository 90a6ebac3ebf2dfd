"""How figures are put into words, the same on the command line and on the page."""

from __future__ import annotations

from dp import epsilon_text

__all__ = ["bytes_text", "epsilon_text"]


def bytes_text(count: int) -> str:
    """A size in decimal units.

    >>> bytes_text(31_234), bytes_text(4_100_000)
    ('31.2 kB', '4.10 MB')
    """
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.2f} MB"
