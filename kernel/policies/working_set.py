"""WSClock: the working set, found by a clock hand (Carr and Hennessy, SOSP 1981)."""

from __future__ import annotations

from typing import Final

from .policy import PageBits, ReplacementPolicy, policy

__all__ = ["WsClock"]


@policy("wsclock")
class WsClock(ReplacementPolicy):
    """A page that was not used for `WINDOW` ticks is outside the working set, and the first clean one of those goes.

    Dirty ones would have to be written first, so they go only if no clean one is found in a round. If all pages are in
    the working set, the one that was not used for longest goes.
    """

    WINDOW: Final = 4

    def __init__(self, bits: PageBits, seed: int = 1) -> None:
        super().__init__(bits, seed)
        self._last_use: dict[int, int] = {}  # in the order of the clock
        self._now = 0
        self._oldest: list[int] = []  # what a round without success left: the oldest last

    def added(self, page: int) -> None:
        """Behind the hand."""
        self._last_use[page] = self._now

    def removed(self, page: int) -> None:
        """Gone."""
        del self._last_use[page]

    def tick(self) -> None:
        """Virtual time passes."""
        self._now += 1
        self._oldest.clear()

    def refused(self, page: int) -> None:
        """Behind the hand, with the age that it has."""
        self._last_use[page] = self._last_use.pop(page)

    def victim(self) -> int:
        """One round of the hand at most. What it found out serves until the next tick."""
        while self._oldest:
            page = self._oldest.pop()
            if page in self._last_use:
                return page
        return self._round()

    def _round(self) -> int:
        outside: int | None = None
        for _ in range(len(self._last_use)):
            page, last_use = next(iter(self._last_use.items()))
            if self.bits.referenced(page):
                last_use = self._now
            elif self._now - last_use > self.WINDOW:
                if not self.bits.dirty(page):
                    return page
                outside = page if outside is None else outside
            del self._last_use[page]
            self._last_use[page] = last_use
        if outside is not None:
            return outside
        self._oldest = sorted(self._last_use, key=self._last_use.__getitem__, reverse=True)
        return self._oldest.pop()
