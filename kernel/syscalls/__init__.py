"""System calls: one table, filled by a decorator beside each function (arch/x86/entry/syscalls/syscall_64.tbl).

    @syscall(39)
    def getpid(kernel: Kernel) -> int:
        return kernel.current.pid

A function takes the kernel and as many arguments as the call has, all unsigned 64-bit; it returns a result, or a `Wait`
if it cannot go on yet, or raises `Errno`. A new file of system calls is imported at the end of this one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ..wait import Wait

__all__ = ["Syscall", "syscall", "syscall_at", "syscall_names"]

Body = TypeVar("Body", bound=Callable[..., int | Wait])


@dataclass(frozen=True, slots=True)
class Syscall:
    """One system call; `arity` counts its arguments."""

    number: int
    name: str
    body: Callable[..., int | Wait]
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


from . import (  # noqa: E402 - each fills the table
    clock,  # noqa: F401
    files,  # noqa: F401
    files_io,  # noqa: F401
    files_poll,  # noqa: F401
    files_status,  # noqa: F401
    files_tree,  # noqa: F401
    identity,  # noqa: F401
    memory,  # noqa: F401
    processes,  # noqa: F401
    residency,  # noqa: F401
    signals,  # noqa: F401
    signals_send,  # noqa: F401
    threads,  # noqa: F401
)
