"""Killing a process at any of its system calls: a forked child is traced and stopped before the n-th one.

Linux only. What the kernel was already told stays, as after `kill -9`; what the process held in memory is lost.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

__all__ = ["can_trace", "killed_at"]

_TRACE_ME, _NEXT_CALL = 0, 24
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def can_trace() -> bool:
    """Whether this system lets a process trace its child."""
    child = os.fork()
    if child == 0:
        os._exit(0 if _libc.ptrace(_TRACE_ME, 0, None, None) == 0 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def killed_at(stop: int, prepare: Callable[[], object], task: Callable[[object], None]) -> bool:
    """Run a task in a child and kill it there at its `stop`-th stop: each system call is two, before and after.

    Args:
        stop: Counted from 1.
        prepare: Called in the child before counting begins.
        task: Called with what `prepare` returned.

    Returns:
        Whether it was killed; False if the task ended first.
    """
    child = os.fork()
    if child == 0:
        code = 1  # Whatever is raised: a child must never run on as a second test runner.
        try:
            prepared = prepare()
            _libc.ptrace(_TRACE_ME, 0, None, None)
            os.kill(os.getpid(), signal.SIGSTOP)
            task(prepared)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, os.WUNTRACED)
    for _ in range(stop):
        if os.WIFEXITED(status):
            break
        _libc.ptrace(_NEXT_CALL, child, None, None)
        _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        if os.WEXITSTATUS(status) != 0:
            raise RuntimeError("the child raised an exception before it was killed")
        return False
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True
