"""PCIDs: which address spaces the TLB remembers, and how it is made to forget (arch/x86/mm/tlb.c).

A TLB entry carries the process-context identifier (PCID) that was in CR3 when it was filled. Linux gives the six
address spaces that ran last one each, and reuses them in turn. When one of the six comes back, CR3 is written with
bit 63 set, *do not flush*, and its translations are still there.

What is changed meanwhile must not be remembered. Every change of an address space has a generation; a PCID notes the
generation up to which it was flushed. An address space that does not run now is not flushed at all: it is when it
comes back with an older generation.

    asid = "pcid"     as above
           "flush"    one PCID for all: every switch flushes
           "stale"    one PCID for all and no flush: the next process reads through the last one's translations

Under page-table isolation each has two PCIDs, kernel n and user n + 2048. The kernel runs on the first, and flushes the
second late: a bit in `user_pcid_flush_mask` makes the entry code's way back to user mode do it.

Kernel work that is nobody's (idling, the rest of a process that ended, kswapd) needs no user half at all, so it goes on
with the page tables that happen to be loaded: *lazy TLB*. If the same process comes back, CR3 was never written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emu import InputError
from emu.machine import Machine
from emu.pte import CR3_NOFLUSH, PAGE_SIZE, Cr4

from .memory import KernelMemory

if TYPE_CHECKING:
    from .address_space import AddressSpace

__all__ = ["ASID_MODES", "FLUSH_CEILING", "TlbContexts"]

ASID_MODES: Final = ("pcid", "flush", "stale")
DYNAMIC_ASIDS: Final = 6
"""TLB_NR_DYN_ASIDS, asm/tlbflush.h."""
FLUSH_CEILING: Final = 33
"""Pages that are flushed one by one; for more it is cheaper to flush all (tlb_single_page_flush_ceiling)."""
USER_PCID: Final = 1 << 11
"""The PCID of a process's user half (X86_CR3_PTI_PCID_USER_BIT)."""
INVPCID_ADDRESS, INVPCID_ALL = 0, 2
"""Types of INVPCID: one address of one PCID; everything, global translations too."""


@dataclass(slots=True)
class Context:
    """Whose translations a PCID has, and up to which generation (struct tlb_context)."""

    owner: int = 0
    generation: int = 0


class TlbContexts:
    """The PCIDs of the processor. `skip` names kinds of flushes to leave out, to see what they are for.

    `tagged` says whether CR4.PCIDE is set; `user_flush_mask` is the kernel address of `user_pcid_flush_mask`, None
    without page-table isolation. Raises InputError for a mode that needs tags where there are none.
    """

    def __init__(
        self,
        machine: Machine,
        memory: KernelMemory,
        kernel_pgd: int,
        *,
        tagged: bool,
        mode: str = "pcid",
        user_flush_mask: int | None = None,
    ) -> None:
        if mode not in ASID_MODES:
            raise InputError(f"unknown ASID mode {mode!r}; there are {', '.join(ASID_MODES)}")
        if mode == "stale" and not tagged:
            raise InputError("without PCIDs every CR3 write flushes; stale translations need --pcid on")
        self._machine, self._memory, self._kernel_pgd = machine, memory, kernel_pgd
        self._user_flush_mask = user_flush_mask
        self._kernel_changed = False
        self._tagged, self._mode = tagged, mode
        self._contexts = [Context() for _ in range(DYNAMIC_ASIDS if mode == "pcid" else 1)]
        self._next = 0
        self._asid = 0
        self.loaded: AddressSpace | None = None  # None: the kernel's own page tables
        self.is_lazy = False
        self.skip: set[str] = set()

    @property
    def _has_user_pcids(self) -> bool:
        return self._user_flush_mask is not None and self._tagged

    # --- switching --------------------------------------------------------------------------------------------------

    def switch(self, mm: AddressSpace) -> None:
        """Load an address space (switch_mm_irqs_off)."""
        self.is_lazy = False
        if mm is self.loaded:
            return
        self.loaded = mm
        keeps = self._choose(mm)
        if not keeps:
            self._invalidate_user_asid()
        pcid = self._asid + 1 if self._tagged else 0
        self._machine.write_cr3(mm.page_table.pgd | pcid | (CR3_NOFLUSH if keeps and self._tagged else 0))

    def _choose(self, mm: AddressSpace) -> bool:
        """Pick the PCID (choose_new_asid). Returns whether what the TLB remembers under it may stay."""
        if self._mode == "stale":
            return True
        for asid, context in enumerate(self._contexts):
            if context.owner == mm.context_id:
                self._asid = asid
                keeps = self._mode == "pcid" and context.generation == mm.tlb_generation
                context.generation = mm.tlb_generation
                return keeps
        self._asid = self._next
        self._next = (self._next + 1) % len(self._contexts)
        self._contexts[self._asid] = Context(mm.context_id, mm.tlb_generation)
        return False

    def owner(self, pcid: int) -> int:
        """The address space (its `context_id`) that a PCID belongs to now, for people; 0 if it is nobody's."""
        asid = (pcid & ~USER_PCID) - 1 if self._tagged else 0
        return self._contexts[asid].owner if 0 <= asid < len(self._contexts) else 0

    def enter_lazy(self) -> None:
        """The kernel works for no process now, and goes on with whatever page tables are loaded (enter_lazy_tlb)."""
        self.is_lazy = True

    def leave(self, mm: AddressSpace) -> None:
        """If this address space is loaded, load the kernel's own page tables instead (leave_mm)."""
        if mm is not self.loaded:
            return
        self.loaded = None
        keeps, self._kernel_changed = not self._kernel_changed, False
        self._machine.write_cr3(self._kernel_pgd | (CR3_NOFLUSH if self._tagged and keeps else 0))

    # --- flushing ---------------------------------------------------------------------------------------------------

    def flush(self, mm: AddressSpace, start: int, end: int, why: str, *, size: int = PAGE_SIZE) -> None:
        """Make the TLB forget pages of an address space, all of one `size` (flush_tlb_mm_range)."""
        if why in self.skip:
            return
        mm.tlb_generation += 1
        if mm is not self.loaded:
            return
        if self.is_lazy:  # nobody needs its user half: to be rid of it costs as much as to flush it (flush_tlb_func)
            self.leave(mm)
            return
        if (end - start) // size <= FLUSH_CEILING:
            for va in range(start, end, size):
                self._flush_one_user(va)
        else:
            self._invalidate_user_asid()
            self._machine.write_cr3(self._machine.control.cr3)
        self._contexts[self._asid].generation = mm.tlb_generation

    def flush_pages(self, mm: AddressSpace, pages: Sequence[int], why: str) -> None:
        """Forget single pages, or everything if they are many (arch_tlbbatch_flush)."""
        if len(pages) > FLUSH_CEILING:
            self.flush_all(mm, why)
            return
        for va in pages:
            self.flush(mm, va, va + PAGE_SIZE, why)

    def flush_all(self, mm: AddressSpace, why: str) -> None:
        """Forget a whole address space (flush_tlb_mm)."""
        self.flush(mm, 0, (FLUSH_CEILING + 1) * PAGE_SIZE, why)

    def _flush_one_user(self, va: int) -> None:
        """Forget a page under the PCID of the kernel's half, and under that of the user's (flush_tlb_one_user)."""
        self._machine.invlpg(va)
        if not self._has_user_pcids:
            return
        if self._machine.profile.features.invpcid:
            self._machine.invpcid(INVPCID_ADDRESS, self._asid + 1 + USER_PCID, va)
        else:
            self._invalidate_user_asid()

    def _invalidate_user_asid(self) -> None:
        """Let the way back to user mode flush the user's PCID: cheaper than doing it now (invalidate_user_asid)."""
        if self._user_flush_mask is not None and self._tagged:
            mask = self._memory.load_va(self._user_flush_mask)
            self._memory.store_va(self._user_flush_mask, mask | 1 << self._asid + 1)

    def flush_kernel(self, start: int, end: int) -> None:
        """Forget pages of the kernel's (flush_tlb_kernel_range)."""
        if (end - start) // PAGE_SIZE > FLUSH_CEILING:
            self._flush_everything()
            return
        for va in range(start, end, PAGE_SIZE):
            self._flush_one_user(va)
        if self._has_user_pcids:
            self._invalidate_other()

    def _invalidate_other(self) -> None:
        """Kernel pages are not global under page-table isolation, so INVLPG dropped them for one PCID only.

        Whoever else remembers them is flushed when it comes back (clear_asid_other).
        """
        self._kernel_changed |= self.loaded is not None
        for asid, context in enumerate(self._contexts):
            if asid != self._asid or self.loaded is None:
                context.owner = 0

    def _flush_everything(self) -> None:
        """Forget all of all PCIDs (native_flush_tlb_global): with INVPCID, or by turning global pages off and on."""
        machine, cr4 = self._machine, self._machine.control.cr4
        if machine.profile.features.invpcid:
            machine.invpcid(INVPCID_ALL, 0, 0)
        elif cr4 & Cr4.PGE:
            machine.write_cr4(cr4 & ~Cr4.PGE)
            machine.write_cr4(cr4)
        else:
            machine.write_cr3(machine.control.cr3)
