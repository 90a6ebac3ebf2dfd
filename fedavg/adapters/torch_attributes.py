"""What a PyTorch module holds besides the values in its state dict: remembered once, put back before each client.

A recurrent model that keeps its hidden state in an attribute, a running mean in a buffer that is not persistent, a
layer that the loop froze or replaced, a mode, a hook: each would carry one client's data to the next.

Not here: values of parameters and persistent buffers (`fedavg.adapters.torch`); what the loop keeps outside the module;
hooks of a parameter's own that the loop removes (those that it adds go).
"""

from __future__ import annotations

import copy
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["ModuleAttributes"]

_UNCHANGING = (bool, int, float, complex, str, bytes, NoneType, FunctionType, BuiltinFunctionType)
_PARAMETER_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")  # Torch has no public way to list them.


class ModuleAttributes:
    """A module with its attributes as they are now; as a pickle, with those that it had here at the start.

    What cannot be copied, such as an open file or a tensor inside a graph, is put back as the same object.

    Args:
        module: The module; it is not changed.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        import torch

        self.module = module
        parts = [part for part in module.modules() if not isinstance(part, torch.jit.ScriptModule)]
        self._parameters = [
            (value, value.requires_grad, value.dtype, [set(_hooks(value, name)) for name in _PARAMETER_HOOKS])
            for value in module.parameters()
        ]
        # These stay the objects they are, wherever else in the module somebody refers to them.
        self._same: list[Any] = [*module.modules(), *module.state_dict(keep_vars=True).values()]
        self._same += [value for part in parts for value in vars(part).values() if not self._is_copied(value)]
        self._parts = parts
        tables = vars(torch.nn.Module())
        self._plain: list[dict[str, Any]] = []
        self._tables: list[dict[str, Any]] = []  # Torch's own, of what is kept as it is; copied as tables.
        others: list[dict[str, Any]] = []
        for part in parts:
            plain = {name: value for name, value in vars(part).items() if _is_plain(value)}
            shallow = {
                name: value.copy()
                for name, value in vars(part).items()
                if name in tables and isinstance(value, dict | set) and not (name == "_buffers" and value)
            }
            rest = {name: value for name, value in vars(part).items() if name not in plain | shallow}
            self._plain.append(plain)
            self._tables.append(shallow)
            others.append(rest)
        self._others = self._copies(others)

    def __reduce__(self) -> tuple[Any, ...]:
        self.put_back()
        return ModuleAttributes, (self.module,)

    def put_back(self) -> None:
        """Give the module the attributes that it had; buffers come back on the device where they are now."""
        held = zip(self._parts, self._plain, self._tables, self._copies(self._others), strict=True)
        for part, plain, tables, others in held:
            attributes = vars(part)
            now = attributes.get("_buffers", {})
            for name, value in others.get("_buffers", {}).items():
                if value is not None and now.get(name) is not None:
                    others["_buffers"][name] = value.to(now[name].device)
            attributes.clear()
            attributes.update(plain)
            attributes.update(others)
            for name, table in tables.items():
                attributes[name] = table.copy()
        for parameter, requires_grad, dtype, hooks in self._parameters:
            if parameter.dtype != dtype:
                parameter.data = parameter.data.to(dtype)
            parameter.requires_grad_(requires_grad)
            for name, kept in zip(_PARAMETER_HOOKS, hooks, strict=True):
                for key in _hooks(parameter, name).keys() - kept:
                    del _hooks(parameter, name)[key]

    def _memo(self) -> dict[int, Any]:
        return {id(value): value for value in self._same}

    def _is_copied(self, value: Any) -> bool:
        try:
            copy.deepcopy(value, self._memo())
        except Exception:  # noqa: BLE001  Objects of the user's may refuse in any way.
            return False
        return True

    def _copies(self, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """All with one memo, so that what parts share they go on sharing."""
        memo = self._memo() if any(parts) else {}
        return [
            {name: copy.deepcopy(value, memo) for name, value in attributes.items()} for attributes in parts
        ]


def _is_plain(value: Any) -> bool:
    """Whether nobody can change the value itself."""
    return type(value) in _UNCHANGING or (type(value) is tuple and all(map(_is_plain, value)))


def _hooks(parameter: torch.Tensor, name: str) -> dict[int, Any]:
    return getattr(parameter, name, None) or {}
