"""The few range checks every parameter passes: each names the value, the limit and the way out.

Not here: checks that need two parameters at once; those live beside the formula they protect.
"""

from __future__ import annotations

import math
from numbers import Real

from dp.errors import ParameterError

__all__ = ["at_least", "fraction", "integer", "positive", "probability"]


def positive(name: str, value: float) -> float:
    """Return `value` as a float if it is finite and above 0, else raise `ParameterError`."""
    number = _number(name, value)
    if not (math.isfinite(number) and number > 0):
        raise ParameterError(f"{name} is {value!r}; it must be a finite number above 0.")
    return number


def at_least(name: str, value: float, minimum: float) -> float:
    """Return `value` as a float if it is finite and not below `minimum`, else raise `ParameterError`."""
    number = _number(name, value)
    if not (math.isfinite(number) and number >= minimum):
        raise ParameterError(f"{name} is {value!r}; it must be a finite number, at least {minimum:g}.")
    return number


def probability(name: str, value: float) -> float:
    """Return `value` as a float if it lies strictly between 0 and 1, else raise `ParameterError`."""
    number = _number(name, value)
    if not 0 < number < 1:
        raise ParameterError(f"{name} is {value!r}; it must lie strictly between 0 and 1.")
    return number


def fraction(name: str, value: float) -> float:
    """Return `value` as a float if it lies in [0, 1), else raise `ParameterError`."""
    number = _number(name, value)
    if not 0 <= number < 1:
        raise ParameterError(f"{name} is {value!r}; it must be at least 0 and below 1.")
    return number


def integer(name: str, value: int, minimum: int) -> int:
    """Return `value` as an int if it is whole and not below `minimum`, else raise `ParameterError`."""
    number = _number(name, value)
    if not math.isfinite(number) or number != int(value) or value < minimum:
        raise ParameterError(f"{name} is {value!r}; it must be a whole number, at least {minimum}.")
    return int(value)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(
        value, (float, int, Real)
    ):  # The first two are seen at once.
        raise ParameterError(f"{name} is {value!r}; it must be a number.")
    return float(value)
