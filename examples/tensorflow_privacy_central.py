"""FedAvg with one of tensorflow-privacy's queries as the central mechanism, paid from our ledger.

The server is trusted here: it sees every clipped update before TensorFlow adds the noise, so its epsilon is infinite.
Runs in the TensorFlow environment: `.venv-tf/bin/python -m examples.tensorflow_privacy_central`.
"""

import math

import dp_accounting
import numpy as np
import tensorflow as tf
import tensorflow_privacy

import dp
from dp.tensorflow_privacy import CentralQuery, QueryAccountant
from examples.clients import images
from examples.wrap_numpy import step

CLIP, NOISE_MULTIPLIER, DELTA = 0.3, 1.5, 1e-5


def main(dataset="mnist", clients=3000, cohort=300, rounds=50, noise_multiplier=NOISE_MULTIPLIER, seed=None):
    data = images(dataset, clients=clients, seed=seed or 0)
    if seed is not None:
        tf.random.set_seed(seed)  # The noise; cohorts are drawn anew each time, so figures vary a little.
    weights = {"w": np.zeros((data.features, 10), np.float32), "b": np.zeros(10, np.float32)}
    velocity = {name: np.zeros_like(value) for name, value in weights.items()}
    sampler = dp.PaddedPoisson(population=clients, expected=cohort)
    privacy = dp.Privacy(noise_multiplier=noise_multiplier, delta=DELTA, l2_clip_norm=CLIP)
    gaussian = tensorflow_privacy.GaussianSumQuery(CLIP, CLIP * noise_multiplier)
    query = CentralQuery(gaussian, tf.nest.map_structure(tf.zeros_like, weights), trusted_server=True)
    accountant = QueryAccountant.for_event(query.event, sampler, privacy)
    ledger = dp.Ledger.attach(None, accountant=accountant, run={"example": "central"})
    for _ in range(rounds):
        number = ledger.reserve()
        draw = sampler.draw(dp.Keystream())
        trained = (step(weights, data.clients[client]) for client in draw.invited[draw.contributes])
        total = query.run({name: new[name] - weights[name] for name in weights} for new in trained)
        velocity = {name: 0.9 * velocity[name] + total[name] / cohort for name in weights}
        weights = {name: weights[name] + velocity[name] for name in weights}
        ledger.settle(number, survivors=draw.invited.size, model_hash=bytes(32))
    x, y = data.test
    accuracy = float(np.mean((x @ weights["w"] + weights["b"]).argmax(axis=1) == y))
    event = dp_accounting.PoissonSampledDpEvent(
        cohort / clients, dp_accounting.GaussianDpEvent(noise_multiplier)
    )
    theirs = dp_accounting.pld.PLDAccountant().compose(event, rounds).get_epsilon(DELTA)
    spent = ledger.spent()
    print(f"accuracy {accuracy:.3f} after {rounds} rounds")
    print(
        f"epsilon against readers {dp.epsilon_text(spent.readers)}; tensorflow-privacy's own accountant: {theirs:.3f}"
    )
    print(
        f"epsilon against the server: {dp.epsilon_text(spent.server)}, because it is trusted with every update"
    )
    return accuracy, spent.readers, theirs, math.isinf(spent.server)


if __name__ == "__main__":
    main()
