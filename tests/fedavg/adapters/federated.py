"""FedAvg written out in numpy, for whatever the adapters' FedAvg must equal."""

import numpy as np

FEATURES, CLASSES, RATE = 4, 3, 0.2


def people(count=5):
    """Clients of unequal sizes, float32 inputs and int64 labels."""
    rng = np.random.default_rng(7)
    sizes = rng.integers(6, 14, size=count)
    return [(rng.normal(size=(n, FEATURES)).astype(np.float32), rng.integers(CLASSES, size=n)) for n in sizes]


def cut(client, size=4):
    """Batches of a client, in order."""
    x, y = client
    return [(x[at : at + size], y[at : at + size]) for at in range(0, len(y), size)]


def softmax_slope(w, b, x, y):
    """Gradient of the mean cross-entropy."""
    logits = x @ w + b
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    chances[np.arange(len(y)), y] -= 1
    return x.T @ chances / len(y), chances.mean(axis=0)


def one_against_rest_slope(w, b, x, y):
    """Gradient of the mean logistic loss of each class against the others."""
    signs = np.where(y[:, None] == np.arange(CLASSES), 1.0, -1.0)
    slopes = -signs / (1 + np.exp(signs * (x @ w + b)))
    return x.T @ slopes / len(y), slopes.mean(axis=0)


def by_hand(clients, w, b, *, rounds, slope=softmax_slope, batch=4, rate=RATE, epochs=1):
    """Federated averaging weighted by examples, in float64: w of shape (features, classes), b of shape (classes,)."""
    w, b = w.astype(np.float64), b.astype(np.float64)
    for _ in range(rounds):
        moved_w, moved_b, total = np.zeros_like(w), np.zeros_like(b), 0
        for client in clients:
            local_w, local_b = w.copy(), b.copy()
            for x, y in cut(client, batch) * epochs:
                slope_w, slope_b = slope(local_w, local_b, x.astype(np.float64), y)
                local_w, local_b = local_w - rate * slope_w, local_b - rate * slope_b
            n = len(client[1])
            moved_w, moved_b, total = moved_w + n * (local_w - w), moved_b + n * (local_b - b), total + n
        w, b = w + moved_w / total, b + moved_b / total
    return w, b


def run(process, data, rounds):
    """The model after so many rounds, and the last round's metrics."""
    state = process.initialize()
    for _ in range(rounds):
        output = process.next(state, data)
        state = output.state
    return process.get_model_weights(state), output.metrics
