"""Traps: why the processor left Unicorn, in the manual's terms."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Final

from .instruction import Instruction

__all__ = ["VMCALL", "Trap", "TrapKind"]


class TrapKind(IntEnum):
    """Why the processor left Unicorn."""

    PAGE_FAULT = auto()  # or #GP/#SS for an address that is not canonical; see Trap.vector
    EXCEPTION = auto()  # raised by the instruction at RIP itself: #DE, #DB ...
    SOFTWARE_INTERRUPT = auto()  # INT n, INT3: RIP is after it
    PRIVILEGED = auto()  # needs the model: system instructions, and #GP or #UD otherwise
    SYSCALL = auto()  # RIP is after it
    VMCALL = auto()  # at CPL 0; RIP is at it
    DEADLINE = auto()  # the instruction deadline
    ITERATIONS = auto()  # before a REP repeats more often than it may; RIP is at it
    BREAKPOINT = auto()  # before one of the addresses given to stop_before()
    ARRIVED = auto()  # inside Cpu only: at the address that it ran to
    UNDELIVERED = auto()  # a page fault whose delivery met another exception
    REQUESTED = auto()  # an event hook asked to stop


@dataclass(frozen=True, slots=True)
class Trap:
    """What happened. `vector`, `error_code` and `address` where there is an exception to deliver."""

    kind: TrapKind
    vector: int = 0
    error_code: int | None = None
    address: int | None = None
    instruction: Instruction | None = None
    size: int = 0  # of INT n


VMCALL: Final = Trap(TrapKind.VMCALL)
