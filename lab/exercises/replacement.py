"""Choose who gives way.

Memory is short, and one page must go to the swap device: "but which one to swap-out?" Write a replacement policy that
gives pages a second chance, as a class:

    class SecondChance(ReplacementPolicy)
        added(page)       the page is in memory from now on; it was just used
        removed(page)     the page is gone
        victim()          -> the page that shall go; it stays until removed() is called

Pages go in the order in which they came, like a queue. But a page at the head of the queue that was used since it was
looked at last goes to the end of the queue instead. `self.bits.referenced(page)` tells whether it was used: it reads
the A bit of the page's entry, and clears it.

Yours can then be used for real: cr3 run PROGRAM --swap 64M --swap-policy 06_replacement.py:SecondChance
"""

from __future__ import annotations

import random
from typing import Any, Final

from kernel.policies import ReplacementPolicy, find_policy

from ..policies import ReplayBits
from .exercise import Exercise, Solution, Wrong

__all__ = ["EXERCISE"]

EXERCISE: Final = Exercise(6, "replacement", "Choose who gives way", __doc__)
NAME: Final = "SecondChance"
SEED: Final = 2


class Memory:
    """A few frames, and a policy that says who has them."""

    def __init__(self, policy: type[ReplacementPolicy], frames: int) -> None:
        self._bits, self._frames = ReplayBits(), frames
        self._policy = policy(self._bits)
        self._pages: set[int] = set()
        self.faults = 0

    def use(self, page: int) -> int | None:
        """Use a page; the one that had to go for it, if any."""
        gone = None
        if page not in self._pages:
            self.faults += 1
            if len(self._pages) == self._frames:
                gone = self.evict()
            self._pages.add(page)
            self._policy.added(page)
        else:
            self._bits.young.add(page)
        return gone

    def evict(self) -> int:
        """Ask for a victim, and take it out."""
        victim = self._policy.victim()
        if victim not in self._pages:
            raise Wrong(f"victim() named page {victim!r}, but in memory are {sorted(self._pages)}")
        self.drop(victim)
        return int(victim)

    def drop(self, page: int) -> None:
        """A page is gone."""
        self._pages.remove(page)
        self._policy.removed(page)


def _theirs(solution: Solution) -> type[ReplacementPolicy]:
    """The student's class."""
    cls: Any = solution.get(NAME)
    if not (isinstance(cls, type) and issubclass(cls, ReplacementPolicy)):
        raise Wrong(f"{NAME} is no class that inherits from ReplacementPolicy")
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise Wrong(f"{NAME} does not have {', '.join(missing)} yet")
    return cls


def _faults(policy: type[ReplacementPolicy], pages: list[int], frames: int) -> int:
    memory = Memory(policy, frames)
    for page in pages:
        memory.use(page)
    return memory.faults


def _gone(memory: Memory, page: int, expected: int, about: str) -> None:
    gone = memory.use(page)
    if gone != expected:
        raise Wrong(f"{about}: page {gone} had to go, expected page {expected}")


@EXERCISE.check("who was never used again goes in the order of arrival")
def arrival(solution: Solution) -> None:
    memory = Memory(_theirs(solution), 3)
    for page in (1, 2, 3):
        memory.use(page)
    for page, expected in ((4, 1), (5, 2), (6, 3)):
        _gone(memory, page, expected, "pages came in order, and none was used a second time")


@EXERCISE.check("who was used again stays")
def second_chance(solution: Solution) -> None:
    memory = Memory(_theirs(solution), 3)
    for page in (1, 2, 3, 1):
        memory.use(page)
    _gone(memory, 4, 2, "1, 2 and 3 came, then 1 was used again, then 4 wanted a frame")


@EXERCISE.check("but only for one more round")
def one_round(solution: Solution) -> None:
    memory = Memory(_theirs(solution), 3)
    for page in (1, 2, 3, 1, 4):
        memory.use(page)
    _gone(memory, 5, 3, "1, 2, 3, 1 again, 4: now the queue is 3, 1, 4, and 5 wants a frame")
    _gone(memory, 6, 1, "page 1 had its second chance, and was not used since")


@EXERCISE.check("if all were used, the first one goes")
def all_used(solution: Solution) -> None:
    memory = Memory(_theirs(solution), 3)
    for page in (1, 2, 3, 3, 2, 1):
        memory.use(page)
    _gone(memory, 4, 1, "1, 2 and 3 came and all were used again, then 4 wanted a frame")


@EXERCISE.check("a page that goes by itself is forgotten")
def unmapped(solution: Solution) -> None:
    memory = Memory(_theirs(solution), 3)
    for page in (1, 2, 3):
        memory.use(page)
    memory.drop(1)
    memory.use(4)
    _gone(memory, 5, 2, "1, 2 and 3 came, the program unmapped 1, then came 4 and 5")


@EXERCISE.check("on a long run it has as many faults as cr3's own clock")
def like_clock(solution: Solution) -> None:
    draw = random.Random(SEED)
    pages = [int(draw.paretovariate(0.7)) % 60 for _ in range(4000)]
    faults, clock, fifo = (
        _faults(one, pages, 20) for one in (_theirs(solution), find_policy("clock"), find_policy("fifo"))
    )
    if faults != clock:
        raise Wrong(f"4,000 uses of 60 pages in 20 frames: {faults} faults; clock has {clock}, FIFO {fifo}")
