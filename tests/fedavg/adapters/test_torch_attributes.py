"""Nothing that a PyTorch module holds, or that torch keeps for everybody, takes one client's data to the next."""

import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fedavg import ParameterError, StepError, check, from_torch  # noqa: E402
from fedavg.adapters import model_from_torch  # noqa: E402

nn = torch.nn
FEW, MANY, NEXT = 8, 24, 12


def client(count):
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 4, generator=generator) + 1, torch.randint(2, (count,), generator=generator)


def fit(module, data):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(data[0]), data[1]).backward()
        optimizer.step()


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x)


class Mean(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4), persistent=False)

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.layer(x - self.mean)


class MeanInPlace(Mean):
    def forward(self, x):
        self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return self.layer(x - self.mean)


class Counter(Plain):
    seen = 0

    def forward(self, x):
        self.seen += len(x)
        return self.layer(x) / self.seen


class Memory(Plain):
    def __init__(self):
        super().__init__()
        self.memory = []

    def forward(self, x):
        self.memory.append(x.mean().item())
        return self.layer(x) * np.mean(self.memory)


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.layer, self.state = nn.GRU(4, 3), nn.Linear(3, 2), torch.zeros(1, 3)

    def forward(self, x):
        made, state = self.cell(x, self.state)
        self.state = state.detach()
        return self.layer(made)


class Dice(Plain):
    def __init__(self):
        super().__init__()
        self.dice = torch.Generator().manual_seed(1)

    def forward(self, x):
        return self.layer(x + torch.randn(x.shape, generator=self.dice))


def made(kind, loop=fit, **choices):
    torch.manual_seed(0)
    return from_torch(kind(), loop, **choices)


def after(first, step):
    """What the next client returns after one of so many examples, drawing the same dice in either case."""
    torch.manual_seed(1)
    step(step.weights, client(first))
    torch.manual_seed(2)
    return step(step.weights, client(NEXT))


def nothing_passes(kind, loop=fit, **choices):
    one, other = (after(first, made(kind, loop, **choices)) for first in (FEW, MANY))
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])


@pytest.mark.parametrize("kind", [Mean, MeanInPlace, Counter, Memory, Hidden, Dice])
def test_what_a_module_keeps_to_itself_is_put_back(kind):
    nothing_passes(kind)


@pytest.mark.parametrize("choice", ["keep", "average"])
def test_a_buffer_that_is_not_persistent_begins_anew_whatever_becomes_of_others(choice):
    nothing_passes(Mean, buffers=choice)


def changing(change):
    """A loop that changes something for good, and only for a client with many examples."""

    def loop(module, data):
        if len(data[0]) == MANY:
            change(module)
        fit(module, (data[0].to(module.layer.weight.dtype), data[1]))

    return loop


@pytest.mark.parametrize(
    "change",
    [
        lambda module: module.layer.register_forward_hook(lambda part, given, gave: 2 * gave),
        lambda module: module.layer.weight.register_hook(lambda slope: 2 * slope),
        lambda module: module.layer.weight.register_post_accumulate_grad_hook(
            lambda held: setattr(held, "grad", 2 * held.grad)
        ),
        lambda module: module.layer.bias.requires_grad_(False),
        lambda module: module.double(),
        lambda module: setattr(module, "forward", lambda x: 2 * module.layer(x)),
    ],
    ids=["hook", "slope", "gathered", "frozen", "dtype", "method"],
)
def test_what_a_loop_does_to_the_module_is_undone(change):
    nothing_passes(Plain, changing(change))


def test_each_part_begins_in_the_mode_that_it_had():
    modes = []

    def loop(module, data):
        modes.append([part.training for part in module])
        module.train()
        fit(module, data)
        module.eval()

    module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    module[1].eval()
    after(FEW, from_torch(module, loop))
    assert modes == [[True, False, True]] * 2


def test_torchs_default_dtype_and_gradients_are_as_they_were():
    def loop(module, data):
        scale = torch.tensor(1 / 3)
        fit(module, (data[0] * scale.float() + (scale.dtype == torch.float64), data[1]))
        if len(data[0]) == MANY:
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(False)

    nothing_passes(Plain, loop)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


def outside(schedule=None):
    """A loop whose optimizer was made before it."""
    torch.manual_seed(0)
    module = Plain()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    rates = None if schedule is None else schedule(optimizer)

    def loop(module, data):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(data[0]), data[1]).backward()
        optimizer.step()
        if rates is not None:
            rates.step()

    return from_torch(module, loop)


def test_a_schedule_made_once_is_refused_and_an_optimizer_without_one_is_not():
    after(FEW, outside())
    with pytest.raises(StepError, match="has a schedule, or other settings"):
        after(FEW, outside(lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)))
    (finding,) = check(outside(lambda o: torch.optim.lr_scheduler.StepLR(o, 99)), [client(FEW), client(MANY)])
    assert finding.kind == "failure"


def test_a_learning_rate_set_on_an_optimizer_made_once_is_refused():
    module = Plain()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)

    def loop(module, data):
        nn.functional.cross_entropy(module(data[0]), data[1]).backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] /= len(data[0])

    with pytest.raises(StepError, match="SGD from before"):
        after(FEW, from_torch(module, loop))


def test_tied_weights_travel_once_and_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.layer = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.layer(self.two(self.one(x)))

    step = made(Tied)
    assert "two.weight" not in step.weights
    doubled = {name: 2 * value for name, value in step.weights.items()}
    assert np.abs(step(doubled, client(FEW))["one.weight"] - doubled["one.weight"]).max() < 1
    nothing_passes(Tied)


def test_parameters_without_a_shape_are_refused():
    with pytest.raises(ParameterError, match="weight has no shape yet"):
        from_torch(nn.LazyLinear(2), fit)


def test_what_cannot_be_copied_stays_the_same_object():
    with open(__file__) as file:

        class Holding(Plain):
            def __init__(self):
                super().__init__()
                self.file = file

        step = made(Holding)
        assert step(step.weights, client(FEW)).keys() == step.weights.keys()
        assert not file.closed


def test_a_functional_model_begins_each_batch_with_the_same_attributes():
    torch.manual_seed(0)
    model = model_from_torch(Counter(), nn.functional.cross_entropy)
    inputs = client(FEW)[0]
    np.testing.assert_array_equal(*(model.predict(model.weights, inputs) for _ in range(2)))


def test_a_step_that_has_trained_goes_to_another_process_with_the_attributes_from_before():
    step = made(Hidden)
    here = after(FEW, step)
    there = pickle.loads(pickle.dumps(step))
    gone = there(there.weights, client(NEXT))
    for name, value in here.items():
        np.testing.assert_array_equal(value, gone[name])
