"""A TLB as a textbook draws it: sets of ways, and a rule for which way makes room. No page tables, no rights.

>>> from emu.profile import TlbGeometry
>>> tlb = PlainTlb(TlbGeometry(sizes=("4K",), entries=2, ways="full", hash="linear"), "lru")
>>> [tlb.access(page) for page in (1, 2, 1, 3, 1, 2)]
[False, False, True, False, True, False]
>>> tlb.evictions
2
"""

from __future__ import annotations

from emu.profile import TlbGeometry

__all__ = ["PlainTlb"]


class PlainTlb:
    """One array under "fifo", "lru" or "plru". A page is a page number."""

    def __init__(self, geometry: TlbGeometry, policy: str) -> None:
        self._geometry = geometry
        self._sets = [_SETS[policy](geometry.associativity) for _ in range(geometry.sets)]
        self.evictions = 0

    def access(self, page: int) -> bool:
        """Look a page up and bring it in if it is not there. Says whether it was."""
        chosen = self._sets[self._geometry.set_of(page)]
        if page in chosen.ways:
            chosen.use(chosen.ways.index(page))
            return True
        way = chosen.ways.index(None) if None in chosen.ways else chosen.victim()
        self.evictions += chosen.ways[way] is not None
        chosen.ways[way] = page
        chosen.bring(way)
        return False

    def drop(self, page: int) -> None:
        """Invalidate one page."""
        ways = self._sets[self._geometry.set_of(page)].ways
        if page in ways:
            ways[ways.index(page)] = None

    def __contains__(self, page: int) -> bool:
        return page in self._sets[self._geometry.set_of(page)].ways


class Fifo:
    """First in, first out: hits change nothing."""

    def __init__(self, ways: int) -> None:
        self.ways: list[int | None] = [None] * ways
        self._queue: list[int] = []

    def use(self, way: int) -> None:
        pass

    def bring(self, way: int) -> None:
        self._queue = [other for other in self._queue if other != way] + [way]

    def victim(self) -> int:
        return self._queue[0]


class Lru(Fifo):
    """Least recently used: a hit counts like an arrival."""

    def use(self, way: int) -> None:
        self.bring(way)


class TreePlru(Fifo):
    """A binary tree over the ways, each node pointing at a half. A use turns the nodes above it away from it.

    With a number of ways that is no power of two, the tree is that of the next one; a half without any way is
    never entered.
    """

    def __init__(self, ways: int) -> None:
        super().__init__(ways)
        self._points_right: dict[tuple[int, int], bool] = {}

    def _halves(self) -> int:
        return (1 << (len(self.ways) - 1).bit_length()) // 2

    def use(self, way: int) -> None:
        low, half = 0, self._halves()
        while half:
            right = way >= low + half
            self._points_right[low, half] = not right
            low, half = low + half * right, half // 2

    def bring(self, way: int) -> None:
        self.use(way)

    def victim(self) -> int:
        low, half = 0, self._halves()
        while half:
            right = self._points_right.get((low, half), False) and low + half < len(self.ways)
            low, half = low + half * right, half // 2
        return low


_SETS: dict[str, type[Fifo]] = {"fifo": Fifo, "lru": Lru, "plru": TreePlru}
