"""scikit-learn estimators as steps: the same numbers as the estimator alone, a fresh copy for every client."""

import pickle

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")
from sklearn.linear_model import LogisticRegression, SGDClassifier, SGDRegressor  # noqa: E402
from sklearn.naive_bayes import GaussianNB  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402

from fedavg import ParameterError, check, from_sklearn  # noqa: E402
from fedavg.adapters import model_from_sklearn  # noqa: E402


def client(seed, *, regression=False):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(12, 4))
    return x, x.sum(axis=1) if regression else np.arange(12) % 3


@pytest.mark.parametrize(
    ("estimator", "classes"),
    [
        (SGDClassifier(loss="log_loss", random_state=0), 3),
        (SGDClassifier(average=True, random_state=0), 3),
        (SGDRegressor(random_state=0), None),
        (MLPClassifier((5,), random_state=0), 3),
    ],
    ids=["classifier", "averaged", "regressor", "perceptron"],
)
def test_estimators_keep_nothing_between_clients(estimator, classes):
    step = from_sklearn(estimator, features=4, classes=classes)
    clients = [client(seed, regression=classes is None) for seed in (1, 2)]
    assert check(step, clients, weights=step.weights) == []
    trained = step(step.weights, clients[0])
    first = next(iter(trained))
    assert not np.array_equal(np.ravel(trained[first][0]), np.ravel(step.weights[first][0]))


def test_a_step_is_partial_fit_from_the_same_coefficients():
    step = from_sklearn(SGDClassifier(loss="log_loss", random_state=0), features=4, classes=3)
    alone = SGDClassifier(loss="log_loss", random_state=0)
    alone.partial_fit(np.zeros((3, 4)), np.arange(3), classes=np.arange(3))
    alone.coef_, alone.intercept_ = np.zeros((3, 4)), np.zeros(3)
    alone.partial_fit(*client(1))
    trained = step(step.weights, client(1))
    np.testing.assert_array_equal(trained["coef_"], alone.coef_)
    np.testing.assert_array_equal(trained["intercept_"], alone.intercept_)


def test_estimators_that_cannot_take_part_are_refused():
    with pytest.raises(ParameterError, match="no partial_fit"):
        from_sklearn(LogisticRegression(), features=4, classes=3)
    with pytest.raises(ParameterError, match="no coefficients"):
        from_sklearn(GaussianNB(), features=4, classes=3)


def test_examples_may_be_float32_and_coefficients_keep_their_dtype():
    """scikit-learn itself refuses to go on in another dtype than it began."""
    step = from_sklearn(SGDClassifier(loss="log_loss", random_state=0), features=4, classes=3)
    x, y = client(1)
    wide, narrow = step(step.weights, (x, y)), step(step.weights, (x.astype(np.float32), y))
    assert narrow["coef_"].dtype == np.float64
    np.testing.assert_allclose(narrow["coef_"], wide["coef_"], rtol=1e-5)
    assert step.evaluate(narrow, (x.astype(np.float32), y))["score"] > 0


def test_functional_models_of_other_losses_are_refused():
    with pytest.raises(ParameterError, match="use from_sklearn"):
        model_from_sklearn(SGDClassifier(loss="hinge"), features=4, classes=3)
    with pytest.raises(ParameterError, match="use from_sklearn"):
        model_from_sklearn(SGDClassifier(loss="log_loss", penalty="l1"), features=4, classes=3)


def test_a_step_can_be_taken_to_another_process():
    step = from_sklearn(SGDClassifier(loss="log_loss", random_state=0), features=4, classes=3)
    there = pickle.loads(pickle.dumps(step))
    np.testing.assert_array_equal(
        there(there.weights, client(1))["coef_"], step(step.weights, client(1))["coef_"]
    )
