"""The kernel's own events, beside those of the hardware (`emu.events`)."""

from __future__ import annotations

from dataclasses import dataclass

from emu.events import Event, event

__all__ = ["ExecEvent", "ExitEvent", "PageFaultEvent", "SignalEvent", "SyscallEvent", "SyscallExit"]


@event("page_fault")
@dataclass(frozen=True, slots=True)
class PageFaultEvent(Event):
    """A page fault was handled. `outcome` is the name of a FaultResult; `rip` is the instruction that faulted."""

    address: int
    error_code: int
    rip: int
    outcome: str


@event("syscall")
@dataclass(frozen=True, slots=True)
class SyscallEvent(Event):
    """A system call begins."""

    number: int
    name: str
    arguments: tuple[int, ...]


@event("syscall_exit")
@dataclass(frozen=True, slots=True)
class SyscallExit(Event):
    """A system call returns; a negative result is an errno."""

    number: int
    name: str
    result: int


@event("signal")
@dataclass(frozen=True, slots=True)
class SignalEvent(Event):
    """A signal is delivered; `address` is si_addr where the signal has one."""

    signal: int
    name: str
    address: int | None


@event("exec")
@dataclass(frozen=True, slots=True)
class ExecEvent(Event):
    """A program was loaded into a process."""

    path: str
    entry: int


@event("exit")
@dataclass(frozen=True, slots=True)
class ExitEvent(Event):
    """A process ended, with an exit code or by a signal."""

    exit_code: int | None
    signal: int | None
