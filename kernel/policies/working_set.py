"""WSClock: the working set, found by a clock hand (Carr and Hennessy, SOSP 1981)."""

from __future__ import annotations

from typing import Final

from .policy import PageBits, ReplacementPolicy, policy

__all__ = ["WsClock"]


@policy("wsclock")
class WsClock(ReplacementPolicy):
    """A page that was not used for `WINDOW` ticks is outside the working set, and the first clean one of those goes.

    Dirty ones would have to be written first, so they go only if the hand finds no clean one in a round. If all pages
    are in the working set, the one that was not used for longest goes.
    """

    WINDOW: Final = 4

    def __init__(self, bits: PageBits, seed: int = 1) -> None:
        super().__init__(bits, seed)
        self._last_use: dict[int, int] = {}  # in the order of the clock
        self._now = 0
        self._found: list[int] = []  # in the last round, the next victim last

    def added(self, page: int) -> None:
        """Behind the hand."""
        self._last_use[page] = self._now

    def removed(self, page: int) -> None:
        """Gone."""
        del self._last_use[page]

    def tick(self) -> None:
        """Virtual time passes."""
        self._now += 1
        self._found.clear()

    def refused(self, page: int) -> None:
        """Behind the hand, with the age that it has."""
        self._last_use[page] = self._last_use.pop(page)

    def victim(self) -> int:
        """What a round of the hand found serves until the next tick, as far as it is not used meanwhile."""
        while True:
            while self._found:
                page = self._found.pop()
                if page in self._last_use and not self._is_used(page):
                    return page
            self._found = self._round()
            self._found.reverse()

    def _is_used(self, page: int) -> bool:
        used = self.bits.referenced(page)
        if used:
            self._last_use[page] = self._now
        return used

    def _round(self) -> list[int]:
        """Clean pages outside the working set, else the dirty ones, else all by their last use."""
        clean: list[int] = []
        dirty: list[int] = []
        used = self.bits.used(self._last_use)
        for page, last_use in self._last_use.items():
            if page in used:
                self._last_use[page] = self._now
            elif self._now - last_use > self.WINDOW:
                (dirty if self.bits.dirty(page) else clean).append(page)
        return clean or dirty or sorted(self._last_use, key=self._last_use.__getitem__)
