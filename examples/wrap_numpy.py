"""A numpy training loop over 3,000 clients. The lines marked `# private` are all that Veilsum adds."""

import numpy as np

import dp  # private
import fedavg  # private
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


def main(dataset="mnist", clients=3000, cohort=300, rounds=50, **settings):
    data = images(dataset, clients=clients)
    x, y = data.test
    weights = {"w": np.zeros((data.features, 10), np.float32), "b": np.zeros(10, np.float32)}
    result = fedavg.train(  # private
        step, data.clients, weights=weights, rounds=rounds, cohort_size=cohort,  # private
        privacy=dp.Privacy(noise_multiplier=1.5, delta=1e-5, l2_clip_norm=0.3),  # private
        server_optimizer=fedavg.sgd(momentum=0.9), **settings,  # private
    )  # private  # fmt: skip
    accuracy = np.mean((x @ result.weights["w"] + result.weights["b"]).argmax(axis=1) == y)
    print(f"accuracy {accuracy:.3f}")
    print(result.statement.readers.claim, result.statement.server.claim, sep="\n")  # private
    return result


if __name__ == "__main__":
    main()
