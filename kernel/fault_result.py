"""How a page fault can end (vm_fault_t in include/linux/mm_types.h says less)."""

from __future__ import annotations

from enum import Enum, auto

__all__ = ["FaultResult"]


class FaultResult(Enum):
    """How a page fault ended."""

    DEMAND_ZERO = auto()  # a new page of zeros
    HUGE_PAGE = auto()  # a new huge page of zeros
    HUGE_ZERO_PAGE = auto()  # read before it was ever written: the huge page of zeros that all share
    ZERO_PAGE = auto()  # read before it was ever written: the zero page that all share
    STACK_GROWTH = auto()  # a new page of a stack that was extended for it
    FILE = auto()  # a page of a file, from the page cache
    COPY_ON_WRITE = auto()  # a copy of a page that others read, too
    REUSE = auto()  # nobody else has it any more: no copy needed
    SWAP_IN = auto()  # read from the swap device
    SWAP_CACHE = auto()  # out of this page table, but still, or again, in memory
    SPURIOUS = auto()  # the entry already permits the access
    RETRY = auto()  # the page is on its way from the swap device: again when it is there (VM_FAULT_RETRY)
    BAD_ADDRESS = auto()  # nothing was promised here: SIGSEGV, SEGV_MAPERR
    BAD_ACCESS = auto()  # promised, but not this: SIGSEGV, SEGV_ACCERR
    BUS_ERROR = auto()  # beyond the end of the file: SIGBUS, BUS_ADRERR
    OUT_OF_MEMORY = auto()

    def __init__(self, _number: int) -> None:
        self.resolved = self._name_ not in ("RETRY", "BAD_ADDRESS", "BAD_ACCESS", "BUS_ERROR", "OUT_OF_MEMORY")
        """Whether the access will succeed when it is repeated."""
        self.copies = self._name_ in ("COPY_ON_WRITE", "REUSE")
        self.major = self._name_ == "SWAP_IN"
        """Whether a device had to be read."""
