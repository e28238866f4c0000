"""Swap: pages that are not in memory, and where they lie instead (mm/swapfile.c, mm/swap_state.c).

A *slot* holds one page. Page-table entries that point to it are counted: fork copies them like any other entry. When
one of them faults, the page comes back for that one; the others follow when they fault.

The *swap cache* knows which pages in memory also lie in a slot. It is asked first, so that a page that two processes
share comes back once. And as long as such a page is not written, it can go again without being written out.

    entries   page in memory
       2           -            two processes share a page that is out
       1         0x2a1          one of them brought it back
       0         0x2a1          both did; the slot still holds the same, and is given up when memory of swap is short

A page that is read comes into the swap cache first, and is mapped when it is there: until then whoever wants it sleeps,
and others run. With readahead (`page_cluster`) its neighbours on the device come along, and wait there for somebody who
wants them.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from emu.machine import Machine
from emu.pte import PAGE_SIZE

from .events import SwapIo
from .exceptions import Errno, KernelPanic
from .memory import KernelMemory
from .pages import Pages
from .swap_device import SwapDevice

__all__ = ["Swap"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A page that the device brings, or brought, and that nobody has mapped yet: its content is there at `ready`
    (cycles). `is_wanted` says that somebody waits for it; else it only came along, and reclaim may take it.
    """

    ready: int
    is_wanted: bool


class Swap:
    """The swap area, if there is a device. `reads` and `writes` count pages; `error` is what the device said last.

    `page_cluster` is the readahead: 2**page_cluster pages that lie together are read together (vm.page-cluster).
    """

    def __init__(self, machine: Machine, memory: KernelMemory, pages: Pages, device: SwapDevice | None) -> None:
        self._machine, self._memory, self._pages, self.device = machine, memory, pages, device
        self._busy_until = 0
        self.total = device.file.slots - 1 if device else 0
        self._entries: dict[int, int] = {}
        self._page_in: dict[int, int] = {}  # slot: pfn
        self._slot_of: dict[int, int] = {}  # pfn: slot
        self._arrivals: dict[int, Arrival] = {}  # by pfn: the swap cache has the only reference
        self.page_cluster = 0
        self._freed: list[int] = []
        self._fresh = 1
        self.reads = self.writes = 0
        self.error: str | None = None

    # --- slots ------------------------------------------------------------------------------------------------------

    @property
    def used(self) -> int:
        """Slots that hold a page."""
        return len(self._entries)

    @property
    def cached(self) -> int:
        """Pages in memory that lie in a slot as well."""
        return len(self._slot_of)

    @property
    def has_room(self) -> bool:
        """Whether one more page could go out."""
        return self.error is None and (self.used < self.total or bool(self._slot_of))

    @property
    def is_half_full(self) -> bool:
        """Then slots are not kept for pages that are back (vm_swap_full)."""
        return 2 * self.used > self.total

    def entries(self, slot: int) -> int:
        """How many page-table entries point to a slot."""
        return self._entries.get(slot, 0)

    def _allocate(self) -> int | None:
        """The lowest free slot; if there is none, one whose page is back and that nobody points to."""
        if self._freed:
            slot = heappop(self._freed)
        elif self._fresh <= self.total:
            slot, self._fresh = self._fresh, self._fresh + 1
        else:
            spare = next((slot for slot in self._page_in if not self._entries[slot]), None)
            if spare is None:
                return None
            self.forget(self._page_in[spare])
            return self._allocate()
        self._entries[slot] = 0
        return slot

    def _free(self, slot: int) -> None:
        del self._entries[slot]
        heappush(self._freed, slot)

    def duplicate(self, slot: int) -> None:
        """One more entry points to a slot (swap_duplicate)."""
        self._entries[slot] += 1

    def drop(self, slot: int) -> None:
        """One entry less (swap_free). The last one frees the slot, unless its page is in memory."""
        if not self._entries.get(slot):
            raise KernelPanic(f"swap slot {slot} has no entry left to drop")
        self._entries[slot] -= 1
        pfn = self._page_in.get(slot)
        if pfn in self._arrivals:
            self._leave(pfn, is_last=not self._entries[slot])
        elif pfn is None and not self._entries[slot]:
            self._free(slot)

    # --- the swap cache ---------------------------------------------------------------------------------------------

    def page_in(self, slot: int) -> int | None:
        """The frame of a page that lies in a slot, if it is in memory (swap_cache_get_folio)."""
        return self._page_in.get(slot)

    def slot_of(self, pfn: int) -> int | None:
        """The slot that holds a page of memory as well."""
        return self._slot_of.get(pfn)

    def remember(self, pfn: int, slot: int) -> None:
        """A page came back: it lies in both places now (add_to_swap_cache)."""
        self._page_in[slot], self._slot_of[pfn] = pfn, slot

    def forget(self, pfn: int) -> None:
        """A frame is freed or will be written: it has nothing to do with its slot any more (delete_from_swap_cache)."""
        slot = self._slot_of.pop(pfn, None)
        if slot is not None:
            del self._page_in[slot]
            if not self._entries[slot]:
                self._free(slot)

    def is_shared(self, pfn: int) -> bool:
        """Whether somebody else still has to bring this page back (folio_swapped)."""
        slot = self._slot_of.get(pfn)
        return slot is not None and self._entries[slot] > 0

    # --- pages that come ------------------------------------------------------------------------------------------

    @property
    def unmapped(self) -> int:
        """Pages of the swap cache that nobody maps yet."""
        return len(self._arrivals)

    def swapin(self, slot: int) -> int:
        """Copy a slot to a new frame of the swap cache, the lecture's swapin: it is mapped when its content is there.

        Its neighbours come along if there is memory for them (swap_cluster_readahead). Returns the frame. Raises Errno:
        ENOMEM, EIO.
        """
        window = 1 << self.page_cluster
        first = slot & -window
        for near in range(first, min(first + window, self._fresh)):
            if near == slot:
                self._begin_read(slot, is_wanted=True)
            else:
                self.prefetch(near)
        return self._page_in[slot]

    def prefetch(self, slot: int) -> None:
        """Read a slot that nobody waits for, if there is memory for it (read_swap_cache_async)."""
        if self._entries.get(slot) and slot not in self._page_in and self._pages.has_spare:
            with suppress(Errno):
                self._begin_read(slot, is_wanted=False)

    def _begin_read(self, slot: int, *, is_wanted: bool) -> None:
        """Raises Errno: ENOMEM, EIO."""
        pfn = self._pages.allocate_cached()
        try:
            self._read(slot, pfn)
        except Errno:
            self._pages.drop_cached(pfn)
            raise
        self.remember(pfn, slot)
        self._arrivals[pfn] = Arrival(self._busy_until, is_wanted)
        if not is_wanted:
            self._pages.lru_add(pfn)

    def arrives(self, pfn: int) -> int:
        """When the content of a page is, or was, there (folio_test_locked)."""
        arrival = self._arrivals.get(pfn)
        return arrival.ready if arrival is not None else 0

    def arrived(self, pfn: int) -> Arrival | None:
        """Somebody maps a page now. Returns how it came, if he is the first."""
        arrival = self._arrivals.pop(pfn, None)
        if arrival is not None and arrival.is_wanted:
            self._pages.lru_add(pfn)
        return arrival

    def discard(self, pfn: int) -> bool:
        """Give up a page that only came along. False if it is still on its way."""
        if self._arrivals[pfn].ready > self._machine.clock.now:
            return False
        self._leave(pfn, is_last=True)
        return True

    def _leave(self, pfn: int, *, is_last: bool) -> None:
        """Somebody does not want a page any more that nobody has mapped; he may be the one who asked for it."""
        arrival = self.arrived(pfn)
        if is_last:
            self._pages.lru_del(pfn)
            self._pages.drop_cached(pfn)
        elif arrival is not None:
            self._arrivals[pfn] = replace(arrival, is_wanted=False)

    # --- the device -------------------------------------------------------------------------------------------------

    def write_out(self, pfn: int, *, wait: bool) -> int | None:
        """Write a page to a slot. None if there is no room, or the device cannot: the page has to stay."""
        slot = self._slot_of.get(pfn)
        slot = self._allocate() if slot is None else slot
        if slot is None or self.device is None:
            return None
        try:
            self.device.file.write(slot, self._memory.read(pfn * PAGE_SIZE, PAGE_SIZE))
        except OSError as error:
            self.error = f"cannot write to {self.device.file.name}: {error.strerror}"
            self.forget(pfn)
            if self._entries.get(slot) == 0:
                self._free(slot)
            return None
        self._work(slot, "write")
        if wait:
            self._wait()
        self.writes += 1
        return slot

    def read_in(self, slot: int, pfn: int) -> None:
        """Read a slot into a frame, and wait for the device. Raises Errno(EIO)."""
        self._read(slot, pfn)
        self._wait()

    def _read(self, slot: int, pfn: int) -> None:
        assert self.device is not None
        try:
            data = self.device.file.read(slot)
        except OSError as error:
            self.error = f"cannot read from {self.device.file.name}: {error.strerror}"
            raise Errno(errno.EIO) from None
        self._work(slot, "read")
        self._memory.write(pfn * PAGE_SIZE, data)
        self.reads += 1

    def _work(self, slot: int, kind: str) -> None:
        """Give the device a request: it is done when those before it are."""
        assert self.device is not None
        clock = self._machine.clock
        begin = max(clock.now, self._busy_until)
        self._busy_until = begin + clock.cycles(self.device.time_for(slot))
        if self._machine.events.wants("swap_io"):
            told = SwapIo(clock.now, self._machine.pid, kind, slot, begin, self._busy_until)
            self._machine.events.emit(told)

    def _wait(self) -> None:
        """Let time pass until the device has done everything."""
        self._machine.charge("swap_io", max(self._busy_until - self._machine.clock.now, 0))

    def close(self) -> None:
        """Close the device's file."""
        if self.device is not None:
            self.device.file.close()
