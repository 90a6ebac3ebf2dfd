"""Plain federated averaging around a scikit-learn loop: `wrap_sklearn` without Veilsum and without privacy."""

import random

import numpy as np
from sklearn.linear_model import SGDClassifier

from examples.clients import images


def fit(estimator, data):
    for _ in range(5):
        estimator.partial_fit(*data)


def main(dataset="mnist", clients=3000, cohort=300, rounds=50):
    data = images(dataset, clients=clients)
    estimator = SGDClassifier(
        loss="log_loss", alpha=0.0, learning_rate="constant", eta0=0.005, random_state=0
    )
    estimator.partial_fit(*data.clients[0], classes=np.arange(10))  # scikit-learn learns its shapes
    weights = [0 * estimator.coef_, 0 * estimator.intercept_]
    velocity = [0 * value for value in weights]
    for _ in range(rounds):
        moved = [0 * value for value in weights]
        for client in random.sample(data.clients, cohort):
            estimator.coef_, estimator.intercept_ = (value.copy() for value in weights)
            fit(estimator, client)
            moved[0] += (estimator.coef_ - weights[0]) / cohort
            moved[1] += (estimator.intercept_ - weights[1]) / cohort
        velocity = [0.9 * v + m for v, m in zip(velocity, moved, strict=True)]
        weights = [w + v for w, v in zip(weights, velocity, strict=True)]
    x, y = data.test
    scores = x @ weights[0].T + weights[1]
    print(f"accuracy {np.mean(scores.argmax(axis=1) == y):.3f}")


if __name__ == "__main__":
    main()
