"""A Keras training loop over 3,000 clients. The lines marked `# private` are all that Veilsum adds."""

import keras

import dp  # private
import fedavg  # private
from examples.clients import images


def fit(model, data):
    model.fit(*data, epochs=5, batch_size=20, verbose=0)


def main(dataset="mnist", clients=3000, cohort=300, rounds=50, **settings):
    data = images(dataset, clients=clients)
    model = keras.Sequential([keras.Input((data.features,)), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss, metrics=["accuracy"])
    step = fedavg.from_keras(model, fit)  # private
    result = fedavg.train(  # private
        step, data.clients, weights=step.weights, rounds=rounds, cohort_size=cohort,  # private
        privacy=dp.Privacy(noise_multiplier=1.5, delta=1e-5, l2_clip_norm=0.3),  # private
        server_optimizer=fedavg.sgd(momentum=0.9), **settings,  # private
    )  # private  # fmt: skip
    for variable, value in zip(model.trainable_variables, result.weights.values(), strict=True):  # private
        variable.assign(value)  # private
    print(f"accuracy {model.evaluate(*data.test, verbose=0)[1]:.3f}")
    print(result.statement.readers.claim, result.statement.server.claim, sep="\n")  # private
    return result


if __name__ == "__main__":
    main()
