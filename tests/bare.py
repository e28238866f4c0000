"""A machine with exception handlers and no operating system, for tests of the processor itself.

    pa  0x08000   IDT, GDT, TSS, handlers: a page each; the kernel sees all of RAM at KERNEL + pa
    pa  0x10000   stacks, one page each: RSP0 and IST 1 to 3
    pa  0x20000   paging structures
    pa  0x80000   free frames, for code and data (from 0x100000 on only what a test maps there itself is used)

Every vector has a gate to a handler of its own, which tells Python (VMCALL) and returns (IRETQ). What arrived is
a `Frame`, exactly as the processor pushed it. A handler in Python decides whether to go on; where a test names none,
the machine stops.

>>> bare = Bare()
>>> bare.user("mov eax, 7; div ecx")
>>> bare.run().name
'#DE'
>>> hex(bare.last.rip), hex(bare.last.rsp), bare.last.cs
('0x400005', '0x7ffff000', 51)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from emu.assembler import assemble_source
from emu.control import DescriptorTable
from emu.interrupt import VECTOR_NAMES
from emu.machine import Halt, Machine
from emu.profile import PagingStructureCaches, Profile, TlbGeometry, load_profile
from emu.pte import ADDRESS_MASK, PAGE_SIZE, Pte

__all__ = [
    *("END", "GDT", "HANDLERS", "IDT", "INTERRUPT_GATE", "ISTS", "KERNEL", "KERNEL_CODE", "KERNEL_CS", "KERNEL_SS"),
    *("RSP0", "SIZES", "SKYLAKE", "STACK_TOP", "TRAP_GATE", "TSS", "USER", "USER_CODE", "USER_CS", "USER_SS"),
    *("Bare", "Frame", "PageTables", "assemble", "geometry", "part"),
]

KERNEL = 0xFFFF_8000_0000_0000
IDT, GDT, TSS, HANDLERS = 0x8000, 0x9000, 0xA000, 0xB000
STACKS, TABLES, FREE = 0x10000, 0x20000, 0x80000
USER_CODE, STACK_TOP = 0x40_0000, 0x7FFF_F000
KERNEL_CODE = KERNEL + 0x7F000
RSP0 = KERNEL + STACKS + PAGE_SIZE
ISTS = {ist: RSP0 + ist * PAGE_SIZE for ist in (1, 2, 3)}
END = 0x20
"""`int 0x20` ends a program."""

KERNEL_CS, KERNEL_SS, USER_CS, USER_SS = 0x10, 0x18, 0x33, 0x2B
GDT_ENTRIES = {
    KERNEL_CS: 0x00AF_9A00_0000_FFFF,
    KERNEL_SS: 0x00CF_9200_0000_FFFF,
    USER_SS & ~3: 0x00CF_F200_0000_FFFF,
    USER_CS & ~3: 0x00AF_FA00_0000_FFFF,
    0x40: 0x0000_8B00_0000_0067 | (TSS & 0xFFFF) << 16,
    0x48: KERNEL >> 32,
}
TSS_SELECTOR = 0x40
WITH_ERROR_CODE = (8, 10, 11, 12, 13, 14, 17)
INTERRUPT_GATE, TRAP_GATE = 0xE, 0xF
PAGE_FAULT = 14
RSP = 4
HANDLER_SIZE = 16
SKYLAKE = load_profile("skylake")
USER = Pte.P | Pte.W | Pte.U
SIZES = {4096: 1, 1 << 21: 2, 1 << 30: 3}
"""Page sizes in bytes, and the level of the entry that maps such a page."""


@dataclass(frozen=True)
class Frame:
    """What the processor pushed, and what else a handler sees first."""

    vector: int
    error_code: int | None
    rip: int
    cs: int
    rflags: int
    rsp: int
    ss: int
    cr2: int
    stack: int  # where the frame is: RSP of the handler's first instruction
    inside: int  # RFLAGS of the handler's first instruction

    @property
    def name(self) -> str:
        """#PF and so on."""
        return VECTOR_NAMES.get(self.vector, f"int {self.vector:#x}")


def geometry(entries: int, *sizes: str, ways: int | str = "full", fold: str = "linear") -> TlbGeometry:
    """One TLB array, for all page sizes if none is named."""
    return TlbGeometry(sizes=sizes or ("4K", "2M", "1G"), entries=entries, ways=ways, hash=fold)


def part(*, psc: tuple[int, int, int] = (0, 0, 0), **tlbs: tuple[TlbGeometry, ...]) -> Profile:
    """Skylake with other TLBs, and with so many entries for PML4Es, PDPTEs and PDEs."""
    skylake = load_profile("skylake")
    caches = PagingStructureCaches(*psc)
    return replace(skylake, tlb=replace(skylake.tlb, **tlbs), paging_structure_caches=caches)


class PageTables:
    """The paging structures of one address space; `free` are frames for further tables."""

    def __init__(self, machine: Machine, free: Iterable[int]) -> None:
        self._ram, self._levels, self._free = machine.ram, machine.control.levels, iter(free)
        self.top = next(self._free)

    def entry(self, va: int, level: int = 1) -> int:
        """Physical address of the entry of one level for `va`; missing tables above it are made."""
        table = self.top
        for upper in range(self._levels, level, -1):
            place = table + 8 * (va >> 12 + 9 * (upper - 1) & 511)
            if not self._ram.load64(place) & Pte.P:
                self._ram.store64(place, next(self._free) | USER | Pte.A)
            table = self._ram.load64(place) & ADDRESS_MASK
        return table + 8 * (va >> 12 + 9 * (level - 1) & 511)

    def map(self, va: int, pa: int, flags: int = USER, size: int = PAGE_SIZE) -> None:
        """Map one page of `size` bytes."""
        large = Pte.PS if size > PAGE_SIZE else 0
        self._ram.store64(self.entry(va, SIZES[size]), pa | flags | large)


class Bare:
    """The machine, with CPL 0 code at KERNEL_CODE and CPL 3 code at USER_CODE, a page each unless `map` adds some."""

    def __init__(self, cpu: str | Profile = SKYLAKE, ram: str = "4M", **options: object) -> None:
        self.machine = Machine(cpu, ram, **options)  # type: ignore[arg-type]
        self.cpu, self.ram = self.machine.cpu, self.machine.ram
        self._free_tables = iter(range(TABLES, FREE, PAGE_SIZE))
        self._frames = iter(range(FREE, self.ram.size, PAGE_SIZE))
        self.tables = PageTables(self.machine, self._free_tables)
        self.frames: list[Frame] = []
        self.on: dict[int, Callable[[Frame], object]] = {}
        self.calls: dict[int, Callable[[], object]] = {}
        self.machine.monitor = self._monitor
        for pa in range(0, self.ram.size, 512 * PAGE_SIZE):
            table = self.entry(KERNEL + pa) // 8
            self.ram.words[table : table + 512] = np.arange(pa, pa + 512 * PAGE_SIZE, PAGE_SIZE) | int(DIRECT_MAP)
        self.map(STACK_TOP - PAGE_SIZE)
        self.cpu.gprs[RSP] = STACK_TOP
        self.machine.write_cr3(self.tables.top)
        self._build_tables()

    # --- building ---------------------------------------------------------------------------------------------

    def _build_tables(self) -> None:
        for selector, descriptor in GDT_ENTRIES.items():
            self.ram.store64(GDT + selector, descriptor)
        self.machine.control.gdtr = DescriptorTable(KERNEL + GDT, 0x4F)
        self.machine.control.idtr = DescriptorTable(KERNEL + IDT, 0xFFF)
        self.ram.write(TSS + 4, RSP0.to_bytes(8, "little"))
        for ist, top in ISTS.items():
            self.ram.write(TSS + 0x1C + 8 * ist, top.to_bytes(8, "little"))
        self.machine.control.task = DescriptorTable(KERNEL + TSS, 0x67)  # not by LTR, which would fill a TLB
        self.machine.interrupts.task_selector = TSS_SELECTOR
        plain, coded = bytes.fromhex("0f01c1 48cf"), bytes.fromhex("0f01c1 4883c408 48cf")  # vmcall; add rsp, 8; iretq
        for vector in range(256):
            self.ram.write(HANDLERS + HANDLER_SIZE * vector, coded if vector in WITH_ERROR_CODE else plain)
            self.gate(vector)

    def gate(
        self,
        vector: int,
        *,
        ist: int = 0,
        dpl: int = 3,
        kind: int = INTERRUPT_GATE,
        present: bool = True,
        offset: int | None = None,
        selector: int = KERNEL_CS,
    ) -> None:
        """Write one gate of the IDT (SDM Figure 6-8)."""
        if offset is None:
            offset = KERNEL + HANDLERS + HANDLER_SIZE * vector
        attributes = ist | kind << 8 | dpl << 13 | present << 15
        low = offset & 0xFFFF | selector << 16 | attributes << 32 | (offset >> 16 & 0xFFFF) << 48
        self.ram.store64(IDT + 16 * vector, low)
        self.ram.store64(IDT + 16 * vector + 8, offset >> 32)

    def new_tables(self) -> PageTables:
        """Another address space, with nothing but the kernel's part of the first."""
        tables, level = PageTables(self.machine, self._free_tables), self.machine.control.levels
        self.ram.store64(tables.entry(KERNEL, level), self.ram.load64(self.tables.entry(KERNEL, level)))
        return tables

    def entry(self, va: int) -> int:
        """Physical address of the page-table entry for `va`; tables above it are made when they are missing."""
        return self.tables.entry(va)

    def map(self, va: int, pa: int | None = None, flags: int = USER) -> int:
        """Map one page, a fresh one if no frame is named; returns its physical address."""
        if pa is None:
            pa = next(self._frames)
        self.ram.store64(self.entry(va), pa | flags)
        return pa

    def unmap(self, va: int) -> None:
        """Make one page not present, and tell the TLB."""
        self.ram.store64(self.entry(va), 0)
        self.machine.invlpg(va)

    # --- programs ---------------------------------------------------------------------------------------------

    def put(self, code: str | bytes, va: int) -> None:
        """Put code (assembly or bytes) at `va`, on pages that are mapped, or are now."""
        data = code if isinstance(code, bytes) else assemble(code, va)
        for at in range(va, va + len(data)):
            if not self.ram.load64(self.entry(at)) & Pte.P:
                self.map(at)
            self.ram.write(self.physical(at), data[at - va : at - va + 1])

    def physical(self, va: int) -> int:
        """Physical address of a mapped page."""
        return (self.ram.load64(self.entry(va)) & ADDRESS_MASK) + va % PAGE_SIZE

    def user(self, code: str | bytes, va: int = USER_CODE) -> None:
        """Put code at `va`, with `int 0x20` behind it, and be about to execute it at CPL 3."""
        self.put(_ended(code, va), va)
        self.enter_user_mode()
        self.cpu.rip = va

    def kernel(self, code: str | bytes, va: int = KERNEL_CODE) -> None:
        """Put code at `va`, with `int 0x20` behind it, and be about to execute it at CPL 0."""
        self.put(_ended(code, va), va)
        self.machine.interrupts.cs, self.machine.interrupts.ss = KERNEL_CS, KERNEL_SS
        self.machine.set_cpl(0)
        self.cpu.rip = va

    def run(self) -> Frame:
        """Run until an exception that nobody handles, or the end; returns its frame."""
        self.machine.run()
        return self.last

    def execute(self, code: str, va: int, pa: int) -> Halt:
        """Put code at `pa`, which the test maps at `va`, and run it up to `int 0x20`, at the CPL that there is.

        Page faults and the end take a stack of their own, so RSP may be anything.
        """
        self.put_physical(code, va, pa)
        return self.go(va)

    def put_physical(self, code: str, va: int, pa: int) -> None:
        """Assemble `code` for `va` and put it at `pa`."""
        self.ram.write(pa, assemble(code, va))

    def go(self, va: int) -> Halt:
        """Run from `va` up to `int 0x20` as `execute` does."""
        self.gate(PAGE_FAULT, ist=1)
        self.gate(END, ist=1)
        self.cpu.rip = va
        return self.machine.run()

    def enter_user_mode(self) -> None:
        """Go on at CPL 3."""
        self.machine.interrupts.cs, self.machine.interrupts.ss = USER_CS, USER_SS
        self.machine.set_cpl(3)

    @property
    def faults(self) -> list[tuple[int, int | None]]:
        """Address and error code of all page faults so far."""
        return [(frame.cr2, frame.error_code) for frame in self.frames if frame.vector == PAGE_FAULT]

    @property
    def last(self) -> Frame:
        """What arrived last."""
        return self.frames[-1]

    def __getitem__(self, register: str) -> int:
        return self.cpu.registers()[register]

    def __setitem__(self, register: str, value: int) -> None:
        self.cpu.gprs[GPRS.index(register)] = value

    def _monitor(self, rip: int) -> None:
        number, rest = divmod(rip - (KERNEL + HANDLERS), HANDLER_SIZE)
        if not 0 <= number < 256 or rest:
            self.calls[rip]()
            return
        frame = self._frame(number)
        self.frames.append(frame)
        if number in self.on:
            self.on[number](frame)
        else:
            self.machine.stop()

    def _frame(self, vector: int) -> Frame:
        stack = at = self.cpu.gprs[RSP]
        words = [self.ram.load64(self.physical(at + 8 * i)) for i in range(6)]
        code = words.pop(0) if vector in WITH_ERROR_CODE else None
        return Frame(vector, code, *words[:5], self.machine.control.cr2, stack, self.cpu.rflags)


DIRECT_MAP = Pte.P | Pte.W | Pte.A | Pte.D
GPRS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))


def assemble(code: str, va: int = 0x1000) -> bytes:
    """Assemble lines (or `;`-separated statements) for one address."""
    before = va % 16
    image = assemble_source(f".skip {before}\n{code}", addresses={".text": va - before}, entry=None)
    return image.segments[0].data[before:]


def _ended(code: str | bytes, va: int) -> bytes:
    return (code if isinstance(code, bytes) else assemble(code, va)) + bytes((0xCD, END))
