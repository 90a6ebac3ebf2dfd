"""A JAX training loop over 3,000 clients. The lines marked `# private` are all that Veilsum adds."""

import jax
import jax.numpy as jnp

import dp  # private
import fedavg  # private
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


def main(dataset="mnist", clients=3000, cohort=300, rounds=50, **settings):
    data = images(dataset, clients=clients)
    weights = {"w": jnp.zeros((data.features, 10)), "b": jnp.zeros(10)}
    result = fedavg.train(  # private
        step, data.clients, weights=weights, rounds=rounds, cohort_size=cohort,  # private
        privacy=dp.Privacy(noise_multiplier=1.5, delta=1e-5, l2_clip_norm=0.3),  # private
        server_optimizer=fedavg.sgd(momentum=0.9), **settings,  # private
    )  # private  # fmt: skip
    x, y = data.test
    print(f"accuracy {jnp.mean((x @ result.weights['w'] + result.weights['b']).argmax(axis=1) == y):.3f}")
    print(result.statement.readers.claim, result.statement.server.claim, sep="\n")  # private
    return result


if __name__ == "__main__":
    main()
