"""What all address spaces share: frames, their metadata, the TLB's contexts, the zero page, the promises in total."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

from .asid import TlbContexts
from .frames import FrameAllocator
from .huge_memory import HugeMemory
from .hugetlb import Hugetlb
from .layout import MMAP_MIN_ADDR
from .memory import EarlyMemory, KernelMemory
from .overcommit import Overcommit
from .page_table import PageTable
from .pages import Pages
from .swap import Swap
from .vmalloc import Vmalloc

__all__ = ["MemoryManager"]


@dataclass(slots=True)
class MemoryManager:
    """The kernel's memory management. `early` looks at memory without leaving a trace; `zero_pfn` is the one page of
    zeros that all reads of untouched memory share.
    """

    memory: KernelMemory
    early: EarlyMemory
    frames: FrameAllocator
    pages: Pages
    tlb: TlbContexts
    kernel_half: PageTable
    vmalloc: Vmalloc
    overcommit: Overcommit
    zero_pfn: int
    swap: Swap
    huge: HugeMemory
    hugetlb: Hugetlb
    context_ids: Any = field(default_factory=lambda: count(1))
    pte_inversion: bool = True
    """Whether entries that are not present name no memory (see `pte.py`)."""
    mmap_min_addr: int = MMAP_MIN_ADDR
    """Lowest address that a program can map (vm.mmap_min_addr)."""
    max_map_count: int = 65530
    """Most VMAs of one process (vm.max_map_count)."""
