"""`from_torch`: a PyTorch module and the loop that trains it, as a step; `model_from_torch`: as a functional model.

The one module is reused for every client in this process. Before each client its parameters and buffers are set, its
gradients dropped and its attributes put back (modes, hooks, what is frozen, a hidden state; buffers that are not
persistent, too), so nothing passes from one client to the next through the module. What the loop keeps outside is the
loop's: an optimizer that comes with state from before, or with a learning rate that a schedule has changed since, is
refused when it steps.

Not here, but most of it found by `fedavg.check`: a schedule made outside that has changed nothing yet, such as one that
waits for a plateau; hooks on all modules of the process; torch's settings other than gradients and the default dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fedavg.adapters.adapted import (
    AdaptedStep,
    BatchMetrics,
    Buffers,
    Metrics,
    adapted_model,
    check_buffers,
)
from fedavg.adapters.torch_attributes import ModuleAttributes
from fedavg.errors import ParameterError, StepError
from fedavg.model import FunctionalModel

if TYPE_CHECKING:
    import torch

__all__ = ["from_torch", "model_from_torch"]

_Weights = Mapping[str, NDArray[Any]]


def from_torch(
    module: torch.nn.Module,
    fit: Callable[[torch.nn.Module, Any], Metrics],
    *,
    buffers: Buffers = "refuse",
    evaluate: Callable[[torch.nn.Module, Any], Mapping[str, Any]] | None = None,
) -> AdaptedStep:
    """Wrap a PyTorch training loop.

    Args:
        module: The model; its parameters now are the weights to start from. Any device.
        fit: Your loop, `fit(module, data)`: trains the module in place, and may return metrics. It makes its optimizer
            and schedule anew in each call.
        buffers: What becomes of batch-norm statistics and other buffers: "refuse", "keep" or "average". Those that are
            not persistent, such as masks, are none of these: every client starts from the initial ones.
        evaluate: `evaluate(module, data)` gives averages over a client's examples, for `fedavg.build_fed_eval`; the
            module is in evaluation mode.

    Returns:
        A step; `step.weights` are the initial weights by parameter name.

    Raises:
        ParameterError: the module has buffers and `buffers` is "refuse"; or it has lazy parameters without a shape.
    """
    initial, parameters = _initial(module, buffers)
    travelling = [
        name
        for name in initial
        if name in parameters or (buffers == "average" and initial[name].dtype.kind == "f")
    ]
    trainer = _Trainer(ModuleAttributes(module), initial, tuple(travelling), fit, evaluate)
    return AdaptedStep(
        {name: initial[name] for name in travelling},
        trainer.run,
        None if evaluate is None else trainer.evaluated,
        trainer.lent,
    )


@dataclass(frozen=True)
class _Trainer:
    """The one module and what it is set to before each client; a value, so that a step can go to other processes."""

    attributes: ModuleAttributes
    initial: _Weights
    travelling: tuple[str, ...]
    fit: Callable[[torch.nn.Module, Any], Metrics]
    evaluate: Callable[[torch.nn.Module, Any], Mapping[str, Any]] | None
    began: WeakKeyDictionary[torch.optim.Optimizer, str] = field(default_factory=WeakKeyDictionary)

    def __reduce__(self) -> tuple[Any, ...]:
        # Without `began`: optimizers that the loop has used here are none of those that it will use there.
        return _Trainer, (self.attributes, self.initial, self.travelling, self.fit, self.evaluate)

    def run(self, weights: _Weights, data: Any) -> tuple[_Weights, Metrics]:
        """Train one client."""
        metrics = self._fit(weights, data)
        return {name: array.copy() for name, array in self._trained().items()}, metrics

    def lent(self, weights: _Weights, data: Any) -> Any:
        """Train one client; what it returns is, on a CPU, the module's own memory."""
        metrics = self._fit(weights, data)
        return self._trained() if metrics is None else (self._trained(), metrics)

    def _fit(self, weights: _Weights, data: Any) -> Metrics:
        self._put_back(weights)
        with _own_settings(), _fresh_optimizers(self.began):
            return self.fit(self.attributes.module, data)

    def _put_back(self, weights: _Weights) -> None:
        self.attributes.put_back()
        _load(self.attributes.module, {**self.initial, **weights})

    def _trained(self) -> dict[str, NDArray[Any]]:
        state = self.attributes.module.state_dict()
        return {name: state[name].cpu().numpy() for name in self.travelling}

    def evaluated(self, weights: _Weights, data: Any) -> Mapping[str, Any]:
        """Evaluate one client's examples."""
        self._put_back(weights)
        module = self.attributes.module.train(mode=False)
        return {} if self.evaluate is None else self.evaluate(module, data)


def model_from_torch(
    module: torch.nn.Module,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    metrics: BatchMetrics | None = None,
    bounds: Mapping[str, float] | None = None,
    buffers: Buffers = "refuse",
) -> FunctionalModel:
    """A PyTorch module as a functional model: gradients by autograd, one batch (inputs, targets) at a time.

    Args:
        module: The model; its parameters now are the weights to start from. Any device.
        loss: `loss(outputs, targets)`, a mean over the batch, such as `torch.nn.functional.cross_entropy`.
        metrics: `metrics(outputs, targets)`, sums over the batch, over numpy arrays.
        bounds: Each metric's largest absolute value for one example.
        buffers: "refuse" or "keep": every batch then starts from the initial buffers.

    Raises:
        ParameterError: the module has buffers and `buffers` is "refuse"; or it is "average", which only a step can.
    """
    if buffers == "average":
        raise ParameterError(
            "a functional model keeps no buffers to average; use from_torch, or buffers='keep'"
        )
    initial, parameters = _initial(module, buffers)
    attributes = ModuleAttributes(module)

    def outputs(weights: _Weights, inputs: Any, *, training: bool) -> torch.Tensor:
        attributes.put_back()
        _load(module, {**initial, **weights})
        module.train(training)
        made: torch.Tensor = module(_tensor(inputs, module))
        return made

    def loss_and_gradient(weights: _Weights, batch: Any) -> tuple[float, _Weights]:
        value = loss(outputs(weights, batch[0], training=True), _tensor(batch[1], module))
        value.backward()
        return value.item(), {
            name: np.zeros_like(initial[name]) if parameter.grad is None else _array(parameter.grad)
            for name, parameter in module.named_parameters()
        }

    def predict(weights: _Weights, inputs: Any) -> NDArray[Any]:
        return _array(outputs(weights, inputs, training=False))

    return adapted_model(
        {name: initial[name] for name in parameters}, loss_and_gradient, predict, metrics, bounds
    )


def _initial(module: torch.nn.Module, buffers: Buffers) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Everything the module holds now, tied values once, and which of it are parameters."""
    import torch

    held: dict[int, tuple[str, torch.Tensor]] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if torch.nn.parameter.is_lazy(value):
            raise ParameterError(f"parameter {name} has no shape yet; run the module on one batch first")
        if isinstance(value, torch.Tensor):
            held.setdefault(id(value), (name, value))
    initial = {name: _array(value) for name, value in held.values()}
    parameters = [name for name, _ in module.named_parameters()]
    check_buffers(buffers, [name for name in initial if name not in parameters])
    return initial, parameters


def _tensor(value: Any, module: torch.nn.Module) -> torch.Tensor:
    import torch

    return torch.as_tensor(value, device=next(module.parameters()).device)


@contextmanager
def _own_settings() -> Iterator[None]:
    """Gradients on, and torch's default dtype as it was, whatever an earlier client's loop left behind."""
    import torch

    dtype = torch.get_default_dtype()
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def _fresh_optimizers(began: WeakKeyDictionary[torch.optim.Optimizer, str]) -> Iterator[None]:
    """Refuse an optimizer from an earlier call, unless it has neither state nor schedule and its settings are the same.

    Args:
        began: The settings with which each optimizer, among those still alive, began its first call.
    """
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    seen: set[int] = set()

    def before_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if id(optimizer) in seen:
            return
        name = type(optimizer).__name__
        if any(optimizer.state.values()):
            raise StepError(
                f"the loop steps with a {name} that holds state from before, such as another"
                " client's momentum; make the optimizer anew in each call"
            )
        # Torch's own mark; what a schedule holds is otherwise not to be seen from the optimizer.
        settings, scheduled = _settings(optimizer), hasattr(optimizer.step, "_wrapped_by_lr_sched")
        if optimizer in began and (scheduled or settings != began[optimizer]):
            raise StepError(
                f"the loop steps with a {name} from before that has a schedule, or other settings than it began with;"
                " make optimizer and schedule anew in each call"
            )
        began.setdefault(optimizer, settings)
        seen.add(id(optimizer))

    handle = register_optimizer_step_pre_hook(before_step)
    try:
        yield
    finally:
        handle.remove()


def _settings(optimizer: torch.optim.Optimizer) -> str:
    groups: list[dict[str, Any]] = optimizer.param_groups
    return repr([{name: value for name, value in group.items() if name != "params"} for group in groups])


def _load(module: torch.nn.Module, values: Mapping[str, NDArray[Any]]) -> None:
    import torch

    state = module.state_dict(keep_vars=True)
    for name, value in values.items():
        target = state[name]
        held = target.detach()
        if target.device.type == "cpu":
            held.numpy()[...] = value.reshape(target.shape)
        else:
            held.copy_(torch.from_numpy(value.copy()).reshape(target.shape))
        target.grad = None


def _array(value: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = value.detach().cpu().numpy().copy()
    return array
