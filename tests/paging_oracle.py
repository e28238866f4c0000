"""A plain reading of the manual: what one access does under 4-level or 5-level paging, with no cache at all.

This is the oracle for the page walker in `emu`. It was written from the manual alone, shares no line and no
constant with `emu`, and prefers the manual's words to speed. Source: Intel SDM Vol. 3A, chapter 4 "Paging";
the section is cited at each rule. (Newer editions, June 2025 for one, put "Linear-Address Pre-Processing"
before it: there, read 5.x for every 4.x below.)

An access ends in one of three ways:

- `Translation`: the access is performed; the accessed and dirty flags named in `updates` are set;
- `PageFault`: exception 14 with the error code of 4.7;
- `NotCanonical`: the linear address never reaches the paging structures (#GP, or #SS for a stack access).

Which flags a *faulting* access sets is not specified. What the manual does say:

- A is set in an entry that a translation uses (4.8). An entry that is not present, or that sets a reserved
  bit, is used for nothing (4.5.4): the entry that ends a walk is never changed.
- The entries above it, or all of them if only the access rights forbid the access, were used: their A may be
  set. It need not be: no sentence orders the update before the fault. (kvm-unit-tests' x86/access.c, which
  runs on real processors, lets a fault set A in a PDE or not, and is stricter for a PTE: unchanged.)
- D is set on a write to the linear address (4.8). A faulting access writes nothing: D is never set.

Hence `PageFault.must_set` is empty, and `PageFault.may_set` lists the entries whose A may, each for itself,
be set.

Not modelled, because the machine has none of it: protection keys (4.6.2), shadow stacks, HLAT paging, LAM,
LASS and EPT. A processor with CET never sets D in an entry whose R/W is 0 (4.8); here it has no CET.

>>> tables = {0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x4007, 0x4008: 0x9005}    # PML4E, PDPTE, PDE, PTE
>>> translate(tables.__getitem__, 0x1000, 0x1abc, Access.READ, 3, Controls())
... # doctest: +NORMALIZE_WHITESPACE
Translation(pa=0x9abc, page_size=4096, writable=False, user=True, nx=False, global_=False,
            updates=((0x1000, 0x2027), (0x2000, 0x3027), (0x3000, 0x4027), (0x4008, 0x9025)))
>>> translate(tables.__getitem__, 0x1000, 0x1abc, Access.WRITE, 3, Controls()).error_code    # P, W/R, U/S
7
>>> translate(tables.__getitem__, 0x1000, 1 << 47, Access.READ, 3, Controls())
NotCanonical()
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Access", "Controls", "NotCanonical", "Outcome", "PageFault", "Translation", "Update", "translate"]

# Flags of a paging-structure entry (Tables 4-14 to 4-20, Figure 4-11). Bit 7 of a PTE is PAT, not PS.
P, RW, US, A, D, PS, G, XD = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 63

# The kind of an entry, numbered by its distance from the page.
PTE, PDE, PDPTE, PML4E, PML5E = 1, 2, 3, 4, 5

# Flags of the page-fault error code (4.7, Figure 4-12).
ERROR_P, ERROR_WR, ERROR_US, ERROR_RSVD, ERROR_ID = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4


class Access(enum.IntEnum):
    """What the access does with the linear address."""

    READ = 0
    WRITE = 1
    FETCH = 2


@dataclass(frozen=True, slots=True)
class Controls:
    """Everything outside the paging structures that 4.1.3, 4.1.4 and 4.6 let decide; defaults as under Linux.

    `physical_bits` is MAXPHYADDR (CPUID.80000008H:EAX[7:0]), `page1g` is CPUID.80000001H:EDX.Page1GB[bit 26].
    """

    cr0_wp: bool = True
    cr4_smep: bool = True
    cr4_smap: bool = True
    cr4_pge: bool = True
    cr4_la57: bool = False
    efer_nxe: bool = True
    physical_bits: int = 46
    page1g: bool = True
    rflags_ac: bool = False

    def __post_init__(self) -> None:
        # 4.1.4: at most 52, and 36 where PAE is supported but CPUID does not tell.
        if not 36 <= self.physical_bits <= 52:
            raise ValueError(f"physical_bits is {self.physical_bits}, expected 36 to 52")


Update = tuple[int, int]
"""A write to a paging-structure entry: (physical address of the entry, new value)."""


@dataclass(frozen=True, slots=True)
class Translation:
    """The access is performed at `pa`, in a page of `page_size` bytes with these rights over all levels.

    `updates` are the entries whose A or D has to be set, from the top of the hierarchy down.
    """

    pa: int
    page_size: int
    writable: bool
    user: bool
    nx: bool
    global_: bool
    updates: tuple[Update, ...]

    def __repr__(self) -> str:
        """Addresses and entries in hexadecimal."""
        return (
            f"Translation(pa={self.pa:#x}, page_size={self.page_size}, writable={self.writable}, "
            f"user={self.user}, nx={self.nx}, global_={self.global_}, updates={_show(self.updates)})"
        )


@dataclass(frozen=True, slots=True)
class PageFault:
    """Exception 14. Of the updates, those in `must_set` happen, each of `may_set` may, and no other does."""

    error_code: int
    must_set: tuple[Update, ...]
    may_set: tuple[Update, ...]

    def __repr__(self) -> str:
        """Addresses and entries in hexadecimal."""
        return (
            f"PageFault(error_code={self.error_code:#x}, "
            f"must_set={_show(self.must_set)}, may_set={_show(self.may_set)})"
        )


@dataclass(frozen=True, slots=True)
class NotCanonical:
    """The linear address is not canonical: #GP(0), or #SS(0) if it was a stack access; no entry is read."""


Outcome = Translation | PageFault | NotCanonical


class Used(NamedTuple):
    """A paging-structure entry that the walk used, where it was found and what was read."""

    address: int
    entry: int


def translate(
    read_entry: Callable[[int], int],
    cr3: int,
    va: int,
    access: Access,
    cpl: int,
    controls: Controls,
    implicit: bool = False,
) -> Outcome:
    """Access linear address `va`; `read_entry` returns the 8 bytes at a physical address.

    `implicit`: the processor itself makes this data access to a system structure (GDT, LDT, IDT, TSS).
    """
    _require_sense(va, access, cpl, implicit)
    if not _is_canonical(va, controls):
        return NotCanonical()
    # 4.6.1: accesses made at CPL 3 are user-mode accesses, but implicit ones are supervisor-mode at any CPL.
    user_mode = cpl == 3 and not implicit

    used, level, cause = _walk(read_entry, cr3, va, controls)
    if cause is not None:
        return _page_fault(cause, used, access, user_mode, controls)
    # 4.7: with a valid translation, a fault means that its access rights do not permit the access.
    may = _user_may(used, access) if user_mode else _supervisor_may(used, access, controls, implicit)
    if not may:
        return _page_fault(ERROR_P, used, access, user_mode, controls)
    return _translation(used, level, va, access, controls)


def _walk(
    read_entry: Callable[[int], int], cr3: int, va: int, controls: Controls
) -> tuple[list[Used], int, int | None]:
    """From CR3 down: the entries used, the level reached and, if there is no translation, why (4.7)."""
    used: list[Used] = []
    level = PML5E if controls.cr4_la57 else PML4E
    table = cr3 & _bits(51, 12)  # 4.5.2: PCID, PWT and PCD, below bit 12, take no part in the walk.
    while True:
        # 4.5.4: bits 11:3 of an entry's address are nine bits of the linear address, bits 2:0 are 0.
        address = table | _index(va, level) << 3
        entry = read_entry(address)
        # 4.5.4: an entry without P, or with a reserved bit set, is not used, so there is no translation.
        # 4.7, RSVD flag: without P, reserved bits are not checked.
        if not entry & P:
            return used, level, 0
        if entry & _reserved_bits(level, entry, controls):
            return used, level, ERROR_P | ERROR_RSVD
        used.append(Used(address, entry))
        if _maps_page(level, entry):
            return used, level, None
        table = entry & _bits(51, 12)
        level -= 1


def _require_sense(va: int, access: Access, cpl: int, implicit: bool) -> None:
    if not 0 <= va < 1 << 64:
        raise ValueError(f"va is {va:#x}, expected an unsigned 64-bit address")
    if not 0 <= cpl <= 3:
        raise ValueError(f"cpl is {cpl}, expected 0 to 3")
    if implicit and access == Access.FETCH:
        raise ValueError("an instruction fetch is never implicit: 4.6.1 knows implicit data accesses only")


def _bits(high: int, low: int) -> int:
    """The mask of bits `high`:`low`, as the manual writes a range; empty if `low` is `high` + 1."""
    return (1 << high + 1) - (1 << low)


def _is_canonical(va: int, controls: Controls) -> bool:
    # Vol. 1, 3.3.7.1: bits 63 down to the most-significant implemented bit are all 0 or all 1.
    sign_bit = 56 if controls.cr4_la57 else 47
    sign = va & _bits(63, sign_bit)
    return sign in (0, _bits(63, sign_bit))


def _offset_bits(level: int) -> int:
    """How many low bits of a linear address are left when an entry of `level` has been used."""
    return 12 + 9 * (level - 1)


def _index(va: int, level: int) -> int:
    # 4.5.4: PML5E 56:48, PML4E 47:39, PDPTE 38:30, PDE 29:21, PTE 20:12.
    return va >> _offset_bits(level) & 0x1FF


def _maps_page(level: int, entry: int) -> bool:
    # 4.5.4: a PDPTE or a PDE maps a page if its PS is 1; every PTE does.
    return level == PTE or (level in (PDE, PDPTE) and bool(entry & PS))


def _reserved_bits(level: int, entry: int, controls: Controls) -> int:
    # 4.5.4, "The following bits are reserved with 4-level paging and 5-level paging", item by item.
    reserved = _bits(51, controls.physical_bits)
    if level in (PML5E, PML4E):
        reserved |= PS
    if level == PDPTE and not controls.page1g:
        reserved |= PS
    if level == PDPTE and entry & PS:
        reserved |= _bits(29, 13)
    if level == PDE and entry & PS:
        reserved |= _bits(20, 13)
    if not controls.efer_nxe:
        reserved |= XD
    return reserved


def _is_user_address(used: list[Used]) -> bool:
    # 4.6.1: U/S = 0 in at least one entry makes it a supervisor-mode address.
    return all(entry & US for _, entry in used)


def _is_writable(used: list[Used]) -> bool:
    # 4.6.1: R/W has to be 1 in every entry controlling the translation.
    return all(entry & RW for _, entry in used)


def _is_execute_disabled(used: list[Used]) -> bool:
    # 4.6.1: XD = 1 in any entry is enough. (With IA32_EFER.NXE = 0 it is reserved: no used entry has it.)
    return any(entry & XD for _, entry in used)


def _user_may(used: list[Used], access: Access) -> bool:
    # 4.6.1, "For user-mode accesses": a supervisor-mode address is out of bounds for reads, writes and
    # fetches. CR0.WP, CR4.SMEP, CR4.SMAP and EFLAGS.AC have no say.
    if not _is_user_address(used):
        return False
    if access == Access.WRITE:
        return _is_writable(used)
    if access == Access.FETCH:
        return not _is_execute_disabled(used)
    return True


def _supervisor_may(used: list[Used], access: Access, controls: Controls, implicit: bool) -> bool:
    # 4.6.1, "For supervisor-mode accesses".
    user_address = _is_user_address(used)
    if access == Access.FETCH:
        # "Instruction fetches from user-mode addresses": SMEP; from either mode of address: XD.
        return not (user_address and controls.cr4_smep) and not _is_execute_disabled(used)
    if user_address and controls.cr4_smap and (implicit or not controls.rflags_ac):
        # "If EFLAGS.AC = 0 or the access is implicit": neither reads nor writes of user-mode addresses.
        return False
    # CR0.WP = 0 lets supervisor-mode writes ignore R/W, at supervisor-mode and at user-mode addresses.
    return access == Access.READ or not controls.cr0_wp or _is_writable(used)


def _page_fault(cause: int, used: list[Used], access: Access, user_mode: bool, controls: Controls) -> PageFault:
    # 4.7: P and RSVD tell the cause; W/R, U/S and I/D describe the access, not the rights.
    error_code = cause
    if access == Access.WRITE:
        error_code |= ERROR_WR
    if user_mode:
        error_code |= ERROR_US
    # 4.7: I/D only exists with CR4.SMEP = 1, or with IA32_EFER.NXE = 1 (CR4.PAE is 1 in both paging modes).
    if access == Access.FETCH and (controls.cr4_smep or controls.efer_nxe):
        error_code |= ERROR_ID
    may_set = tuple((address, entry | A) for address, entry in used if not entry & A)
    return PageFault(error_code, must_set=(), may_set=may_set)


def _translation(used: list[Used], level: int, va: int, access: Access, controls: Controls) -> Translation:
    # 4.5.4: the page's address bits come from the last entry (down to bit 12, 21 or 30), the rest from `va`.
    offset_bits = _offset_bits(level)
    leaf = used[-1].entry
    return Translation(
        pa=leaf & _bits(51, offset_bits) | va & _bits(offset_bits - 1, 0),
        page_size=1 << offset_bits,
        writable=_is_writable(used),
        user=_is_user_address(used),
        nx=_is_execute_disabled(used),
        global_=bool(leaf & G) and controls.cr4_pge,  # 4.10.2.4: G of the entry that maps the page
        updates=_updates(used, access),
    )


def _updates(used: list[Used], access: Access) -> tuple[Update, ...]:
    # 4.8: A in every entry used; D, on a write, in the one that identifies the final physical address.
    *_, (leaf_address, leaf) = used
    flags = A | D if access == Access.WRITE else A
    updates = [(address, entry | A) for address, entry in used[:-1] if not entry & A]
    if leaf & flags != flags:
        updates.append((leaf_address, leaf | flags))
    return tuple(updates)


def _show(updates: tuple[Update, ...]) -> str:
    pairs = [f"({address:#x}, {value:#x})" for address, value in updates]
    return f"({', '.join(pairs)}{',' if len(pairs) == 1 else ''})"
