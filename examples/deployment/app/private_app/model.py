"""Softmax regression in numpy."""

import numpy as np

CLASSES = 6


def start(features):
    return {"w": np.zeros((features, CLASSES), np.float32), "b": np.zeros(CLASSES, np.float32)}


def chances(weights, x):
    logits = x @ weights["w"] + weights["b"]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def fit(weights, x, y, *, steps=20, rate=0.2):
    """A few steps of gradient descent, and the loss before them."""
    loss = float(-np.log(chances(weights, x)[np.arange(len(y)), y] + 1e-9).mean())
    for _ in range(steps):
        error = chances(weights, x)
        error[np.arange(len(y)), y] -= 1
        gradient = {"w": x.T @ error / len(y), "b": error.mean(axis=0)}
        weights = {k: (w - rate * gradient[k]).astype(np.float32) for k, w in weights.items()}
    return weights, loss


def accuracy(weights, x, y):
    return float((chances(weights, x).argmax(axis=1) == y).mean())
