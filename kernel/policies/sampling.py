"""Policies that look at all reference bits from time to time, and so learn how recently or how often pages are used."""

from __future__ import annotations

from typing import Final

from .policy import PageBits, ReplacementPolicy, policy

__all__ = ["Aging", "Lru", "Nru"]


@policy("nru")
class Nru(ReplacementPolicy):
    """Not recently used: four classes, by the A bit of this period and by D; any page of the lowest class goes.

    Clean pages go before dirty ones, because they need not be written.
    """

    def __init__(self, bits: PageBits, seed: int = 1) -> None:
        super().__init__(bits, seed)
        self._used: dict[int, bool] = {}  # in this period, as far as it was seen
        self._lowest: list[int] = []  # the lowest class as it was when it was looked at last

    def added(self, page: int) -> None:
        """It was just used."""
        self._used[page] = True

    def removed(self, page: int) -> None:
        """Gone."""
        del self._used[page]

    def refused(self, page: int) -> None:
        """It stays in its class, but is not asked again until the classes are made anew."""

    def tick(self) -> None:
        """A new period: nothing was used in it yet."""
        used = self.bits.used(self._used)
        for page in self._used:
            self._used[page] = page in used

    def victim(self) -> int:
        """One of the lowest class. When the class has no page left, all pages are looked at again."""
        while self._lowest:
            page = self._lowest.pop()
            if page in self._used:
                return page
        self._lowest = self._classify()
        return self._lowest.pop()

    def _classify(self) -> list[int]:
        """The lowest class, shuffled: unused and clean, unused and dirty, used and clean, or used and dirty."""
        classes: list[list[int]] = [[], [], [], []]
        used = self.bits.used(self._used)
        for page in self._used:
            self._used[page] |= page in used
            classes[2 * self._used[page] + self.bits.dirty(page)].append(page)
        lowest = next(pages for pages in classes if pages)
        if lowest is classes[2] or lowest is classes[3]:
            self._used = dict.fromkeys(self._used, False)  # a period in which all were used says nothing
        self.random.shuffle(lowest)
        return lowest


@policy("aging")
class Aging(ReplacementPolicy):
    """LRU in eight bits: every tick shifts each page's counter right, and puts its A bit on the left."""

    TOP: Final = 1 << 7

    def __init__(self, bits: PageBits, seed: int = 1) -> None:
        super().__init__(bits, seed)
        self._age: dict[int, int] = {}
        self._of_age: dict[int, dict[int, None]] = {}

    def added(self, page: int) -> None:
        """It was just used."""
        self._put(page, self.TOP)

    def _put(self, page: int, age: int) -> None:
        self._age[page] = age
        self._of_age.setdefault(age, {})[page] = None

    def removed(self, page: int) -> None:
        """Gone."""
        age = self._age.pop(page)
        del self._of_age[age][page]
        if not self._of_age[age]:
            del self._of_age[age]

    def tick(self) -> None:
        """Half of what was, and this period on top."""
        used = self.bits.used(self._age)
        self._of_age.clear()
        for page, age in self._age.items():
            self._put(page, age >> 1 | (self.TOP if page in used else 0))

    def victim(self) -> int:
        """The lowest counter; among equals who came first."""
        return next(iter(self._of_age[min(self._of_age)]))


@policy("lru")
class Lru(ReplacementPolicy):
    """Least recently used, exactly, where every access is seen; elsewhere as exact as reference bits are.

    The bits are sampled when a victim is wanted. Pages that were used between two samples are known to be younger than
    those that were not, but among each other they stay in the order that they had.
    """

    sees_accesses = True

    def __init__(self, bits: PageBits, seed: int = 1) -> None:
        super().__init__(bits, seed)
        self._order: dict[int, None] = {}
        self._sampled = False

    def added(self, page: int) -> None:
        """The youngest."""
        self._order[page] = None
        self._sampled = False

    def removed(self, page: int) -> None:
        """Gone."""
        del self._order[page]

    def accessed(self, page: int) -> None:
        """The youngest again."""
        if page in self._order:
            del self._order[page]
            self._order[page] = None

    def victim(self) -> int:
        """The oldest. One sample serves for all victims of one search for memory."""
        if not self._sampled:
            self._sampled = True
            used = self.bits.used(self._order)
            for page in [page for page in self._order if page in used]:
                self.accessed(page)
        return next(iter(self._order))
