"""Ctrl-C or another signal that ends the process, and what a client's own work raises: told apart.

Both arrive as `KeyboardInterrupt`, or as what a handler raises that somebody set, such as `SystemExit`. The first ends
the run at once, for rounds can be long; the second is that client's failure like any other, for whether a run goes on
must not depend on anybody's data.

A worker is pressed by nobody: it ignores the signal, and ends when the process of the run does.

Not here: what becomes of a client that failed (`fedavg.step`), of a round that was cut short (`fedavg.paid_round`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

__all__ = ["Pressed", "ignored", "is_own", "told_apart"]


class Pressed(KeyboardInterrupt):
    """Somebody pressed Ctrl-C, or sent SIGINT, while clients were at work."""


_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP") if hasattr(signal, name)
]
_stops: list[BaseException] = []
"""What handlers of signals raised since the clients went to work."""


@contextmanager
def told_apart() -> Iterator[None]:
    """In the main thread: let Ctrl-C raise `Pressed`, and note what a handler of somebody else's raises."""
    handlers = {number: signal.getsignal(number) for number in _SIGNALS if _in_main_thread()}
    before = {number: old for number, old in handlers.items() if callable(old) and old is not _press}
    during = {
        number: _press if old is signal.default_int_handler else _noted(old) for number, old in before.items()
    }
    try:
        for number, handler in during.items():
            signal.signal(number, handler)
        yield
    finally:
        for number, handler in during.items():
            if signal.getsignal(number) is handler:  # A handler may put another in its place.
                signal.signal(number, before[number])
        _stops.clear()


def ignored() -> None:
    """In a worker: from here on Ctrl-C is the run's own process's affair."""
    if _in_main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def is_own(error: BaseException) -> bool:
    """Whether a client's work raised this itself; an interrupt where that cannot be told counts as Ctrl-C.

    Args:
        error: What came out of the client's work.
    """
    if any(error is stop for stop in _stops):
        return False
    if not isinstance(error, KeyboardInterrupt) or not _in_main_thread():
        return True  # Signals reach the main thread only.
    return signal.getsignal(signal.SIGINT) in (_press, signal.SIG_IGN) and not isinstance(error, Pressed)


def _noted(handler: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], Any]:
    def noting(number: int, frame: FrameType | None) -> Any:
        try:
            return handler(number, frame)
        except BaseException as error:
            _stops.append(error)
            raise

    return noting


def _press(number: int, frame: FrameType | None) -> NoReturn:
    raise Pressed


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
