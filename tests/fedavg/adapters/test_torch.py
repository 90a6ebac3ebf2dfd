"""A PyTorch loop as a step: the same numbers as the loop alone, no state from client to client, buffers by choice."""

import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fedavg import ParameterError, StepError, check, from_torch  # noqa: E402
from fedavg.adapters import model_from_torch  # noqa: E402
from fedavg.pytree import TreeSpec  # noqa: E402
from fedavg.step import run_step  # noqa: E402


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))


def fit(module, data):
    x, y = data
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
    return {"loss": loss.item()}


def client(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 4, generator=generator), torch.randint(2, (8,), generator=generator)


def test_a_step_is_the_loop_itself():
    step = from_torch(net(), fit)
    alone = net()
    fit(alone, client(1))
    trained, metrics = step(step.weights, client(1))
    for name, value in alone.state_dict().items():
        np.testing.assert_array_equal(trained[name], value.numpy())
    assert metrics["loss"] > 0


def test_a_step_without_copies_gives_the_same_and_leaves_the_released_weights_alone():
    step = from_torch(net(), fit)
    spec = TreeSpec.of(step.weights)
    released = spec.flatten(step.weights)
    before = released.copy()
    lent = run_step(step.lent, spec, released, client(1), metrics={"loss": 5.0}, lent=True)
    copied = run_step(step, spec, released, client(1), metrics={"loss": 5.0})
    np.testing.assert_array_equal(lent.delta, copied.delta)
    assert lent.metrics == copied.metrics
    np.testing.assert_array_equal(released, before)


def test_what_a_step_returned_stays_as_it_is_while_the_next_client_trains():
    step = from_torch(net(), fit)
    first, _ = step(step.weights, client(1))
    kept = {name: value.copy() for name, value in first.items()}
    step(step.weights, client(2))
    for name, value in kept.items():
        np.testing.assert_array_equal(first[name], value)


def test_nothing_passes_from_one_client_to_the_next():
    step = from_torch(net(), fit)
    assert check(step, [client(1), client(2)], weights=step.weights, metrics={"loss": 5.0}) == []


def test_an_optimizer_made_once_is_found():
    module = net()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)

    def leaky(module, data):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(data[0]), data[1]).backward()
        optimizer.step()

    step = from_torch(module, leaky)
    (finding,) = check(step, [client(1), client(2)])
    assert finding.kind == "failure"
    assert "SGD that holds state from before" in finding.message

    with pytest.raises(StepError, match="make the optimizer anew in each call"):
        step(step.weights, client(2))


def test_an_optimizer_without_state_may_be_made_once():
    module = net()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)

    def loop(module, data):
        for _ in range(2):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(data[0]), data[1]).backward()
            optimizer.step()

    assert check(from_torch(module, loop), [client(1), client(2)]) == []


def test_buffers_are_refused_kept_or_averaged():
    def normed():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))

    with pytest.raises(ParameterError, match="running_mean"):
        from_torch(normed(), fit)
    keep = from_torch(normed(), fit, buffers="keep")
    assert not [name for name in keep.weights if "running" in name]
    average = from_torch(normed(), fit, buffers="average")
    assert [name for name in average.weights if "running" in name] == ["1.running_mean", "1.running_var"]
    assert not np.array_equal(average(average.weights, client(1))[0]["1.running_mean"], np.zeros(3))
    for step in (keep, average):
        assert check(step, [client(1), client(2)], weights=step.weights) == []


def normed():
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))


def test_a_functional_model_refuses_buffers_or_keeps_the_initial_ones():
    entropy = torch.nn.functional.cross_entropy
    with pytest.raises(ParameterError, match="running_mean"):
        model_from_torch(normed(), entropy)
    with pytest.raises(ParameterError, match="keeps no buffers to average"):
        model_from_torch(normed(), entropy, buffers="average")
    module = normed()
    model = model_from_torch(module, entropy, buffers="keep")
    before = model.predict(model.weights, client(1)[0])
    model.loss_and_gradient(model.weights, client(2))
    np.testing.assert_array_equal(model.predict(model.weights, client(1)[0]), before)
    assert not [name for name in model.weights if "running" in name]


def test_a_step_can_evaluate_in_evaluation_mode():
    module = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Dropout(0.9))

    def evaluate(module, data):
        assert not module.training
        return {"accuracy": float((module(data[0]).argmax(dim=1) == data[1]).float().mean())}

    step = from_torch(module, fit, evaluate=evaluate)
    first, again = (step.evaluate(step.weights, client(1)) for _ in range(2))
    assert first == again
    step(step.weights, client(1))
    assert module.training
    assert from_torch(module, fit).evaluate is None


def test_a_step_can_be_taken_to_another_process():
    step = from_torch(net(), fit)
    there = pickle.loads(pickle.dumps(step))
    here, gone = step(step.weights, client(1)), there(there.weights, client(1))
    for name in step.weights:
        np.testing.assert_array_equal(here[0][name], gone[0][name])
