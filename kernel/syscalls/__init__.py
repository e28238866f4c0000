"""System calls: one table, filled by a decorator beside each function (arch/x86/entry/syscalls/syscall_64.tbl).

    @syscall(39)
    def getpid(kernel: Kernel) -> int:
        return kernel.current.pid

A function takes the kernel and as many arguments as the call has, all unsigned 64-bit; it returns a result or raises
`Errno`. A new file of system calls is imported at the end of this one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Syscall", "syscall", "syscall_at", "syscall_names"]

Body = Callable[..., int]


@dataclass(frozen=True, slots=True)
class Syscall:
    """One system call; `arity` counts its arguments."""

    number: int
    name: str
    body: Body
    arity: int


_TABLE: dict[int, Syscall] = {}


def syscall(number: int) -> Callable[[Body], Body]:
    """Register a function as the system call with this number, under its own name without `sys_`."""

    def register(body: Body) -> Body:
        name = body.__name__.removeprefix("sys_")
        _TABLE[number] = Syscall(number, name, body, len(inspect.signature(body).parameters) - 1)
        return body

    return register


def syscall_at(number: int) -> Syscall | None:
    """The system call with this number, or None."""
    return _TABLE.get(number)


def syscall_names() -> list[str]:
    """Names of all system calls that exist, sorted."""
    return sorted(call.name for call in _TABLE.values())


from . import files, memory, processes  # noqa: E402, F401 - each fills the table
