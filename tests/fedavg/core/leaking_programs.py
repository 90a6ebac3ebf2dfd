"""Programs that would leak, and what each is told when it is rejected (`test_leaks`)."""

import enum
import functools
import sys
from dataclasses import dataclass

import numpy as np

from fedavg.core import (
    CLIENTS,
    SERVER,
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
    import tests.fedavg.core.leaking_programs as here

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
