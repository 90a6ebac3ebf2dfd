"""Softmax regression by mini-batches: how right it is tells whether images, labels and order are what they were."""

from __future__ import annotations

import numpy as np


def softmax_accuracy(data, *, learning_rate, epochs=3, batch=100):
    """Share of the test set that is right, after a few passes over the training set."""
    generator = np.random.default_rng(0)
    kernel, bias = np.zeros((data.features, data.classes), np.float32), np.zeros(data.classes, np.float32)
    for epoch in range(epochs):
        rate = np.float32(learning_rate / 2**epoch)
        for rows in np.array_split(generator.permutation(len(data.train_y)), len(data.train_y) // batch):
            x = data.train_x[rows]
            scores = x @ kernel + bias
            slopes = np.exp(scores - scores.max(axis=1, keepdims=True))
            slopes /= slopes.sum(axis=1, keepdims=True)
            slopes[np.arange(len(rows)), data.train_y[rows]] -= 1
            slopes *= rate / len(rows)
            kernel -= x.T @ slopes
            bias -= slopes.sum(axis=0)
    return float(((data.test_x @ kernel + bias).argmax(axis=1) == data.test_y).mean())
