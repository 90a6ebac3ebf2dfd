"""Plain federated averaging around a numpy loop: what `wrap_numpy` does, without Veilsum and without privacy."""

import random

import numpy as np

from examples.clients import images


def step(weights, data):
    x, y = data
    w, b = weights["w"], weights["b"]
    for _ in range(5):
        logits = x @ w + b
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        chances[np.arange(len(y)), y] -= 1
        w = w - 0.1 * x.T @ chances / len(y)
        b = b - 0.1 * chances.mean(axis=0)
    return {"w": w, "b": b}


def main(dataset="mnist", clients=3000, cohort=300, rounds=50):
    data = images(dataset, clients=clients)
    x, y = data.test
    weights = {"w": np.zeros((data.features, 10), np.float32), "b": np.zeros(10, np.float32)}
    velocity = {name: np.zeros_like(value) for name, value in weights.items()}
    for _ in range(rounds):
        trained = [step(weights, client) for client in random.sample(data.clients, cohort)]
        for name in weights:
            moved = sum(new[name] - weights[name] for new in trained) / cohort
            velocity[name] = 0.9 * velocity[name] + moved
        weights = {name: weights[name] + velocity[name] for name in weights}
    accuracy = np.mean((x @ weights["w"] + weights["b"]).argmax(axis=1) == y)
    print(f"accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
