"""Functions that hold or write what a local computation must not: ways round the masks (`test_captures`)."""

import contextlib
import enum
import functools
import os
import pathlib
import random
import types
import warnings
from dataclasses import dataclass

import numpy as np

REFUSED = {}
OUT = []
queue = []
"""Called like a module that Python has loaded."""


def refused(message):
    """Registers a function that must not become a local computation."""
    return lambda function: REFUSED.setdefault(function, message) and function


def helper(value):
    return value


def told(value):
    return value


told.seen = []


@refused("captures seen, of type list")
def an_attribute_of_a_function(v):
    told.seen.append(v)
    return v


@refused("captures queue, of type list")
def a_name_that_a_module_has_too(v):
    queue.append(v)
    return v


@refused("uses np.random.seed, a generator that all share.*default_rng")
def the_generator_of_numpy_is_seeded(v):
    np.random.seed(int(v))
    return v


@refused("uses np.random.normal, a generator that all share")
def the_generator_of_numpy_is_drawn_from(v):
    return v + np.random.normal()


@refused("uses random.random, a generator that all share")
def the_generator_of_python(v):
    return v + random.random()


@refused("uses numpy.random.seed")
def a_generator_imported_under_another_name(v):
    import numpy.random as dice

    dice.seed(int(v))
    return v


@refused("uses numpy.random.seed")
def a_generator_imported_by_its_function(v):
    from numpy.random import seed

    seed(int(v))
    return v


@refused("uses np.random.seed")
def a_generator_under_a_local_name(v):
    dice = np.random
    dice.seed(int(v))
    return v


@refused("captures os.environ")
def the_environment(v):
    os.environ["SEEN"] = str(v)
    return v


@refused("captures warnings.filters, of type list")
def a_list_in_a_library(v):
    warnings.filters.append(v)
    return v


@refused("captures .*sys, of type module")
def a_module_behind_a_module(v):
    os.sys.modules["leak"] = v
    return v


def put(self, v):
    self.leak = v


@refused("writes to 'self.leak'")
def a_function_that_calls_its_argument_self(v):
    put(helper, v)
    return v


class Keeper:
    def put(self, v):
        self.leak = v

    def __init__(self):
        self.count = 0

    def step(self):
        self.count += 1
        return self.count


@refused("writes to 'self.leak'")
def a_method_on_another_object(v):
    Keeper.put(helper, v)
    return v


class Deep:
    def keep(self, v):
        self.inner = helper
        self.inner.leak = v


@refused("writes to 'leak'")
def an_attribute_of_an_attribute(v):
    Deep().keep(v)
    return v


class Again:
    def keep(self, v):
        self = helper
        self.leak = v


@refused(r"writes to '(self\.)?leak'")
def a_self_that_is_another(v):
    Again().keep(v)
    return v


@refused("uses __kwdefaults__")
def defaults_of_a_function(v):
    helper.__kwdefaults__["v"] = v
    return v


@refused("uses __annotations__")
def annotations_of_a_function(v):
    helper.__annotations__["v"] = v
    return v


class Root:
    pass


@refused("uses __subclasses__")
def a_class_made_by_a_client(v):
    class Leak(Root):
        seen = v

    return Root.__subclasses__()[-1].seen


@refused("uses (__traceback__|tb_frame|f_back|f_locals)")
def the_callers_frame(v):
    try:
        raise ValueError
    except ValueError as error:
        error.__traceback__.tb_frame.f_back.f_locals["leak"] = v
    return v


@refused("uses getattr")
def a_name_by_its_letters(v):
    getattr(helper, "se" + "en").append(v)
    return v


RECORD = np.zeros(1, [("a", float)])[0]


@refused("captures RECORD, of type void")
def a_scalar_with_fields(v):
    RECORD["a"] = v
    return v


class Number(np.float64):
    seen = []  # noqa: RUF012


NUMBER = Number(1.0)


@refused("captures NUMBER, of type Number")
def a_kind_of_scalar(v):
    NUMBER.seen.append(v)
    return v


class Place(pathlib.PurePosixPath):
    seen = []  # noqa: RUF012


PLACE = Place("x")


@refused("captures PLACE, of type Place")
def a_kind_of_path(v):
    PLACE.seen.append(v)
    return v


DTYPE = np.dtype("f8", metadata={"seen": []})


@refused("captures DTYPE")
def the_metadata_of_a_dtype(v):
    DTYPE.metadata["seen"].append(v)
    return v


SLICE = slice([], None)


@refused(r"captures SLICE\.start, of type list")
def the_end_of_a_slice(v):
    SLICE.start.append(v)
    return v


ALIAS = types.GenericAlias(list, (OUT,))


@refused(r"captures ALIAS\.1, of type list")
def the_argument_of_a_type(v):
    return helper(v) if ALIAS else v


class Pair(tuple):
    pass


PAIR = Pair((1, 2))
PAIR.seen = []


@refused(r"captures PAIR\.seen, of type list")
def an_attribute_of_a_tuple(v):
    for held in (PAIR,):
        held.seen.append(v)
    return v


PARTIAL = functools.partial(helper)
PARTIAL.seen = []


@refused("captures .*seen, of type list")
def an_attribute_of_a_partial(v):
    for held in (PARTIAL,):
        held.seen.append(v)
    return v


COVERED = functools.partial(lambda v, by=None: v, by=[])
COVERED.by = 1.0


@refused(r"captures .*by, of type list")
def an_argument_of_a_partial_under_an_attribute(v):
    return COVERED(v)


@dataclass(frozen=True)
class Frozen:
    by: float = 2.0

    def __call__(self, v):
        return v * self.by


FROZEN = Frozen()
object.__setattr__(FROZEN, "seen", [])


@refused(r"captures FROZEN\.seen, of type list")
def an_attribute_of_a_frozen_dataclass(v):
    for held in (FROZEN,):
        held.seen.append(v)
    return v


class Meta(type):
    seen = []  # noqa: RUF012


class Made(metaclass=Meta):
    pass


@refused("captures .*seen, of type list")
def an_attribute_of_a_metaclass(v):
    for made in (Made,):
        made.seen.append(v)
    return v


class Recorder:
    def __init__(self):
        self.seen = []

    def tell(self, v):
        self.seen.append(v)
        return v


class Caller:
    __call__ = Recorder().tell


@refused(r"captures .*__self__, of type Recorder")
def a_special_method_that_is_bound_elsewhere(v):
    return Caller()(v)


class Colour(enum.Enum):
    RED = 1

    def __init__(self, _):
        self.seen = []


@refused(r"captures .*RED\.seen, of type list")
def an_attribute_of_an_enumeration(v):
    for red in (Colour.RED,):
        red.seen.append(v)
    return v


class Plain(enum.Enum):
    WALKING = 1


@refused("captures Plain._member_map_, of type dict")
def the_table_of_an_enumeration(v):
    Plain._member_map_["leak"] = v
    return v


@contextlib.contextmanager
def telling(v):
    OUT.append(v)
    yield v


@refused("captures OUT, of type list")
def a_librarys_decorator_round_a_users_function(v):
    with telling(v) as told:
        return told


def a_cell():
    last = 0.0

    def deleting(v):
        nonlocal last
        if v > 3:
            del last
        return v

    return deleting


refused("writes to 'last'")(a_cell())


def generator():
    items = (x for x in [1.0, 2.0])
    return lambda v: v + next(items)


refused("captures items, of type generator")(generator())
