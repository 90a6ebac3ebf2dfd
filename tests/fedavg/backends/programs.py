"""Programs of the federated core that the tests of the backends run; in a module of their own, so that they travel."""

import numpy as np

from fedavg import ClientData, RunEntropy, SecureAggregation
from fedavg.core import (
    CLIENTS,
    Context,
    at_clients,
    at_server,
    federated_broadcast,
    federated_clip,
    federated_computation,
    federated_eval,
    federated_filter,
    federated_map,
    federated_mean,
    federated_sum,
    federated_value,
    local_computation,
    within,
)

POPULATION = 40


@local_computation(returns=within(np.float64, l2=1.0))
def bounded(reading, threshold):
    """Fails at some clients, overflows at others."""
    if reading == 7.0:
        raise RuntimeError("secret of 7")
    return np.float64(np.exp(reading * 100) > threshold)


def below_thirty(reading):
    return reading < 30.0


def one():
    return 1.0


def moved(reading, share):
    return reading - share


@federated_computation(at_clients(float), at_clients((float, (3,))), at_server(float))
def two_stages(readings, vectors, threshold):
    """Two sums under one draw, the second told what the first gave; a filter, a weight, a constant, a count."""
    share = federated_mean(federated_map(bounded, (readings, federated_broadcast(threshold))))
    kept = federated_filter(federated_map(moved, (readings, federated_broadcast(share))), below_thirty)
    constant = federated_clip(federated_map(moved, (readings, federated_value(2.0, CLIENTS))), l2=3.0)
    return {
        "share": share,
        "kept": federated_sum(federated_clip(kept, l2=50.0)),
        "constant": federated_sum(constant),
        "count": federated_sum(federated_clip(federated_eval(one, CLIENTS), l2=1.0)),
        "weighted": federated_mean(federated_clip(vectors, l2=2.0), federated_clip(readings, l2=40.0)),
    }


READINGS = ClientData.of([float(i) for i in range(POPULATION)])
VECTORS = ClientData.of([np.full(3, float(i % 5)) for i in range(POPULATION)])


def run(backend, secure=None, runs=2, program=two_stages, arguments=(READINGS, VECTORS, 1e3)):
    """Some runs in one context; what they gave."""
    context = Context(
        population=POPULATION,
        cohort_size=25,
        delta=1e-3,
        noise_multiplier=1.0,
        rounds=runs,
        secure=secure or SecureAggregation(dropout=0.2, corruption=0.0),
        entropy=RunEntropy.seeded(3),
        backend=backend,
    )
    return [context.run(program, *arguments) for _ in range(runs)]


def assert_same(one, other):
    """The same values, to the last bit, from as many clients."""
    for mine, theirs in zip(one, other, strict=True):
        assert (mine.survivors, mine.statements) == (theirs.survivors, theirs.statements)
        np.testing.assert_equal(mine.value, theirs.value)
