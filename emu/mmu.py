"""The memory management unit as Python sees it: build its TLBs from a profile, flush them, translate, look inside.

The work itself is native (`translate.py`); this is the handle on it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .exceptions import InputError, MachineError, ProcessorException
from .profile import PAGE_SIZES, Profile, TlbGeometry
from .pte import ADDRESS_MASK, IMPLICIT, PAGE_SIZE, Access, Pte
from .ram import Ram
from .state import Fault, State, TlbArray, TlbKind
from .tlb_contents import TlbContents, Translation
from .walk_report import page_walk

__all__ = ["TLB_POLICIES", "Mmu", "Translation"]

TLB_POLICIES: Final = {"fifo": 0, "random": 1, "lru": 2, "plru": 3}
"""Replacement policies by name. FIFO and random never look at hits."""

PLRU_WAYS: Final = 64
"""The tree of one set is one word."""

READ, WRITE = int(Access.READ), int(Access.WRITE)
PAGE_FAULT: Final = 14
GENERAL_PROTECTION: Final = 13
ANY: Final = -1
MASK64: Final = (1 << 64) - 1
_WORD = ctypes.c_int64
_LARGEST_LOAD: Final = PAGE_SIZE // 8
"""Words of one `load_words`."""


class Mmu:
    """TLBs of one profile over one RAM."""

    def __init__(self, state: State, ram: Ram, profile: Profile, policy: str, tlb: bool, code: dict[str, int]) -> None:
        if policy not in TLB_POLICIES:
            raise InputError(f"unknown TLB policy {policy!r}; there are {', '.join(TLB_POLICIES)}")
        self.state, self.ram, self.profile = state, ram, profile
        self._address = ctypes.addressof(state)
        self._storage: list[Any] = []
        self._entries: list[npt.NDArray[np.uint64]] = []  # of every array, as rows of tag, leaf and stamp
        state.no_tlb = not tlb
        if tlb:
            self._build(profile, TLB_POLICIES[policy])
        self._translate = ctypes.CFUNCTYPE(_WORD, _WORD, _WORD, _WORD)(code["translate_entry"])
        self._load = ctypes.CFUNCTYPE(_WORD, _WORD, _WORD, _WORD)(code["load_entry"])
        self._store = ctypes.CFUNCTYPE(_WORD, _WORD, _WORD, _WORD, _WORD)(code["store_entry"])
        self._copy = ctypes.CFUNCTYPE(_WORD, *[_WORD] * 5)(code["copy_entry"])
        self._copy_in = ctypes.CFUNCTYPE(_WORD, _WORD, _WORD, ctypes.c_char_p, _WORD, _WORD)(code["copy_entry"])
        self._clear_page = ctypes.CFUNCTYPE(_WORD, _WORD, _WORD)(code["clear_page_entry"])
        self._fetch = ctypes.CFUNCTYPE(_WORD, _WORD, _WORD)(code["fetch_entry"])
        self._copy_page = ctypes.CFUNCTYPE(_WORD, _WORD, _WORD, _WORD)(code["copy_page_entry"])
        self._descend = ctypes.CFUNCTYPE(_WORD, *[_WORD] * 6)(code["descend_entry"])
        self._clear_bit = ctypes.CFUNCTYPE(_WORD, *[_WORD] * 8)(code["clear_bit_entry"])
        self._invalidate = ctypes.CFUNCTYPE(None, _WORD, _WORD, _WORD, _WORD)(code["invalidate_entry"])
        state.memmove = ctypes.cast(ctypes.memmove, ctypes.c_void_p).value
        state.memset = ctypes.cast(ctypes.memset, ctypes.c_void_p).value
        self._words = (ctypes.c_uint64 * _LARGEST_LOAD)()
        self._words_address = ctypes.addressof(self._words)

    # --- building -------------------------------------------------------------------------------------------

    def _build(self, profile: Profile, policy: int) -> None:
        levels = (
            (TlbKind.ITLB, profile.tlb.itlb),
            (TlbKind.DTLB, profile.tlb.dtlb),
            (TlbKind.STLB, profile.tlb.stlb),
        )
        for kind, arrays in levels:
            for geometry in arrays:
                self._add(kind, geometry, [PAGE_SIZES[size] for size in geometry.sizes], policy)
        caches = profile.paging_structure_caches
        for shift, entries in ((21, caches.pde), (30, caches.pdpte), (39, caches.pml4e)):
            if entries:
                geometry = TlbGeometry(sizes=(), entries=entries, ways="full", hash="linear")
                self._add(TlbKind.PAGING_STRUCTURE, geometry, [shift], policy)

    def _add(self, kind: TlbKind, geometry: TlbGeometry, shifts: list[int], policy: int) -> None:
        number = self.state.array_count
        if number == len(self.state.arrays):
            raise InputError(f"profile {self.profile.name} has more than {number} TLB arrays")
        if policy == TLB_POLICIES["plru"] and geometry.associativity > PLRU_WAYS:
            ways = geometry.associativity
            raise InputError(f"profile {self.profile.name} has {ways} ways; plru can be modelled for {PLRU_WAYS}")
        entries = np.zeros((geometry.entries, 3), np.uint64)  # TlbEntry
        trees = (ctypes.c_uint64 * geometry.sets)()
        self._storage.append(trees)
        self._entries.append(entries)
        self.state.arrays[number] = TlbArray(
            kind=kind,
            shifts=sum(1 << shift for shift in shifts),
            entries=entries.ctypes.data,
            sets=geometry.sets,
            ways=geometry.associativity,
            hash_bits=geometry.hash_bits,
            policy=policy,
            trees=ctypes.addressof(trees),
        )
        self.state.array_count = number + 1

    # --- invalidation (SDM Vol. 3A 4.10.4.1) ------------------------------------------------------------------

    def invalidate_page(self, va: int, pcid: int, *, global_too: bool) -> None:
        """Drop the translation of one page for one PCID (INVLPG with globals, INVPCID type 0 without)."""
        self._invalidate(self._address, va & ~(PAGE_SIZE - 1) & MASK64, pcid, global_too)

    def invalidate_pcid(self, pcid: int) -> None:
        """Drop everything of one PCID except global translations (MOV to CR3, INVPCID type 1)."""
        self._invalidate(self._address, ANY, pcid, False)

    def invalidate_all(self, *, global_too: bool) -> None:
        """Drop everything of every PCID (INVPCID types 2 and 3, MOV to CR4)."""
        self._invalidate(self._address, ANY, ANY, global_too)

    # --- translation on behalf of the machine and the kernel --------------------------------------------------

    def translate(self, va: int, access: Access = Access.READ, *, implicit: bool = False) -> int:
        """Physical address of `va` for one access with the current rights, through TLBs and walker.

        Raises ProcessorException (#PF with its error code, or #GP) when the access is refused.
        """
        pa: int = self._translate(self._address, va, access | IMPLICIT if implicit else access)
        if pa >= 0:
            return pa
        raise self.exception(va)

    def exception(self, va: int, *, stack: bool = False) -> ProcessorException:
        """The exception for the translation that was just refused."""
        return ProcessorException(*self.refusal(va, stack=stack))

    def refusal(self, va: int, *, stack: bool = False) -> tuple[int, int, int | None]:
        """Vector, error code and address of the translation that was just refused. Raises MachineError."""
        if self.state.fault == Fault.NOT_CANONICAL:
            return (12 if stack else GENERAL_PROTECTION), 0, None
        if self.state.fault == Fault.BAD_PHYSICAL:
            where = f"{self.state.fault_code:#x}, outside RAM ({self.ram.size:#x} bytes)"
            raise MachineError(f"virtual address {va:#x} is mapped to {where}")
        return PAGE_FAULT, self.state.fault_code, va

    def read(self, va: int, size: int, *, implicit: bool = False) -> bytes:
        """Read a virtual range with the current rights; counts one access for 8 bytes of a page.

        Raises ProcessorException at the first page that is refused.
        """
        if size > PAGE_SIZE:
            buffer = ctypes.create_string_buffer(size)
            address = ctypes.addressof(buffer)
        else:
            address = self._words_address
        done = self._copy(self._address, va, address, size, IMPLICIT if implicit else READ)
        if done < size:
            raise self.exception((va + done) & MASK64)
        return ctypes.string_at(address, size)

    def write(self, va: int, data: bytes, *, implicit: bool = False) -> None:
        """Write a virtual range with the current rights; counts as `read` does, and refuses like it."""
        size = len(data)
        done = self._copy_in(self._address, va, data, size, WRITE | IMPLICIT if implicit else WRITE)
        if self.state.code_written:
            self._forget_code()
        if done < size:
            raise self.exception((va + done) & MASK64)

    def load_words(self, va: int, count: int) -> list[int]:
        """Up to 512 aligned 8-byte loads. Raises ProcessorException when one is refused."""
        done = self._copy(self._address, va, self._words_address, 8 * count, READ)
        if done < 8 * count:
            raise self.exception((va + done) & MASK64)
        return self._words[:count]

    def clear_page(self, va: int) -> None:
        """Store zeros all over a page. Raises ProcessorException when it is refused."""
        if not self._clear_page(self._address, va):
            raise self.exception(va)
        if self.state.code_written:
            self._forget_code()

    def copy_page(self, target: int, source: int) -> None:
        """Load all of a page and store it to another one. Raises ProcessorException when one is refused."""
        if not self._copy_page(self._address, target, source):
            raise self.exception(self.state.fault_page)
        if self.state.code_written:
            self._forget_code()

    def descend(self, direct_map: int, table: int, va: int, level: int, last: int) -> tuple[int, int]:
        """Follow page tables with loads, through a mapping of all memory at `direct_map`, from a `level` to the `last`.

        Returns (physical address, level) of the entry for `va` there, or of the one above it that is not present or
        maps a huge page.
        """
        found: int = self._descend(self._address, direct_map, table, va, level, last)
        if found < 0:
            raise self.exception(self.state.fault_page)
        return found & ~7, found & 7

    def clear_bit(self, direct_map: int, table: int, start: int, end: int, bit: int) -> list[tuple[int, int]]:
        """Clear a bit in all present leaves of a range, below a table of level 4; returns (va, entry before) of those
        that had it. Loads and stores go through a mapping of all memory at `direct_map`.
        """
        found: list[tuple[int, int]] = []
        room = _LARGEST_LOAD // 2
        while start < end:
            count = self._clear_bit(self._address, direct_map, table, start, end, bit, self._words_address, room)
            if count < 0:
                raise self.exception(self.state.fault_page)
            if self.state.code_written:
                self._forget_code()
            found += zip(self._words[: 2 * count : 2], self._words[1 : 2 * count : 2], strict=True)
            if count < room:
                break
            start = found[-1][0] + PAGE_SIZE
        return found

    def fetch(self, va: int) -> None:
        """Fetch one instruction that Python stands for. Raises ProcessorException when it is refused."""
        if not self._fetch(self._address, va):
            raise self.exception(va)

    def _forget_code(self) -> None:
        """Something was written where translated code comes from."""
        self.state.code_written = 0
        self.ram.on_code_write(0)

    def load64(self, va: int, *, implicit: bool = False) -> int:
        """One aligned 8-byte load. Raises ProcessorException when it is refused."""
        value: int = self._load(self._address, va, IMPLICIT if implicit else READ)
        if not value and self.state.fault:
            raise self.exception(va)
        return value & MASK64

    def store64(self, va: int, value: int, *, implicit: bool = False) -> None:
        """One aligned 8-byte store. Raises ProcessorException when it is refused."""
        if not self._store(self._address, va, value, WRITE | IMPLICIT if implicit else WRITE):
            if self.state.fault:
                raise self.exception(va)
            self._forget_code()

    def peek(self, va: int) -> int | None:
        """Physical address of `va` in the current page tables, whatever its rights; no effect, nothing counted."""
        return page_walk(self.ram, self.state.cr3, va, self.state.levels).pa

    # --- looking inside ---------------------------------------------------------------------------------------

    def entries(self, *kinds: TlbKind) -> Iterator[Translation]:
        """What the TLBs hold now (of some kinds, or of all)."""
        for stored in self.stored():
            if not kinds or self.state.arrays[stored[0]].kind in kinds:
                yield self.translation(*stored)

    def contents(self, *kinds: TlbKind) -> TlbContents:
        """The same in order, as a table in notebooks."""
        return TlbContents(self.entries(*kinds))

    def stored(self) -> list[tuple[int, int, int]]:
        """The same as (number of the array, tag, leaf), for those who look often; see `translation`."""
        found: list[tuple[int, int, int]] = []
        for number, entries in enumerate(self._entries):
            tags, leaves, _ = entries[(entries[:, 1] & np.uint64(Pte.P)) != 0].T.tolist()
            found.extend(zip((number,) * len(tags), tags, leaves, strict=True))
        return found

    def translation(self, number: int, tag: int, leaf: int) -> Translation:
        """What an entry of an array says."""
        array = self.state.arrays[number]
        kind = TlbKind(array.kind)
        shift = 12 + 9 * ((leaf >> 9) & 3)
        if kind == TlbKind.PAGING_STRUCTURE:
            shift = int(array.shifts).bit_length() - 1
        flags = Pte(leaf & (Pte.P | Pte.W | Pte.U | Pte.D | Pte.G | Pte.NX))
        return Translation(kind, 1 << shift, tag & ~0xFFF, leaf & ADDRESS_MASK, tag & 0xFFF, flags)
