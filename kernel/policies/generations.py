"""What Linux does: two lists, and their successor with several generations (mm/vmscan.c)."""

from __future__ import annotations

from typing import Final

from .policy import PageBits, ReplacementPolicy, policy

__all__ = ["ActiveInactive", "Mglru"]


@policy("active_inactive")
class ActiveInactive(ReplacementPolicy):
    """Two lists: a page must be used twice to become active, so that one long scan does not drive out all others.

    New pages are inactive. The tail of the inactive list is looked at: a page that was not used goes; used once, it
    stays; used again, it becomes active (folio_check_references). The active list gives pages back, whether they were
    used or not, when it is longer than the inactive one (inactive_is_low: below 1 GiB the ratio is 1).
    """

    def __init__(self, bits: PageBits, seed: int = 1) -> None:
        super().__init__(bits, seed)
        self._inactive: dict[int, bool] = {}  # whether it was used once already (PG_referenced)
        self._active: dict[int, None] = {}

    def added(self, page: int) -> None:
        """To the head of the inactive list."""
        self._inactive[page] = False

    def removed(self, page: int) -> None:
        """From whichever list."""
        if page in self._active:
            del self._active[page]
        else:
            del self._inactive[page]

    def _balance(self) -> None:
        """Pages from the tail of the active list to the head of the other one (shrink_active_list)."""
        while len(self._active) > len(self._inactive):
            page = next(iter(self._active))
            del self._active[page]
            self.bits.referenced(page)
            self._inactive[page] = False

    def victim(self) -> int:
        """From the tail of the inactive list (shrink_inactive_list)."""
        while True:
            self._balance()
            page, was_used = next(iter(self._inactive.items()))
            if not self.bits.referenced(page):
                return page
            del self._inactive[page]
            if was_used:
                self._active[page] = None
            else:
                self._inactive[page] = True

    def cold(self, page: int) -> None:
        """To the tail of the inactive list (deactivate_page)."""
        self.removed(page)
        self._inactive = {page: False, **self._inactive}


@policy("mglru")
class Mglru(ReplacementPolicy):
    """Multi-generational LRU: pages lie in up to four generations, and the oldest one is evicted.

    Aging makes a new youngest generation and takes into it whatever was used since, wherever it lies. Eviction takes
    pages from the oldest; one that turns out to be used goes to the youngest (Documentation/mm/multigen_lru.rst).
    """

    MOST: Final = 4
    """MAX_NR_GENS."""
    LEAST: Final = 2
    """MIN_NR_GENS: with fewer, aging comes first."""

    def __init__(self, bits: PageBits, seed: int = 1) -> None:
        super().__init__(bits, seed)
        self._generations: list[dict[int, None]] = [{}]  # the oldest first
        self._of: dict[int, dict[int, None]] = {}

    def added(self, page: int) -> None:
        """To the youngest generation: it was just faulted in."""
        self._put(page, self._generations[-1])

    def _put(self, page: int, generation: dict[int, None]) -> None:
        if page in self._of:
            del self._of[page][page]
        generation[page] = None
        self._of[page] = generation

    def removed(self, page: int) -> None:
        """Gone."""
        del self._of.pop(page)[page]

    def _age(self) -> None:
        """A new generation, with all pages that were used (inc_max_seq after a walk of the page tables)."""
        if len(self._generations) == self.MOST:
            oldest = self._generations.pop(0)
            for page in list(oldest):
                self._put(page, self._generations[0])
        youngest: dict[int, None] = {}
        self._generations.append(youngest)
        used = self.bits.used(self._of)
        for page in [page for page in self._of if page in used]:
            self._put(page, youngest)

    def tick(self) -> None:
        """Time to age."""
        self._age()

    def victim(self) -> int:
        """From the oldest generation that has any page left."""
        while True:
            while len(self._generations) > 1 and not self._generations[0]:
                self._generations.pop(0)
            if len(self._generations) < self.LEAST:
                self._age()
                continue_with = next(generation for generation in self._generations if generation)
            else:
                continue_with = self._generations[0]
            page = next(iter(continue_with))
            if not self.bits.referenced(page):
                return page
            self._put(page, self._generations[-1])

    def cold(self, page: int) -> None:
        """To the oldest generation."""
        self._put(page, self._generations[0])
