"""Programs that would leak: each is rejected while it is written, with the expression and the fix in the message."""

import enum
import functools
import re
import sys
import types
from dataclasses import dataclass

import numpy as np
import pytest

from fedavg import SecureAggregation
from fedavg.core import (
    CLIENTS,
    SERVER,
    Context,
    CoreError,
    ExecutionError,
    PrivacyTypeError,
    SequenceType,
    TensorType,
    WithinType,
    at_clients,
    at_server,
    federated_broadcast,
    federated_clip,
    federated_computation,
    federated_eval,
    federated_filter,
    federated_map,
    federated_mean,
    federated_sum,
    federated_value,
    federated_zip,
    local_computation,
    within,
)

READINGS = at_clients(np.float64)
THRESHOLD = at_server(np.float64)
SMUGGLED = []
TOTAL = 0.0


def sum_without_bound(x):
    return federated_sum(x)


def mean_without_bound(x):
    return federated_mean(x)


def client_value_returned(x):
    return x


def client_value_beside_a_sum(x):
    return {"sum": federated_sum(federated_clip(x, l2=1.0)), "loss": federated_map(lambda v: v * 2, x)}


def unnoised_maximum(x):
    return federated_map(lambda v: np.maximum(v, 0.0), x)


def clip_after_the_sum(x):
    return federated_clip(federated_sum(x), l2=1.0)


def a_map_that_amplifies(x):
    return federated_sum(federated_map(lambda v: v * 1000.0, federated_clip(x, l2=1.0)))


def broadcast_of_a_client_value(x):
    return federated_broadcast(x)


def client_value_at_the_server(x):
    return federated_map(lambda v, s: v + s, (x, federated_value(1.0, SERVER)))


def closure_over_a_client_value(x):
    return federated_map(lambda s: (s, x)[0], federated_value(1.0, SERVER))


def a_list_carries_it_out(x):
    out = []

    def tell(v):
        out.append(v)
        return v

    return federated_sum(federated_clip(federated_map(tell, x), l2=1.0))


def a_global_list_carries_it_out(x):
    return federated_sum(federated_clip(federated_map(lambda v: SMUGGLED.append(v) or v, x), l2=1.0))


def tell_globally(v):
    global TOTAL
    TOTAL += v
    return v


def a_global_is_written(x):
    return federated_sum(federated_clip(federated_map(tell_globally, x), l2=1.0))


def a_nonlocal_is_written(x):
    last = 0.0

    def tell(v):
        nonlocal last
        last = v
        return v

    return federated_sum(federated_clip(federated_map(tell, x), l2=1.0))


def an_array_of_client_data_is_captured(x):
    data = np.array([68.5, 70.3])
    return federated_map(lambda s: s + data.sum(), federated_value(1.0, SERVER))


def a_default_argument_carries_it_out(x):
    def tell(v, out=[]):  # noqa: B006
        out.append(v)
        return v

    return federated_sum(federated_clip(federated_map(tell, x), l2=1.0))


def a_partial_carries_it_out(x):
    tell = functools.partial(lambda out, v: out.append(v) or v, [])
    return federated_sum(federated_clip(federated_map(tell, x), l2=1.0))


class Recorder:
    def __init__(self):
        self.seen = []

    def tell(self, v):
        self.seen.append(v)
        return v


def a_bound_method_carries_it_out(x):
    return federated_sum(federated_clip(federated_map(Recorder().tell, x), l2=1.0))


class Shared:
    seen: list = []  # noqa: RUF012


def a_class_attribute_carries_it_out(x):
    return federated_sum(federated_clip(federated_map(lambda v: Shared.seen.append(v) or v, x), l2=1.0))


@dataclass(frozen=True)
class Frozen:
    seen: list

    def __call__(self, v):
        self.seen.append(v)
        return v


def a_frozen_dataclass_carries_it_out(x):
    return federated_sum(federated_clip(federated_map(Frozen([]), x), l2=1.0))


def a_branch_on_a_client_value(x):
    return federated_sum(federated_clip(x, l2=1.0)) if x > 3 else federated_value(0.0, SERVER)


def a_loop_until_the_noise_says_stop(x):
    total = federated_sum(federated_clip(x, l2=1.0))
    while total < 10:
        total = federated_sum(federated_clip(x, l2=1.0))
    return total


def numpy_on_a_client_value(x):
    return np.sum(x)


def arithmetic_on_client_values(x):
    return x + x


def client_state_returned(x):
    return federated_eval(lambda: 3.0, CLIENTS)


def a_filtered_value_returned(x):
    return federated_filter(x, lambda v: bool(v > 0))


def half_of_a_struct_is_bounded(x):
    return federated_sum(federated_zip({"value": federated_clip(x, l2=1.0), "loss": x}))


def a_weight_without_a_bound(x):
    return federated_mean(federated_clip(x, l2=1.0), x)


def public_and_raw_zipped_and_returned(x):
    return federated_zip((federated_value(1.0, CLIENTS), x))


def a_sum_of_a_sum_and_a_raw_value(x):
    return federated_sum(federated_sum(federated_clip(x, l2=1.0)))


def a_claim_without_a_clip(x):
    """A function that promises to be 1-Lipschitz, with nothing to enforce it."""
    return federated_sum(federated_map(local_computation(returns=np.float64)(np.tanh), x))


def an_insecure_program_inside(x):
    return federated_computation(READINGS, insecure=True)(sum_without_bound)(x)


def a_function_attribute_carries_it_out(x):
    def tell(v):
        tell.seen = v
        return v

    return federated_sum(federated_clip(federated_map(tell, x), l2=1.0))


class Board:
    last = 0.0


def tell_board(v):
    Board.last = v
    return v


def a_class_is_written(x):
    return federated_sum(federated_clip(federated_map(tell_board, x), l2=1.0))


def a_builtin_method_carries_it_out(x):
    return federated_sum(
        federated_clip(federated_map(local_computation(returns=float)([].append), x), l2=1.0)
    )


def a_ufunc_of_a_python_function(x):
    tell = np.frompyfunc([].append, 1, 1)
    return federated_sum(federated_clip(federated_map(local_computation(returns=float)(tell), x), l2=1.0))


class Colour(enum.Enum):
    RED = []  # noqa: RUF012


def an_enum_carries_it_out(x):
    return federated_sum(federated_clip(federated_map(lambda v: Colour.RED.value.append(v) or v, x), l2=1.0))


class Text(str):
    seen = []  # noqa: RUF012


def a_kind_of_text_carries_it_out(x):
    text = Text("t")
    return federated_sum(federated_clip(federated_map(lambda v: text.seen.append(v) or v, x), l2=1.0))


def globals_by_name(x):
    return federated_sum(
        federated_clip(federated_map(lambda v: globals()["SMUGGLED"].append(v) or v, x), l2=1.0)
    )


def modules_by_name(x):
    return federated_sum(
        federated_clip(
            federated_map(lambda v: sys.modules[__name__].SMUGGLED.append(v) or v, x),
            l2=1.0,
        )
    )


def tell_module(v):
    import tests.fedavg.core.test_leaks as here

    here.SMUGGLED.append(v)
    return v


@functools.lru_cache
def remembered(v):
    return v


def a_cache_remembers_it(x):
    return federated_sum(federated_clip(federated_map(remembered, x), l2=1.0))


@dataclass(frozen=True)
class Thawed:
    last: float

    def __call__(self, v):
        object.__setattr__(self, "last", v)
        return v


def a_frozen_dataclass_thaws(x):
    return federated_sum(federated_clip(federated_map(Thawed(0.0), x), l2=1.0))


def a_generator_is_shared(x):
    dice = np.random.default_rng(0)
    return federated_sum(federated_clip(federated_map(lambda v: v + dice.normal(), x), l2=1.0))


def an_infinite_bound(x):
    form = WithinType(TensorType("float64"), np.inf)
    return federated_sum(federated_map(local_computation(returns=form)(np.tanh), x))


def a_filter_of_public_values_returned(x):
    return federated_filter(federated_value(1.0, CLIENTS), lambda v: bool(v > 0))


def a_comparison_with_a_client_value(x):
    return federated_value(1.0 if x == 3.0 else 0.0, SERVER)


LEAKS = {
    a_filter_of_public_values_returned: "the result holds {float64}@CLIENTS",
    a_comparison_with_a_client_value: "eq would look into {float64}@CLIENTS",
    sum_without_bound: "federated_sum of .* has no bound.*federated_clip",
    mean_without_bound: "federated_mean of .* has no bound.*federated_clip",
    client_value_returned: "the result holds {float64}@CLIENTS.*federated_sum",
    client_value_beside_a_sum: "the result holds {float64}@CLIENTS.*leave it out",
    unnoised_maximum: "the result holds {float64}@CLIENTS",
    clip_after_the_sum: "has no bound.*before the sum",
    a_map_that_amplifies: "has no bound.*federated_clip",
    broadcast_of_a_client_value: "show one client's value to all.*federated_sum",
    client_value_at_the_server: "in two places.*federated_broadcast",
    closure_over_a_client_value: "captures x.*argument of federated_map",
    a_list_carries_it_out: "captures out, of type list.*argument",
    a_global_list_carries_it_out: "captures SMUGGLED, of type list",
    a_global_is_written: "writes to 'TOTAL'.*return",
    a_nonlocal_is_written: "writes to 'last'.*return",
    an_array_of_client_data_is_captured: "captures data, of type ndarray.*federated_value",
    a_default_argument_carries_it_out: "captures .*of type list",
    a_partial_carries_it_out: "captures .*of type list",
    a_bound_method_carries_it_out: "captures .*of type Recorder",
    a_class_attribute_carries_it_out: "captures .*seen, of type list",
    a_frozen_dataclass_carries_it_out: "captures .*of type list",
    a_branch_on_a_client_value: "gt would look into {float64}@CLIENTS.*federated_map",
    a_loop_until_the_noise_says_stop: "lt would look into float64@SERVER.*range",
    numpy_on_a_client_value: "has no element 'sum'; use federated_map",
    arithmetic_on_client_values: "add would look into.*federated_map",
    client_state_returned: "the result holds {float64}@CLIENTS",
    a_filtered_value_returned: "the result holds {float64}@CLIENTS",
    half_of_a_struct_is_bounded: "has no bound at loss",
    a_weight_without_a_bound: "federated_mean of {float64}@CLIENTS has no bound",
    public_and_raw_zipped_and_returned: "the result holds {<float64,float64>}@CLIENTS",
    a_sum_of_a_sum_and_a_raw_value: "is at the server already",
    a_claim_without_a_clip: "has no bound.*returns=within",
    a_function_attribute_carries_it_out: "writes to 'tell.seen'",
    a_class_is_written: "writes to 'Board.last'",
    a_builtin_method_carries_it_out: "captures .*of type list",
    a_ufunc_of_a_python_function: "captures .*of type ufunc",
    an_enum_carries_it_out: "captures .*of type list",
    a_kind_of_text_carries_it_out: "captures .*of type (Text|list)",
    modules_by_name: "captures sys, of type module",
    globals_by_name: "uses globals, which reaches",
    a_cache_remembers_it: "captures .*of type _lru_cache_wrapper",
    a_frozen_dataclass_thaws: "uses __setattr__, which reaches",
    a_generator_is_shared: "captures dice, of type Generator",
    an_infinite_bound: "has no bound",
    an_insecure_program_inside: "sum_without_bound is insecure.*insecure=True",
}


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.__name__)
def test_a_leaking_program_does_not_type_check(leak):
    with pytest.raises(CoreError, match=re.compile(LEAKS[leak], re.DOTALL)) as caught:
        federated_computation(READINGS)(leak)
    named = str(caught.value)
    # The expression: where it stands, or the function that captures.
    assert "test_leaks.py, line" in named or any(
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
    module = types.ModuleType("tests.fedavg.core.test_leaks")
    module.__file__, module.SMUGGLED = __file__, SMUGGLED
    sys.modules.setdefault(module.__name__, module)
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
