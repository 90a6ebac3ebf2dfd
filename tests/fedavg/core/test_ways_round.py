"""Ways round the masks behind a library's wrapper, in a value's own form, or in what was not looked at yet."""

import contextlib
import functools

import numpy as np
import pytest

from fedavg.core import PrivacyTypeError, local_computation

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
