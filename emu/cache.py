"""Data and instruction caches: which lines of memory are near, and how long an access takes (native).

    load ---> L1D --miss--> L2 --miss--> LLC --miss--> memory
    fetch --> L1I --miss----^
    walk ---> L1D

A cache holds *lines* of 64 bytes, found by their physical address, so it does not matter through which page, of which
process, a line was brought: that is what Flush+Reload listens to. A line that is missing is brought into every
level on its way. Where the last level is *inclusive*, what leaves it leaves the other levels, too.

Only presence is modelled. The bytes are in guest memory and always up to date, so nothing is ever written back, and
no program can compute anything else because of a cache: it can only take longer.

Time: a load waits for what is beyond the L1D; a hit there is part of the price of an instruction, and shows only where
the program waits for it (LFENCE, RDTSCP). A store waits for nothing, because it is put into the store buffer and its
line arrives behind it.
"""

from __future__ import annotations

from typing import Any, Final

from .cache_state import CacheLevel, CacheUse
from .native import call, native, rare, words
from .records import notify
from .state import Event
from .tlb import LRU, point_away, pointed_at

__all__ = [
    "LINE",
    "LINE_SIZE",
    "cache_access",
    "fetch_lines",
    "flush_all",
    "flush_line",
    "is_cached",
    "prefetch_beyond",
    "touch",
    "touch_range",
    "wait_for_loads",
]

LINE_SIZE: Final = 64
LINE_SHIFT: Final = 6
LINE: Final = -LINE_SIZE
VALID: Final = 1
"""Or'ed to the address of a line, so that no line is 0."""

L1D, L1I, L2, LLC = int(CacheLevel.L1D), int(CacheLevel.L1I), int(CacheLevel.L2), int(CacheLevel.LLC)
LEVELS: Final = int(CacheLevel.MEMORY)
MEMORY: Final = int(CacheLevel.MEMORY)
READ, FETCH, PREFETCH = int(CacheUse.READ), int(CacheUse.FETCH), int(CacheUse.PREFETCH)
CACHE_FILL: Final = int(Event.CACHE_FILL)


# --- one cache -------------------------------------------------------------------------------------------------


@native
def _set_of(array: Any, line: Any) -> Any:
    """Index of the set of a line. The last level is cut into slices, so its sets may be any number."""
    number = line >> LINE_SHIFT
    return number & array.mask if array.mask else number % array.sets


@native
def _find(array: Any, line: Any) -> Any:
    """Index of a line, or -1."""
    start = _set_of(array, line) * array.ways
    lines = words(array.lines)
    for index in range(start, start + array.ways):
        if lines[index] == line:
            return index
    return -1


@native
def _use(array: Any, index: Any) -> None:
    """The line at an index was used: it is the last one to give way."""
    lines = words(array.lines)
    line = array.last = lines[index]
    number = _set_of(array, line)
    first = number * array.ways
    if array.policy != LRU:
        point_away(array, number, index - first)
        return
    for at in range(index, first, -1):
        lines[at] = lines[at - 1]
    lines[first] = line


@native
def _hits(array: Any, line: Any) -> Any:
    """Look a line up, and count that."""
    index = _find(array, line)
    if index < 0:
        array.misses += 1
        return False
    array.hits += 1
    _use(array, index)
    return True


@native
def _victim(array: Any, number: Any) -> Any:
    """Index of the way of a set that makes room: a free one, else the policy's choice."""
    start = number * array.ways
    lines = words(array.lines)
    for index in range(start, start + array.ways):
        if lines[index] == 0:
            return index
    return start + (array.ways - 1 if array.policy == LRU else pointed_at(array, number))


@native
def _fill(array: Any, line: Any) -> Any:
    """Put a line into a cache that lacks it. Returns the line that made room, or 0."""
    index = _victim(array, _set_of(array, line))
    lines = words(array.lines)
    evicted = lines[index]
    array.evictions += evicted != 0
    lines[index] = line
    _use(array, index)
    return evicted


@native
def _drop(array: Any, line: Any) -> None:
    index = _find(array, line)
    if index >= 0:
        words(array.lines)[index] = 0
    if array.last == line:
        array.last = 0


# --- all of them -----------------------------------------------------------------------------------------------


@native
def _fill_from_memory(s: Any, line: Any) -> None:
    """Fill the last level. An inclusive one may hold nothing less than the others together."""
    evicted = _fill(s.cache[LLC], line)
    if evicted != 0 and s.llc_is_inclusive:
        for level in range(LLC):
            _drop(s.cache[level], evicted)


@rare
def _bring(s: Any, first: Any, line: Any, use: Any) -> Any:
    """Bring a line that the cache `first` lacks into it and all behind it. Returns the latency of where it was."""
    source, latency = MEMORY, s.dram_latency
    if first < L2 and _hits(s.cache[L2], line):
        source, latency = L2, s.cache[L2].latency
    elif _hits(s.cache[LLC], line):
        source, latency = LLC, s.cache[LLC].latency
    if source == MEMORY:
        _fill_from_memory(s, line)
    if source > L2:
        _fill(s.cache[L2], line)
    if first < L2:
        _fill(s.cache[first], line)
    if (s.listeners >> CACHE_FILL) & 1:
        notify(s, CACHE_FILL, line & LINE, first | (source << 8), use)
    return latency


@native
def cache_access(s: Any, pa: Any, use: Any) -> Any:
    """Look up the line of a physical address for a `CacheUse`, and bring it. Returns the cycles that a load takes."""
    line = pa & LINE | VALID
    level = L1I if use == FETCH else L1D
    array = s.cache[level]
    if array.last == line:
        array.hits += 1
        return array.latency
    if _hits(array, line):
        return array.latency
    return _bring(s, level, line, use)


@native
def prefetch_beyond(s: Any, pa: Any) -> None:
    """Bring a line into the L2 and what is behind it, unless it is as near already."""
    line = pa & LINE | VALID
    if _find(s.cache[L1D], line) < 0 and not _hits(s.cache[L2], line):
        _bring(s, L2, line, PREFETCH)


@native
def is_cached(s: Any, level: Any, pa: Any) -> Any:
    """Whether a cache holds the line of a physical address; changes nothing."""
    return _find(s.cache[level], pa & LINE | VALID) >= 0


@native
def flush_line(s: Any, pa: Any) -> None:
    """Drop a line from every cache (CLFLUSH)."""
    for level in range(LEVELS):
        _drop(s.cache[level], pa & LINE | VALID)


@native
def flush_all(s: Any) -> None:
    """Drop every line (WBINVD)."""
    for level in range(LEVELS):
        array = s.cache[level]
        array.last = 0
        call(s.memset, (array.lines, 0, 8 * array.sets * array.ways))


# --- what the processor does with them -------------------------------------------------------------------------


@native
def touch(s: Any, pa: Any, use: Any) -> None:
    """A load or store of a line, and the time that a load waits."""
    latency = cache_access(s, pa, use)
    if use == READ:
        s.load_cycles += latency - s.cache[L1D].latency
        s.load_is_pending = 1


@native
def wait_for_loads(s: Any) -> None:
    """Wait until the last load has its data, as LFENCE does (SDM Vol. 3A 8.3): now the time of a hit shows, too."""
    if s.load_is_pending:
        s.load_cycles += s.cache[L1D].latency
        s.load_is_pending = 0


@native
def touch_range(s: Any, pa: Any, size: Any, accesses: Any, use: Any) -> None:
    """So many loads or stores one after the other, all over a physical range."""
    lines = 0
    for line in range(pa & LINE, pa + size, LINE_SIZE):
        touch(s, line, use)
        lines += 1
    s.cache[L1D].hits += max(accesses - lines, 0)


@native
def fetch_lines(s: Any, pa: Any, size: Any) -> None:
    """Fetch the lines of code in a physical range, and wait for those that the L1I lacks."""
    for line in range(pa & LINE, pa + size, LINE_SIZE):
        s.fetch_cycles += cache_access(s, line, FETCH) - s.cache[L1I].latency
