"""A machine without an operating system: page tables by hand, and Python in place of the page-fault handler.

    pa  0x10000   IDT, GDT, TSS and handlers: one page each, mapped for the kernel at SYSTEM + pa
    pa  0x20000   paging structures, from the top table on
    pa 0x100000   free for tests

A page fault runs `vmcall`, which calls `on_fault(va, error_code)`; then IRET repeats the instruction.
`int 0x20` ends a program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from emu.assembler import assemble_source
from emu.control import DescriptorTable
from emu.machine import Halt, Machine
from emu.profile import PagingStructureCaches, Profile, TlbGeometry, load_profile
from emu.pte import ADDRESS_MASK, PAGE_SIZE, Pte

__all__ = ["KERNEL", "SIZES", "SYSTEM", "USER", "BareMetal", "PageTables", "geometry", "part"]

SYSTEM = 0xFFFF_8000_0000_0000
IDT, GDT, TSS, HANDLERS, STACK = 0x10000, 0x11000, 0x12000, 0x13000, 0x14000
TABLES = 0x20000
PAGE_FAULT, END = 14, 0x20
GDT_ENTRIES = (0, 0, 0x00AF9A000000FFFF, 0x00CF92000000FFFF, 0, 0x00CFF2000000FFFF, 0x00AFFA000000FFFF)
"""Selectors 0x10 and 0x18 for the kernel's code and data, 0x28 and 0x30 for the user's data and code."""

KERNEL = Pte.P | Pte.W
USER = Pte.P | Pte.W | Pte.U
SIZES = {4096: 1, 1 << 21: 2, 1 << 30: 3}
"""Page sizes in bytes, and the level of the entry that maps such a page."""

HANDLER_SOURCE = """
page_fault: vmcall
            add rsp, 8
            iretq
end:        vmcall
"""


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


class BareMetal:
    """A machine with one address space, `tables`, in use, at CPL 0. `faults` are all page faults so far."""

    def __init__(self, cpu: str | Profile = "skylake", ram: str = "16M", **options: object) -> None:
        self.machine = Machine(cpu, ram, **options)  # type: ignore[arg-type]
        self._frames = iter(range(TABLES, 0x100000, PAGE_SIZE))
        self.tables = self.new_tables()
        self.on_fault: Callable[[int, int], None] = self._unexpected
        self.faults: list[tuple[int, int]] = []
        self._handlers = assemble_source(HANDLER_SOURCE, addresses={".text": SYSTEM + HANDLERS}, entry=None)
        self._write_system_pages()
        self.machine.monitor = self._monitor
        self.machine.write_cr3(self.tables.top)

    def new_tables(self) -> PageTables:
        """Another address space with nothing but the system pages."""
        tables = PageTables(self.machine, self._frames)
        for pa in range(IDT, TABLES, PAGE_SIZE):
            tables.map(SYSTEM + pa, pa, KERNEL | Pte.A | Pte.D)
        return tables

    def _write_system_pages(self) -> None:
        machine, ram, symbols = self.machine, self.machine.ram, self._handlers.symbols
        ram.write(HANDLERS, self._handlers.segments[0].data)
        for vector, handler in ((PAGE_FAULT, symbols["page_fault"]), (END, symbols["end"])):
            low = handler & 0xFFFF | 0x10 << 16 | 1 << 32 | 0xEE00 << 32 | (handler >> 16 & 0xFFFF) << 48
            ram.store64(IDT + 16 * vector, low)
            ram.store64(IDT + 16 * vector + 8, handler >> 32)
        for number, descriptor in enumerate(GDT_ENTRIES):
            ram.store64(GDT + 8 * number, descriptor)
        ram.write(TSS + 0x24, (SYSTEM + STACK + PAGE_SIZE).to_bytes(8, "little"))  # IST 1
        machine.control.idtr = DescriptorTable(SYSTEM + IDT, 0xFFF)
        machine.control.gdtr = DescriptorTable(SYSTEM + GDT, 0x3F)
        machine.control.task = DescriptorTable(SYSTEM + TSS, 0x67)

    def _monitor(self, rip: int) -> None:
        if rip == self._handlers.symbols["end"]:
            self.machine.stop()
            return
        va = self.machine.control.cr2
        error_code = self.machine.mmu.load64(self.machine.cpu.gprs[4])
        self.faults.append((va, error_code))
        self.on_fault(va, error_code)

    @staticmethod
    def _unexpected(va: int, error_code: int) -> None:
        raise AssertionError(f"unexpected page fault at {va:#x}, error code {error_code:#x}")

    def enter_user_mode(self) -> None:
        """Go on at CPL 3."""
        self.machine.interrupts.cs, self.machine.interrupts.ss = 0x33, 0x2B
        self.machine.set_cpl(3)

    def run(self, code: str, va: int, pa: int) -> None:
        """Assemble `code` for `va`, put it at `pa` (the test maps it), and run it up to `int 0x20`."""
        self.put(code, va, pa)
        self.go(va)

    def put(self, code: str, va: int, pa: int) -> None:
        """Assemble `code` for `va` and put it at `pa`."""
        image = assemble_source(code, addresses={".text": va}, entry=None)
        self.machine.ram.write(pa, image.segments[0].data)

    def go(self, va: int) -> Halt:
        """Run from `va` up to `int 0x20`."""
        self.machine.cpu.rip = va
        return self.machine.run()
