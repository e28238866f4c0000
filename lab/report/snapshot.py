"""What a machine looks like at one moment: counters, address spaces with their pages, page tables, TLBs.

Looking has no effect: nothing is translated, counted or cached on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from emu.pte import PAGE_SHIFT
from kernel import Kernel, Process
from kernel.address_space import AddressSpace
from kernel.vma import Vma

from ..page_states import PageReader, PageStates, tables

__all__ = ["MOST_SPACES", "Area", "Counters", "Snapshot", "Space", "SpaceState", "Watcher"]

MOST_SPACES: Final = 12
"""Address spaces of which a report has maps and tables; of more it counts only the processes."""

USER: Final = 3


@dataclass(frozen=True, slots=True)
class Space:
    """An address space: a number of its own, the process that had it first, and where its page tables begin.

    `user_pgd` is what user mode runs on; it is the same as `pgd` without page-table isolation.
    """

    id: int
    pid: int
    program: str
    pgd: int
    user_pgd: int


@dataclass(frozen=True, slots=True)
class Area:
    """A VMA in page numbers: `start` up to `end` (exclusive), rights as in /proc/PID/maps."""

    start: int
    end: int
    rights: str
    name: str


@dataclass(frozen=True, slots=True)
class SpaceState:
    """What an address space promises, and which of its pages are there."""

    areas: tuple[Area, ...]
    pages: PageStates


@dataclass(frozen=True, slots=True)
class Counters:
    """What was counted up to a moment. Misses are those of ITLB, DTLB and STLB; frames and swap are in use then."""

    user: int
    kernel: int
    misses: tuple[int, int, int]
    walks: int
    faults: int
    frames: int
    swap: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment. `what` says what had just happened; `tables` are the bytes of every page-table page by its pfn, and
    `tlb` is what `Mmu.stored` says.
    """

    cycle: int
    pid: int
    what: str
    counters: Counters
    spaces: dict[int, SpaceState]
    tables: dict[int, bytes]
    tlb: frozenset[tuple[int, int, int]]
    must_stay: bool = False
    """Whether this moment is kept when others have to go."""


class Watcher:
    """Takes snapshots of one kernel, and knows every address space that it has seen."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self._reader = kernel, PageReader(kernel)
        self.spaces: dict[int, Space] = {}
        self.too_many: set[int] = set()
        self._last: dict[int, bytes] = {}

    def look(self, cycle: int, pid: int, what: str, *, ends: bool = False, must_stay: bool = False) -> Snapshot:
        """Take a snapshot. A process that `ends` right now is looked at, too: its memory is still there."""
        kernel = self._kernel
        there = dict(self._address_spaces(pid if ends else None))
        return Snapshot(
            cycle,
            pid,
            what,
            self._counters(),
            {id_: self._state(mm) for id_, mm in there.items()},
            self._tables(there.values()),
            frozenset(kernel.machine.mmu.stored()),
            must_stay,
        )

    def _address_spaces(self, ending: int | None) -> Iterator[tuple[int, AddressSpace]]:
        """The address spaces that exist, as far as there is room for them."""
        processes = self._kernel.living_processes()
        if ending is not None:
            processes.append(self._kernel.process(ending))
        for process in processes:
            if self._knows(process):
                yield process.mm.context_id, process.mm

    def _knows(self, process: Process) -> bool:
        mm = process.mm
        if mm.context_id not in self.spaces:
            if len(self.spaces) >= MOST_SPACES:
                self.too_many.add(mm.context_id)
                return False
            table = mm.page_table
            self.spaces[mm.context_id] = Space(
                mm.context_id, process.pid, process.image.path, table.pgd, table.user_pgd
            )
        return True

    def _counters(self) -> Counters:
        state, manager = self._kernel.machine.state, self._kernel.manager
        done, in_user_mode = state.instructions - state.mode_start[0], state.counted_as == USER
        return Counters(
            state.mode_totals[0] + done * in_user_mode,
            state.mode_totals[3] + done * (not in_user_mode),
            (state.misses[0], state.misses[1], state.misses[2]),
            sum(state.walks_by),
            sum(self._kernel.faults.counts[kind] for kind in ("minor", "major", "protection")),
            manager.frames.used,
            manager.swap.used,
        )

    def _state(self, mm: AddressSpace) -> SpaceState:
        return SpaceState(tuple(_area(mm, vma) for vma in mm.vmas), self._reader.states(mm))

    def _tables(self, there: Iterable[AddressSpace]) -> dict[int, bytes]:
        """The bytes of all tables; those that did not change are the same objects as last time."""
        ram, now = self._kernel.machine.ram, dict[int, bytes]()
        for mm in there:
            for pgd in dict.fromkeys((mm.page_table.pgd, mm.page_table.user_pgd)):
                for table in tables(ram, pgd):
                    if table.pfn not in now:
                        content, before = table.entries.tobytes(), self._last.get(table.pfn)
                        now[table.pfn] = before if before == content else content
        self._last = now
        return now


def _area(mm: AddressSpace, vma: Vma) -> Area:
    return Area(vma.start >> PAGE_SHIFT, vma.end >> PAGE_SHIFT, vma.rights, mm.name_of(vma))
