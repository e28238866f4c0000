"""Build a TLB.

A set-associative TLB with process-context identifiers, as a class:

    Tlb(sets, ways)
        lookup(pcid, page) -> frame number, or None on a miss
        insert(pcid, page, frame, is_global=False)
        flush_page(pcid, page)     INVLPG: one page of this PCID, and a global one
        flush(pcid)                MOV to CR3: all of this PCID, but nothing global

`page` is the number of a page. It belongs to the set `page % sets`. A set that is full gives up the entry that was
inserted first. Inserting a page that is there replaces its frame, and nothing else goes. An entry with `is_global`
is found with every PCID.

The last check runs the same pages through cr3's own data TLB and compares misses.
"""

from __future__ import annotations

import random
from typing import Any, Final

from emu import Machine, Pte
from emu.profile import TlbGeometry, load_profile

from .exercise import Exercise, Solution, Wrong

__all__ = ["EXERCISE"]

EXERCISE: Final = Exercise(3, "tlb", "Build a TLB", __doc__)
SEED: Final = 64


def _same(what: str, answer: Any, expected: Any) -> None:
    if answer != expected:
        raise Wrong(f"{what}: lookup returned {answer!r}, expected {expected!r}")


@EXERCISE.check("what was inserted is found, and nothing else")
def found(solution: Solution) -> None:
    tlb = solution.call("Tlb", 4, 2)
    _same("an empty TLB", tlb.lookup(1, 0x100), None)
    tlb.insert(1, 0x100, 0x200007)
    _same("page 0x100 of PCID 1 was inserted", tlb.lookup(1, 0x100), 0x200007)
    _same("page 0x104, of the same set, was not inserted", tlb.lookup(1, 0x104), None)
    tlb.insert(1, 0x100, 0x205007)
    _same("page 0x100 was inserted again, with another frame", tlb.lookup(1, 0x100), 0x205007)
    tlb.insert(1, 0x101, 0)
    _same("page 0x101 was inserted, and frame 0 is a frame, too", tlb.lookup(1, 0x101), 0)


@EXERCISE.check("a full set gives up its oldest entry, and only that set does")
def oldest(solution: Solution) -> None:
    tlb = solution.call("Tlb", 4, 2)
    for page in (0, 4, 1):
        tlb.insert(1, page, page + 100)
    tlb.lookup(1, 0)
    tlb.insert(1, 0, 100)
    tlb.insert(1, 8, 108)
    _same(
        "pages 0, 4 and 8 share a set of two ways, and 0 was the first (a lookup changes no order)",
        tlb.lookup(1, 0),
        None,
    )
    _same("page 4 came after page 0", tlb.lookup(1, 4), 104)
    _same("page 8 is the newest", tlb.lookup(1, 8), 108)
    _same("page 1 belongs to another set", tlb.lookup(1, 1), 101)


@EXERCISE.check("process B does not find what A inserted")
def sharing(solution: Solution) -> None:
    tlb = solution.call("Tlb", 4, 2)
    tlb.insert(1, 0x100, 0x200007)
    _same("page 0x100 was inserted with PCID 1 and looked up with PCID 2", tlb.lookup(2, 0x100), None)
    tlb.insert(2, 0x100, 0x301007)
    _same("both processes have their own page 0x100; this is A's", tlb.lookup(1, 0x100), 0x200007)
    _same("both processes have their own page 0x100; this is B's", tlb.lookup(2, 0x100), 0x301007)


@EXERCISE.check("the kernel's global pages are found by all")
def global_pages(solution: Solution) -> None:
    tlb = solution.call("Tlb", 4, 2)
    tlb.insert(1, 0x100, 7, True)
    _same("a global page was inserted with PCID 1 and looked up with PCID 2", tlb.lookup(2, 0x100), 7)


@EXERCISE.check("each flush drops what it must, and no more")
def flushes(solution: Solution) -> None:
    tlb = solution.call("Tlb", 4, 4)
    for pcid in (1, 2):
        tlb.insert(pcid, 0x100, pcid)
        tlb.insert(pcid, 0x101, 10 + pcid)
    tlb.insert(1, 0x102, 7, True)
    tlb.flush_page(1, 0x100)
    _same("flush_page(1, 0x100), then page 0x100 of PCID 1", tlb.lookup(1, 0x100), None)
    _same("flush_page(1, 0x100), then page 0x100 of PCID 2", tlb.lookup(2, 0x100), 2)
    _same("flush_page(1, 0x100), then page 0x101 of PCID 1", tlb.lookup(1, 0x101), 11)
    tlb.flush(1)
    _same("flush(1), then page 0x101 of PCID 1", tlb.lookup(1, 0x101), None)
    _same("flush(1), then page 0x101 of PCID 2", tlb.lookup(2, 0x101), 12)
    _same("flush(1), then the global page 0x102", tlb.lookup(2, 0x102), 7)
    tlb.flush_page(2, 0x102)
    _same("flush_page(2, 0x102), which was global", tlb.lookup(1, 0x102), None)
    tlb.flush_page(2, 0x300)


@EXERCISE.check("a flushed way is used again before anything else goes")
def free_ways(solution: Solution) -> None:
    tlb = solution.call("Tlb", 1, 2)
    for page in (1, 2):
        tlb.insert(1, page, page)
    tlb.flush_page(1, 2)
    tlb.insert(1, 3, 3)
    _same("the set had a free way, so page 1 need not go", tlb.lookup(1, 1), 1)


@EXERCISE.check("misses agree with the processor's data TLB")
def like_the_processor(solution: Solution) -> None:
    geometry = next(tlb for tlb in load_profile("skylake").tlb.dtlb if "4K" in tlb.sizes)
    pages = _pages(geometry)
    tlb = solution.call("Tlb", geometry.sets, geometry.associativity)
    missed = 0
    for page in pages:
        if tlb.lookup(0, page) is None:
            missed += 1
            tlb.insert(0, page, page)
    expected = _misses_of_the_machine(pages)
    if missed != expected:
        raise Wrong(
            f"{len(pages)} accesses to 128 pages: your TLB missed {missed} times, the processor's {expected} times"
        )


def _pages(geometry: TlbGeometry) -> list[int]:
    """Pages to use: twice as many as fit, some more often than others."""
    draw = random.Random(SEED)
    return [int(draw.betavariate(1, 2) * 2 * geometry.entries) for _ in range(4000)]


def _misses_of_the_machine(pages: list[int]) -> int:
    """The same accesses on a machine, whose page table maps 512 pages to themselves."""
    machine = Machine(cpu="skylake", ram="4M", tlb_policy="fifo")
    rights = Pte.P | Pte.W | Pte.U
    for table in (0x1000, 0x2000, 0x3000):
        machine.ram.store64(table, table + 0x1000 | rights)
    for page in range(512):
        machine.ram.store64(0x4000 + 8 * page, page << 12 | rights)
    machine.write_cr3(0x1000)
    for page in pages:
        machine.mmu.translate(page << 12)
    return int(machine.state.misses[1])
