"""Walk the page tables.

The lecture's `walk_pmd` and its three sisters, as one function:

    walk(load64, cr3, va, write, user) -> physical address, or raise PageFault(error_code)

`load64(pa)` reads one entry of 8 bytes from memory, and is the only way to see it. `write` says that the access is a
store, `user` that it comes from user mode. Every level has to permit the access: W for stores, U for user mode (as if
CR0.WP were set). An entry with PS on the second or third level maps a page of 2 MiB or 1 GiB. A page fault carries an
error code: bit 0 if a present entry forbade the access, bit 1 for a store, bit 2 for user mode. A and D bits are not
asked for, nor is NX.

The stub defines PageFault. Your answers are compared with those of cr3's own memory hardware.
"""

from __future__ import annotations

import random
from typing import Any, Final

from emu import Machine, Pte
from emu.exceptions import ProcessorException
from emu.pte import Access

from .exercise import Exercise, Solution, Wrong

__all__ = ["EXERCISE"]

EXERCISE: Final = Exercise(2, "page_walk", "Walk the page tables", __doc__)
TABLES: Final = (0x1000, 0x2000, 0x3000, 0x4000)
"""PGD, PUD, PMD and page table."""
LEVELS: Final = ("PGD", "PUD", "PMD", "PTE")
INDICES: Final = (1, 2, 3, 4)
VA: Final = 1 << 39 | 2 << 30 | 3 << 21 | 4 << 12 | 0x5A8
ALL: Final = int(Pte.P | Pte.W | Pte.U)
SEED: Final = 4


class Bench:
    """A machine with one path through four tables, and a student's walker beside it."""

    def __init__(self, solution: Solution) -> None:
        self._solution = solution
        self.machine = Machine(ram="16M", tlb=False)
        self.loads: list[int] = []
        self.entries: list[int] = []
        self.reset()

    def reset(self) -> None:
        """A page of 4 KiB, and every right."""
        self.entries = [*(table | ALL for table in TABLES[1:]), 0x6000 | ALL]

    def _load64(self, pa: int) -> int:
        if not isinstance(pa, int) or pa % 8 or not 0 <= pa < self.machine.ram.size:
            shown = hex(pa) if isinstance(pa, int) else repr(pa)
            raise Wrong(
                f"load64({shown}): no entry lies there. Which bits of CR3 or of an entry are the address of the next "
                "table, and how large is an entry?"
            )
        self.loads.append(pa)
        return self.machine.ram.load64(pa)

    def expected(self, write: bool, user: bool) -> int | str:
        """What the hardware says: a physical address, or the error code in words."""
        for table, index, entry in zip(TABLES, INDICES, self.entries, strict=True):
            self.machine.ram.store64(table + 8 * index, entry)
        self.machine.write_cr3(TABLES[0])
        self.machine.set_cpl(3 if user else 0)
        try:
            return self.machine.mmu.translate(VA, Access.WRITE if write else Access.READ)
        except ProcessorException as fault:
            return f"page fault with error code {fault.error_code}"

    def answer(self, write: bool, user: bool) -> int | str:
        """What the student's walker says."""
        page_fault = self._solution.get("PageFault")
        self.loads.clear()
        try:
            return self._solution.call("walk", self._load64, TABLES[0] | 0x18, VA, write, user)  # type: ignore[no-any-return]
        except page_fault as fault:
            code = fault.args[0] if fault.args else None
            return f"page fault with error code {code}"

    def compare(self, about: str, *, write: bool = False, user: bool = True) -> None:
        """Raise Wrong if they differ."""
        expected, answer = self.expected(write, user), self.answer(write, user)
        if answer != expected:
            access = f"a {'store' if write else 'load'} from {'user' if user else 'kernel'} mode"
            raise Wrong(f"{about}: {access} gave {_shown(answer)}, the processor says {_shown(expected)}")


def _shown(answer: Any) -> str:
    return f"the physical address {answer:#x}" if isinstance(answer, int) else str(answer)


def _flags(entry: int) -> str:
    return " ".join(flag.name or "" for flag in (Pte.P, Pte.W, Pte.U, Pte.PS) if entry & flag) or "no flags"


@EXERCISE.check("a page of 4 KiB is found, with one load for each level")
def small_page(solution: Solution) -> None:
    bench = Bench(solution)
    bench.compare("all four entries permit everything")
    if len(bench.loads) != len(TABLES):
        raise Wrong(f"the walk read {len(bench.loads)} entries; there are four levels")


@EXERCISE.check("an entry that is not present ends the walk")
def not_present(solution: Solution) -> None:
    bench = Bench(solution)
    for level, name in enumerate(LEVELS):
        bench.reset()
        bench.entries[level] &= ~int(Pte.P)
        bench.compare(f"the {name} is not present")
        bench.compare(f"the {name} is not present", write=True, user=False)


@EXERCISE.check("every level must permit the access")
def rights(solution: Solution) -> None:
    bench = Bench(solution)
    for level, name in enumerate(LEVELS):
        for flag in (Pte.U, Pte.W):
            bench.reset()
            bench.entries[level] &= ~int(flag)
            for write, user in ((False, True), (True, True), (False, False), (True, False)):
                bench.compare(f"only the {name} lacks {flag.name}", write=write, user=user)


@EXERCISE.check("PS makes a large page")
def large_pages(solution: Solution) -> None:
    bench = Bench(solution)
    for level, frame in ((2, 0x20_0000), (1, 0)):
        bench.reset()
        bench.entries[level] = frame | ALL | Pte.PS
        bench.compare(f"the {LEVELS[level]} has PS set")
        if len(bench.loads) != level + 1:
            raise Wrong(f"the {LEVELS[level]} has PS set, and still the walk read {len(bench.loads)} entries")
    bench.reset()
    bench.entries[3] |= Pte.PS
    bench.compare("bit 7 is set in a PTE, where it is not PS (it is PAT there)")


@EXERCISE.check("random entries agree with the processor")
def random_entries(solution: Solution) -> None:
    bench, draw = Bench(solution), random.Random(SEED)
    for _ in range(300):
        bench.reset()
        for level in range(4):
            for flag in (Pte.P, Pte.W, Pte.U):
                if draw.random() < 0.12:
                    bench.entries[level] &= ~int(flag)
            bench.entries[level] |= draw.choice((0, 0, int(Pte.A | Pte.D), 0x7 << 9, 0x3FF << 52))
        shown = ", ".join(f"{name} {_flags(entry)}" for name, entry in zip(LEVELS, bench.entries, strict=True))
        bench.compare(shown, write=draw.random() < 0.5, user=draw.random() < 0.5)
