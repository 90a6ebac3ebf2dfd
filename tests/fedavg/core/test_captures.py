"""What a local computation may hold and write: ways round the masks that an attacker, or a mistake, would try."""

import functools
import importlib
import re
import types
from collections import namedtuple

import numpy as np
import pytest

from fedavg import SecureAggregation
from fedavg.core import (
    Context,
    ExecutionError,
    PrivacyTypeError,
    at_clients,
    federated_clip,
    federated_computation,
    federated_map,
    federated_sum,
    federated_value,
    local_computation,
)
from tests.fedavg.core.capturing_functions import OUT, REFUSED, Frozen, Keeper, Plain, helper, queue


@pytest.mark.parametrize("function", REFUSED, ids=lambda function: function.__name__)
def test_no_way_round_the_masks(function):
    with pytest.raises(PrivacyTypeError, match=re.compile(REFUSED[function], re.DOTALL)):
        local_computation(returns=float)(function)
    assert not OUT
    assert not queue


Point = namedtuple("Point", "x y")
ORIGIN = Point(1.0, 2.0)
TABLE = (lambda v: v + 1, lambda v: v - 1)


def a_generator_of_its_own(v):
    return v + np.random.default_rng(3).normal()


def an_enumeration(v):
    return v if Plain.WALKING.value == 1 else -v


def a_named_tuple(v):
    return v * ORIGIN.x + Point(v, 1.0).y


def functions_in_a_tuple(v):
    return sum(function(v) for function in TABLE)


def a_worker_that_counts(v):
    worker = Keeper()
    worker.step()
    return v * worker.step()


def constants_of_libraries(v):
    return np.float64(v).clip(0, np.pi) if np.__version__ and v > -np.inf else np.nan


@np.errstate(all="ignore")
def decorated_by_a_library(v):
    return np.log(v)


@functools.wraps(helper)
def decorated(v):
    return helper(v)


def a_frozen_dataclass(v):
    return Frozen(3.0)(v)


@pytest.mark.parametrize(
    "function",
    [
        a_generator_of_its_own, an_enumeration, a_named_tuple, functions_in_a_tuple, a_worker_that_counts,
        constants_of_libraries, decorated_by_a_library, decorated, a_frozen_dataclass, Frozen(2.0), np.tanh,
    ],
    ids=lambda held: getattr(held, "__name__", "object"),
)  # fmt: skip
def test_what_holds_nothing_passes(function):
    assert np.isfinite(local_computation(float, returns=float)(function)(1.0))


def test_a_long_function_hides_nothing():
    """Names past the 256th take bytecode of another form."""
    names = "\n".join(f"    v{i} = x.a{i}.b{i}" for i in range(300))
    for line, message in (
        ("np.random.seed(3)", "uses np.random.seed"),
        ("helper.leak = v1", "writes to 'helper.leak'"),
    ):
        space = {"np": np, "helper": helper}
        exec(f"def long(x):\n{names}\n    {line}\n    return x", space)
        with pytest.raises(PrivacyTypeError, match=message):
            local_computation(returns=float)(space["long"])


def test_a_generator_is_followed_before_its_module_is_loaded(monkeypatch):
    """numpy loads numpy.random when it is first named."""
    lazy = types.ModuleType("lazy")
    lazy.__file__ = np.__file__
    lazy.__getattr__ = lambda name: importlib.import_module("numpy.random") if name == "random" else None
    space = {"lazy": lazy}
    exec("def draw(v):\n    return v + lazy.random.normal()", space)
    with pytest.raises(PrivacyTypeError, match="a generator that all share"):
        local_computation(returns=float)(space["draw"])


def test_what_a_local_computation_calls_is_looked_at_again_too():
    """A computation inside another may have been given a list since it was made."""
    store = None

    @local_computation(returns=float)
    def inner(v):
        return v if store is None else store.append(v)

    @local_computation(returns=float)
    def outer(v):
        return inner(v)

    store = []
    with pytest.raises(PrivacyTypeError, match=r"captures .*store, of type list"):
        outer.check()


def test_no_program_runs_inside_a_local_computation():
    """It would be charged, or see the data, on some backends and not on others."""

    @federated_computation(at_clients(float))
    def total(x):
        return federated_sum(federated_clip(x, l2=1.0))

    def asking(v):
        return total([v] * 3)

    @federated_computation(at_clients(float))
    def program(x):
        first = federated_sum(federated_clip(x, l2=1.0))
        return federated_map(local_computation(returns=float)(asking), first)

    context = Context(
        population=3, delta=1e-3, noise_multiplier=1.0, rounds=5, secure=SecureAggregation.ideal()
    )
    with context, pytest.raises(ExecutionError, match="no context is active"):
        program([1.0, 2.0, 3.0])


def test_a_constant_is_the_programs_own():
    """What it was made of, and what it gave, may be written into afterwards."""
    mine = np.zeros(2)
    program = federated_computation(lambda: federated_value(mine, "SERVER"))
    mine[0] = 5.0
    given = program()
    given[1] = 7.0
    np.testing.assert_array_equal(program(), [0.0, 0.0])
