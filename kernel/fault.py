"""Page faults: the promise is kept, or the process is told that there was none (arch/x86/mm/fault.c, mm/memory.c).

`handle_page_fault` is the lecture's slide as a decision tree:

    HandlePageFault(address, error_code)
        if AddressExists(current->mm_state, address) && AccessPermitted(current->mm_state, error_code)
            PFN = allocate_pfn()
            install_pte(address, PFN)
        else RaiseSignal(SIGSEGV)
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from emu.pte import PAGE_SIZE, ErrorCode, Pte

from .address_space import AddressSpace
from .exceptions import Errno
from .frames import FrameAllocator
from .layout import TASK_SIZE
from .memory import KernelMemory
from .page_table import user_pte
from .vma import Prot, Vma

__all__ = ["FaultHandler", "FaultResult"]

PAGE_MASK: Final = ~(PAGE_SIZE - 1)
WRITE, FETCH = int(ErrorCode.W), int(ErrorCode.I)
WRITE_ALLOWED, EXEC_ALLOWED = int(Prot.WRITE), int(Prot.EXEC)
PRESENT, WRITABLE, NO_EXECUTE = int(Pte.P), int(Pte.W), int(Pte.NX)


class FaultResult(Enum):
    """How a page fault ended."""

    DEMAND_ZERO = auto()  # a new page of zeros
    FILE = auto()  # a page with the content of its backing
    SPURIOUS = auto()  # the entry already permits the access
    BAD_ADDRESS = auto()  # nothing was promised here: SIGSEGV, SEGV_MAPERR
    BAD_ACCESS = auto()  # promised, but not this: SIGSEGV, SEGV_ACCERR
    OUT_OF_MEMORY = auto()

    @property
    def resolved(self) -> bool:
        """Whether the access will succeed when it is repeated."""
        return self in (FaultResult.DEMAND_ZERO, FaultResult.FILE, FaultResult.SPURIOUS)


class FaultHandler:
    """Handles the page faults of any address space; counts them by kind."""

    def __init__(self, memory: KernelMemory, frames: FrameAllocator) -> None:
        self._memory, self._frames = memory, frames
        self.counts = {"minor": 0, "major": 0, "cow": 0, "protection": 0, "spurious": 0}

    def handle_page_fault(self, mm: AddressSpace, address: int, error_code: int) -> FaultResult:
        """Decide about one fault, and deliver the page if it was promised."""
        if address >= TASK_SIZE:
            return self._refuse(FaultResult.BAD_ADDRESS)
        vma = mm.vmas.find(address) or mm.grow_stack(address)
        if vma is None:
            return self._refuse(FaultResult.BAD_ADDRESS)
        if not access_permitted(vma, error_code):
            return self._refuse(FaultResult.BAD_ACCESS)
        try:
            pte = mm.page_table.make_entry(address)
            if entry_permits(self._memory.load64(pte), error_code):
                self.counts["spurious"] += 1
                return FaultResult.SPURIOUS
            return self._deliver(pte, vma, address & PAGE_MASK, error_code)
        except Errno:
            return FaultResult.OUT_OF_MEMORY

    def _refuse(self, result: FaultResult) -> FaultResult:
        self.counts["protection"] += 1
        return result

    def _deliver(self, pte: int, vma: Vma, page: int, error_code: int) -> FaultResult:
        """Allocate a frame, fill it, install its PTE at the physical address `pte`. Raises Errno(ENOMEM)."""
        pfn = self._frames.allocate()
        if vma.backing is None:
            self._memory.clear_frame(pfn)
        else:
            content = vma.backing.page(vma.offset + page - vma.start, PAGE_SIZE)
            self._memory.write(pfn * PAGE_SIZE, content)
        prot = int(vma.prot)
        writable, executable = prot & WRITE_ALLOWED != 0, prot & EXEC_ALLOWED != 0
        dirty = error_code & WRITE != 0
        self._memory.store64(pte, user_pte(pfn, writable=writable, executable=executable, dirty=dirty))
        self.counts["minor"] += 1
        return FaultResult.DEMAND_ZERO if vma.backing is None else FaultResult.FILE


def access_permitted(vma: Vma, error_code: int) -> bool:
    """Whether the promise covers the access (access_error in arch/x86/mm/fault.c)."""
    prot = int(vma.prot)
    if error_code & FETCH:
        return prot & EXEC_ALLOWED != 0
    if error_code & WRITE:
        return prot & WRITE_ALLOWED != 0
    return prot != 0  # x86 cannot make a page writable or executable but not readable


def entry_permits(entry: int, error_code: int) -> bool:
    """Whether a PTE permits the access already: the TLB remembered an older one (spurious_kernel_fault's test)."""
    if not entry & PRESENT:
        return False
    if error_code & WRITE and not entry & WRITABLE:
        return False
    return not (error_code & FETCH and entry & NO_EXECUTE)
