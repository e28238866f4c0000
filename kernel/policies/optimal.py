"""Belady's OPT: the page goes that is wanted again last. Nobody can know that; it shows what could be gained."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from .policy import PageBits, ReplacementPolicy, policy

__all__ = ["Optimal", "next_uses"]


def next_uses(references: Sequence[int]) -> list[int]:
    """For each reference the place of the next one to the same page; beyond the end if there is none.

    >>> next_uses([1, 2, 1])
    [2, 3, 3]
    """
    following = [len(references)] * len(references)
    seen: dict[int, int] = {}
    for place in range(len(references) - 1, -1, -1):
        following[place] = seen.get(references[place], len(references))
        seen[references[place]] = place
    return following


@policy("opt")
class Optimal(ReplacementPolicy):
    """Optimal, for a run that was recorded: `future` is asked before it starts."""

    sees_accesses = True
    knows_future = True

    def __init__(self, bits: PageBits, seed: int = 1) -> None:
        super().__init__(bits, seed)
        self._following: Sequence[int] = ()
        self._place = 0
        self._next: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []

    def future(self, following: Sequence[int]) -> None:
        """Learn the run that begins now, as `next_uses` of its references."""
        self._following = following

    def added(self, page: int) -> None:
        """It is known when it is wanted again."""
        self._note(page)

    def accessed(self, page: int) -> None:
        """The next reference of the run."""
        self._note(page)

    def _note(self, page: int) -> None:
        following = self._following[self._place]
        self._place += 1
        self._next[page] = following
        heappush(self._heap, (-following, page))

    def removed(self, page: int) -> None:
        """Gone."""
        del self._next[page]

    def victim(self) -> int:
        """The page that is wanted again last. What the heap knows of earlier references is out of date."""
        while self._next.get(self._heap[0][1]) != -self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][1]
