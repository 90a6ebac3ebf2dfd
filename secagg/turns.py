"""One call at a time: what two threads must not do to one machine at the same moment.

A machine looks at its phase, works, and writes its phase. Two threads inside at once both pass the look: a client would
answer two different survivor sets, which is both shares of one neighbour; a server would add one input twice.

A call that raises leaves no local variables: an error that somebody keeps keeps its frames, which in a client hold
seeds, keys and shares.

Not here: what the phases allow (`secagg.phases`), copies and forks (`secagg.client`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from traceback import clear_frames
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from secagg.errors import LocalProtocolError

__all__ = ["one_at_a_time"]

P = ParamSpec("P")
R = TypeVar("R")


class Locked(Protocol):
    """What has a lock of its own."""

    _busy: threading.Lock


L = TypeVar("L", bound=Locked)


def one_at_a_time(method: Callable[Concatenate[L, P], R]) -> Callable[Concatenate[L, P], R]:
    """Refuse a call while another guarded call of the same object is under way, from whatever thread.

    Raises:
        LocalProtocolError: another call is under way; the refused one had no effect and may be repeated after it.
    """

    @wraps(method)
    def guarded(self: L, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if not self._busy.acquire(blocking=False):
            raise LocalProtocolError(
                f"this {type(self).__name__} is at work on another call; make one call at a time"
            )
        try:
            return method(self, *args, **kwargs)
        except BaseException as error:
            clear_frames(error.__traceback__)
            raise
        finally:
            self._busy.release()

    return guarded
