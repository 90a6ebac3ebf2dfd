"""`from_torch`: a PyTorch module and the loop that trains it, as a step.

The one module is reused for every client in this process. Before each client its parameters and buffers are set, its
gradients dropped and its mode put back, so nothing passes from one client to the next through the module; what the
loop itself keeps outside (an optimizer made once) is the loop's, and `fedavg.check` finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedavg.adapters.adapted import AdaptedStep, Buffers, Metrics, check_buffers

if TYPE_CHECKING:
    import torch

__all__ = ["from_torch"]


def from_torch(
    module: torch.nn.Module, fit: Callable[[torch.nn.Module, Any], Metrics], *, buffers: Buffers = "refuse"
) -> AdaptedStep:
    """Wrap a PyTorch training loop.

    Args:
        module: The model; its parameters now are the weights to start from. Any device.
        fit: Your loop, `fit(module, data)`: trains the module in place, and may return metrics. It makes its optimizer
            and schedule anew in each call.
        buffers: What becomes of batch-norm statistics and other buffers: "refuse", "keep" or "average".

    Returns:
        A step; `step.weights` are the initial weights by parameter name.

    Raises:
        ParameterError: the module has buffers and `buffers` is "refuse".
    """
    initial = {name: _array(value) for name, value in module.state_dict().items()}
    parameters = {name for name, _ in module.named_parameters()}
    held = [name for name in initial if name not in parameters]
    check_buffers(buffers, held)
    travelling = [
        name
        for name in initial
        if name in parameters or (buffers == "average" and initial[name].dtype.kind == "f")
    ]
    training = module.training

    def run(weights: Mapping[str, NDArray[Any]], data: Any) -> tuple[Mapping[str, NDArray[Any]], Metrics]:
        _load(module, {**initial, **weights})
        module.train(training)
        metrics = fit(module, data)
        state = module.state_dict()
        return {name: _array(state[name]) for name in travelling}, metrics

    return AdaptedStep({name: initial[name] for name in travelling}, run)


def _load(module: torch.nn.Module, values: Mapping[str, NDArray[Any]]) -> None:
    import torch

    with torch.no_grad():
        for name, target in module.state_dict(keep_vars=True).items():
            target.copy_(torch.from_numpy(np.ascontiguousarray(values[name])).reshape(target.shape))
            target.grad = None


def _array(value: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = value.detach().cpu().numpy().copy()
    return array
