"""Where in a program something happened: the instruction, its symbol, its source line.

Looking has no effect on the machine: nothing is counted, and no TLB entry moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from emu import Event
from emu.events import InstructionEvent
from emu.instruction import MAX_SIZE, text
from kernel import ExecEvent, ExitEvent, Kernel, Process, SignalEvent, SyscallEvent, SyscallExit
from kernel.process import PT_REGS

__all__ = ["Locator", "Place"]

SYSCALL_SIZE: Final = 2
"""Bytes of the instruction SYSCALL; the RIP that it saves is behind it."""


@dataclass(frozen=True, slots=True)
class Place:
    """The instruction at which something happened. What is not known is empty or None."""

    rip: int
    symbol: str
    file: str | None
    line: int | None
    instruction: str


class Locator:
    """Finds the places of events, and touches nothing of the machine on the way."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self._machine = kernel, kernel.machine

    def place(self, event: Event) -> Place | None:
        """The instruction at which an event happened, None where there is none."""
        rip = self._rip(event)
        return None if rip is None else self.instruction_at(rip, event.pid)

    def instruction_at(self, rip: int, pid: int) -> Place:
        """The instruction at an address of a process."""
        process = self._process(pid)
        image = self._kernel.text.image if process is None or rip >> 63 else process.image
        symbol = self._kernel.symbolize(rip) if rip >> 63 else image.symbolize(rip)
        file, line = image.line_of(rip) or (None, None)
        code = self._machine.cpu.code_at(rip, MAX_SIZE)
        return Place(rip, symbol, file, line, text(code, rip) if code else "")

    def _rip(self, event: Event) -> int | None:
        match event:
            case InstructionEvent():
                return event.va
            case SyscallEvent() | SyscallExit():
                return self._saved_rip(event.pid, SYSCALL_SIZE)
            case SignalEvent():
                return self._saved_rip(event.pid)
            case ExecEvent():
                return event.entry
            case ExitEvent():
                return None
        rip: int = getattr(event, "rip", self._machine.cpu.rip)
        return rip or None  # 0: nothing has run yet

    def _process(self, pid: int) -> Process | None:
        return next((process for process in self._kernel.processes if process.pid == pid), None)

    def _saved_rip(self, pid: int, back: int = 0) -> int | None:
        """Where a process entered the kernel, from the registers that the entry code saved."""
        process = self._process(pid)
        if process is None:
            return None
        pa = self._machine.mmu.peek(process.registers_va + 8 * PT_REGS.index("rip"))
        return None if pa is None else self._machine.ram.load64(pa) - back
