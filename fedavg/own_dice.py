"""Global random generators while clients are played in one process: each client has its own.

Python's, numpy's, torch's and TensorFlow's global generators are one for all clients of a process. A client that pads
does not draw from them, so everybody who is played after it would draw other numbers: with a seed that is known, such
as `torch.manual_seed(0)` at the top of a script, one client would move the sum by far more than its own clip. So each
client's work begins with generators of its own, which depend on the round and on the client's position and on nothing
that another client does. Then it does not matter, either, in which order or on which worker clients are played.

These dice shuffle and initialise; they protect nobody, and 32 bits are enough for that. Where randomness protects
somebody it is drawn from keyed streams (`fedavg.entropy`, `dp.Keystream`), never from a global generator.

TensorFlow fixes what is drawn inside a compiled function when it compiles: under `tf.random.set_seed`, or with a seed
of the operation's own, that begins for each client where it began for the first. Without either it is the operating
system's, and nobody knows it.

Not here: generators that a step makes itself and keeps from one client to the next (`fedavg.check` finds these).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

__all__ = ["OwnDice", "kept"]

_MASK = (1 << 32) - 1
_ODD = 0x9E3779B1  # Odd, so that no two positions meet modulo 2^32.
_Given = TypeVar("_Given")


class OwnDice:
    """The global generators of one round's clients.

    Args:
        secret: 32 bytes in which no client's data had a part.
    """

    def __init__(self, secret: bytes) -> None:
        self._first = int.from_bytes(secret[:4], "big")

    def throw(self, client: int) -> None:
        """Begin a client's work: seed Python's and numpy's generators for it; torch's and TensorFlow's where loaded."""
        seed = (self._first + client * _ODD) & _MASK
        random.seed(seed)
        np.random.seed(seed)
        if (torch := _torch()) is not None:
            torch.default_generator.manual_seed(seed)
            if torch.cuda.is_initialized():
                torch.cuda.manual_seed_all(seed)
        if (tensorflow := _tensorflow()) is not None:
            if tensorflow.global_seed() is None:
                tensorflow.context().clear_kernel_cache()
            else:
                tensorflow.set_global_seed(seed)

    def before(self, work: Callable[[int], _Given]) -> Callable[[int], _Given]:
        """The same work, begun with each client's own generators."""

        def begun(client: int) -> _Given:
            self.throw(client)
            return work(client)

        return begun


@contextmanager
def kept() -> Iterator[None]:
    """Give the caller's generators back as they were; TensorFlow's, where it was seeded, as its seed makes them."""
    torch, tensorflow = _torch(), _tensorflow()
    graph = None if tensorflow is None else tensorflow.global_seed()
    python, legacy = random.getstate(), np.random.get_state()
    cpu = None if torch is None else torch.random.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch is not None and torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        if torch is not None:
            torch.random.set_rng_state(cpu)
            if gpus is not None:
                torch.cuda.set_rng_state_all(gpus)
        if tensorflow is not None and graph is not None:
            tensorflow.set_global_seed(graph)


def _torch() -> Any:
    """Torch, where somebody has loaded it whole; whether to import it is not for this module to decide."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "default_generator") and hasattr(torch, "cuda") else None


def _tensorflow() -> Any:
    """TensorFlow's context, which holds its generators, where somebody has loaded it whole."""
    context = sys.modules.get("tensorflow.python.eager.context")
    return context if hasattr(sys.modules.get("tensorflow"), "random") else None
