"""/proc/PID/maps, smaps, smaps_rollup and pagemap: an address space as a text, and as numbers (fs/proc/task_mmu.c)."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SHIFT

from ..compound import HPAGE_PMD_SIZE
from ..exceptions import Errno
from ..layout import TASK_SIZE
from ..pagewalk import PSS_SHIFT, MappedPage, ResidentSet, mapped_pages, resident_set
from ..pte import swap_place
from ..vma import Vma, VmaFlag
from .generated import living, proc_data, proc_file

if TYPE_CHECKING:
    from ..address_space import AddressSpace
    from ..kernel import Kernel
    from ..process import Process

__all__ = ["maps", "pagemap", "smaps", "smaps_rollup"]

NAME_COLUMN: Final = 72
"""What comes before a name is padded to this (seq_setwidth in show_vma_header_prefix)."""
FLAG_NAMES: Final = {
    **{VmaFlag.READ: b"rd", VmaFlag.WRITE: b"wr", VmaFlag.EXEC: b"ex", VmaFlag.SHARED: b"sh"},
    **{VmaFlag.MAY_READ: b"mr", VmaFlag.MAY_WRITE: b"mw", VmaFlag.MAY_EXEC: b"me", VmaFlag.MAY_SHARE: b"ms"},
    **{
        VmaFlag.GROWS_DOWN: b"gd",
        VmaFlag.LOCKED: b"lo",
        VmaFlag.DONT_COPY: b"dc",
        VmaFlag.DONT_EXPAND: b"de",
        VmaFlag.LOCK_ON_FAULT: b"lf",
    },
    **{VmaFlag.ACCOUNT: b"ac", VmaFlag.NO_RESERVE: b"nr", VmaFlag.HUGETLB: b"ht", VmaFlag.WIPE_ON_FORK: b"wf"},
    **{VmaFlag.DONT_DUMP: b"dd", VmaFlag.HUGE_PAGE: b"hg", VmaFlag.NO_HUGE_PAGE: b"nh"},
}
"""show_smap_vma_flags, in the order of the bits."""


# --- maps -----------------------------------------------------------------------------------------------------------


@proc_file("/proc/[pid]/maps")
def maps(_kernel: Kernel, process: Process | None) -> bytes:
    """One line a VMA: addresses, rights, offset, device, inode, name."""
    mm = living(process).mm
    return b"".join(map_line(mm, vma) for vma in mm.vmas)


def map_line(mm: AddressSpace, vma: Vma) -> bytes:
    """The line of one VMA (show_map_vma)."""
    offset, device, inode = 0, 0, 0
    if vma.backing is not None:
        offset, device, inode = vma.page_offset << PAGE_SHIFT, vma.backing.device, vma.backing.number
    return _line(vma.start, vma.end, vma.rights, offset, device, inode, mm.name_of(vma))


def _line(start: int, end: int, rights: str, offset: int, device: int, inode: int, name: str) -> bytes:
    numbers = f"{os.major(device):02x}:{os.minor(device):02x} {inode} "
    line = f"{start:08x}-{end:08x} {rights} {offset:08x} {numbers}"
    if name:
        line = line.ljust(NAME_COLUMN) + " " + name.replace("\n", "\\012")
    return line.encode("utf-8", "surrogateescape") + b"\n"


# --- smaps ----------------------------------------------------------------------------------------------------------


@proc_file("/proc/[pid]/smaps")
def smaps(kernel: Kernel, process: Process | None) -> bytes:
    """Each VMA with what is in memory of it."""
    mm = living(process).mm
    return b"".join(_smap(kernel, mm, vma) for vma in mm.vmas)


def _smap(kernel: Kernel, mm: AddressSpace, vma: Vma) -> bytes:
    sizes = {"Size": vma.end - vma.start, **dict.fromkeys(("KernelPageSize", "MMUPageSize"), vma.page_size)}
    huge = mm.manager.huge
    amounts = _amounts(sizes | _sums(resident_set(kernel, mm, vma), rollup=False))
    flags = b"".join(name + b" " for flag, name in FLAG_NAMES.items() if vma.flags & flag)
    eligible = huge.is_allowed(mm, vma) and huge.covers(vma, vma.start - vma.start % -HPAGE_PMD_SIZE)
    return map_line(mm, vma) + amounts + b"THPeligible:           %d\nVmFlags: %s\n" % (eligible, flags)


@proc_file("/proc/[pid]/smaps_rollup")
def smaps_rollup(kernel: Kernel, process: Process | None) -> bytes:
    """The sum of smaps."""
    mm = living(process).mm
    vmas = tuple(mm.vmas)
    if not vmas:
        return b""
    head = _line(vmas[0].start, vmas[-1].end, "---p", 0, 0, 0, "[rollup]")
    return head + _amounts(_sums(resident_set(kernel, mm), rollup=True))


def _sums(of: ResidentSet, *, rollup: bool) -> dict[str, int]:
    """Bytes by name (__show_smap). What this kernel does not have is 0."""
    parts = {"Pss_Anon": of.pss_anonymous, "Pss_File": of.pss_file, "Pss_Shmem": of.pss_shmem} if rollup else {}
    return {
        "Rss": of.resident,
        **{name: share >> PSS_SHIFT for name, share in {"Pss": of.pss, "Pss_Dirty": of.pss_dirty, **parts}.items()},
        **{"Shared_Clean": of.shared_clean, "Shared_Dirty": of.shared_dirty},
        **{"Private_Clean": of.private_clean, "Private_Dirty": of.private_dirty},
        **{"Referenced": of.referenced, "Anonymous": of.anonymous},
        **{"KSM": 0, "LazyFree": 0, "AnonHugePages": of.anonymous_huge, "ShmemPmdMapped": 0, "FilePmdMapped": 0},
        **{"Shared_Hugetlb": of.shared_hugetlb, "Private_Hugetlb": of.private_hugetlb},
        **{"Swap": of.swap, "SwapPss": of.swap, "Locked": of.pss_locked >> PSS_SHIFT},
    }


def _amounts(sizes: dict[str, int]) -> bytes:
    return b"".join(b"%-16s%8d kB\n" % (name.encode() + b":", size >> 10) for name, size in sizes.items())


# --- pagemap --------------------------------------------------------------------------------------------------------

ENTRY: Final = 8
EXCLUSIVE, FILE, SWAPPED, PRESENT = 1 << 56, 1 << 61, 1 << 62, 1 << 63
SWAP_TYPE_BITS: Final = 5
PAGES_AT_ONCE: Final = 512


@proc_data("/proc/[pid]/pagemap")
def pagemap(kernel: Kernel, process: Process | None, position: int, size: int) -> Iterator[bytes]:
    """8 bytes a page of the user half (Documentation/admin-guide/mm/pagemap.rst). Raises Errno(EINVAL).

    Bits 0-54 are the pfn of a page in memory; of one that was swapped out, bits 0-4 are the swap area and bits 5-54
    the place in it. Bit 56: nobody else maps it; 61: a page of a file or shared; 62: swapped out; 63: in memory.
    """
    if position % ENTRY or size % ENTRY:
        raise Errno(errno.EINVAL)
    mm = living(process).mm
    page, end = position // ENTRY, min((position + size) // ENTRY, TASK_SIZE >> PAGE_SHIFT)
    for first in range(page, end, PAGES_AT_ONCE):
        last = min(first + PAGES_AT_ONCE, end)
        entries = [0] * (last - first)
        for mapped in mapped_pages(kernel, mm, first << PAGE_SHIFT, last << PAGE_SHIFT):
            entries[(mapped.va >> PAGE_SHIFT) - first] = pagemap_entry(mapped)
        yield struct.pack(f"<{len(entries)}Q", *entries)


def pagemap_entry(page: MappedPage) -> int:
    """The word that tells of a page (pte_to_pagemap_entry)."""
    if page.pfn is None:
        area, offset = swap_place(page.entry)
        return area | offset << SWAP_TYPE_BITS | SWAPPED
    if page.is_zero_page:
        return page.pfn | PRESENT
    return page.pfn | PRESENT | (0 if page.is_anonymous else FILE) | (EXCLUSIVE if page.is_exclusive else 0)
