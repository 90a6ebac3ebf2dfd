"""Aggregators with hardly any noise, a small model, and FedAvg written out: what the tests of processes share."""

import numpy as np

import dp
from fedavg import (
    RunEntropy,
    SecureAggregation,
)
from fedavg.model import FunctionalModel
from fedavg.processes import (
    private_sum,
)

PRIVACY = dp.Privacy(noise_multiplier=1.0, delta=1e-5, l2_clip_norm=1.0)
WIDE = {"w": np.zeros(400)}


def quiet(**changes):
    """So little noise that bounds show: under 0.1 in a count."""
    settings = {
        "rounds": 1,
        "cohort_size": 20,
        "secure": SecureAggregation.ideal(dropout=0.0, corruption=0.0),
        "entropy": RunEntropy.seeded(11),
    }
    promise = {"noise_multiplier": 0.01, "delta": 1e-5, "l2_clip_norm": 1.0, "metrics_share": 0.3}
    promise |= {
        name: changes.pop(name) for name in list(changes) if name in ("l2_clip_norm", "max_participations")
    }
    return private_sum(dp.Privacy(**promise), **{**settings, **changes})


def linear(**changes):
    """Least squares with the errors' sum as its metric."""

    def loss_and_gradient(weights, batch):
        x, y = batch
        error = x @ weights["w"] - y
        return float(np.mean(error**2)), {"w": 2 * x.T @ error / len(y)}

    def metrics(weights, batch):
        x, y = batch
        return {"error": float(np.abs(x @ weights["w"] - y).sum())}

    settings = {"weights": {"w": np.zeros(3)}, "metrics": metrics, "bounds": {"error": 5.0}}
    return FunctionalModel(loss_and_gradient=loss_and_gradient, **{**settings, **changes})


def people(count, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 12, size=count)
    return [(rng.normal(size=(n, 3)), rng.normal(size=n)) for n in sizes]


def by_hand(clients, rounds, rate, *, weighted, server=1.0, mu=0.0, batch=4):
    """FedAvg written out in numpy."""
    w = np.zeros(3)
    for _ in range(rounds):
        total, weights = np.zeros(3), 0.0
        for x, y in clients:
            local = w.copy()
            for at in range(0, len(y), batch):
                bx, by = x[at : at + batch], y[at : at + batch]
                slope = 2 * bx.T @ (bx @ local - by) / len(by) + mu * (local - w)
                local -= rate * slope
            share = len(y) if weighted else 1.0
            total, weights = total + share * (local - w), weights + share
        w = w + server * total / weights
    return w


def run(process, data, rounds):
    state = process.initialize()
    for _ in range(rounds):
        output = process.next(state, data)
        state = output.state
    return process.get_model_weights(state), output


def chosen(**changes):
    settings = {"rounds": 4, "cohort_size": 20, "secure": SecureAggregation.ideal(), "most_examples": 12}
    return private_sum(PRIVACY, **{**settings, **changes})
