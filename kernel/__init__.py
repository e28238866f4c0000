"""The operating system of cr3: what a kernel course describes, in Python, entered through real entry code.

Start with `Kernel`, which shows a complete example.
"""

from __future__ import annotations

from .events import ExecEvent, ExitEvent, PageFaultEvent, SignalEvent, SyscallEvent, SyscallExit
from .exceptions import Errno, KernelError, KernelPanic
from .fault import FaultResult
from .kernel import Kernel, Result
from .process import Process
from .syscalls import syscall, syscall_names
from .vma import Prot, Vma

__all__ = [
    "Errno",
    "ExecEvent",
    "ExitEvent",
    "FaultResult",
    "Kernel",
    "KernelError",
    "KernelPanic",
    "PageFaultEvent",
    "Process",
    "Prot",
    "Result",
    "SignalEvent",
    "SyscallEvent",
    "SyscallExit",
    "Vma",
    "syscall",
    "syscall_names",
]
