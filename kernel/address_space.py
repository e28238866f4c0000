"""An address space: the VMAs that promise memory and the page table that delivers it (struct mm_struct).

System calls change the promises; page faults deliver. What is taken away is flushed from the TLB at once, because the
hardware goes on using what it remembers.
"""

from __future__ import annotations

import errno
from typing import Final

from emu.machine import Machine
from emu.pte import ADDRESS_MASK, PAGE_SHIFT, PAGE_SIZE, Pte

from .exceptions import Errno
from .frames import FrameAllocator
from .layout import MMAP_BASE, MMAP_MIN_ADDR, STACK_LIMIT, STACK_TOP, TASK_SIZE, page_align
from .memory import EarlyMemory, KernelMemory
from .page_table import PageTable
from .vma import Prot, Vma, VmaSet

__all__ = ["AddressSpace"]

PAGE_MASK: Final = ~(PAGE_SIZE - 1)
STACK_GUARD: Final = 256 * PAGE_SIZE
"""A stack does not grow closer than this to a mapping below it, unless that is inaccessible or a stack, too
(stack_guard_gap; expand_downwards in mm/vma.c)."""


class AddressSpace:
    """One process's memory. `heap_start` and `heap_end` are where brk began and where it stands."""

    def __init__(self, machine: Machine, memory: KernelMemory, frames: FrameAllocator, kernel_half: PageTable) -> None:
        self._machine, self._memory, self._frames = machine, memory, frames
        self.page_table = PageTable(memory, frames, kernel_half)
        self.vmas = VmaSet()
        self.heap_start = self.heap_end = 0
        self.is_active = False
        self._last: tuple[Vma, ...] = ()

    # --- promises -------------------------------------------------------------------------------------------------

    def map(
        self, start: int, size: int, prot: Prot, *, fixed: bool = False, replace: bool = True, vma: Vma | None = None
    ) -> int:
        """Promise `size` bytes at `start` (a hint, unless fixed) and return where. Raises Errno."""
        size = page_align(size)
        if size == 0:
            raise Errno(errno.EINVAL)
        if fixed:
            self._check_fixed(start, size, replace)
        else:
            start = self._choose(start & PAGE_MASK, size)
        pattern = vma or Vma(0, 0, prot)
        self.vmas.insert(
            Vma(start, start + size, prot, pattern.backing, pattern.offset, pattern.grows_down, pattern.name)
        )
        return start

    def _check_fixed(self, start: int, size: int, replace: bool) -> None:
        if start % PAGE_SIZE:
            raise Errno(errno.EINVAL)
        if start + size > TASK_SIZE:
            raise Errno(errno.ENOMEM)
        if start < MMAP_MIN_ADDR:
            raise Errno(errno.EPERM)
        if self.vmas.overlapping(start, start + size):
            if not replace:
                raise Errno(errno.EEXIST)
            self.unmap(start, size)

    def _choose(self, hint: int, size: int) -> int:
        """The hint if it is free, else the highest gap below the stack. Raises Errno(ENOMEM)."""
        if hint:
            hint = max(hint, MMAP_MIN_ADDR)  # round_hint_to_min
        if MMAP_MIN_ADDR <= hint <= TASK_SIZE - size and not self.vmas.overlapping(hint, hint + size):
            return hint
        gap = self.vmas.gap(size, MMAP_MIN_ADDR, MMAP_BASE)
        if gap is None:
            raise Errno(errno.ENOMEM)
        return gap

    def unmap(self, start: int, size: int) -> None:
        """Take back a promise, with the pages that were delivered on it (munmap). Raises Errno(EINVAL)."""
        end = start + page_align(size)
        if start % PAGE_SIZE or size == 0 or end > TASK_SIZE:
            raise Errno(errno.EINVAL)
        for piece in self.vmas.remove(start, end):
            self._release(piece.start, piece.end)

    def set_break(self, address: int) -> int:
        """Move the end of the heap (brk). Returns where it stands then: unchanged if it cannot be moved there."""
        if address < self.heap_start:
            return self.heap_end
        old, new = page_align(self.heap_end), page_align(address)
        if new < old:
            self.unmap(new, old - new)
        elif new > old:
            # One free page is kept below the next mapping (check_brk_limits, mm/mmap.c).
            if new + PAGE_SIZE > TASK_SIZE or self.vmas.overlapping(old, new + PAGE_SIZE):
                return self.heap_end
            self.vmas.insert(Vma(old, new, Prot.READ | Prot.WRITE, name="[heap]"))
        self.heap_end = address
        return address

    def grow_stack(self, address: int) -> Vma | None:
        """The stack VMA, extended down to `address`, if that is within the limit and keeps the gap (expand_stack)."""
        vma = self.vmas.find_next(address)
        start = address & PAGE_MASK
        if vma is None or not vma.grows_down or STACK_TOP - start > STACK_LIMIT:
            return None
        below = self.vmas.overlapping(max(start - STACK_GUARD, 0), vma.start)
        if any(other.prot and not other.grows_down for other in below):
            return None
        self.vmas.remove(vma.start, vma.end)
        grown = Vma(start, vma.end, vma.prot, grows_down=True, name=vma.name)
        self.vmas.insert(grown)
        return grown

    # --- deliveries -----------------------------------------------------------------------------------------------

    def _release(self, start: int, end: int) -> None:
        """Free the pages of a range: entries first, then the TLB, and only then the frames."""
        freed = []
        for va, entry, pte in list(self.page_table.leaves(start, end)):
            self._memory.store64(pte, 0)
            if self.is_active:
                self._machine.invlpg(va)
            freed.append((entry & ADDRESS_MASK) >> PAGE_SHIFT)
        for pfn in freed:
            self._frames.free(pfn)

    def destroy(self) -> None:
        """Give everything back. The address space must not be the active one any more."""
        self._last = tuple(self.vmas)
        for vma in self.vmas:
            self._release(vma.start, vma.end)
            self.vmas.remove(vma.start, vma.end)
        self.page_table.free_user_half()

    def resident(self) -> int:
        """Pages that are present now; looking has no effect."""
        plain = EarlyMemory(self._machine.ram)
        return sum(1 for vma in self.vmas for _ in self.page_table.leaves(vma.start, vma.end, plain))

    def maps(self) -> tuple[Vma, ...]:
        """The VMAs in order; of a process that has ended, as they were at its end."""
        return tuple(self.vmas) or self._last

    def frames_owned(self) -> int:
        """Frames of its pages and of its page tables."""
        return self.resident() + self.page_table.table_count

    def is_present(self, va: int) -> bool:
        """Whether a page is there, whatever its rights."""
        return bool(self.page_table.lookup(va) & int(Pte.P))
