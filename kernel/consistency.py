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

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emu.pte import PAGE_SIZE

from . import pti
from .address_space import AddressSpace
from .compound import Compound, Mapping
from .hugetlb import HugetlbFile
from .layout import TASK_SIZE
from .pte import P, W, is_huge, is_mapped, is_special, is_swap, pfn_of, swap_place
from .vma import VmaFlag

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["inconsistencies"]


@dataclass(slots=True)
class Mappings:
    """What the entries map: frames, by PTEs, and compound pages as a whole, by entries of upper levels. And how many
    entries have each swap slot.
    """

    parts: dict[int, list[Mapping]] = field(default_factory=dict)
    entire: dict[int, list[Mapping]] = field(default_factory=dict)
    swapped: Counter[int] = field(default_factory=Counter)


def inconsistencies(kernel: Kernel) -> list[str]:
    """What does not agree, a sentence each; nothing if the kernel is right. Looking changes no state, only counters."""
    spaces = {p.mm: None for p in kernel.processes if p.alive or p is kernel.held}
    mappings = Mappings()
    found: list[str] = []
    with kernel.kernel_mode():
        for mm in spaces:
            found += _promises(mm)
            found += _deliveries(mm, mappings)
            found += pti.inconsistencies(mm)
            users = sum(process.mm is mm for process in kernel.processes if process.alive or process is kernel.held)
            if mm.users != users:
                found.append(f"an address space has {users} users, {mm.users} are counted")
        for pfn, mapped in mappings.parts.items():
            if kernel.pages.compound(pfn) is None:
                found += _frame(kernel, pfn, mapped)
        for compound in kernel.pages.compounds.values():
            found += _compound(kernel, compound, mappings)
        found += _slots(kernel, mappings)
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
    """Every entry keeps a promise, and permits no more than it. Each huge page that can be split has a table for it."""
    pages, zero = mm.manager.pages, {mm.manager.zero_pfn, mm.manager.huge.zero_pfn}
    huge = 0
    for va, entry, _ in mm.page_table.leaves(0, TASK_SIZE, mm.manager.early):
        vma = mm.vmas.find(va)
        if vma is None:
            yield f"an entry at {va:#x} belongs to no VMA"
            continue
        if entry & P and entry & W and not vma.flags & VmaFlag.WRITE:
            yield f"the entry at {va:#x} permits writing, its VMA does not"
        if entry & P and not vma.flags & VmaFlag.RIGHTS:
            yield f"the entry at {va:#x} permits access, its VMA does not"
        if is_huge(entry):
            huge += mm.manager.huge.is_transparent(entry)
            if va + mm.manager.huge.size_of(entry) > vma.end:
                yield f"the huge page at {va:#x} is larger than its VMA"
        if is_mapped(entry) and is_special(entry):
            if pfn_of(entry) not in zero or entry & W:
                yield f"the special entry at {va:#x} is not the read-only zero page"
        elif is_swap(entry):
            mappings.swapped[swap_place(entry)[1]] += 1
        elif is_mapped(entry):
            pfn = pfn_of(entry)
            (mappings.entire if is_huge(entry) else mappings.parts).setdefault(pfn, []).append((mm, va))
            if entry & W and not vma.flags & VmaFlag.SHARED and not pages.is_exclusive(pfn):
                yield f"the private page at {va:#x} can be written, but is not exclusive"
    if mm.page_table.deposited != huge:
        yield f"{huge} huge pages can be split, {mm.page_table.deposited} tables are put aside for that"


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


def _compound(kernel: Kernel, compound: Compound, mappings: Mappings) -> Iterator[str]:
    """The head of a compound page counts all of its mappings, each frame those of its own."""
    pages, name = kernel.pages, f"compound page {compound.head:#x}"
    frames = range(compound.head, compound.head + compound.frames) if compound.is_transparent else ()
    entire = mappings.entire.get(compound.head, [])
    parts = [mapping for pfn in frames for mapping in mappings.parts.get(pfn, [])]
    if sorted(compound.entire, key=_order) != sorted(entire, key=_order):
        yield f"{name} is mapped as a whole {len(entire)} times, its reverse mapping has {len(compound.entire)}"
    for pfn in frames:
        mapped = mappings.parts.get(pfn, [])
        if sorted(pages.mappings(pfn), key=_order) != sorted(mapped, key=_order):
            yield f"frame {pfn:#x} of a compound page is mapped {len(mapped)} times, and its reverse mapping differs"
        if pages.mapcount(pfn) != len(mapped) + len(entire):
            yield f"frame {pfn:#x} of a compound page counts {pages.mapcount(pfn)} mappings"
    if (compound.parts, compound.mappings) != (len(parts), len(parts) + len(entire)):
        yield f"{name} has {len(parts)} mapped parts, {compound.parts} are counted"
    if compound.spaces != Counter(mm for mm, _ in (*entire, *parts)):
        yield f"{name} does not know who maps it"
    if pages.refcount(compound.head) != compound.mappings + compound.is_cached:
        yield f"{name} has {compound.mappings} mappings, and {pages.refcount(compound.head)} references"
    if compound.is_transparent and pages.is_exclusive(compound.head) and len(entire) > 1:
        yield f"{name} is exclusive and mapped {len(entire)} times"
    if (
        parts
        and not entire
        and not all(pfn in mappings.parts for pfn in frames)
        and compound.head not in pages.deferred
    ):
        yield f"{name} is mapped in parts only, and nobody remembers to split it"


def _order(mapping: Mapping) -> tuple[int, int]:
    mm, va = mapping
    return mm.context_id, va


def _pools(kernel: Kernel, spaces: list[AddressSpace]) -> Iterator[str]:
    """A pool has the pages that are free and those that are used, and as many free ones as it promised."""
    vmas = [(mm, vma, vma.backing) for mm in spaces for vma in mm.vmas if isinstance(vma.backing, HugetlbFile)]
    compounds = kernel.pages.compounds.values()
    for pool in kernel.manager.hugetlb.pools.values():
        mine = [(mm, vma, file) for mm, vma, file in vmas if file.pool is pool]
        waiting = sum(file.waiting(mm, vma) for mm, vma, file in mine)
        waiting += sum(file.shared_waiting for file in {file for _, _, file in mine})
        if pool.reserved != waiting:
            yield f"{waiting} huge pages of {pool.size >> 20} MiB are promised, {pool.reserved} are counted"
        if pool.reserved > len(pool.free):
            yield f"{pool.reserved} huge pages of {pool.size >> 20} MiB are promised, {len(pool.free)} are free"
        owned = [page for page in compounds if not page.is_transparent and page.order == pool.order]
        used = [page for page in owned if page.mappings or page.is_cached]
        if len(owned) != pool.total or len(used) != pool.total - len(pool.free):
            yield f"a pool counts {pool.total} huge pages, {len(pool.free)} of them free; it has {len(used)} in use"


def _slots(kernel: Kernel, mappings: Mappings) -> Iterator[str]:
    """A slot counts all entries that have it; files may have it besides."""
    swap = kernel.manager.swap
    for slot, entries in mappings.swapped.items():
        if swap.entries(slot) < entries:
            yield f"swap slot {slot} is in {entries} entries, {swap.entries(slot)} are counted"


def _totals(kernel: Kernel, spaces: list[AddressSpace], mappings: Mappings) -> Iterator[str]:
    pages = kernel.pages
    small = [pfn for pfn in mappings.parts if pages.compound(pfn) is None]
    huge = sum(compound.frames for compound in pages.compounds.values() if compound.is_transparent)
    anonymous = sum(map(pages.is_anonymous, small)) + huge
    unmapped = kernel.manager.swap.unmapped
    if pages.anonymous != anonymous + unmapped:
        yield f"{anonymous} anonymous pages are mapped, {pages.anonymous - unmapped} are counted"
    whole = {pfn + part for pfn in mappings.entire for part in range(pages.frames_of(pfn))}
    mapped = len(whole | mappings.parts.keys())
    if pages.mapped_frames != mapped:
        yield f"{mapped} frames are mapped, the reverse mapping knows {pages.mapped_frames}"
    yield from _pools(kernel, spaces)
    promised = sum(vma.pages for mm in spaces for vma in mm.vmas if vma.flags & VmaFlag.ACCOUNT)
    if kernel.manager.overcommit.committed != promised:
        yield f"{promised} pages are promised, {kernel.manager.overcommit.committed} are counted"
    if kernel.leaked_frames:
        yield f"frames: {kernel.leaked_frames} nobody accounts for"
