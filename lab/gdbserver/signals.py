"""Signal numbers: Linux's are not GDB's, which has its own on every system (include/gdb/signals.def).

>>> gdb_signal(11), gdb_signal(7), linux_signal(10)
(11, 10, 7)
"""

from __future__ import annotations

from typing import Final

from kernel.siginfo import (
    SIGBUS,
    SIGCHLD,
    SIGCONT,
    SIGIO,
    SIGPWR,
    SIGSTKFLT,
    SIGSTOP,
    SIGSYS,
    SIGTSTP,
    SIGURG,
    SIGUSR1,
    SIGUSR2,
)

__all__ = ["gdb_signal", "linux_signal"]

UNKNOWN: Final = 143
_OTHER: Final = {
    **{SIGBUS: 10, SIGUSR1: 30, SIGUSR2: 31, SIGSTKFLT: UNKNOWN, SIGCHLD: 20, SIGCONT: 19, SIGSTOP: 17, SIGTSTP: 18},
    **{SIGURG: 16, SIGIO: 23, SIGPWR: 32, SIGSYS: 12},
}
_LINUX: Final = {number: linux for linux, number in _OTHER.items()}
LAST: Final = 31
"""Numbers behind it are real-time signals."""


def gdb_signal(number: int) -> int:
    """GDB's number of a signal of Linux."""
    return _OTHER.get(number, number if number <= LAST else UNKNOWN)


def linux_signal(number: int) -> int:
    """Linux's number of a signal of GDB; 0 if Linux has none."""
    if number in _LINUX:
        return _LINUX[number]
    return number if number <= LAST and number not in _OTHER else 0
