"""A federated process: `initialize() -> state`, `next(state, data) -> output`, shaped like TensorFlow Federated's.

`next` changes nothing it is given: old states stay valid. What is *not* in the state is what was spent: that is the
aggregator's ledger, and a round replayed from an old state is charged again (see `fedavg.processes.private_sum`).
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

import dp
from fedavg.core.types import (
    FunctionType,
    StructType,
    TensorType,
    Type,
    at_clients,
    at_server,
    to_type,
    type_of,
)
from fedavg.errors import FedAvgError, ParameterError
from fedavg.interrupts import told_apart
from fedavg.model import EXAMPLES, Finalizer, finalise
from fedavg.processes.collecting import Aggregator
from fedavg.processes.work import RoundWork, flat_work
from fedavg.pytree import Tree, TreeSpec
from fedavg.server_optimizers import OptimizerState, ServerOptimizer

__all__ = [
    "FederatedProcess",
    "ModelWeights",
    "ProcessState",
    "RoundOutput",
    "Rounds",
    "Typed",
    "spent_together",
]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Typed(Generic[_Parameters, _Result]):
    """A function with its federated type: `str(process.initialize.type_signature)`."""

    def __init__(self, function: Callable[_Parameters, _Result], type_signature: FunctionType) -> None:
        self._function = function
        self.type_signature = type_signature

    def __call__(self, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        """Call the function."""
        return self._function(*args, **kwargs)


class ModelWeights(NamedTuple):
    """A model's weights: those that are trained, and those that only travel.

    Attributes:
        trainable: A nest of arrays; what clients train.
        non_trainable: Arrays that only travel.
    """

    trainable: Tree
    non_trainable: Tree = ()


@dataclass(frozen=True)
class ProcessState:
    """The server's state between rounds; everything in it was released, nothing in it is anybody's secret.

    Attributes:
        model: The weights after the last round.
        optimizer: The server optimizer's own state.
        round: Rounds finished.
    """

    model: ModelWeights
    optimizer: OptimizerState
    round: int = 0


@dataclass(frozen=True)
class RoundOutput:
    """What `next` returns.

    Args:
        state: To go on from.
        metrics: `"train"` or `"eval"` (the declared metrics, finalised), `"clients"`, `"cohort"`, `"survivors"`,
            `"epsilon"` (`.readers`, `.server`, for all rounds so far), `"aggregation"` (how the sum was taken).
    """

    state: ProcessState
    metrics: Mapping[str, Any]


class Rounds:
    """What every process shares: the model's weights in and out, one round's sums, what was spent.

    Args:
        work: What clients do in a round, and the weights it begins with.
        aggregator: How their vectors are summed.
        name: Under which name metrics are reported.
        counted: Whether clients also send their number of examples, in the vector.

    Attributes:
        initialize: `() -> state`, with a `type_signature`.
        next: `(state, data) -> RoundOutput`; data is a list of clients' data, or a population to draw from.
    """

    def __init__(self, work: RoundWork, aggregator: Aggregator, name: str, *, counted: bool) -> None:
        self._work, self._aggregator, self._name = work, aggregator, name
        self._spec = TreeSpec.of(work.weights)
        state = at_server(_state_type(self._initialize()))
        metrics = at_server(_metrics_type(name, work, counted=counted))
        data = at_clients(work.data_type)
        self.initialize = Typed(self._initialize, FunctionType(None, state))
        """`() -> state`."""
        self.next = Typed(
            self._next,
            FunctionType(
                StructType((("state", state), ("data", data))),
                StructType((("state", state), ("metrics", metrics))),
            ),
        )
        """`(state, data) -> RoundOutput`; data is a list of clients' data, or a population to draw from."""

    def get_model_weights(self, state: ProcessState) -> Tree:
        """The model in `state`, as the nest of arrays that the user gave."""
        return self._spec.unflatten(self._spec.flatten(state.model.trainable))

    def set_model_weights(self, state: ProcessState, weights: Tree) -> ProcessState:
        """The state with another model, `weights`; the optimizer's own state stays.

        Raises:
            TreeError: another nest than the model's.
            ParameterError: the weights hold NaN or infinity.
        """
        return replace(state, model=ModelWeights(self._spec.unflatten(_finite(self._spec, weights))))

    def statement(self) -> dp.Statements | None:
        """Both statements for everything this process has charged; None where nothing is promised to anybody."""
        return self._aggregator.statement()

    def _initialize(self) -> ProcessState:
        start = self._spec.unflatten(_finite(self._spec, self._work.weights))
        return ProcessState(ModelWeights(start), {})

    def _next(self, state: ProcessState, data: Any) -> RoundOutput:
        return RoundOutput(state, self._collect(state, data)[1])

    def _released(self, state: ProcessState, average: NDArray[Any]) -> NDArray[Any]:
        """The flat weights that a round's average leads to: those in the state, where nothing is trained."""
        return self._spec.flatten(state.model.trainable)

    def _collect(self, state: ProcessState, data: Any) -> tuple[NDArray[Any], Mapping[str, Any]]:
        """One round's average and metrics."""
        weights = _finite(self._spec, state.model.trainable)
        with told_apart():
            collected = self._aggregator.collect(
                flat_work(self._work, self._spec, weights, state.round),
                data,
                model_hash=_model_hash(self._spec, weights),
                released=lambda average: _model_hash(self._spec, self._released(state, average)),
            )
        finalizers = {name: _spared(name, finalizer) for name, finalizer in self._work.finalizers.items()}
        metrics = finalise(collected.sums, self._work.bounds, finalizers, floor=collected.least_examples)
        return collected.average, {self._name: metrics, **collected.facts()}


class FederatedProcess(Rounds):
    """Rounds of federated averaging as a pure pair.

    Args:
        work: What clients do in a round, and the weights it begins with.
        aggregator: How their vectors are summed.
        optimizer: What the server does with the average.
        counted: Whether clients also send their number of examples, in the vector.
    """

    def __init__(
        self, work: RoundWork, aggregator: Aggregator, optimizer: ServerOptimizer, *, counted: bool
    ) -> None:
        self._optimizer = optimizer
        super().__init__(work, aggregator, "train", counted=counted)

    def _initialize(self) -> ProcessState:
        optimizer = self._optimizer.initialize(self._spec.size, self._spec.dtype)
        return replace(super()._initialize(), optimizer=optimizer)

    def _next(self, state: ProcessState, data: Any) -> RoundOutput:
        # A state or a schedule that the optimizer cannot go on from is refused before anything is charged.
        self._moved(state, np.zeros(self._spec.size))
        average, metrics = self._collect(state, data)
        optimizer, trained = self._moved(state, average)
        if (path := self._spec.non_finite(self._spec.flatten(trained))) is not None:
            raise FedAvgError(
                f"round {state.round + 1} would leave NaN or infinity in {path}; lower the server's learning rate"
                " and go on from the last state (the round stays charged)"
            )
        return RoundOutput(ProcessState(ModelWeights(trained), optimizer, state.round + 1), metrics)

    def _released(self, state: ProcessState, average: NDArray[Any]) -> NDArray[Any]:
        return self._spec.flatten(self._moved(state, average)[1])

    def _moved(self, state: ProcessState, average: NDArray[Any]) -> tuple[OptimizerState, Tree]:
        """The optimizer's state and the model after a step along `average`."""
        weights = self._spec.flatten(state.model.trainable)
        with np.errstate(all="ignore"):
            try:
                optimizer, moved = self._optimizer.update(
                    state.optimizer, weights, average.astype(self._spec.dtype)
                )
            except KeyError as error:
                raise ParameterError(
                    f"the state holds {sorted(state.optimizer)} for the optimizer and {self._optimizer.name} needs"
                    f" {error}; go on from a state of this process, or from initialize() and set_model_weights"
                ) from error
            return optimizer, self._spec.unflatten(moved)


def spent_together(*processes: Rounds) -> tuple[dp.Epsilons, float]:
    """What several processes over the same clients cost together: epsilons and deltas add up.

    Each process draws cohorts of its own and keeps a ledger of its own, so a client's loss is at most the sum. Training
    and evaluating the same clients is such a sum.

    Args:
        processes: Those that were given the same clients' data.

    Returns:
        Both epsilons, infinite with any process that promises nothing, and the delta they hold at.
    """
    made = [process.statement() for process in processes]
    promises = [each for each in made if each is not None]
    if len(promises) < len(made):
        return dp.Epsilons(math.inf, math.inf), 1.0
    return (
        dp.Epsilons(
            math.fsum(each.readers.epsilon for each in promises),
            math.fsum(each.server.epsilon for each in promises),
        ),
        math.fsum(each.server.delta for each in promises),
    )


def _finite(spec: TreeSpec, weights: Tree) -> NDArray[Any]:
    """The weights as one vector; refused unless finite, for no client can train them or be evaluated on them."""
    flat = spec.flatten(weights)
    if (path := spec.non_finite(flat)) is not None:
        raise ParameterError(
            f"{path} holds NaN or infinity; give finite weights, such as the last good state's"
        )
    return flat


def _spared(name: str, finalizer: Finalizer) -> Finalizer:
    """The finalizer, or NaN where it raises: noised sums can be negative, and the round has been paid for."""

    def run(sums: Mapping[str, float]) -> float:
        try:
            return float(finalizer(sums))
        except Exception as error:  # noqa: BLE001  The user's function may raise anything.
            warnings.warn(
                f"the finalizer of {name} raised {type(error).__name__} ({error}) and gives NaN; noised sums can be"
                " negative or too large: let it expect that",
                stacklevel=2,
            )
            return math.nan

    return run


def _model_hash(spec: TreeSpec, weights: NDArray[Any]) -> bytes:
    """What a round binds its masks to."""
    return hashlib.sha256(spec.describe().encode() + b"\0" + weights.tobytes()).digest()


def _state_type(state: ProcessState) -> Type:
    model = StructType((("trainable", type_of(state.model.trainable)), ("non_trainable", StructType(()))))
    rest = (("optimizer", type_of(dict(state.optimizer))), ("round", TensorType("int64")))
    return StructType((("model", model), *rest))


def _metrics_type(name: str, work: RoundWork, *, counted: bool) -> Type:
    number = TensorType("float64")
    names = [*work.bounds, EXAMPLES] if counted else []
    return to_type(
        {
            name: StructType(tuple((metric, number) for metric in names)),
            "clients": {"contributed": number, "failed": number},
            "cohort": TensorType("int64"),
            "survivors": TensorType("int64"),
            "bytes_up_per_client": TensorType("int64"),
            "epsilon": {"readers": number, "server": number},
            "aggregation": TensorType("str"),
        }
    )
