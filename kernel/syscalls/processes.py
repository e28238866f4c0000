"""System calls about processes (kernel/sys.c, kernel/exit.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import syscall

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["exit_group", "getpid", "gettid", "sys_exit"]


@syscall(39)
def getpid(kernel: Kernel) -> int:
    """The process's number."""
    return kernel.current.pid


@syscall(186)
def gettid(kernel: Kernel) -> int:
    """The thread's number: the process's, as it has one thread."""
    return kernel.current.pid


@syscall(60)
def sys_exit(kernel: Kernel, code: int) -> int:
    """End the thread, which is the process."""
    kernel.exit(kernel.current, code & 0xFF)
    return 0


@syscall(231)
def exit_group(kernel: Kernel, code: int) -> int:
    """End the process."""
    kernel.exit(kernel.current, code & 0xFF)
    return 0
