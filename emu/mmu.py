"""The memory management unit as Python sees it: build its TLBs from a profile, flush them, translate, look inside.

The work itself is native (`translate.py`); this is the handle on it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from .exceptions import InputError, MachineError, ProcessorException
from .profile import PAGE_SIZES, Profile, TlbGeometry
from .pte import PAGE_SIZE, Access, Pte
from .ram import Ram
from .state import Fault, State, TlbArray, TlbEntry, TlbKind
from .walk_report import page_walk

__all__ = ["TLB_POLICIES", "Mmu", "Translation"]

TLB_POLICIES: Final = {"fifo": 0, "random": 1, "lru": 2, "plru": 3}
"""Replacement policies by name. FIFO and random never look at hits."""

PLRU_WAYS: Final = 64
"""The tree of one set is one word."""

WRITE: Final = int(Access.WRITE)
IMPLICIT: Final = 4
PAGE_FAULT: Final = 14
GENERAL_PROTECTION: Final = 13
ANY: Final = -1
MASK64: Final = (1 << 64) - 1
_WORD = ctypes.c_int64


@dataclass(frozen=True, slots=True)
class Translation:
    """One entry of a TLB or paging-structure cache."""

    kind: TlbKind
    page_size: int  # bytes
    va: int
    pa: int
    pcid: int
    flags: Pte


class Mmu:
    """TLBs of one profile over one RAM."""

    def __init__(self, state: State, ram: Ram, profile: Profile, policy: str, tlb: bool, code: dict[str, int]) -> None:
        if policy not in TLB_POLICIES:
            raise InputError(f"unknown TLB policy {policy!r}; there are {', '.join(TLB_POLICIES)}")
        self.state, self.ram, self.profile = state, ram, profile
        self._address = ctypes.addressof(state)
        self._storage: list[Any] = []
        state.no_tlb = not tlb
        if tlb:
            self._build(profile, TLB_POLICIES[policy])
        self._translate = ctypes.CFUNCTYPE(_WORD, _WORD, _WORD, _WORD)(code["translate_entry"])
        self._load = ctypes.CFUNCTYPE(_WORD, _WORD, _WORD, _WORD)(code["load_entry"])
        self._store = ctypes.CFUNCTYPE(None, _WORD, _WORD, _WORD, _WORD)(code["store_entry"])
        self._invalidate = ctypes.CFUNCTYPE(None, _WORD, _WORD, _WORD, _WORD)(code["invalidate_entry"])

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
        entries = (TlbEntry * geometry.entries)()
        trees = (ctypes.c_uint64 * geometry.sets)()
        self._storage += [entries, trees]
        self.state.arrays[number] = TlbArray(
            kind=kind,
            shifts=sum(1 << shift for shift in shifts),
            entries=ctypes.addressof(entries),
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

    def pieces(self, va: int, size: int, access: Access, *, implicit: bool = False) -> Iterator[tuple[int, int]]:
        """Physical ranges (address, size) of a virtual range, page by page; counts one access per 8 bytes."""
        while size > 0:
            step = min(size, PAGE_SIZE - va % PAGE_SIZE)
            pa = self.translate(va, access, implicit=implicit)
            words = (step + 7) // 8
            if access == Access.WRITE:
                self.state.writes += words
            else:
                self.state.reads += words
            yield pa, step
            va, size = (va + step) & MASK64, size - step

    def read(self, va: int, size: int, *, implicit: bool = False) -> bytes:
        """Read a virtual range with the current rights. Raises ProcessorException at the first refused page."""
        ram = self.ram
        return b"".join([ram.read(pa, n) for pa, n in self.pieces(va, size, Access.READ, implicit=implicit)])

    def write(self, va: int, data: bytes, *, implicit: bool = False) -> None:
        """Write a virtual range with the current rights. Raises ProcessorException at the first refused page."""
        done = 0
        for pa, n in self.pieces(va, len(data), Access.WRITE, implicit=implicit):
            self.ram.write(pa, data[done : done + n])
            done += n

    def load64(self, va: int, *, implicit: bool = False) -> int:
        """One aligned 8-byte load. Raises ProcessorException when it is refused."""
        value: int = self._load(self._address, va, IMPLICIT if implicit else 0)
        if self.state.fault:
            raise self.exception(va)
        return value & MASK64

    def store64(self, va: int, value: int, *, implicit: bool = False) -> None:
        """One aligned 8-byte store. Raises ProcessorException when it is refused."""
        self._store(self._address, va, value, WRITE | IMPLICIT if implicit else WRITE)
        if self.state.fault:
            raise self.exception(va)
        if self.state.code_written:
            self.state.code_written = 0
            self.ram.on_code_write(0)

    def peek(self, va: int) -> int | None:
        """Physical address of `va` in the current page tables, whatever its rights; no effect, nothing counted."""
        return page_walk(self.ram, self.state.cr3, va, self.state.levels).pa

    # --- looking inside ---------------------------------------------------------------------------------------

    def entries(self, *kinds: TlbKind) -> Iterator[Translation]:
        """What the TLBs hold now (of some kinds, or of all)."""
        for array in self.state.arrays[: self.state.array_count]:
            if kinds and array.kind not in kinds:
                continue
            stored = (TlbEntry * (array.sets * array.ways)).from_address(array.entries)
            for entry in stored:
                if entry.leaf & Pte.P:
                    yield _translation(array, entry)


def _translation(array: Any, entry: Any) -> Translation:
    kind = TlbKind(array.kind)
    shift = 12 + 9 * ((entry.leaf >> 9) & 3)
    if kind == TlbKind.PAGING_STRUCTURE:
        shift = int(array.shifts).bit_length() - 1
    flags = Pte(entry.leaf & (Pte.P | Pte.W | Pte.U | Pte.D | Pte.G | Pte.NX))
    return Translation(kind, 1 << shift, entry.tag & ~0xFFF, entry.leaf & 0xF_FFFF_FFFF_F000, entry.tag & 0xFFF, flags)
