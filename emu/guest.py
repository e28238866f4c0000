"""The guest as a hook sees it: registers and memory of the machine at the moment of an event.

Looking has no effect on the machine: nothing is counted, no TLB entry moves, no A or D bit is set. Changing has the
effect that a debugger's change has: the program goes on with other values. In the middle of an instruction (an access,
a TLB miss, a page walk) registers cannot be changed, because the processor has already read those that it needs.

>>> from emu import Machine
>>> guest = Machine(ram="1M").guest
>>> guest.registers["rax"] = 7
>>> guest.registers["rax"], guest.cpl
(7, 0)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .exceptions import InputError
from .pte import PAGE_SIZE
from .softcore import GPR_NAMES

if TYPE_CHECKING:
    from .machine import Machine
    from .notices import Notices

__all__ = ["Guest", "GuestState"]

MASK64: Final = (1 << 64) - 1
NAMES: Final = (*GPR_NAMES, "rip", "rflags")


@dataclass(frozen=True, slots=True)
class GuestState:
    """A copy of what the processor's registers were: the clock in cycles, the process, the privilege level."""

    cycle: int
    pid: int
    cpl: int
    rip: int
    registers: Mapping[str, int]


class Guest:
    """One machine's registers and memory, always as they are now. `registers` is a mapping by name, such as "rax"."""

    def __init__(self, machine: Machine, notices: Notices) -> None:
        self._machine, self._notices = machine, notices
        self.registers: MutableMapping[str, int] = GuestRegisters(machine, notices)

    @property
    def cycle(self) -> int:
        """The model's clock."""
        return self._machine.clock.now

    @property
    def pid(self) -> int:
        """The process (0: none)."""
        return self._machine.pid

    @property
    def cpl(self) -> int:
        """The privilege level, 0 or 3."""
        return self._machine.cpl

    def state(self) -> GuestState:
        """A copy of all registers, to keep."""
        registers = dict(self.registers)
        return GuestState(self.cycle, self.pid, self.cpl, registers["rip"], registers)

    def stop(self) -> None:
        """End the run (see `Event.stop`)."""
        self._machine.stop()

    def read(self, va: int, size: int) -> bytes:
        """`size` bytes at a virtual address of the current address space. Raises InputError where nothing is mapped."""
        return b"".join(self._machine.ram.read(pa, length) for pa, length in self._pieces(va, size))

    def write(self, va: int, data: bytes) -> None:
        """Store bytes at a virtual address, whatever its rights. Raises InputError where nothing is mapped.

        Code that is being executed goes on as it was to the end of its basic block.
        """
        at = 0
        for pa, length in list(self._pieces(va, len(data))):
            self._notices.write(pa, data[at : at + length])
            at += length

    def _pieces(self, va: int, size: int) -> Iterator[tuple[int, int]]:
        """Physical address and length of the parts of a range, page by page."""
        done = 0
        while done < size:
            at = (va + done) & MASK64
            pa = self._machine.mmu.peek(at)
            if pa is None:
                raise InputError(f"virtual address {at:#x} is not mapped")
            length = min(size - done, PAGE_SIZE - at % PAGE_SIZE)
            yield pa, length
            done += length


class GuestRegisters(MutableMapping[str, int]):
    """The general registers, RIP and RFLAGS by name. There are always all of them, so none can be deleted."""

    def __init__(self, machine: Machine, notices: Notices) -> None:
        self._machine, self._notices = machine, notices

    def __getitem__(self, name: str) -> int:
        number, cpu = _number(name), self._machine.cpu
        return cpu.rflags if name == "rflags" else int(cpu.gprs[number])

    def __setitem__(self, name: str, value: int) -> None:
        number, value = _number(name), value & MASK64
        self._notices.check_between_instructions()
        if name == "rip":
            self._notices.jump(value)
        elif name == "rflags":
            self._machine.cpu.rflags = value
        else:
            self._machine.cpu.gprs[number] = value

    def __delitem__(self, name: str) -> None:
        raise InputError(f"register {name} is part of the processor; it cannot be deleted")

    def __contains__(self, name: object) -> bool:
        return name in NAMES

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{name}: {value:#x}" for name, value in self.items()) + "}"


def _number(name: str) -> int:
    """Index of a register. Raises InputError."""
    if name not in NAMES:
        raise InputError(f"there is no register {name!r}; there are {', '.join(NAMES)}")
    return NAMES.index(name)
