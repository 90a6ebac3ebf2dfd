"""Ways round the masks behind a library's wrapper, in a value's own form, or in what was not looked at yet."""

import contextlib
import enum
import functools
import importlib
import sys
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest
from numpy import set_printoptions

from fedavg.core import (
    SERVER,
    PrivacyTypeError,
    TypeMismatch,
    federated_computation,
    federated_eval,
    local_computation,
    to_type,
)

SEEN = []


def tell(v):
    SEEN.append(float(v))
    return v


def harmless(v):
    return v * 2.0


class Teller:
    def __call__(self, v):
        SEEN.append(float(v))
        return v


def twice(function):
    return np.errstate(all="ignore")(np.errstate(all="ignore")(function))


def dispatched(function):
    return np._core.overrides.array_function_dispatch(lambda v: (v,), verify=False)(function)


def differentiated(function):
    return pytest.importorskip("jax").grad(function)


def mapped_and_differentiated(function):
    func = pytest.importorskip("torch").func
    return func.vmap(func.grad(function))


def without_gradients(function):
    torch = pytest.importorskip("torch")
    return torch.no_grad()(torch.enable_grad()(function))


def used_inside(function):
    wrapped = twice(function)
    return lambda v: wrapped(v)


WRAPPERS = [twice, dispatched, differentiated, mapped_and_differentiated, without_gradients, used_inside]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_librarys_wrappers_hide_no_capture(wrapper):
    with pytest.raises(PrivacyTypeError, match="captures SEEN, of type list"):
        local_computation(returns=float)(wrapper(tell))
    assert callable(local_computation(returns=float)(wrapper(harmless)).function)


def test_a_library_dispatches_to_no_users_function_unseen():
    with pytest.raises(PrivacyTypeError, match="captures"):
        local_computation(returns=float)(functools.singledispatch(tell))


@pytest.mark.parametrize("wrapper", [twice, contextlib.contextmanager])
def test_librarys_wrappers_hide_no_object(wrapper):
    with pytest.raises(PrivacyTypeError, match="of type Teller"):
        local_computation(returns=float)(wrapper(Teller()))


class Box(str):
    def __init__(self, _):
        self.seen = []


def box():
    return Box("a")


def labelled():
    return np.zeros((), np.dtype("f8", metadata={"seen": []}))


@pytest.mark.parametrize(
    ("function", "form", "carrier"),
    [(box, str, lambda value: value), (labelled, np.float64, lambda value: value.dtype.metadata)],
)
def test_a_value_carries_nothing_beside_its_contents(function, form, carrier):
    """What the server made goes to every client; a list on it would come back with what they hold."""

    @federated_computation
    def program():
        return federated_eval(local_computation(returns=form)(function), SERVER)

    assert not hasattr(carrier(program()), "seen")
    assert not carrier(program()) or carrier(program()) == "a"


def test_the_names_of_elements_carry_nothing():
    for make in (to_type, lambda kinds: local_computation(returns=kinds)):
        with pytest.raises(TypeMismatch, match="no plain text"):
            make({Box("a"): np.float64})


SHARED = []


@dataclass(frozen=True)
class Made:
    seen: list = field(default_factory=lambda: SHARED)


@dataclass(frozen=True)
class Appended:
    seen: list = field(default_factory=SHARED.copy)


@dataclass(frozen=True, slots=True)
class Slotted:
    write: object = SHARED.append


class Named(NamedTuple):
    seen: list = SHARED


@dataclass(frozen=True)
class Settings:
    """An ordinary one: every object has a list and a number of its own."""

    seen: list = field(default_factory=list)
    rate: float = field(default_factory=lambda: 0.5)
    decay: float = 0.1


@pytest.mark.parametrize(
    ("kind", "message"), [(Made, "SHARED"), (Appended, "seen"), (Slotted, "write"), (Named, "seen")]
)
def test_what_a_class_makes_its_fields_with_is_looked_at(kind, message):
    with pytest.raises(PrivacyTypeError, match=f"captures .*{message}, of type list"):
        local_computation(returns=float)(lambda v: (kind(), v)[1])


def test_defaults_that_share_nothing_pass():
    function = local_computation(returns=float)(lambda v: v * Settings().rate - Settings(decay=0.2).decay)
    assert function(1.0) == 0.3


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A user's package, with a module that is not loaded yet."""
    (tmp_path / "users_own").mkdir()
    (tmp_path / "users_own" / "__init__.py").write_text("")
    (tmp_path / "users_own" / "state.py").write_text("seen = []\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("users_own", "users_own.state"):
        sys.modules.pop(name, None)


IMPORTS = [
    "import users_own.state",
    "import users_own.state as other",
    "from users_own import state",
    "from users_own.state import seen",
    "from . import state",
    "from .state import seen",
]


@pytest.mark.parametrize("line", IMPORTS)
@pytest.mark.usefixtures("package")
def test_a_users_module_is_loaded_before_it_is_imported_by_a_function(line):
    space = {"__package__": "users_own", "__name__": "users_own.program"}
    exec(f"def f(v):\n    {line}\n    return v", space)
    with pytest.raises(PrivacyTypeError, match=r"imports users_own.*not loaded.*import it where"):
        local_computation(returns=float)(space["f"])
    importlib.import_module("users_own")
    with pytest.raises(PrivacyTypeError, match=r"imports users_own\.state.*not loaded"):
        local_computation(returns=float)(space["f"])


@pytest.mark.usefixtures("package")
def test_a_relative_import_is_followed():
    importlib.import_module("users_own.state")
    space = {"__package__": "users_own", "__name__": "users_own.program"}
    exec("def f(v):\n    from .state import seen\n    seen.append(v)\n    return v", space)
    with pytest.raises(PrivacyTypeError, match=r"captures users_own\.state\.seen, of type list"):
        local_computation(returns=float)(space["f"])


def test_libraries_are_imported_where_they_are_used():
    def f(v):
        import colorsys
        import xml.dom.minidom
        from email import charset

        try:
            import not_installed_anywhere
        except ImportError:
            not_installed_anywhere = None
        return v if (colorsys, xml, charset) else not_installed_anywhere

    assert local_computation(returns=float)(f)(1.0) == 1.0


def warning_settings(v):
    np.seterr(all="raise")
    return v


def digits(v):
    set_printoptions(precision=int(v))
    return v


def a_generator_in_another_place(v):
    return v + np.random.mtrand.normal()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (warning_settings, "seterr, a setting"),
        (digits, "set_printoptions, a setting"),
        (a_generator_in_another_place, "a generator"),
    ],
)
def test_what_one_client_sets_no_other_computes_with(function, message):
    with pytest.raises(PrivacyTypeError, match=f"{message} that all share"):
        local_computation(returns=float)(function)


class Keeping:
    def keep(self, v):
        self.leak = v
        return v

    @property
    def kept(self):
        self.leak = 1.0
        return self.leak


class KeepingPair(Keeping, tuple):
    pass


@dataclass(frozen=True)
class Rate:
    rate: float = 0.5


class KeepingFrozen(Keeping, Rate):
    """Frozen for its base's fields only."""


class KeepingEnum(Keeping, enum.Enum):
    ONE = 1

    def __init__(self, number):
        self.half = number / 2


class KeepingMeta(type):
    def keep(self, v):
        self.leak = v
        return v


class KeepingClass(metaclass=KeepingMeta):
    pass


KEEPERS = [KeepingPair(), KeepingFrozen(), KeepingEnum.ONE, KeepingClass]


@pytest.mark.parametrize("keeper", KEEPERS, ids=lambda keeper: type(keeper).__name__)
def test_an_object_from_outside_writes_nothing_into_itself(keeper):
    """What a client left in it a function at the server would read."""
    with pytest.raises(PrivacyTypeError, match=r"writes to 'self\.leak'"):
        local_computation(returns=float)(lambda v: sum(held.keep(v) for held in (keeper,)))


class Halves(enum.Enum):
    ONE = 1

    def __init__(self, number):
        self.half = number / 2

    def of(self, v):
        return v * self.half


def test_an_enumeration_may_be_made_with_numbers_of_its_own():
    assert local_computation(returns=float)(lambda v: Halves.ONE.of(v))(3.0) == 1.5
