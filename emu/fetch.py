"""The code that is being executed: its pages, its bytes, and what of it Unicorn must not see (native).

A page is fetched through the ITLB when Unicorn first asks for it, and again whenever it has left the ITLB. Its bytes
are looked at in two cases: RCL and RCR of memory, which Unicorn cannot restart after a store that faults, and a few
encodings that would end the host process (see `guard.py`).
"""

from __future__ import annotations

from typing import Any, Final

from .native import native, words
from .records import entry_at
from .soft_tlb import flush_soft_tlb
from .state import DANGEROUS, SCANNED, WRITABLE, WRITTEN
from .tlb import find, use
from .transfer import physical
from .translate import ITLB, translate
from .walk import FETCH

__all__ = [
    "ENV_RIP",
    "KNOWN",
    "PAGE",
    "code_byte",
    "code_page",
    "let_write",
    "may_translate",
    "note_fetch",
    "quiet_walk",
    "rotates_through_carry",
]

PAGE: Final = ~0xFFF
KNOWN: Final = 1
"""Or'ed to a page's address where 0 would be ambiguous."""
ENV_RIP: Final = 16
LOCK: Final = 0xF0
CROWD: Final = 32
"""Opcodes in 512 bytes that make it worth to look how many of them are in one block."""

PREFIXES: Final = 13
"""Of one instruction, beside one that matters: with fifteen bytes an instruction is at its longest."""


@native
def quiet_walk(s: Any, va: Any, kind: Any) -> Any:
    """Translate without counting: with `--tlb none` the access itself is counted, not Unicorn's question.

    Its walk leaves the data caches alone, too.
    """
    walks, reads = s.walks_by, s.entry_reads
    w0, w1, w2, w3 = walks[0], walks[1], walks[2], walks[3]
    r0, r1, r2, r3 = reads[0], reads[1], reads[2], reads[3]
    listeners, recorded, caches = s.listeners, s.recorded, s.caches
    s.listeners = s.recorded = s.caches = 0
    leaf = translate(s, va, kind)
    s.listeners, s.recorded, s.caches = listeners, recorded, caches
    if leaf:
        walks[0], walks[1], walks[2], walks[3] = w0, w1, w2, w3
        reads[0], reads[1], reads[2], reads[3] = r0, r1, r2, r3
    return leaf


@native
def code_page(s: Any, page: Any) -> Any:
    """Physical address of a page that is being executed, or -1 if the ITLB does not hold it."""
    if s.no_tlb:
        leaf = quiet_walk(s, page, FETCH)
        return physical(leaf, page) if leaf else -1
    number, index = find(s, ITLB, page)
    if number >= 0:
        array = s.arrays[number]
        use(s, array, index)
        return physical(entry_at(array.entries, index).leaf, page)
    if s.fetched_0 == page | KNOWN:
        return s.fetched_pa_0
    if s.fetched_1 == page | KNOWN:
        return s.fetched_pa_1
    return -1


@native
def code_byte(s: Any, va: Any) -> Any:
    """One byte of the block being executed."""
    base = s.fetch_pa if va & PAGE == s.fetch_page & PAGE else s.second_pa
    pa = base | (va & 0xFFF)
    return (words(s.ram)[pa >> 3] >> ((pa & 7) << 3)) & 0xFF


@native
def _is_prefix(byte: Any) -> Any:
    """Whether a byte is a legacy prefix or REX (SDM Vol. 2A 2.1.1, 2.2.1)."""
    return byte in (0x66, 0x67, LOCK, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65) or byte & 0xF0 == 0x40


@native
def rotates_through_carry(s: Any) -> Any:
    """Whether the current instruction is RCL or RCR of memory.

    Unicorn changes CF before it stores the result; if the store then faults, the restart computes with a wrong
    CF. So such an instruction is refused at its load when its store would be.
    """
    va = words(s.env)[ENV_RIP]
    for _ in range(PREFIXES + 1):
        byte = code_byte(s, va)
        va += 1
        if not _is_prefix(byte):
            break
    if byte & 0xFC != 0xD0 and byte & 0xFE != 0xC0:
        return False
    modrm = code_byte(s, va)
    return modrm & 0xC0 != 0xC0 and (modrm >> 3) & 7 in (2, 3)


@native
def note_fetch(s: Any, va: Any, pa: Any) -> None:
    """Remember the last two pages that fetches brought: a block on both needs them, whatever the ITLB keeps."""
    s.fetched_1 = s.fetched_0
    s.fetched_pa_1 = s.fetched_pa_0
    s.fetched_0 = va | KNOWN
    s.fetched_pa_0 = pa


# --- code that must not be translated (see guard.py) -----------------------------------------------------------


@native
def _ram_byte(s: Any, pa: Any) -> Any:
    return (words(s.ram)[pa >> 3] >> ((pa & 7) << 3)) & 0xFF


@native
def _is_lock_dangerous(s: Any, pa: Any, end: Any) -> Any:
    """Whether the LOCK at `pa` belongs to a bit test of a register, or may, where `end` cuts its instruction."""
    pa += 1
    for _ in range(PREFIXES):
        if pa < end and _is_prefix(_ram_byte(s, pa)):
            pa += 1
    if pa < end and _ram_byte(s, pa) != 0x0F:
        return False
    if pa + 1 >= end:
        return True
    opcode = _ram_byte(s, pa + 1)
    if opcode != 0xBA and opcode & 0xE7 != 0xA3:
        return False
    return pa + 2 >= end or _ram_byte(s, pa + 2) >= (0xE0 if opcode == 0xBA else 0xC0)


@native
def _may_lose_room(s: Any, pa: Any, end: Any) -> Any:
    """Whether an opcode that begins at `pa` may be one that Unicorn loses room by (`guard.py`)."""
    byte = _ram_byte(s, pa)
    if byte == 0x0F and pa + 1 < end:
        return _ram_byte(s, pa + 1) in (0x38, 0x3A, 0x70, 0xB4, 0xB5, 0xC6)
    return byte & 0xF8 == 0xD8 or byte == 0x8E


@native
def _is_dangerous(s: Any, pa: Any) -> Any:
    """Search the frame at `pa`."""
    found = False
    crowd = 0
    for at in range(pa, pa + 4096):
        if at & 511 == 0:
            crowd = 0
        if _ram_byte(s, at) == LOCK and _is_lock_dangerous(s, at, pa + 4096):
            found = True
        if _may_lose_room(s, at, pa + 4096):
            crowd += 1
            found = found or crowd > CROWD
    return found


@native
def _is_guarded(s: Any, va: Any, pa: Any) -> Any:
    """Whether everything dangerous on a page is guarded: it was once, and the page has not changed.

    A store to the block that it is in needs this: Unicorn translates the store anew, alone, before it happens.
    """
    for slot in range(2):
        if s.guarded[slot] == va | KNOWN:
            now, then = words(s.ram + pa), words(s.guarded_code + 4096 * slot)
            same = True
            for index in range(512):
                if now[index] != then[index]:
                    same = False
            if same:
                return True
    return False


@native
def may_translate(s: Any, va: Any, pa: Any) -> Any:
    """Whether Unicorn may see the code of a page: nothing on it is dangerous, or all of that is guarded."""
    flags = words(s.frame_flags)
    if flags[pa >> 12] & WRITABLE:
        flags[pa >> 12] &= ~(WRITABLE | SCANNED)
        flush_soft_tlb(s)
    if not flags[pa >> 12] & SCANNED:
        found = DANGEROUS if _is_dangerous(s, pa) else 0
        flags[pa >> 12] = (flags[pa >> 12] & ~DANGEROUS) | found | SCANNED
    return not flags[pa >> 12] & DANGEROUS or _is_guarded(s, va, pa)


@native
def let_write(s: Any, pa: Any) -> None:
    """The guest may write a frame from now on, so what was known about its code is not."""
    flags = words(s.frame_flags)
    if flags[pa >> 12] & SCANNED:
        flags[pa >> 12] &= ~SCANNED
        flush_soft_tlb(s)
    flags[pa >> 12] |= WRITTEN | WRITABLE
