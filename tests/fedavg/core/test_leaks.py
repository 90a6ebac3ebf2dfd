"""Programs that would leak are rejected while they are written, with the expression and the fix in the message."""

import re

import numpy as np
import pytest

from fedavg import SecureAggregation
from fedavg.core import (
    CLIENTS,
    Context,
    CoreError,
    ExecutionError,
    PrivacyTypeError,
    SequenceType,
    TensorType,
    at_clients,
    at_server,
    federated_broadcast,
    federated_clip,
    federated_computation,
    federated_eval,
    federated_map,
    federated_mean,
    federated_sum,
    local_computation,
    within,
)
from tests.fedavg.core.leaking_programs import LEAKS, READINGS, sum_without_bound, tell_module


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.__name__)
def test_a_leaking_program_does_not_type_check(leak):
    with pytest.raises(CoreError, match=re.compile(LEAKS[leak], re.DOTALL)) as caught:
        federated_computation(READINGS)(leak)
    named = str(caught.value)
    # The expression: where it stands, or the function that captures.
    assert re.search(r"(leaking_programs|test_leaks)\.py, line", named) or any(
        word in named for word in (" captures ", " writes to ", " uses ")
    )


FORMS = {
    "a length that depends on the data": (
        SequenceType(TensorType("float64")),
        "length that depends.*fixed shape",
    ),
    "a shape that is not fixed": ((np.float64, (None, 3)), "length that depends.*fixed shape"),
    "an open domain": (str, "open domain.*heavy_hitters"),
    "an open domain in a struct": ({"word": str, "count": np.float64}, "open domain"),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_has_no_fixed_form_cannot_be_summed(form):
    kind, message = FORMS[form]
    with pytest.raises(CoreError, match=message):
        federated_computation(at_clients(kind))(lambda x: federated_sum(x))


def test_no_bound_can_be_put_on_what_has_no_norm():
    with pytest.raises(CoreError, match=r"str\* has no L2 norm"):
        federated_computation(at_clients(SequenceType(TensorType("str"))))(
            lambda x: federated_clip(x, l2=1.0)
        )


def test_a_value_of_another_program_does_not_type_check():
    kept = []

    @federated_computation(READINGS)
    def first(x):
        kept.append(x)
        return federated_sum(federated_clip(x, l2=1.0))

    with pytest.raises(CoreError, match="belongs to another computation"):
        federated_computation(lambda: federated_sum(federated_clip(kept[0], l2=1.0)))


def test_what_an_insecure_program_summed_is_no_public_value_elsewhere():
    kept = []

    @federated_computation(insecure=True)
    def insecure():
        kept.append(federated_sum(federated_eval(lambda: 3.0, CLIENTS)))
        return kept[0]

    with pytest.raises(CoreError, match="has no bound; it is of an insecure program"):
        federated_computation(lambda: federated_broadcast(kept[0]))


def test_an_import_inside_a_function_is_followed():
    with pytest.raises(CoreError, match=r"captures .*SMUGGLED, of type list"):
        local_computation(returns=float)(tell_module)


def test_an_insecure_program_runs_in_no_context_that_promises_anything():
    program = federated_computation(READINGS, insecure=True)(sum_without_bound)
    touched = []

    class Clients(list):
        def __getitem__(self, position):
            touched.append(position)
            return 1.0

    context = Context(population=3, delta=1e-3, noise_multiplier=1.0)
    for use in (lambda: context.run(program, Clients([1.0] * 3)), lambda: program.privacy(context)):
        with pytest.raises(ExecutionError, match=r"insecure=True.*bound what it sums"):
            use()
    assert touched == []


def test_a_population_is_no_value_at_the_server():
    from fedavg import ClientData

    @federated_computation(at_server(np.float64))
    def identity(s):
        return s

    with pytest.raises(ExecutionError, match="was given a population"):
        identity(ClientData.of([1.0, 2.0]))


def test_bounds_are_positive_numbers_whose_squares_are_floats():
    for bound in (0.0, -1.0, np.inf, np.nan, 1e308, 1e-308):
        with pytest.raises(CoreError, match="positive number"):
            within(np.float64, l2=bound)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float16, 6000.0), (np.float32, 1e38)])
def test_a_result_that_its_dtype_cannot_hold_is_refused_before_anything_is_charged(dtype, bound):
    """Otherwise the noised sum of what fits at each client would be released as infinity."""
    program = federated_computation(at_clients(dtype))(lambda x: federated_sum(federated_clip(x, l2=bound)))
    context = Context(population=20, delta=1e-3, noise_multiplier=1.0)
    with pytest.raises(ExecutionError, match=r"ends at .*make it float64 before the sum"):
        context.run(program, [dtype(1.0)] * 20)
    mean = federated_computation(at_clients(dtype))(lambda x: federated_mean(federated_clip(x, l2=bound)))
    assert mean.privacy(context).events[0].bounds == (bound,)


@pytest.mark.parametrize("names", [("", "loss"), ("a", "/a"), ("a", "a/b")])
def test_a_bound_covers_no_other_element_whatever_they_are_called(names):
    bounded, other = names

    def program(x):
        return federated_sum({bounded: federated_clip(x, l2=1.0), other: x})

    with pytest.raises(PrivacyTypeError, match="has no bound at"):
        federated_computation(READINGS)(program)


def test_elements_whose_paths_are_spelt_alike_are_summed_apart():
    def program(x):
        inner = {"b": federated_clip(federated_map(lambda v: 2 * v, x), l2=2.0)}
        return federated_sum({"a/b": federated_clip(x, l2=1.0), "a": inner})

    sums = Context(population=400, delta=1e-3, noise_multiplier=1.0, secure=SecureAggregation.ideal()).run(
        federated_computation(READINGS)(program), [1.0] * 400
    )
    assert sums.value["a/b"] == pytest.approx(400, abs=10)
    assert sums.value["a"]["b"] == pytest.approx(800, abs=20)


def helper(value):
    return value


def put(thing, value):
    thing.leak = value


def by_alias(value):
    other = helper
    other.leak = float(value)
    return value


def by_loop(value):
    for other in (helper,):
        other.leak = float(value)
    return value


def by_parameter(value):
    put(helper, float(value))
    return value


@pytest.mark.parametrize("function", [by_alias, by_loop, by_parameter])
def test_a_function_that_writes_attributes_is_refused_whatever_it_calls_the_object(function):
    """Otherwise one client's value could be kept on a helper, and a server map would read it back."""
    with pytest.raises(PrivacyTypeError, match="leak"):

        @federated_computation(at_clients(np.float64))
        def program(x):
            return federated_sum(federated_clip(federated_map(function, x), l2=1.0))
