"""Do all the books agree? Page tables, VMAs, frames and counters say the same thing in different words.

A page is recorded many times over: as an entry in a page table, as part of a VMA's promise, as a count in its struct
page, in the reverse mapping, in the numbers of /proc/meminfo. Each is there because it answers one question fast. A
kernel that forgets one of them goes wrong much later and somewhere else; Linux's CONFIG_DEBUG_VM looks for it in the
same way (validate_mm in mm/vma.c, mm/debug_vm_pgtable.c).

>>> from emu import Machine
>>> from emu.assembler import assemble_source
>>> from kernel import Kernel
>>> kernel = Kernel(Machine(ram="16M"))
>>> process = kernel.spawn(assemble_source("_start: jmp _start"))
>>> inconsistencies(kernel)
[]
>>> kernel.pages.anonymous += 1
>>> inconsistencies(kernel)
['1 anonymous pages are mapped, 2 are counted', 'frames: -1 nobody accounts for']
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from emu.pte import PAGE_SIZE

from .address_space import AddressSpace
from .layout import TASK_SIZE
from .pages import Mapping
from .pte import P, W, is_mapped, is_special, pfn_of
from .vma import VmaFlag

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["inconsistencies"]

Mappings = dict[int, list[Mapping]]


def inconsistencies(kernel: Kernel) -> list[str]:
    """What does not agree, a sentence each; nothing if the kernel is right. Looking changes no state, only counters."""
    spaces = {p.mm: None for p in kernel.processes if p.alive or p is kernel.held}
    mappings: Mappings = {}
    found: list[str] = []
    with kernel.kernel_mode():
        for mm in spaces:
            found += _promises(mm)
            found += _deliveries(mm, mappings)
            users = sum(process.mm is mm for process in kernel.processes if process.alive or process is kernel.held)
            if mm.users != users:
                found.append(f"an address space has {users} users, {mm.users} are counted")
        for pfn, mapped in mappings.items():
            found += _frame(kernel, pfn, mapped)
        found += _totals(kernel, list(spaces), mappings)
    return found


def _promises(mm: AddressSpace) -> Iterator[str]:
    """VMAs are in order, do not overlap, and consist of whole pages of the user half."""
    end = 0
    for vma in mm.vmas:
        where = f"VMA {vma.start:#x}-{vma.end:#x}"
        if vma.start < end:
            yield f"{where} overlaps the one below"
        if vma.start >= vma.end or vma.end > TASK_SIZE or (vma.start | vma.end) % PAGE_SIZE:
            yield f"{where} is no range of user pages"
        end = vma.end


def _deliveries(mm: AddressSpace, mappings: Mappings) -> Iterator[str]:
    """Every entry keeps a promise, and permits no more than it."""
    pages, zero = mm.manager.pages, mm.manager.zero_pfn
    for va, entry, _ in mm.page_table.leaves(0, TASK_SIZE, mm.manager.early):
        vma = mm.vmas.find(va)
        if vma is None:
            yield f"an entry at {va:#x} belongs to no VMA"
            continue
        if entry & P and entry & W and not vma.flags & VmaFlag.WRITE:
            yield f"the entry at {va:#x} permits writing, its VMA does not"
        if entry & P and not vma.flags & VmaFlag.RIGHTS:
            yield f"the entry at {va:#x} permits access, its VMA does not"
        if is_mapped(entry) and is_special(entry):
            if pfn_of(entry) != zero or entry & W:
                yield f"the special entry at {va:#x} is not the read-only zero page"
        elif is_mapped(entry):
            pfn = pfn_of(entry)
            mappings.setdefault(pfn, []).append((mm, va))
            if entry & W and not vma.flags & VmaFlag.SHARED and not pages.is_exclusive(pfn):
                yield f"the private page at {va:#x} can be written, but is not exclusive"


def _frame(kernel: Kernel, pfn: int, mapped: list[Mapping]) -> Iterator[str]:
    """A frame's counts and reverse mapping are the entries that map it; the page cache has one reference more."""
    pages = kernel.pages
    if sorted(pages.mappings(pfn), key=_order) != sorted(mapped, key=_order):
        yield f"frame {pfn:#x} is mapped {len(mapped)} times, its reverse mapping has {len(pages.mappings(pfn))}"
    if pages.mapcount(pfn) != len(mapped):
        yield f"frame {pfn:#x} is mapped {len(mapped)} times, {pages.mapcount(pfn)} are counted"
    expected = len(mapped) + (not pages.is_anonymous(pfn))
    if pages.refcount(pfn) != expected:
        yield f"frame {pfn:#x} has {expected} references, {pages.refcount(pfn)} are counted"
    if pages.is_anonymous(pfn) and pages.is_exclusive(pfn) and len(mapped) > 1:
        yield f"frame {pfn:#x} is exclusive and mapped {len(mapped)} times"


def _order(mapping: Mapping) -> tuple[int, int]:
    mm, va = mapping
    return mm.context_id, va


def _totals(kernel: Kernel, spaces: list[AddressSpace], mappings: Mappings) -> Iterator[str]:
    pages = kernel.pages
    anonymous = sum(pages.is_anonymous(pfn) for pfn in mappings)
    unmapped = kernel.manager.swap.unmapped
    if pages.anonymous != anonymous + unmapped:
        yield f"{anonymous} anonymous pages are mapped, {pages.anonymous - unmapped} are counted"
    if pages.mapped_frames != len(mappings):
        yield f"{len(mappings)} frames are mapped, the reverse mapping knows {pages.mapped_frames}"
    promised = sum(vma.pages for mm in spaces for vma in mm.vmas if vma.flags & VmaFlag.ACCOUNT)
    if kernel.manager.overcommit.committed != promised:
        yield f"{promised} pages are promised, {kernel.manager.overcommit.committed} are counted"
    if kernel.leaked_frames:
        yield f"frames: {kernel.leaked_frames} nobody accounts for"
