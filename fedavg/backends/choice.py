"""From the word a user gives to a backend."""

from __future__ import annotations

from fedavg.backends.backend import Backend, Local
from fedavg.errors import ParameterError

__all__ = ["of"]


def of(backend: Backend | str | None) -> Backend:
    """Find the backend that is meant.

    Args:
        backend: None or "local" plays clients in this process; "processes" in several of this machine; "ray" on the Ray
            cluster at hand, or one that is started; an address of a Ray cluster ("host:6379", "auto") there; a
            `Backend` is taken as it is.

    Returns:
        The backend.

    Raises:
        ParameterError: none of these.

    >>> isinstance(of("local"), Local)
    True
    """
    if backend is None or backend == "local":
        return Local()
    if backend == "processes":
        from fedavg.backends.processes import Processes

        return Processes()
    if isinstance(backend, str) and (backend in ("ray", "auto") or ":" in backend):
        from fedavg.backends.ray import Ray

        return Ray(None if backend == "ray" else backend)
    if hasattr(backend, "sum_round") and not isinstance(backend, str):
        return backend
    raise ParameterError(
        f'backend is {backend!r}; give "local", "processes", "ray", the address of a Ray cluster (host:port), or a'
        " fedavg.backends.Backend"
    )
