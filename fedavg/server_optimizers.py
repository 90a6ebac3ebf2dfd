"""Server optimizers: pure pairs `(initialize, update)` over flat vectors (Reddi et al. 2021, Algorithm 2).

The averaged client update plays the gradient's part (with its sign already turned), so `learning_rate=1.0` and no
momentum is plain FedAvg (McMahan et al. 2017). The averages that come in are already noised: whatever is computed
here is post-processing and costs no privacy. The same pairs serve as client optimizers of functional models, where the
negative gradient comes in.

A learning rate is a number or a schedule: a function from the number of updates made so far (0, 1, ...) to a number,
such as those of `optax`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.errors import ParameterError

__all__ = ["OptimizerState", "Schedule", "ServerOptimizer", "adagrad", "adam", "sgd", "yogi"]

OptimizerState = Mapping[str, NDArray[Any]]
Schedule = Callable[[int], Any]
_SecondMoment = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class ServerOptimizer:
    """A pure pair: `initialize(size, dtype) -> state`; `update(state, weights, average) -> (state, weights)`.

    Attributes:
        name: What reports call it.
        initialize: `(size, dtype) -> state`: the state before the first round.
        update: `(state, weights, average) -> (state, weights)`, flat arrays of shape (size,).
    """

    name: str
    initialize: Callable[[int, Any], OptimizerState]
    update: Callable[[OptimizerState, NDArray[Any], NDArray[Any]], tuple[OptimizerState, NDArray[Any]]]


def sgd(*, learning_rate: float | Schedule = 1.0, momentum: float = 0.0) -> ServerOptimizer:
    """Step along the averaged update, with heavy-ball momentum.

    Args:
        learning_rate: Server step size, positive, or a schedule; 1.0 is FedAvg's.
        momentum: Share of the last step kept, in [0, 1).

    Returns:
        The server optimizer.

    Raises:
        ParameterError: a value out of its range.

    Source: Hsu, Qi, Brown 2019 (FedAvgM), section 3.

    >>> optimizer = sgd(momentum=0.5)
    >>> state = optimizer.initialize(2, np.float64)
    >>> state, weights = optimizer.update(state, np.zeros(2), np.ones(2))
    >>> optimizer.update(state, weights, np.ones(2))[1]
    array([2.5, 2.5])
    """
    rate = _Rate.of(learning_rate)
    if not 0 <= momentum < 1:
        raise ParameterError(
            f"the server momentum is {momentum}; give a number from 0 up to, not including, 1"
        )

    def initialize(size: int, dtype: Any) -> OptimizerState:
        return {**({"velocity": np.zeros(size, dtype)} if momentum else {}), **rate.start()}

    def update(
        state: OptimizerState, weights: NDArray[Any], average: NDArray[Any]
    ) -> tuple[OptimizerState, NDArray[Any]]:
        velocity = momentum * state["velocity"] + average if momentum else average
        moved = (weights + rate.at(state) * velocity).astype(weights.dtype, copy=False)
        kept = {"velocity": velocity.astype(weights.dtype, copy=False)} if momentum else {}
        return {**kept, **rate.next(state)}, moved

    return ServerOptimizer(f"sgd(learning_rate={rate.name}, momentum={momentum})", initialize, update)


def adagrad(
    *, learning_rate: float | Schedule, epsilon: float = 1e-3, initial: float = 0.0
) -> ServerOptimizer:
    """FedAdagrad: each coordinate's step shrinks with the root of its summed squared averages.

    Args:
        learning_rate: Server step size, positive, or a schedule.
        epsilon: Added to the root, positive (tau in the paper).
        initial: Where the sum of squares starts, at least 0.

    Raises:
        ParameterError: a value out of its range.

    Source: Reddi et al. 2021 (2003.00295), Algorithm 2.
    """
    rate = _Rate.of(learning_rate)
    _positive("epsilon", epsilon)
    if not 0 <= initial < np.inf:
        raise ParameterError(f"the initial sum of squares is {initial}; give a finite number, at least 0")

    def initialize(size: int, dtype: Any) -> OptimizerState:
        return {"squares": np.full(size, initial, dtype), **rate.start()}

    def update(
        state: OptimizerState, weights: NDArray[Any], average: NDArray[Any]
    ) -> tuple[OptimizerState, NDArray[Any]]:
        squares = state["squares"] + average**2
        moved = weights + rate.at(state) * average / (np.sqrt(squares) + epsilon)
        return {"squares": squares, **rate.next(state)}, moved.astype(weights.dtype, copy=False)

    return ServerOptimizer(f"adagrad({rate.name}, {epsilon}, {initial})", initialize, update)


def adam(
    *, learning_rate: float | Schedule, beta1: float = 0.9, beta2: float = 0.99, epsilon: float = 1e-3
) -> ServerOptimizer:
    """FedAdam, with the bias correction of Kingma and Ba 2015 (as `optax.adam`).

    Args:
        learning_rate: Server step size, positive, or a schedule.
        beta1: Decay of the mean of averages, in [0, 1).
        beta2: Decay of the mean of squares, in [0, 1).
        epsilon: Added to the root, positive (tau in the paper).

    Raises:
        ParameterError: a value out of its range.

    Source: Reddi et al. 2021 (2003.00295), Algorithm 2.
    """
    return _moments("adam", learning_rate, beta1, beta2, epsilon, lambda v, g2: beta2 * v + (1 - beta2) * g2)


def yogi(
    *, learning_rate: float | Schedule, beta1: float = 0.9, beta2: float = 0.99, epsilon: float = 1e-3
) -> ServerOptimizer:
    """FedYogi: as `adam`, but the mean of squares moves by a signed step, so it forgets no faster than it learns.

    Args:
        learning_rate: Server step size, positive, or a schedule.
        beta1: Decay of the mean of averages, in [0, 1).
        beta2: Decay of the mean of squares, in [0, 1).
        epsilon: Added to the root, positive (tau in the paper).

    Raises:
        ParameterError: a value out of its range.

    Source: Reddi et al. 2021 (2003.00295), Algorithm 2; Zaheer et al. 2018.
    """
    return _moments(
        "yogi", learning_rate, beta1, beta2, epsilon, lambda v, g2: v - (1 - beta2) * np.sign(v - g2) * g2
    )


def _moments(
    name: str,
    learning_rate: float | Schedule,
    beta1: float,
    beta2: float,
    epsilon: float,
    second: _SecondMoment,
) -> ServerOptimizer:
    """Adam's frame around a rule for the second moment."""
    rate = _Rate.of(learning_rate)
    _decay("beta1", beta1)
    _decay("beta2", beta2)
    _positive("epsilon", epsilon)

    def initialize(size: int, dtype: Any) -> OptimizerState:
        return {
            "mean": np.zeros(size, dtype),
            "squares": np.zeros(size, dtype),
            "count": np.zeros((), np.int64),
            **rate.start(),
        }

    def update(
        state: OptimizerState, weights: NDArray[Any], average: NDArray[Any]
    ) -> tuple[OptimizerState, NDArray[Any]]:
        count = state["count"] + 1
        mean = beta1 * state["mean"] + (1 - beta1) * average
        squares = second(state["squares"], average**2)
        unbiased = mean / (1 - beta1**count)
        root = np.sqrt(squares / (1 - beta2**count)) + epsilon
        moved = (weights + rate.at(state) * unbiased / root).astype(weights.dtype, copy=False)
        kept = {"mean": mean.astype(weights.dtype), "squares": squares.astype(weights.dtype), "count": count}
        return {**kept, **rate.next(state)}, moved

    return ServerOptimizer(f"{name}({rate.name}, {beta1}, {beta2}, {epsilon})", initialize, update)


@dataclass(frozen=True)
class _Rate:
    """A learning rate: one number, or a schedule over the updates that the optimizer's state counts."""

    schedule: Schedule
    constant: bool
    name: str

    @classmethod
    def of(cls, rate: float | Schedule) -> _Rate:
        if callable(rate):
            return cls(rate, False, getattr(rate, "__qualname__", type(rate).__qualname__))
        _positive("learning rate", rate)
        return cls(lambda _: rate, True, str(rate))

    def start(self) -> OptimizerState:
        """What the state needs to know where in the schedule it stands."""
        return {} if self.constant else {"updates": np.zeros((), np.int64)}

    def next(self, state: OptimizerState) -> OptimizerState:
        """The same after one more update."""
        return {} if self.constant else {"updates": state["updates"] + 1}

    def at(self, state: OptimizerState) -> float:
        """The rate now; a schedule's value is checked when it is used."""
        value = float(self.schedule(0 if self.constant else int(state["updates"])))
        if not 0 <= value < np.inf:
            raise ParameterError(
                f"the schedule gives the learning rate {value}; it must stay finite, at least 0"
            )
        return value


def _positive(name: str, value: float) -> None:
    if not 0 < value < np.inf:
        raise ParameterError(f"the server's {name} is {value}; give a positive finite number")


def _decay(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ParameterError(f"the server's {name} is {value}; give a number from 0 up to, not including, 1")
