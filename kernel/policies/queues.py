"""Policies of one queue: first in first out, a throw of dice, and the second chance.

A dict is a queue here: it keeps its order, and a page can be taken out of the middle.
"""

from __future__ import annotations

from .policy import PageBits, ReplacementPolicy, policy

__all__ = ["Clock", "Fifo", "Random"]


@policy("fifo")
class Fifo(ReplacementPolicy):
    """Who came first goes first, however much it is used. More memory can mean more faults (Belady, 1969)."""

    def __init__(self, bits: PageBits, seed: int = 1) -> None:
        super().__init__(bits, seed)
        self._queue: dict[int, None] = {}

    def added(self, page: int) -> None:
        """To the end of the queue."""
        self._queue[page] = None

    def removed(self, page: int) -> None:
        """Out of the queue."""
        del self._queue[page]

    def victim(self) -> int:
        """The first."""
        return next(iter(self._queue))


@policy("random")
class Random(ReplacementPolicy):
    """Any page. Needs no bits and no order, and no pattern of a program is its worst case."""

    def __init__(self, bits: PageBits, seed: int = 1) -> None:
        super().__init__(bits, seed)
        self._pages: list[int] = []
        self._index: dict[int, int] = {}

    def added(self, page: int) -> None:
        """One more side of the dice."""
        self._index[page] = len(self._pages)
        self._pages.append(page)

    def removed(self, page: int) -> None:
        """The last one takes its place."""
        last, place = self._pages.pop(), self._index.pop(page)
        if last != page:
            self._pages[place], self._index[last] = last, place

    def victim(self) -> int:
        """A throw of the dice."""
        return self._pages[self.random.randrange(len(self._pages))]


@policy("clock")
class Clock(Fifo):
    """Second chance: FIFO, but a page that was used since the hand came by last stays for another round."""

    def victim(self) -> int:
        """The first that was not used. If all were, that is the first one of the round."""
        while True:
            page = next(iter(self._queue))
            if not self.bits.referenced(page):
                return page
            del self._queue[page]
            self._queue[page] = None
