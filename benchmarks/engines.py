"""What is compared: six ways to execute the same bytes.

`Flat` is Unicorn with nothing added: no hooks, no paging, memory mapped where the program wants it. `Virtual`
differs in one thing: it uses Unicorn's virtual TLB, whose misses a hook answers with the same address. Hits cost
no more, and stores are several times faster than with Unicorn's own TLB, which looks out for modified code at
each of them. So this is the stricter measure. `Naive` is what one writes first: a Python function for every
instruction and one for every access, which here only count. `Cr3` is the whole machine with its kernel, in either
engine, and with data and instruction caches.

Each has executed one round when it is built, so everything is translated, decoded and paged in; `run` executes
more.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any, Final, Protocol

import numba
from unicorn import Uc
from unicorn import unicorn_const as uc_const
from unicorn import x86_const as x86
from unicorn.unicorn_const import UC_MEM_FETCH, UC_PROT_EXEC, UC_PROT_READ, UC_PROT_WRITE
from unicorn.unicorn_py3.unicorn import uclib

from emu import PAGE_SIZE, Machine
from emu.image import Image
from kernel import Kernel

__all__ = ["ENGINES", "Cr3", "Engine", "Flat", "Naive", "Virtual"]

READ_WRITE: Final = UC_PROT_READ | UC_PROT_WRITE
READ_EXECUTE: Final = UC_PROT_READ | UC_PROT_EXEC
STACK_TOP: Final = 0x2000_0000
STACK_SIZE: Final = 1 << 20
RAX, R12 = 0, 12
USER: Final = 3


class Engine(Protocol):
    """Executes rounds of one program, and counts `instructions` if it can."""

    def run(self, rounds: int) -> int:
        """Execute some rounds; returns the checksum in RAX."""
        ...

    @property
    def instructions(self) -> int | None:
        """Instructions executed so far; None if nothing counts them."""
        ...


class Flat:
    """Unicorn alone."""

    def __init__(self, image: Image) -> None:
        self._uc = Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_64)
        for segment in filter(attrgetter("size"), image.segments):
            size = -(-segment.size // PAGE_SIZE) * PAGE_SIZE
            self._uc.mem_map(segment.va, size, READ_EXECUTE if segment.executable else READ_WRITE)
            self._uc.mem_write(segment.va, segment.data)
        self._uc.mem_map(STACK_TOP - STACK_SIZE, STACK_SIZE, READ_WRITE)
        self._uc.reg_write(x86.UC_X86_REG_RSP, STACK_TOP)
        self._begin, self._done = image.address_of("begin"), image.address_of("done")
        self._watch()
        self.run(1)

    def _watch(self) -> None:
        """Nothing is watched."""

    @property
    def instructions(self) -> int | None:
        """Unicorn does not count."""
        return None

    def run(self, rounds: int) -> int:
        """Execute some rounds; returns the checksum in RAX."""
        self._uc.reg_write(x86.UC_X86_REG_R12, rounds)
        self._uc.emu_start(self._begin, self._done)
        checksum: int = self._uc.reg_read(x86.UC_X86_REG_RAX)
        return checksum


class Virtual(Flat):
    """Unicorn with its virtual TLB, virtual addresses being physical."""

    def _watch(self) -> None:
        self._uc.ctl_set_tlb_mode(uc_const.UC_TLB_VIRTUAL)
        handle, address = ctypes.c_size_t(), ctypes.c_void_p(_FILL.address)
        everywhere = ctypes.c_uint64(1), ctypes.c_uint64(0)
        uclib.uc_hook_add(self._uc._uch, ctypes.byref(handle), uc_const.UC_HOOK_TLB_FILL, address, None, *everywhere)


def _same_address(_uc: Any, page: Any, kind: Any, result: Any, _data: Any) -> Any:
    """UC_HOOK_TLB_FILL, native as it is in cr3, so that misses cost no Python."""
    result[0] = page
    result[1] = UC_PROT_EXEC if kind == UC_MEM_FETCH else READ_WRITE
    return True


_FILL: Final = numba.cfunc("boolean(intp, int64, int32, CPointer(int64), intp)")(_same_address)


class Naive(Flat):
    """Unicorn with Python hooks."""

    def _watch(self) -> None:
        self._instructions = self._accesses = 0
        self._uc.hook_add(uc_const.UC_HOOK_CODE, self._on_instruction)
        self._uc.hook_add(uc_const.UC_HOOK_MEM_READ | uc_const.UC_HOOK_MEM_WRITE, self._on_access)

    def _on_instruction(self, _uc: Uc, _va: int, _size: int, _data: Any) -> None:
        self._instructions += 1

    def _on_access(self, _uc: Uc, _kind: int, _va: int, _size: int, _value: int, _data: Any) -> None:
        self._accesses += 1

    @property
    def instructions(self) -> int | None:
        """Instructions executed so far."""
        return self._instructions


class Cr3:
    """The machine and its kernel, with all counters."""

    def __init__(self, image: Image, engine: str, *, caches: bool = False, pti: bool = False) -> None:
        self.machine = Machine(engine=engine, caches=caches)
        self._begin = image.address_of("begin")
        kernel = Kernel(self.machine, pti=pti)
        kernel.spawn(image)
        kernel.run(until="done")

    @property
    def instructions(self) -> int | None:
        """User instructions executed so far."""
        return self.machine.retired(USER)[0]

    @property
    def accesses(self) -> int:
        """Loads and stores of the user's so far."""
        _, reads, writes = self.machine.retired(USER)
        return reads + writes

    @property
    def dtlb_misses(self) -> int:
        """First-level data TLB misses so far."""
        return int(self.machine.state.misses[1])

    def run(self, rounds: int) -> int:
        """Execute some rounds; returns the checksum in RAX."""
        cpu = self.machine.cpu
        cpu.gprs[R12], cpu.rip = rounds, self._begin
        self.machine.run()
        return int(cpu.gprs[RAX])


ENGINES: Final[dict[str, Callable[[Image], Engine]]] = {
    "raw": Flat,
    "virtual": Virtual,
    "trap": partial(Cr3, engine="trap"),
    "access": partial(Cr3, engine="access"),
    "caches": partial(Cr3, engine="access", caches=True),
    "naive": Naive,
}
"""By the names of the table's columns."""
