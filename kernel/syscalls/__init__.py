"""System calls: one table, filled by a decorator beside each function (arch/x86/entry/syscalls/syscall_64.tbl).

    @syscall(39)
    def getpid(kernel: Kernel) -> int:
        return kernel.current.pid

    @syscall(12, cycles=1700)
    def brk(kernel: Kernel, address: int) -> int: ...

A function takes the kernel and as many arguments as the call has, all unsigned 64-bit; it returns a result, or a `Wait`
if it cannot go on yet, or raises `Errno`. `cycles` are what Linux's instructions for it take, beyond the way in and out
and the memory that is touched (work.py); a call without them is so short that they are in those of do_syscall_64.
All were measured under Linux 6.18 (a guest on an AMD EPYC, Zen 5) as the difference to getppid: `python -m
benchmarks.calls`. A new file of system calls is imported at the end of this one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ..wait import Wait
from ..work import Work, kernel_work

__all__ = ["Syscall", "syscall", "syscall_at", "syscall_names"]

Body = TypeVar("Body", bound=Callable[..., int | Wait])


@dataclass(frozen=True, slots=True)
class Syscall:
    """One system call; `arity` counts its arguments, `work` is what it takes, if that is worth counting."""

    number: int
    name: str
    body: Callable[..., int | Wait]
    arity: int
    work: Work | None


_TABLE: dict[int, Syscall] = {}


def syscall(number: int, *, cycles: int = 0) -> Callable[[Body], Body]:
    """Register a function as the system call with this number, under its own name without `sys_`."""

    def register(body: Body) -> Body:
        name = body.__name__.removeprefix("sys_")
        arity = len(inspect.signature(body).parameters) - 1
        work = kernel_work(f"sys_{name}", body.__module__, cycles=cycles) if cycles else None
        _TABLE[number] = Syscall(number, name, body, arity, work)
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
