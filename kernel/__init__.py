"""The operating system of cr3: what a kernel course describes, in Python, entered through real entry code.

Start with `Kernel`, which shows a complete example.
"""

from __future__ import annotations

from .events import (
    ContextSwitch,
    CopyOnWrite,
    ExecEvent,
    ExitEvent,
    ForkEvent,
    FunctionEntry,
    FunctionExit,
    HugePageEvent,
    OomKill,
    PageFaultEvent,
    ReclaimEvent,
    SignalEvent,
    SwapIn,
    SwapIo,
    SwapOut,
    SyscallEvent,
    SyscallExit,
)
from .exceptions import Errno, KernelError, KernelPanic
from .fault import FaultResult
from .kernel import Kernel, Result
from .process import Process
from .syscalls import syscall, syscall_names
from .vma import Prot, Vma, VmaFlag

__all__ = [
    "ContextSwitch",
    "CopyOnWrite",
    "Errno",
    "ExecEvent",
    "ExitEvent",
    "FaultResult",
    "ForkEvent",
    "FunctionEntry",
    "FunctionExit",
    "HugePageEvent",
    "Kernel",
    "KernelError",
    "KernelPanic",
    "OomKill",
    "PageFaultEvent",
    "Process",
    "Prot",
    "ReclaimEvent",
    "Result",
    "SignalEvent",
    "SwapIn",
    "SwapIo",
    "SwapOut",
    "SyscallEvent",
    "SyscallExit",
    "Vma",
    "VmaFlag",
    "syscall",
    "syscall_names",
]
