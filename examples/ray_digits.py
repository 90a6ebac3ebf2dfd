"""The clients of a private run on a Ray cluster: each machine loads and plays its own, this process is the server.

On one machine:            python -m examples.ray_digits
On a cluster you started:  python -m examples.ray_digits HOST:6379
"""

import sys

import numpy as np

import dp
import fedavg
from fedavg.backends.ray import Ray

CLIENTS, ROUNDS, EXPECTED = 300, 10, 100


def digits():
    """Scikit-learn's 8x8 digits, 1,797 of them."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images / 16.0, labels


def load(client):
    """One client's examples, fetched where the client is played: the server's process never has them."""
    images, labels = digits()
    return images[client::CLIENTS], labels[client::CLIENTS]


def step(weights, data):
    """Ten steps of softmax regression."""
    images, labels = data
    w = weights.copy()
    for _ in range(10):
        scores = np.exp(images @ w - (images @ w).max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        scores[np.arange(len(labels)), labels] -= 1
        w -= 0.1 * images.T @ scores
    return w


def main(address=None, clients=CLIENTS, rounds=ROUNDS, expected=EXPECTED):
    """Train; returns the result."""
    with Ray(address) as backend:
        return fedavg.train(
            step,
            fedavg.ClientData(range(clients), load),
            weights=np.zeros((64, 10)),
            rounds=rounds,
            cohort_size=expected,
            privacy=dp.Privacy(noise_multiplier=0.8, delta=1e-4, l2_clip_norm=1.0),
            backend=backend,
            on_round=lambda report: print(
                f"round {report.round}: {report.survivors} of {report.cohort} answered"
            ),
        )


if __name__ == "__main__":
    result = main(*sys.argv[1:2])
    images, labels = digits()
    print(f"right on {np.mean((images @ result.weights).argmax(axis=1) == labels):.0%} of all digits")
    print(result.statement.server.text)
