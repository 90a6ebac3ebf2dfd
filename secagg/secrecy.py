"""What holds a secret of a live round is neither shown nor copied nor pickled.

Bodies for the `__repr__` and `__reduce__` of the classes that hold one.

Not here: when secrets are dropped (`secagg.client`).
"""

from __future__ import annotations

from typing import NoReturn

from secagg.errors import LocalProtocolError

__all__ = ["hidden", "refuse_copies"]


def hidden(self: object) -> str:
    """The representation of what holds secrets: its type's name."""
    return f"{type(self).__name__}(...)"


def refuse_copies(self: object) -> NoReturn:
    """Refuse to copy or pickle what holds secrets.

    Raises:
        LocalProtocolError: always.
    """
    raise LocalProtocolError(
        f"a {type(self).__name__} of a live round cannot be copied or pickled: it would answer twice"
    )
