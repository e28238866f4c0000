"""A process's registers as its program has them, for people: to look at without any effect, and to change.

In user mode they are the processor's. In the kernel the entry code has saved them at the top of the process's kernel
stack (struct pt_regs); what is written there, the program finds when it goes on. So a hook on `syscall_exit` can
change what the program is told.

>>> from emu import Machine
>>> from emu.assembler import assemble_source
>>> from kernel import Kernel
>>> kernel = Kernel(Machine(ram="16M"))
>>> @kernel.on("syscall_exit", kind="getpid")
... def lie(event):
...     kernel.user_registers(event.pid)["rax"] = 42
>>> process = kernel.spawn(assemble_source("_start: mov eax, 39; syscall; mov edi, eax; mov eax, 60; syscall"))
>>> kernel.run().exit_code
42
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Final

from emu import InputError

from .process import PT_REGS, Process

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["UserRegisters"]

USER: Final = 3
NAMES: Final = {"eflags": "rflags"}
"""What pt_regs calls otherwise than the processor."""


class UserRegisters(MutableMapping[str, int]):
    """The fields of struct pt_regs by name. Raises InputError for another name, and for a process that has ended."""

    def __init__(self, kernel: Kernel, process: Process) -> None:
        self._kernel, self._process = kernel, process

    @property
    def _is_in_user_mode(self) -> bool:
        return self._kernel.machine.cpl == USER and self._kernel.scheduler.current is self._process

    def _address(self, name: str) -> int:
        """Physical address of a saved register."""
        if name not in PT_REGS:
            raise InputError(f"there is no register {name!r} in pt_regs; there are {', '.join(PT_REGS)}")
        pa = self._kernel.machine.mmu.peek(self._process.registers_va + 8 * PT_REGS.index(name))
        if pa is None or not self._process.alive:
            raise InputError(f"process {self._process.pid} has ended, and has no registers")
        return pa

    def __getitem__(self, name: str) -> int:
        pa = self._address(name)
        registers, own = self._kernel.machine.guest.registers, NAMES.get(name, name)
        if self._is_in_user_mode and own in registers:
            return registers[own]
        return self._kernel.machine.ram.load64(pa)

    def __setitem__(self, name: str, value: int) -> None:
        pa = self._address(name)
        registers, own = self._kernel.machine.guest.registers, NAMES.get(name, name)
        if self._is_in_user_mode and own in registers:
            registers[own] = value
        else:
            self._kernel.machine.ram.store64(pa, value & ((1 << 64) - 1))

    def __delitem__(self, name: str) -> None:
        raise InputError(f"register {name} is part of the processor; it cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(PT_REGS)

    def __len__(self) -> int:
        return len(PT_REGS)
