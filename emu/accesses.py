"""Data accesses, one by one: what the access engine looks at, and what listeners are told (native).

Unicorn asks for a page when it does not know it (`ask`), and tells of every access that it makes (`look_at_access`).
An access across two pages is complete when it has been translated to its end, which may be later.
"""

from __future__ import annotations

from typing import Any, Final

from .cache import LINE, touch
from .fetch import KNOWN, PAGE, quiet_walk
from .native import native, words
from .pte import Access, Pte
from .recorder import hit, tell_access
from .records import entry_at
from .soft_tlb import drop_page
from .state import Engine, Event, TlbKind
from .tlb import find, use
from .transfer import physical
from .translate import translate
from .walk import KIND, permitted

__all__ = ["ask", "complete", "look_at_access"]

READ: Final = int(Access.READ)
ITLB, DTLB = int(TlbKind.ITLB), int(TlbKind.DTLB)
D: Final = int(Pte.D)
ACCESS_ENGINE: Final = int(Engine.ACCESS)
ON_ACCESS: Final = int(Event.ACCESS)


@native
def ask(s: Any, va: Any, kind: Any) -> Any:
    """Translate for Unicorn's sake. Where that misses the TLB, the access that it asks for is no hit."""
    if s.no_tlb:
        return quiet_walk(s, va, kind)
    s.is_unicorns = 1
    itlb_misses, dtlb_misses = s.misses[ITLB], s.misses[DTLB]
    leaf = translate(s, va, kind)
    s.is_unicorns = 0
    if s.misses[ITLB] != itlb_misses:
        s.fetched_page = va | KNOWN
    elif s.misses[DTLB] != dtlb_misses and s.engine == ACCESS_ENGINE:
        s.filled_page = va | KNOWN
    return leaf


@native
def complete(s: Any, second_pa: Any) -> None:
    """The last access is translated to its end, which is on a second page or (-1) not: caches see it, and listeners."""
    va, kind, size = s.crossing_va, s.crossing_access & KIND, s.crossing_access >> 8
    s.crossing_va = 0
    if s.caches:
        last = s.crossing_pa + size - 1 if second_pa < 0 else second_pa
        touch(s, s.crossing_pa, kind)
        if (last ^ s.crossing_pa) & LINE:
            touch(s, last, kind)
    tell_access(s, va, kind, size, s.crossing_pa)


@native
def _touch(s: Any, va: Any, kind: Any) -> None:
    """One data access in the access engine. It was translated when Unicorn asked; here the model sees it anyway."""
    if s.no_tlb:
        translate(s, va, kind)
        drop_page(s, va)
        return
    number, index = find(s, DTLB, va)
    if number >= 0:
        use(s, s.arrays[number], index)
        if s.filled_page == va & PAGE | KNOWN:
            s.filled_page = 0
        else:
            hit(s, va, kind, DTLB)
    else:
        translate(s, va, kind)


@native
def _will_fault(s: Any, va: Any, kind: Any) -> Any:
    """Whether the second page of a crossing access is still missing; the access then repeats, and counts then."""
    if s.no_tlb:
        return not quiet_walk(s, va, kind)
    number, _ = find(s, DTLB, va)
    return number < 0


@native
def _is_there(s: Any, va: Any, kind: Any) -> Any:
    """Whether the second page of a crossing access needs no look at the page tables. Otherwise it may fault yet."""
    if s.no_tlb:
        return not _will_fault(s, va, kind)
    number, index = find(s, DTLB, va)
    if number < 0:
        return False
    leaf = entry_at(s.arrays[number].entries, index).leaf
    return permitted(s, leaf, kind) and (kind == READ or leaf & D != 0)


@native
def _second_pa(s: Any, va: Any, kind: Any) -> Any:
    """Physical address of the second page of a crossing access, if it is there."""
    return physical(ask(s, va, kind), va)


@native
def look_at_access(s: Any, pa: Any, kind: Any, size: Any) -> None:
    """A load or store of the guest's, at a physical address."""
    va = (words(s.frame_va)[pa >> 12] & PAGE) | (pa & 0xFFF)
    second = (va + size - 1) & PAGE
    crosses = second != va & PAGE
    if not crosses:
        _touch(s, va, kind)
    elif not _will_fault(s, second, kind):
        _touch(s, va, kind)
        _touch(s, second, kind)
    elif not s.no_tlb:
        _touch(s, va, kind)
    if s.caches or ((s.listeners | s.recorded) >> ON_ACCESS) & 1:
        s.crossing_va, s.crossing_access, s.crossing_pa = va, kind | (size << 8), pa
        if not crosses:
            complete(s, -1)
        elif _is_there(s, second, kind):
            complete(s, _second_pa(s, second, kind))
