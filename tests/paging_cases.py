"""The exhaustive list of accesses for the page walker: every combination of the bits that could matter.

The idea is that of kvm-unit-tests' x86/access.c: every entry bit, access kind and control bit is one more
doubling, and a machine that agrees with the oracle on all of them has no rule left to get wrong. All at once
would be 2**50 cases, so there are families, each exhaustive in one direction:

- `entry`: one entry has every combination of P, R/W, U/S, A, D, PS, G, NX and a reserved bit; the others
  permit everything;
- `rights`: R/W, U/S and NX in every combination over all levels together;
- `trouble`: every level has any one of several troubles, so that each meets each: which of them is reported?
- `accessed`: A in every combination over all levels, with D and G, for accesses that succeed and that fault;
- `bit`: each of the 64 bits of each entry, one at a time, for several MAXPHYADDR and with or without 1-GByte
  pages;
- `address`: each bit of a linear address, the edges of the canonical halves, and what lies between them.

A family is made as structured numpy arrays (dtype `CASE`), whose columns (`batch["va"]`, `batch["entries"]`)
a native driver can run in one call. `cases` yields the same cases as `Case` objects, which know the oracle's
answer. The paging structures of all cases lie at fixed places in `RAM_SIZE` bytes that are otherwise zero;
the *page* may be anywhere below 2**52 and need not exist.

>>> case = next(cases("rights"))
>>> print(case.describe())
rights: read cpl=0 va=0xffff923456788abc | pge page1g M=46
  pml4e @ 0x10920: 0x0000000000014001 p
  pdpte @ 0x14688: 0x0000000040000081 p ps
>>> case.expected().page_size
1073741824
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from paging_oracle import Access, Controls, Outcome, translate

__all__ = ["CASE", "FAMILIES", "RAM_SIZE", "Case", "batches", "cases", "entry_addresses"]

P, RW, US, PWT, PCD, A, D, PS, G, NX = (1 << n for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 63))
FLAG_NAMES = {P: "p", RW: "rw", US: "us", PWT: "pwt", PCD: "pcd", A: "a", D: "d", PS: "ps", G: "g", NX: "nx"}
LEVEL_NAMES = {5: "pml5e", 4: "pml4e", 3: "pdpte", 2: "pde", 1: "pte"}

# Where the table of each level lies. A page directory and a page table have zeros where a PDPTE or a PDE that
# maps a page has reserved bits (29:13, 20:13), so that setting PS alone makes a good 1-GByte or 2-MByte page;
# the pages one bit 13 away from them are empty.
TABLE = {5: 0x1_8000, 4: 0x1_0000, 3: 0x1_4000, 2: 0x1000, 1: 0x20_0000}
RAM_SIZE = 0x20_3000
FRAME = {1: 0x31_5000, 2: 0x60_0000, 3: 0x4000_0000}

# One address a half and a number of levels. Every table is entered at another index, and bit 12 is 0, so that
# the PAT flag of a large page (bit 12 of its entry) would show in the physical address.
LOW = {4: 0x0000_1234_5678_8ABC, 5: 0x00A5_1234_5678_8ABC}
HIGH = {4: 0xFFFF_9234_5678_8ABC, 5: 0xFF5A_9234_5678_8ABC}

# In an entry that maps 2 MBytes or 1 GByte this bit is reserved; in others it is a bit of an address.
LOW_RESERVED = 1 << 13
HIGH_RESERVED = 1 << 51

CONTROL_COLUMNS = [field.name for field in fields(Controls)]

CASE = np.dtype(
    [("levels", "u1"), ("cr3", "u8"), ("entries", "u8", (5,)), ("va", "u8")]
    + [("access", "u1"), ("cpl", "u1"), ("implicit", "?")]
    + [(name, "u1" if name == "physical_bits" else "?") for name in CONTROL_COLUMNS],
    align=True,
)
"""One access. `entries` holds one entry a level from the top (PML5E or PML4E); after 4 levels comes a 0."""

Cases = NDArray[np.void]
Entries = list[int]


class Shape(NamedTuple):
    """How many levels of paging, and whose entry maps the page: 1 (4 KBytes), 2 (2 MBytes) or 3 (1 GByte)."""

    levels: int
    leaf: int


SHAPES = [Shape(levels, leaf) for levels in (4, 5) for leaf in (1, 2, 3)]


class Mode(NamedTuple):
    """Who makes the access."""

    access: Access
    cpl: int
    implicit: bool


MODES = [Mode(access, cpl, False) for cpl in (0, 3) for access in Access] + [
    Mode(access, cpl, True) for cpl in (0, 3) for access in (Access.READ, Access.WRITE)
]

Situation = tuple[Mode, Controls]

BARE = Controls(cr0_wp=False, cr4_smep=False, cr4_smap=False, efer_nxe=False)
FULL = Controls(cr0_wp=True, cr4_smep=True, cr4_smap=True, efer_nxe=True)


def _controls(base: Controls, *names: str) -> list[Controls]:
    """`base` with every combination of the controls called `names`."""
    rows = product((False, True), repeat=len(names))
    return [replace(base, **dict(zip(names, row, strict=True))) for row in rows]


EVERY_SITUATION: list[Situation] = list(
    product(MODES, _controls(BARE, "cr0_wp", "cr4_smep", "cr4_smap", "rflags_ac", "efer_nxe"))
)
EXTREME_SITUATIONS: list[Situation] = list(product(MODES, (BARE, FULL)))


def _relevant_situations() -> list[Situation]:
    """Every mode, with every combination of only those controls that may decide its rights."""
    relevant = {Access.READ: ["cr4_smap", "rflags_ac"], Access.FETCH: ["cr4_smep"]}
    relevant[Access.WRITE] = ["cr0_wp", *relevant[Access.READ]]
    situations: list[Situation] = []
    for mode in MODES:
        user_mode = mode.cpl == 3 and not mode.implicit
        situations += product([mode], _controls(FULL, *([] if user_mode else relevant[mode.access])))
    return situations


def _choices(value: int, *flags: int) -> list[int]:
    """`value` with every combination of `flags` added."""
    values = [value]
    for flag in flags:
        values += [v | flag for v in values]
    return values


def _address_bits(shape: Shape, level: int) -> int:
    """What the entry of `level` points to: the next table, or the page (with PS where that needs it)."""
    if level > shape.leaf:
        return TABLE[level - 1]
    return FRAME[level] | (PS if level > 1 else 0)


def _used_levels(shape: Shape) -> range:
    return range(shape.levels, shape.leaf - 1, -1)


def _permissive(shape: Shape) -> Entries:
    return [_address_bits(shape, level) | P | RW | US for level in _used_levels(shape)]


def _cross(
    shape: Shape, tables: Iterable[Sequence[int]], situations: list[Situation], va: int | Sequence[int]
) -> Cases:
    """Every row of `tables` in every situation; `va` is one for all, or one for each row of `tables`."""
    entries = np.array([[*row, 0, 0, 0, 0][:5] for row in tables], dtype=np.uint64)
    batch = np.zeros((len(situations), len(entries)), dtype=CASE)
    batch["levels"] = shape.levels
    batch["cr3"] = TABLE[shape.levels] | PWT | PCD
    batch["entries"] = entries
    batch["va"] = np.asarray(va, dtype=np.uint64)
    for rows, (mode, controls) in zip(batch, situations, strict=True):
        rows["access"], rows["cpl"], rows["implicit"] = mode
        for name in CONTROL_COLUMNS:
            rows[name] = getattr(controls, name)
    batch["cr4_la57"] = shape.levels == 5
    return batch.ravel()


def _entry_values(shape: Shape, level: int, present: int) -> list[int]:
    """Every value of one entry, with no more than one of the two reserved bits: two would show no more."""
    flagged = _choices(_address_bits(shape, level) | present, RW, US, A, D, PS, G, NX)
    # From PML4E and PML5E bit 13 would lead into other tables; there PS is the low reserved bit.
    reserved = [0, HIGH_RESERVED] if level > 3 else [0, HIGH_RESERVED, LOW_RESERVED]
    return [value | bit for value in flagged for bit in reserved]


def _entry() -> Iterator[Cases]:
    for shape in SHAPES:
        for n, level in enumerate(_used_levels(shape)):
            if level == shape.leaf > 1:
                continue  # the same entry with PS = 1 is met where it could be a table: leaf == 1
            table = _permissive(shape)
            first_met = level > 4 or shape.levels == 4
            situations = EVERY_SITUATION if shape.leaf == 1 and first_met else EXTREME_SITUATIONS
            for present, where in ((P, situations), (0, EXTREME_SITUATIONS)):
                rows = [[*table[:n], v, *table[n + 1 :]] for v in _entry_values(shape, level, present)]
                yield _cross(shape, rows, where, LOW[shape.levels])


def _rights() -> Iterator[Cases]:
    relevant = _relevant_situations()
    for shape in sorted(SHAPES, key=lambda shape: shape.levels - shape.leaf):
        bare = [_address_bits(shape, level) | P for level in _used_levels(shape)]
        situations = EVERY_SITUATION if shape in (Shape(4, 3), Shape(4, 2)) else relevant
        if shape.levels == 4:
            rows = list(product(*(_choices(value, RW, US, NX) for value in bare)))
        else:  # 2**15 combinations would be too many: each pair with U/S, the third right granted everywhere
            rows = list(product(*(_choices(value, RW, US) for value in bare)))
            rows += product(*(_choices(value | RW, US, NX) for value in bare))
        yield _cross(shape, dict.fromkeys(rows), situations, HIGH[shape.levels])


def _trouble() -> Iterator[Cases]:
    for shape in SHAPES:
        columns: list[Entries] = []
        for good in _permissive(shape):
            absent, reserved = good & ~P, good | HIGH_RESERVED
            troubles = [good, absent, reserved, good & ~US]
            if shape != Shape(5, 1):  # 7**5 combinations would be too many
                troubles += [absent | HIGH_RESERVED, good & ~RW, good | NX]
            columns.append(troubles)
        yield _cross(shape, product(*columns), EXTREME_SITUATIONS, HIGH[shape.levels])


def _accessed() -> Iterator[Cases]:
    situations = list(product(MODES, _controls(BARE, "cr0_wp", "cr4_pge")))
    for shape in SHAPES:
        *upper, leaf = _permissive(shape)
        columns = [_choices(value, A) for value in upper] + [_choices(leaf, A, D, G)]
        permitted = list(product(*columns))
        read_only = [(*row[:-1], row[-1] & ~RW) for row in permitted]
        supervisor = [(row[0] & ~US, *row[1:]) for row in permitted]
        yield _cross(shape, permitted + read_only + supervisor, situations, LOW[shape.levels])


def _flippable(shape: Shape, level: int, physical_bits: int) -> list[int]:
    """The bits of an entry that leave the paging structures where they are."""
    if level == shape.leaf:
        return [bit for bit in range(64) if not (1 << bit == PS and level > 1)]
    return [bit for bit in range(64) if not 12 <= bit < physical_bits]


def _bit() -> Iterator[Cases]:
    modes = [
        Mode(Access.READ, 0, False),
        Mode(Access.WRITE, 3, False),
        Mode(Access.FETCH, 3, False),
        Mode(Access.READ, 3, True),
    ]
    for shape, physical_bits in product(SHAPES, (36, 39, 46, 52)):
        table = _permissive(shape)
        rows = [
            [*table[:n], table[n] ^ 1 << bit, *table[n + 1 :]]
            for n, level in enumerate(_used_levels(shape))
            for bit in _flippable(shape, level, physical_bits)
        ]
        controls = _controls(replace(BARE, physical_bits=physical_bits), "page1g", "efer_nxe")
        yield _cross(shape, rows, list(product(modes, controls)), HIGH[shape.levels])


def _address() -> Iterator[Cases]:
    everything = (1 << 64) - 1
    addresses = [0, everything]
    for sign_bit in (47, 56):
        first_high = everything - (1 << sign_bit) + 1
        addresses += [(1 << sign_bit) - 1, 1 << sign_bit, first_high - 1, first_high]
    for bit, base in product(range(64), (0, everything, *LOW.values(), *HIGH.values())):
        addresses.append(base ^ 1 << bit)
    addresses = sorted(set(addresses))
    situations = list(product(MODES, [replace(FULL, rflags_ac=True)]))
    for shape in SHAPES:
        yield _cross(shape, [_permissive(shape)] * len(addresses), situations, addresses)


FAMILIES: dict[str, Callable[[], Iterator[Cases]]] = {
    "entry": _entry,
    "rights": _rights,
    "trouble": _trouble,
    "accessed": _accessed,
    "bit": _bit,
    "address": _address,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One access; `entries` from the top, one a level (those below the entry that maps the page are 0)."""

    family: str
    cr3: int
    entries: tuple[int, ...]
    va: int
    access: Access
    cpl: int
    implicit: bool
    controls: Controls

    def memory(self) -> dict[int, int]:
        """The entries by physical address; all other memory is zero."""
        levels = len(self.entries)
        addresses = (TABLE[level] + 8 * (self.va >> 12 + 9 * (level - 1) & 0x1FF) for level in range(levels, 0, -1))
        return dict(zip(addresses, self.entries, strict=True))

    def expected(self) -> Outcome:
        """What the oracle says."""
        memory = self.memory()
        return translate(
            lambda address: memory.get(address, 0),
            self.cr3,
            self.va,
            self.access,
            self.cpl,
            self.controls,
            self.implicit,
        )

    def describe(self) -> str:
        """The case as kvm-unit-tests would print it: what is set has a name, what is not is not there."""
        switches = [name.partition("_")[2] or name for name in CONTROL_COLUMNS if self._is_on(name)]
        implicit = " implicit" if self.implicit else ""
        lines = [
            f"{self.family}: {self.access.name.lower()} cpl={self.cpl}{implicit} va={self.va:#x} | "
            f"{' '.join(switches)} M={self.controls.physical_bits}"
        ]
        levels = range(len(self.entries), 0, -1)
        for level, (address, entry) in zip(levels, self.memory().items(), strict=True):
            if entry:
                flags = " ".join(name for flag, name in FLAG_NAMES.items() if entry & flag)
                lines.append(f"  {LEVEL_NAMES[level]:5} @ {address:#x}: {entry:#018x} {flags}".rstrip())
        return "\n".join(lines)

    def _is_on(self, control: str) -> bool:
        return control != "physical_bits" and bool(getattr(self.controls, control))


def batches(*families: str) -> Iterator[tuple[str, Cases]]:
    """The cases of the named families (of all, if none is named), as (family, array of `CASE`)."""
    for family in families or FAMILIES:
        for batch in FAMILIES[family]():
            yield family, batch


def entry_addresses(batch: Cases) -> NDArray[np.uint64]:
    """The physical address of each of `batch["entries"]`; 0 where there is no such level."""
    level = batch["levels"][:, np.newaxis] - np.arange(5, dtype=np.int64)
    table = np.array([0, *(TABLE[level] for level in range(1, 6))], dtype=np.uint64)[level]
    shift = (12 + 9 * np.maximum(level - 1, 0)).astype(np.uint64)
    index = batch["va"][:, np.newaxis] >> shift & np.uint64(0x1FF)
    return np.where(level > 0, table + np.uint64(8) * index, np.uint64(0))


def cases(*families: str, step: int = 1) -> Iterator[Case]:
    """The cases of the named families (of all, if none is named); only every `step`-th of each batch."""
    for family, batch in batches(*families):
        yield from _as_cases(family, batch[::step])


def _as_cases(family: str, batch: Cases) -> Iterator[Case]:
    known: dict[tuple[Any, ...], Controls] = {}
    accesses = list(Access)
    columns = (batch[name].tolist() for name in ("levels", "cr3", "entries", "va", "access", "cpl", "implicit"))
    switches = zip(*(batch[name].tolist() for name in CONTROL_COLUMNS), strict=True)
    for row, switch in zip(zip(*columns, strict=True), switches, strict=True):
        controls = known.get(switch) or known.setdefault(switch, Controls(*switch))
        levels, cr3, entries, va, access, cpl, implicit = row
        yield Case(family, cr3, tuple(entries[:levels]), va, accesses[access], cpl, implicit, controls)
