"""Global random generators while clients are played in one process: each client has its own.

Python's, numpy's, torch's, TensorFlow's and Keras' global generators are one for all clients of a process. A client
that pads does not draw from them, so everybody who is played after it would draw other numbers: with a seed that is
known, such as `torch.manual_seed(0)` at the top of a script, one client would move the sum by far more than its own
clip. So each client's work begins with generators of its own, which depend on the round and on the client's position
and on nothing that another client does. Then it does not matter, either, in which order or on which worker clients are
played.

These dice shuffle and initialise; they protect nobody, and 32 bits are enough for that. Where randomness protects
somebody it is drawn from keyed streams (`fedavg.entropy`, `dp.Keystream`), never from a global generator.

TensorFlow fixes what is drawn inside a compiled function when it compiles: under `tf.random.set_seed`, or with a seed
of the operation's own, that begins alike for all clients, whichever of them was played first. Without either it is the
operating system's, and nobody knows it.

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
        self._graph = None if (tensorflow := _tensorflow()) is None else tensorflow.global_seed()

    def throw(self, client: int) -> None:
        """Begin a client's work: seed Python's and numpy's generators for it; those of others where loaded."""
        seed = (self._first + client * _ODD) & _MASK
        if (state := _keras_state()) is not None:  # First, because to make it Keras draws from Python's.
            state.assign(np.array([seed, 0]).astype(str(state.dtype)))
        random.seed(seed)
        np.random.seed(seed)
        if (torch := _torch()) is not None:
            torch.default_generator.manual_seed(seed)
            if torch.cuda.is_initialized():
                torch.cuda.manual_seed_all(seed)
        if (tensorflow := _tensorflow()) is not None:
            # Whoever compiles a function fixes this seed for all, so it is the caller's.
            tensorflow.set_global_seed(self._graph)
            tensorflow.context()._rng.seed(seed)  # No public call seeds operations alone.
        if (generator := _tensorflow_generator()) is not None:
            generator.reset_from_seed(seed)

    def before(self, work: Callable[[int], _Given]) -> Callable[[int], _Given]:
        """The same work, begun with each client's own generators."""

        def begun(client: int) -> _Given:
            self.throw(client)
            return work(client)

        return begun


@contextmanager
def kept() -> Iterator[None]:
    """Give the caller's generators back as they were; TensorFlow's operations with seeds of their own begin anew."""
    torch, tensorflow = _torch(), _tensorflow()
    graph = None if tensorflow is None else tensorflow.global_seed()
    python, legacy = random.getstate(), np.random.get_state()
    cpu = None if torch is None else torch.random.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch is not None and torch.cuda.is_initialized() else None
    operations = None if tensorflow is None else getattr(tensorflow.context(), "_rng", None)
    begun = None if operations is None else operations.getstate()
    generator, state = _tensorflow_generator(), _keras_state()
    drawn = None if generator is None else generator.state.numpy()
    pair = None if state is None else state.value * 1  # A copy, whichever the backend.
    try:
        yield
    finally:
        if generator is not None:
            generator.state.assign(drawn)
        if state is not None:
            state.assign(pair)
        random.setstate(python)
        np.random.set_state(legacy)
        if torch is not None:
            torch.random.set_rng_state(cpu)
            if gpus is not None:
                torch.cuda.set_rng_state_all(gpus)
        if tensorflow is not None:
            tensorflow.set_global_seed(graph)
            if begun is not None:
                tensorflow.context()._rng.setstate(begun)


def _torch() -> Any:
    """Torch, where somebody has loaded it whole; whether to import it is not for this module to decide."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "default_generator") and hasattr(torch, "cuda") else None


def _tensorflow() -> Any:
    """TensorFlow's context, which holds its generators, where somebody has loaded it whole."""
    context = sys.modules.get("tensorflow.python.eager.context")
    return context if hasattr(sys.modules.get("tensorflow"), "random") else None


def _tensorflow_generator() -> Any:
    """What `tf.random.get_global_generator` gives, where somebody has asked for it: that call itself would make one."""
    return getattr(sys.modules.get("tensorflow.python.ops.stateful_random_ops"), "global_generator", None)


def _keras_state() -> Any:
    """State of the generator behind Keras 3's operations without a seed; no public name leads there."""
    module = sys.modules.get("keras.src.random.seed_generator")
    made = getattr(module, "global_seed_generator", None)
    return made().state if made is not None and hasattr(sys.modules.get("keras"), "random") else None
