"""A scikit-learn training loop over 3,000 clients. The lines marked `# private` are all that Veilsum adds."""

import numpy as np
from sklearn.linear_model import SGDClassifier

import dp  # private
import fedavg  # private
from examples.clients import images


def fit(estimator, data):
    for _ in range(5):
        estimator.partial_fit(*data)


def main(dataset="mnist", clients=3000, cohort=300, rounds=50, **settings):
    data = images(dataset, clients=clients)
    estimator = SGDClassifier(
        loss="log_loss", alpha=0.0, learning_rate="constant", eta0=0.005, random_state=0
    )
    step = fedavg.from_sklearn(estimator, fit, features=data.features, classes=10)  # private
    result = fedavg.train(  # private
        step, data.clients, weights=step.weights, rounds=rounds, cohort_size=cohort,  # private
        privacy=dp.Privacy(noise_multiplier=1.5, delta=1e-5, l2_clip_norm=0.3),  # private
        server_optimizer=fedavg.sgd(momentum=0.9), **settings,  # private
    )  # private  # fmt: skip
    x, y = data.test
    scores = x @ result.weights["coef_"].T + result.weights["intercept_"]
    print(f"accuracy {np.mean(scores.argmax(axis=1) == y):.3f}")
    print(result.statement.readers.claim, result.statement.server.claim, sep="\n")  # private
    return result


if __name__ == "__main__":
    main()
