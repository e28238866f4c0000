"""Control registers, model-specific registers and descriptor-table registers, with their manual semantics.

Unicorn runs the guest in ring 3 for ever and never sees any of these; the model keeps them, checks what is written
(Intel SDM Vol. 3A 2.5, Vol. 4) and tells the memory hardware. A write that the processor refuses raises
ProcessorException (#GP), which the machine delivers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from .exceptions import ProcessorException
from .mmu import Mmu
from .pte import ADDRESS_MASK, CR3_NOFLUSH, Cr0, Cr4, Efer

__all__ = ["Control", "DescriptorTable", "Msr"]

GENERAL_PROTECTION: Final = 13
PCID_MASK: Final = 0xFFF
MASK64: Final = (1 << 64) - 1

CR0_DEFINED: Final = 0xE005_003F
CR4_SUPPORTED: Final = (
    Cr4.TSD
    | Cr4.PAE
    | Cr4.PGE
    | Cr4.OSFXSR
    | Cr4.OSXMMEXCPT
    | Cr4.FSGSBASE
    | Cr4.LA57
    | Cr4.PCIDE
    | Cr4.SMEP
    | Cr4.SMAP
)


class Msr:
    """Numbers of the model-specific registers that cr3 has (SDM Vol. 4, Table 2-2)."""

    TSC: Final = 0x10
    EFER: Final = 0xC000_0080
    STAR: Final = 0xC000_0081
    LSTAR: Final = 0xC000_0082
    CSTAR: Final = 0xC000_0083
    FMASK: Final = 0xC000_0084
    FS_BASE: Final = 0xC000_0100
    GS_BASE: Final = 0xC000_0101
    KERNEL_GS_BASE: Final = 0xC000_0102
    TSC_AUX: Final = 0xC000_0103


_STATE_MSRS: Final = {
    Msr.STAR: "star",
    Msr.LSTAR: "lstar",
    Msr.FMASK: "fmask",
    Msr.KERNEL_GS_BASE: "kernel_gs_base",
    Msr.TSC_AUX: "tsc_aux",
}
"""Registers that native code uses too: where they are in the shared state."""
_PLAIN_MSRS: Final = (Msr.CSTAR,)
_ADDRESS_MSRS: Final = (Msr.LSTAR, Msr.CSTAR, Msr.KERNEL_GS_BASE)


@dataclass(frozen=True, slots=True)
class DescriptorTable:
    """GDTR, IDTR, or the part of TR that matters: where a table is and its last valid byte."""

    base: int = 0
    limit: int = 0


def is_canonical(va: int, levels: int) -> bool:
    """Whether all unused upper bits of an address equal its highest used bit."""
    top = va >> (11 + 9 * levels)
    return top == 0 or top == MASK64 >> (11 + 9 * levels)


def _refuse() -> ProcessorException:
    return ProcessorException(GENERAL_PROTECTION, 0)


@dataclass
class Control:
    """System registers of one processor. `flushed(reason, va, pcid)` is told about every invalidation."""

    mmu: Mmu
    flushed: Callable[[str, int | None, int | None], None]
    cr0: int = Cr0.PE | Cr0.MP | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.PG
    cr4: int = Cr4.PAE | Cr4.OSFXSR | Cr4.OSXMMEXCPT
    cr8: int = 0
    efer: int = Efer.LME | Efer.LMA | Efer.SCE
    msrs: dict[int, int] = field(default_factory=lambda: dict.fromkeys(_PLAIN_MSRS, 0))

    def __post_init__(self) -> None:
        features = self.mmu.profile.features
        self.mmu.state.physical_limit = 1 << self.mmu.profile.cpu.physical_address_bits
        self._supported = int(CR4_SUPPORTED)
        for present, bit in (
            (features.pge, Cr4.PGE),
            (features.pcid, Cr4.PCIDE),
            (features.smep, Cr4.SMEP),
            (features.smap, Cr4.SMAP),
            (features.la57, Cr4.LA57),
        ):
            if not present:
                self._supported &= ~int(bit)
        self._sync()

    def _sync(self) -> None:
        """Tell the memory hardware."""
        s, profile = self.mmu.state, self.mmu.profile
        s.write_protect = bool(self.cr0 & Cr0.WP)
        s.smep, s.smap = bool(self.cr4 & Cr4.SMEP), bool(self.cr4 & Cr4.SMAP)
        s.globals_enabled = bool(self.cr4 & Cr4.PGE)
        s.levels = 5 if self.cr4 & Cr4.LA57 else 4
        s.nxe = bool(self.efer & Efer.NXE)
        s.page1g = profile.features.page1g
        s.has_smap = profile.features.smap
        s.syscalls_enabled = bool(self.efer & Efer.SCE)
        s.physical_mask = ((1 << 52) - 1) & ~((1 << profile.cpu.physical_address_bits) - 1)

    @property
    def cr2(self) -> int:
        """The address of the last page fault."""
        return int(self.mmu.state.cr2)

    @cr2.setter
    def cr2(self, va: int) -> None:
        self.mmu.state.cr2 = va

    @property
    def gdtr(self) -> DescriptorTable:
        """The GDT."""
        return DescriptorTable(self.mmu.state.gdt_base, self.mmu.state.gdt_limit)

    @gdtr.setter
    def gdtr(self, table: DescriptorTable) -> None:
        self.mmu.state.gdt_base, self.mmu.state.gdt_limit = table.base, table.limit

    @property
    def idtr(self) -> DescriptorTable:
        """The IDT."""
        return DescriptorTable(self.mmu.state.idt_base, self.mmu.state.idt_limit)

    @idtr.setter
    def idtr(self, table: DescriptorTable) -> None:
        self.mmu.state.idt_base, self.mmu.state.idt_limit = table.base, table.limit

    @property
    def task(self) -> DescriptorTable:
        """The TSS."""
        return DescriptorTable(self.mmu.state.task_base, self.mmu.state.task_limit)

    @task.setter
    def task(self, table: DescriptorTable) -> None:
        self.mmu.state.task_base, self.mmu.state.task_limit = table.base, table.limit

    @property
    def levels(self) -> int:
        """Levels of the page tables, 4 or 5."""
        return 5 if self.cr4 & Cr4.LA57 else 4

    @property
    def cr3(self) -> int:
        """CR3 as MOV reads it: the top table's address, and the PCID or (without CR4.PCIDE) PWT and PCD."""
        return int(self.mmu.state.cr3) | int(self.mmu.state.cr3_low)

    def write_cr0(self, value: int) -> None:
        """MOV to CR0. Paging and protection cannot be turned off here: a 64-bit kernel never does.

        Only turning paging off would invalidate translations (SDM 4.10.4.1); CR0.WP holds at once for all of them.
        """
        needed = Cr0.PE | Cr0.PG
        if value >> 32 or value & needed != needed or value & (Cr0.NW | Cr0.CD) == Cr0.NW:
            raise _refuse()
        self.cr0 = value & CR0_DEFINED | Cr0.ET
        self._sync()
        self.forget_soft()

    def write_cr3(self, value: int) -> bool:
        """MOV to CR3 (SDM 4.10.4.1). Returns whether it flushed. Bit 63 keeps the new PCID's translations."""
        tagged = bool(self.cr4 & Cr4.PCIDE)
        noflush = bool(value & CR3_NOFLUSH) and tagged
        address = value & ~CR3_NOFLUSH if tagged else value
        if address >> self.mmu.profile.cpu.physical_address_bits:
            raise _refuse()
        state = self.mmu.state
        state.cr3, state.cr3_low = address & ADDRESS_MASK, address & PCID_MASK
        state.pcid = state.cr3_low if tagged else 0
        if noflush:
            self.forget_soft()
        else:
            self.mmu.invalidate_pcid(state.pcid)
            self.flushed("mov_cr3", None, state.pcid)
        return not noflush

    def forget_soft(self) -> None:
        """Rights or address space changed: nothing is invalidated, but Unicorn must ask again."""
        self.mmu.state.fetch_page = 0
        self.soft_flush()

    soft_flush: Callable[[], None] = field(default=lambda: None)

    def write_cr4(self, value: int) -> None:
        """MOV to CR4 (SDM 2.5, 4.10.4.1)."""
        turned_on, changed = value & ~self.cr4, value ^ self.cr4
        if value & ~self._supported or not value & Cr4.PAE or changed & Cr4.LA57:
            raise _refuse()
        if turned_on & Cr4.PCIDE and self.mmu.state.cr3_low:
            raise _refuse()
        self.cr4 = value
        self._sync()
        self.mmu.state.pcids_enabled = bool(value & Cr4.PCIDE)
        if not value & Cr4.PCIDE:
            self.mmu.state.pcid = 0
        if changed & (Cr4.PGE | Cr4.PAE) or (changed & ~value) & Cr4.PCIDE or turned_on & Cr4.SMEP:
            self.mmu.invalidate_all(global_too=True)
            self.flushed("mov_cr4", None, None)
        else:
            self.forget_soft()

    def write_cr8(self, value: int) -> None:
        """MOV to CR8, the task priority: there is no APIC that would look at it (SDM 10.8.6.1)."""
        if value >> 4:
            raise _refuse()
        self.cr8 = value

    def use_five_levels(self) -> None:
        """Turn on CR4.LA57, as firmware does before paging starts. Raises #GP if the part has no 5-level paging."""
        if not self._supported & Cr4.LA57:
            raise _refuse()
        self.cr4 |= Cr4.LA57
        self._sync()
        self.mmu.invalidate_all(global_too=True)

    def write_efer(self, value: int) -> None:
        """WRMSR to IA32_EFER; LMA is read-only and LME cannot change while paging is on."""
        allowed = Efer.SCE | Efer.LME | Efer.LMA | (Efer.NXE if self.mmu.profile.features.nx else 0)
        if value & ~allowed or not value & Efer.LME:
            raise _refuse()
        self.efer = value | Efer.LMA
        self._sync()
        self.forget_soft()

    def read_msr(self, number: int) -> int:
        """RDMSR of a register that needs nothing else (not TSC, FS_BASE, GS_BASE). Raises #GP if there is none."""
        if number == Msr.EFER:
            return self.efer
        if number in _STATE_MSRS:
            return int(getattr(self.mmu.state, _STATE_MSRS[number]))
        if number not in self.msrs:
            raise _refuse()
        return self.msrs[number]

    def write_msr(self, number: int, value: int) -> None:
        """WRMSR of a register that needs nothing else. Raises #GP if there is none, or for a bad address."""
        if number == Msr.EFER:
            self.write_efer(value)
            return
        if number in _ADDRESS_MSRS and not is_canonical(value, self.levels):
            raise _refuse()
        if number in _STATE_MSRS:
            setattr(self.mmu.state, _STATE_MSRS[number], value)
        elif number in self.msrs:
            self.msrs[number] = value
        else:
            raise _refuse()
