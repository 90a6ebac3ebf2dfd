"""Types print in TFF's notation, and functions are given what their types say."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedavg.core import (
    CLIENTS,
    SERVER,
    FederatedType,
    FunctionType,
    SequenceType,
    StructType,
    TensorType,
    TypeMismatch,
    at_clients,
    at_server,
    federated_computation,
    federated_map,
    federated_value,
    local_computation,
    to_type,
    type_of,
    within,
)
from fedavg.core.local import checker, fits
from fedavg.core.types import size, unbounded, zeros
from fedavg.core.values import flatten, unflatten
from fedavg.errors import StepError

SHAPES = st.lists(st.integers(1, 3), max_size=2).map(tuple)
FIXED = st.recursive(
    st.builds(TensorType, st.sampled_from(["float32", "float64"]), SHAPES),
    lambda kinds: st.one_of(
        st.lists(kinds, min_size=1, max_size=3).map(
            lambda items: StructType(tuple((None, k) for k in items))
        ),
        st.lists(kinds, min_size=1, max_size=3).map(
            lambda items: StructType(tuple((f"e{i}", k) for i, k in enumerate(items)))
        ),
    ),
    max_leaves=6,
)


def test_notation():
    model = {"trainable": [(np.float32, (784, 10)), (np.float32, 10)], "non_trainable": []}
    initialize = FunctionType(None, at_server({"model": model, "round": np.int32}))
    assert str(initialize) == (
        "( -> <model=<trainable=<float32[784,10],float32[10]>,non_trainable=<>>,round=int32>@SERVER)"
    )
    assert (
        str(at_clients(SequenceType(to_type({"x": (np.float32, (None, 784))}))))
        == "{<x=float32[?,784]>*}@CLIENTS"
    )
    assert str(within((np.float32, (10,)), l2=1.0)) == "float32[10] within L2 1.0"
    assert str(FederatedType(TensorType("str"), CLIENTS, True)) == "str@CLIENTS"
    assert str(at_clients(within([float, float], l2=2.5))) == "{<float64,float64> within L2 2.5}@CLIENTS"


@given(FIXED)
def test_flat_vectors_and_nests_are_inverse(kind):
    vector = np.arange(size(kind), dtype=float)
    nest = unflatten(vector, kind)
    assert type_of(nest) == kind
    np.testing.assert_array_equal(flatten(nest, kind), vector)
    assert type_of(zeros(kind)) == kind
    assert size(within(kind, l2=1.0)) == size(kind)
    assert unbounded(within(kind, l2=1.0)) == kind
    assert fits(kind, within(kind, l2=3.0))


@pytest.mark.parametrize("bad", [object(), "nonsense", np.complex64, np.dtype("M8[s]")])
def test_what_is_no_type_is_refused(bad):
    with pytest.raises(TypeMismatch, match=r"no type|no dtype"):
        to_type(bad)
    with pytest.raises(TypeMismatch, match="cannot be placed"):
        at_server(at_clients(float))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (np.float32, [1.0]),
        (np.int32, 1.5),
        ((float, (2,)), [1.0, 2.0, 3.0]),
        ((float, (None, 2)), [1.0, 2.0]),
        ({"a": float}, {"b": 1.0}),
        ({"a": float}, 1.0),
        ([float, float], [1.0]),
        (str, 3),
        (np.bool_, 2.0),
    ],
)
def test_a_value_of_another_form_is_refused(kind, value):
    with pytest.raises(StepError, match="a value"):
        checker(to_type(kind))(value)


def test_values_take_the_form_of_their_type():
    assert checker(to_type(np.float32))(3).dtype == np.float32
    assert checker(to_type({"a": float, "b": int}))({"b": 1, "a": 2.0}) == {"a": 2.0, "b": 1}
    assert checker(SequenceType(TensorType("int64")))((1, 2)) == [1, 2]
    assert checker(to_type((np.float32, (None,))))(np.zeros(5)).dtype == np.float32


def test_local_computations_are_typed():
    over = local_computation(np.float32, np.float32)(lambda a, b: {"over": a > b})
    assert str(over.type_signature) == "(<float32,float32> -> <over=bool>)"
    assert over(3.0, 2.0) == {"over": True}
    with pytest.raises(TypeMismatch, match="takes <float32,float32>, and is given float64"):
        over.result_type(to_type(float))
    with pytest.raises(
        TypeMismatch, match=r"cannot be inferred: on zeros of float64.*declare it with returns="
    ):
        local_computation(lambda v: [][0]).result_type(to_type(float))
    with pytest.raises(TypeMismatch, match="runs in one place"):
        local_computation(returns=at_server(float))


def test_a_function_of_one_parameter_gets_the_struct_and_of_several_its_elements():
    def program(a, b):
        return (
            federated_map(lambda pair: pair[0] + pair[1], (a, b)),
            federated_map(lambda x, y: x + y, (a, b)),
            federated_map(lambda pair: pair["x"] - pair["y"], {"x": a, "y": b}),
        )

    assert federated_computation(at_server(float), at_server(float))(program)(3.0, 2.0) == (5.0, 5.0, 1.0)


SCALE = 3.0


@dataclass(frozen=True)
class Scale:
    by: float

    def __call__(self, value):
        return helper(value) * self.by


def helper(value):
    return np.abs(value) * SCALE


def test_constants_functions_modules_and_frozen_dataclasses_may_be_captured():
    power = 2

    def nested(value):
        def inner(v):
            return np.power(v, power)

        return inner(helper(value))

    for function in (
        nested,
        Scale(2.0),
        functools.partial(np.add, 1.0),
        np.tanh,
        lambda v: -v,
        Scale(1.0).__call__,
    ):
        program = federated_computation(at_server(float))(functools.partial(federated_map, function))
        assert str(program.type_signature) == "(float64@SERVER -> float64@SERVER)"


def test_programs_print():
    @federated_computation(at_server(float))
    def program(s):
        return federated_map(helper, s)

    assert str(program) == (
        "program: (float64@SERVER -> float64@SERVER)\n"
        "s: float64@SERVER [public] = parameter\n"
        "v1: float64@SERVER [public] = federated_map(helper, s)"
    )


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda: federated_value(1.0, "EVERYWHERE"), "CLIENTS or SERVER"),
        (lambda: federated_value(federated_value(1.0, SERVER), SERVER), "federated value already"),
        (lambda: federated_map(3, federated_value(1.0, SERVER)), "no function on plain values"),
        (lambda: federated_map(lambda: 1, ()), "nothing to zip"),
        (lambda: federated_value(1.0, SERVER).name, "has no element 'name'"),
        (lambda: lambda: 1, "cannot return a function"),
    ],
)
def test_mistakes_are_named(program, message):
    with pytest.raises(TypeMismatch, match=message):
        federated_computation(program)


def test_parameters_are_placed_and_counted():
    with pytest.raises(TypeMismatch, match="has no placement"):
        federated_computation(np.float32, float)
    with pytest.raises(TypeMismatch, match="takes 2 parameters, and 1 types"):
        federated_computation(at_server(float))(lambda a, b: a)
