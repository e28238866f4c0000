"""Share the TLB between processes.

The lecture's third answer to "what happens when process B is scheduled?" is to tag TLB entries with an address-space
identifier. There are many processes, and few identifiers: Linux uses six, 0 to 5. Write

    class Asids:
        switch(mm, generation) -> (asid, flush)

which is called at each switch. `mm` is a number that names the address space, and is never used again for another
one. `generation` grows whenever page-table entries of that address space were taken away or restricted while it was
not running on an up-to-date TLB. `flush` says whether everything that the TLB holds under this identifier must go
first. Flush as seldom as can be: a process that comes back within six switches of process shall find its entries.
When all six are in use, the one that was given out longest ago is taken.
"""

from __future__ import annotations

import random
from typing import Any, Final

from .exercise import Exercise, Solution, Wrong

__all__ = ["EXERCISE"]

EXERCISE: Final = Exercise(4, "sharing", "Share the TLB between processes", __doc__)
ASIDS: Final = 6
SEED: Final = 6


class Tagged:
    """What a TLB would hold under each identifier: whose entries, and how old they are."""

    def __init__(self, solution: Solution) -> None:
        self._asids = solution.call("Asids")
        self._held: dict[int, tuple[int, int]] = {}
        self.flushes = 0

    def switch(self, mm: int, generation: int) -> tuple[int, bool]:
        """One process switch. Raises Wrong if the process would use what is not its own."""
        answer: Any = self._asids.switch(mm, generation)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise Wrong(f"switch({mm}, {generation}) returned {answer!r}: expected an identifier and whether to flush")
        asid, flush = answer
        if type(asid) is not int or not 0 <= asid < ASIDS:
            raise Wrong(f"switch({mm}, {generation}) chose identifier {asid!r}; there are 0 to {ASIDS - 1}")
        if not flush and asid in self._held:
            self._must_be_own(asid, mm, generation)
        self._held[asid] = (mm, generation)
        self.flushes += bool(flush)
        return asid, bool(flush)

    def _must_be_own(self, asid: int, mm: int, generation: int) -> None:
        owner, age = self._held[asid]
        if owner != mm:
            raise Wrong(
                f"address space {mm} got identifier {asid} without a flush, but the TLB still holds entries of address "
                f"space {owner} under it: wrong translations"
            )
        if age != generation:
            raise Wrong(
                f"address space {mm} came back to identifier {asid} without a flush, but its page table was changed in "
                f"between (generation {age}, now {generation}): old translations"
            )


@EXERCISE.check("no process uses the entries of another")
def not_others(solution: Solution) -> None:
    tlb, draw = Tagged(solution), random.Random(SEED)
    for _ in range(500):
        tlb.switch(draw.randrange(1, 20), 1)


@EXERCISE.check("no process uses entries that are out of date")
def not_outdated(solution: Solution) -> None:
    tlb, draw, generations = Tagged(solution), random.Random(SEED), [1] * 5
    for _ in range(500):
        mm = draw.randrange(5)
        generations[mm] += draw.random() < 0.2
        tlb.switch(mm, generations[mm])


@EXERCISE.check("six processes in turn flush once each")
def six(solution: Solution) -> None:
    tlb = Tagged(solution)
    for turn in range(10):
        for mm in range(1, 7):
            _, flush = tlb.switch(mm, 1)
            if flush and turn:
                raise Wrong(
                    f"six processes take turns, and there are six identifiers; but address space {mm} was flushed in "
                    f"round {turn + 1}, where nothing had changed"
                )


@EXERCISE.check("a process keeps its identifier when only its page table changed")
def same_identifier(solution: Solution) -> None:
    tlb = Tagged(solution)
    first, _ = tlb.switch(1, 1)
    tlb.switch(2, 1)
    again, flush = tlb.switch(1, 2)
    if again != first:
        raise Wrong(
            f"address space 1 had identifier {first}, came back with a newer page table, and got {again}: now its old "
            "entries take up room under one identifier, and somebody else's under the other had to go"
        )
    if not flush:
        raise Wrong("the page table of address space 1 was changed, and nothing was flushed")


@EXERCISE.check("identifiers are given out in turn")
def in_turn(solution: Solution) -> None:
    tlb = Tagged(solution)
    for mm in range(1, 7):
        tlb.switch(mm, 1)
    tlb.switch(7, 1)
    for mm in range(2, 7):
        if tlb.switch(mm, 1)[1]:
            raise Wrong(
                f"seven processes were started one after the other; when the seventh came, address space {mm} lost its "
                "identifier, although that of address space 1 was given out earlier"
            )


@EXERCISE.check("over a long run it flushes no more than Linux does")
def few_flushes(solution: Solution) -> None:
    tlb, draw = Tagged(solution), random.Random(SEED)
    slots: list[int | None] = [None] * ASIDS
    next_slot = expected = 0
    for _ in range(2000):
        mm = min(int(draw.expovariate(0.25)), 30)
        if mm not in slots:
            slots[next_slot], next_slot, expected = mm, (next_slot + 1) % ASIDS, expected + 1
        tlb.switch(mm, 1)
    if tlb.flushes > expected:
        raise Wrong(f"2,000 switches took {tlb.flushes} flushes; choose_new_asid of Linux needs {expected}")
