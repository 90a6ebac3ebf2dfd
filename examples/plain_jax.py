"""Plain federated averaging around a JAX loop: what `wrap_jax` does, without Veilsum and without privacy."""

import random

import jax
import jax.numpy as jnp

from examples.clients import images


def loss(weights, x, y):
    chances = jax.nn.log_softmax(x @ weights["w"] + weights["b"])
    return -jnp.take_along_axis(chances, y[:, None], axis=1).mean()


@jax.jit
def step(weights, data):
    for _ in range(5):
        slope = jax.grad(loss)(weights, *data)
        weights = jax.tree.map(lambda value, change: value - 0.1 * change, weights, slope)
    return weights


def main(dataset="mnist", clients=3000, cohort=300, rounds=50):
    data = images(dataset, clients=clients)
    weights = {"w": jnp.zeros((data.features, 10)), "b": jnp.zeros(10)}
    velocity = jax.tree.map(jnp.zeros_like, weights)
    for _ in range(rounds):
        trained = [step(weights, client) for client in random.sample(data.clients, cohort)]
        total = jax.tree.map(lambda *values: sum(values), *trained)
        moved = jax.tree.map(lambda value, start: value / cohort - start, total, weights)
        velocity = jax.tree.map(lambda v, m: 0.9 * v + m, velocity, moved)
        weights = jax.tree.map(lambda w, v: w + v, weights, velocity)
    x, y = data.test
    print(f"accuracy {jnp.mean((x @ weights['w'] + weights['b']).argmax(axis=1) == y):.3f}")


if __name__ == "__main__":
    main()
