"""Plain federated averaging around a Keras loop: what `wrap_keras` does, without Veilsum and without privacy."""

import random

import keras

from examples.clients import images


def fit(model, data):
    model.fit(*data, epochs=5, batch_size=20, verbose=0)


def main(dataset="mnist", clients=3000, cohort=300, rounds=50):
    data = images(dataset, clients=clients)
    model = keras.Sequential([keras.Input((data.features,)), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss, metrics=["accuracy"])
    weights = model.get_weights()
    velocity = [0 * value for value in weights]
    for _ in range(rounds):
        moved = [0 * value for value in weights]
        for client in random.sample(data.clients, cohort):
            model.set_weights(weights)
            fit(model, client)
            moved = [
                m + (new - old) / cohort
                for m, new, old in zip(moved, model.get_weights(), weights, strict=True)
            ]
        velocity = [0.9 * v + m for v, m in zip(velocity, moved, strict=True)]
        weights = [w + v for w, v in zip(weights, velocity, strict=True)]
    model.set_weights(weights)
    print(f"accuracy {model.evaluate(*data.test, verbose=0)[1]:.3f}")


if __name__ == "__main__":
    main()
