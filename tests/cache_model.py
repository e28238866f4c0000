"""The caches of one core as a textbook draws them: sets of lines, and a rule for which line makes room.

>>> from emu.profile import load_profile
>>> caches = PlainCaches(load_profile("skylake").caches)
>>> caches.access(0x1040, "read"), caches.access(0x1078, "read")
('memory', 'l1d')
>>> caches.access(0x1040, "fetch")
'l2'
"""

from __future__ import annotations

from emu.profile import Cache, Caches

__all__ = ["LINE", "PlainCaches"]

LINE = 64


class PlainCache:
    """One cache. A line is its number; `order` has the lines of a set, the one that was used last in front."""

    def __init__(self, cache: Cache) -> None:
        self._sets, self._ways, self._is_lru = cache.sets(LINE), cache.ways, cache.replacement == "lru"
        self._lines: list[list[int | None]] = [[None] * cache.ways for _ in range(self._sets)]
        self._order: list[list[int]] = [[] for _ in range(self._sets)]
        self._trees = [[False] * (2 * self._span()) for _ in range(self._sets)]
        self.evictions = 0

    def _span(self) -> int:
        return 1 << (self._ways - 1).bit_length()

    def __contains__(self, line: int) -> bool:
        return line in self._lines[line % self._sets]

    def use(self, line: int) -> None:
        """A line that is here was used."""
        number = line % self._sets
        order, way = self._order[number], self._lines[number].index(line)
        if line in order:
            order.remove(line)
        order.insert(0, line)
        node, low, half = 1, 0, self._span() // 2
        while half:
            right = way >= low + half
            self._trees[number][node] = not right
            node, low, half = 2 * node + right, low + half * right, half // 2

    def bring(self, line: int) -> int | None:
        """Put a line in; returns the one that made room."""
        number = line % self._sets
        lines = self._lines[number]
        way = lines.index(None) if None in lines else self._victim(number)
        evicted, lines[way] = lines[way], line
        if evicted is not None:
            self.evictions += 1
            self._order[number].remove(evicted)
        self.use(line)
        return evicted

    def _victim(self, number: int) -> int:
        if self._is_lru:
            return self._lines[number].index(self._order[number][-1])
        node, low, half = 1, 0, self._span() // 2
        while half:
            right = self._trees[number][node] and low + half < self._ways
            node, low, half = 2 * node + right, low + half * right, half // 2
        return low

    def drop(self, line: int) -> None:
        """Take a line out, if it is here."""
        if line in self:
            number = line % self._sets
            self._lines[number][self._lines[number].index(line)] = None
            self._order[number].remove(line)

    def lines(self) -> set[int]:
        """Addresses of all that is here."""
        return {line * LINE for lines in self._lines for line in lines if line is not None}


class PlainCaches:
    """L1D, L1I, L2 and LLC."""

    def __init__(self, caches: Caches) -> None:
        self.levels = {name: PlainCache(getattr(caches, name)) for name in ("l1d", "l1i", "l2", "llc")}
        self._inclusive = caches.llc_inclusive
        self.hits, self.misses = dict.fromkeys(self.levels, 0), dict.fromkeys(self.levels, 0)

    def access(self, pa: int, use: str) -> str:
        """Look up a line for a use, and bring it to where it lacks. Says where it was.

        "l1i miss" is a fetch of which that is known.
        """
        line = pa // LINE
        path = {"fetch": ("l1i", "l2", "llc"), "l1i miss": ("l2", "llc")}.get(use, ("l1d", "l2", "llc"))
        source = next((name for name in path if self._looks_up(name, line)), "memory")
        missed = path[: path.index(source)] if source in path else path
        for name in reversed(missed):
            evicted = self.levels[name].bring(line)
            if name == "llc" and evicted is not None and self._inclusive:
                for other in ("l1d", "l1i", "l2"):
                    self.levels[other].drop(evicted)
        return source

    def _looks_up(self, name: str, line: int) -> bool:
        cache = self.levels[name]
        if line not in cache:
            self.misses[name] += 1
            return False
        self.hits[name] += 1
        cache.use(line)
        return True

    def flush(self, pa: int) -> None:
        """Drop a line everywhere."""
        for cache in self.levels.values():
            cache.drop(pa // LINE)

    def counts(self) -> dict[str, dict[str, int]]:
        """As the statistics have them."""
        return {
            name: {"hits": self.hits[name], "misses": self.misses[name], "evictions": cache.evictions}
            for name, cache in self.levels.items()
        }
