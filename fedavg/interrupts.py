"""Ctrl-C, and an interrupt that a client's own work raises: told apart.

Both arrive as `KeyboardInterrupt`. The first ends the run at once, for rounds can be long; the second is that client's
failure like any other, for whether a run goes on must not depend on anybody's data.

A worker is pressed by nobody: it ignores the signal, and ends when the process of the run does.

Not here: what becomes of a client that failed (`fedavg.step`), of a round that was cut short (`fedavg.paid_round`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

__all__ = ["Pressed", "ignored", "is_own", "told_apart"]


class Pressed(KeyboardInterrupt):
    """Somebody pressed Ctrl-C, or sent SIGINT, while clients were at work."""


@contextmanager
def told_apart() -> Iterator[None]:
    """Let Ctrl-C raise `Pressed`, in the main thread and where nobody else has taken the signal over."""
    if not _in_main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def ignored() -> None:
    """In a worker: from here on Ctrl-C is the run's own process's affair."""
    if _in_main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def is_own(error: KeyboardInterrupt) -> bool:
    """Whether a client's work raised this itself; where that cannot be told, it counts as Ctrl-C.

    Args:
        error: What came out of the client's work.
    """
    if not _in_main_thread():
        return True  # Signals reach the main thread only.
    return signal.getsignal(signal.SIGINT) in (_press, signal.SIG_IGN) and not isinstance(error, Pressed)


def _press(number: int, frame: FrameType | None) -> NoReturn:
    raise Pressed


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
