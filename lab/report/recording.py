"""Snapshots as what changed between them: what the page reads.

The page holds one moment at a time and steps forwards or backwards by applying changes. Page-table pages are sent as
the entries that changed, so the walker in the page walks the guest's own entries. Numbers that may not fit into the 53
bits of a JavaScript number (entries) are hexadecimal text; addresses of pages are page numbers, which fit.

>>> runs(PageStates(np.array([1, 2, 5]), b"ppz"), PageStates(np.array([1, 5]), b"pc"))
[[2, '.'], [5, 'c']]
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from emu.machine import Machine
from emu.pte import PAGE_SHIFT
from emu.tlb_contents import Translation

from ..page_states import NOT_THERE, PageStates
from .recorder import thinned
from .snapshot import Area, Counters, Snapshot, Space

__all__ = ["MOST_BYTES", "Moment", "Recording", "record", "runs"]

MOST_BYTES: Final = 6_000_000
"""Text of a recording. One that is larger loses every second moment, until it is not."""

Rows = list[list[Any]]


@dataclass(frozen=True, slots=True)
class Moment:
    """What is otherwise than at the moment before.

    `there` are the address spaces that exist (None: the same ones), `areas` the VMAs of those whose VMAs changed,
    `pages` runs of page states [first page, letters], `tables` entries by index by pfn of the table ("0": cleared;
    None: the page is no table any more), `tlb_in` and `tlb_out` numbers of translations.
    """

    cycle: int
    pid: int
    what: str
    counters: Counters
    there: list[int] | None
    areas: dict[int, Rows]
    pages: dict[int, Rows]
    tables: dict[str, dict[str, str] | None]
    tlb_in: list[int]
    tlb_out: list[int]


@dataclass(frozen=True, slots=True)
class Recording:
    """All moments of a run. `arrays` describes the TLBs, `translations` is everything that they ever held."""

    spaces: list[Space]
    left_out: int
    arrays: list[dict[str, Any]]
    translations: Rows
    moments: list[Moment]


def record(
    machine: Machine,
    snapshots: Sequence[Snapshot],
    spaces: Mapping[int, Space],
    left_out: int = 0,
    most: int = MOST_BYTES,
) -> Recording:
    """Turn snapshots into changes, small enough for a page."""
    kept = list(snapshots)
    while True:
        numbers: dict[tuple[int, int, int], int] = {}
        moments = list(_moments(kept, numbers))
        translations = [_row(number, machine.mmu.translation(number, tag, leaf)) for number, tag, leaf in numbers]
        recording = Recording(list(spaces.values()), left_out, _arrays(machine), translations, moments)
        fewer = thinned(kept)
        if len(json.dumps(asdict(recording))) <= most or len(fewer) == len(kept):
            return recording
        kept = fewer


def _moments(snapshots: Sequence[Snapshot], numbers: dict[tuple[int, int, int], int]) -> Iterator[Moment]:
    """The changes; `numbers` gets a number for every translation that is met."""
    before = Snapshot(0, 0, "", Counters(0, 0, (0, 0, 0), 0, 0, 0, 0), {}, {}, frozenset())
    for now in snapshots:
        yield Moment(
            now.cycle,
            now.pid,
            now.what,
            now.counters,
            list(now.spaces) if now.spaces.keys() != before.spaces.keys() else None,
            {id_: rows for id_ in now.spaces if (rows := _areas(before, now, id_)) is not None},
            {id_: rows for id_ in now.spaces if (rows := _pages(before, now, id_))},
            dict(_tables(before.tables, now.tables)),
            sorted(numbers.setdefault(entry, len(numbers)) for entry in sorted(now.tlb - before.tlb)),
            sorted(numbers[entry] for entry in before.tlb - now.tlb),
        )
        before = now


def _areas(before: Snapshot, now: Snapshot, id_: int) -> Rows | None:
    areas = now.spaces[id_].areas
    if id_ in before.spaces and before.spaces[id_].areas == areas:
        return None
    return [_area(area) for area in areas]


def _area(area: Area) -> list[Any]:
    return [area.start, area.end, area.rights, area.name]


def _pages(before: Snapshot, now: Snapshot, id_: int) -> Rows:
    nothing = PageStates(np.zeros(0, np.int64), b"")
    return runs(before.spaces[id_].pages if id_ in before.spaces else nothing, now.spaces[id_].pages)


def runs(before: PageStates, now: PageStates) -> Rows:
    """The pages whose state changed, as runs of neighbours: [first page, letters]."""
    old = dict(zip(before.numbers.tolist(), before.letters.decode(), strict=True))
    new = dict(zip(now.numbers.tolist(), now.letters.decode(), strict=True))
    changed = sorted(page for page in old.keys() | new.keys() if old.get(page) != new.get(page))
    found: Rows = []
    for page in changed:
        letter = new.get(page, NOT_THERE)
        if found and found[-1][0] + len(found[-1][1]) == page:
            found[-1][1] += letter
        else:
            found.append([page, letter])
    return found


def _tables(before: Mapping[int, bytes], now: Mapping[int, bytes]) -> Iterator[tuple[str, dict[str, str] | None]]:
    """Tables that changed, with the entries that did."""
    for pfn in sorted(before.keys() - now.keys()):
        yield f"{pfn:x}", None
    for pfn, content in now.items():
        old = before.get(pfn)
        if old is content:
            continue
        entries = np.frombuffer(content, np.uint64)
        changed = np.flatnonzero(entries if old is None else entries != np.frombuffer(old, np.uint64))
        if old is None or len(changed):
            yield f"{pfn:x}", {str(index): f"{entries[index]:x}" for index in changed.tolist()}


def _arrays(machine: Machine) -> list[dict[str, Any]]:
    """Every TLB and paging-structure cache: what it is for, its page sizes (as shifts), its entries and ways."""
    state = machine.state
    return [
        {
            "kind": array.kind,
            "shifts": [shift for shift in range(12, 48) if array.shifts >> shift & 1],
            "entries": array.sets * array.ways,
            "ways": array.ways,
        }
        for array in state.arrays[: state.array_count]
    ]


def _row(number: int, held: Translation) -> list[Any]:
    """A translation: its array, page number, frame number, shift of its size, PCID, flags."""
    shift = held.page_size.bit_length() - 1
    flags = " ".join(flag.name or "" for flag in held.flags)
    return [number, held.va >> PAGE_SHIFT, held.pa >> PAGE_SHIFT, shift, held.pcid, flags]
