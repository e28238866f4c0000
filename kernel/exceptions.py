"""Everything that the kernel raises, as one tree.

    KernelError
    ├── KernelPanic      a bug of ours (or a machine that cannot go on): ends the run with a report, exit code 70
    └── Errno            inside the kernel: a system call's error on its way to the guest as -errno

A guest's mistake is a signal or an errno, never a panic.
"""

from __future__ import annotations

import errno

__all__ = ["Errno", "KernelError", "KernelPanic"]


class KernelError(Exception):
    """Base class of what the kernel package raises."""


class KernelPanic(KernelError):  # noqa: N818 - what it is called everywhere
    """The kernel found itself in a state that cannot be; the message is a report for whoever mends it."""


class Errno(KernelError):  # noqa: N818 - what it is called everywhere
    """A system call fails with this error number."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(errno.errorcode.get(number, str(number)))
