"""Steps and runs that the tests of the backends share; in a module of their own, so that they can travel."""

import os
import signal
import time

import numpy as np

import dp
import fedavg
from fedavg import RunEntropy, SecureAggregation
from fedavg.backends import Local

PRIVACY = dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0)
POPULATION = 60
SECURE = SecureAggregation(dropout=0.45, corruption=0.0)


def clients():
    return [np.full(4, float(i)) for i in range(POPULATION)]


def step(weights, data):
    target = data[0] % 3
    return {name: a + 0.1 * (target - a) for name, a in weights.items()}, {"loss": float(target)}


def failing(weights, data):
    """One client in three fails, and says what of."""
    if data[0] % 3 == 2:
        raise RuntimeError(f"secret of {data[0]}")
    return step(weights, data)


def deadly(weights, data):
    """Kills the process that plays client 1, whenever that is."""
    if data[0] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(weights, data)


def writing(weights, data):
    """Writes into its own data, as loops do."""
    data += 1
    return step(weights, data)


class Beyond(BaseException):
    """Nothing that a step's errors are expected to be."""


def telling(weights, data):
    """Fails in every way that there is, each time with what must not be told."""
    kind = (RuntimeError, KeyError, SystemExit, Beyond, KeyboardInterrupt)[int(data[0]) % 5]
    raise kind(f"patient {4711:d} of {data[0]}")


def abrupt(weights, data):
    """Three clients fail in ways that end more than themselves, unless they are kept from it."""
    if data[0] < 3:
        raise (KeyboardInterrupt, Beyond, Unspeakable)[int(data[0])]
    return step(weights, data)


class Unspeakable(Exception):
    """Ends the process that asks for its words."""

    def __str__(self):
        raise SystemExit


class Unreadable:
    """A client's data whose arrival fails, with what must not be told."""

    def __reduce__(self):
        return _unreadable, ()


def _unreadable():
    raise Beyond(f"patient {4711:d}")


def hanging(weights, data):
    if data[0] == 1:
        time.sleep(600)
    return step(weights, data)


def settings(**changes):
    return {
        "weights": {"w": np.zeros((20, 30)), "b": np.zeros(1)},
        "rounds": 1,
        "cohort_size": 12,
        "privacy": PRIVACY,
        "metrics": {"loss": 3.0},
        "secure": SECURE,
        "entropy": RunEntropy.seeded(5),
        **changes,
    }


def run(backend, train_step=step, **changes):
    return fedavg.train(train_step, clients(), **settings(**changes), backend=backend)


def assert_same(one, other):
    """The same models and the same reports, to the last bit."""
    for name, array in one.weights.items():
        np.testing.assert_array_equal(array, other.weights[name])
    assert one.rounds == other.rounds


class LocalWithout(Local):
    """In one process, with some clients silent from a stage on: what losing their worker must come to."""

    def __init__(self, lost, stage):
        self.lost, self.stage = lost, stage

    def sum_round(self, plan, work, *, clients, dropouts, **rest):
        silent = [client for client in clients if self.lost(client)]
        dropouts = {**dropouts, self.stage: [*dropouts.get(self.stage, ()), *silent]}
        return super().sum_round(plan, work, clients=clients, dropouts=dropouts, **rest)
