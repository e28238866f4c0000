"""Bit layouts of paging, drawn once: page-table entries, CR0/CR3/CR4/EFER, the page-fault error code.

A page-table entry (Intel SDM Vol. 3A 4.5, Tables 4-15 to 4-20) is 64 bits::

     63  62     52 51                              12 11  9 8 7 6 5 4 3 2 1 0
    +---+---------+----------------------------------+-----+-+-+-+-+-+-+-+-+-+
    |NX | ignored |  physical address (pfn << 12)     | ign |G|S|D|A|C|T|U|W|P|
    +---+---------+----------------------------------+-----+-+-+-+-+-+-+-+-+-+

`S` (PS) makes an entry of level 2 or 3 a leaf: a 2 MiB or a 1 GiB page. `G` and `D` mean something
only in a leaf. The processor itself sets `A` on use and `D` on the first write.

>>> describe_entry(0x8000000000123067)
'pfn 0x123 P W U A D NX'
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

__all__ = [
    "ADDRESS_MASK",
    "ANY_RIGHTS",
    "CR3_NOFLUSH",
    "IMPLICIT",
    "INDEX_MASK",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "Access",
    "Cr0",
    "Cr4",
    "Efer",
    "Pte",
    "Rflags",
    "describe_entry",
    "describe_error_code",
]

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
INDEX_MASK: Final = 511
"""An index of one table: 9 bits, 512 entries of 8 bytes."""

ADDRESS_MASK: Final = 0x000F_FFFF_FFFF_F000
"""Bits 51:12, the physical address in an entry or in CR3."""

CR3_NOFLUSH: Final = 1 << 63
"""Bit 63 of the value written to CR3 with CR4.PCIDE = 1: keep the PCID's entries (SDM 4.10.4.1)."""


class Pte(IntFlag):
    """Flags of a paging-structure entry, SDM Vol. 3A Table 4-20."""

    P = 1 << 0
    W = 1 << 1
    U = 1 << 2
    PWT = 1 << 3
    PCD = 1 << 4
    A = 1 << 5
    D = 1 << 6
    PS = 1 << 7
    G = 1 << 8
    NX = 1 << 63


class Access(IntEnum):
    """What an access wants of a page. The numbers are those that the native code uses."""

    READ = 0
    WRITE = 1
    FETCH = 2


IMPLICIT: Final = 4
"""Added to an access: made by the processor itself (IDT, TSS, GDT), with supervisor rights at any CPL (SDM 4.6.1)."""

ANY_RIGHTS: Final = 8
"""Added to an access: only the translation is asked for, whatever its rights, as a prefetch does."""


class Cr0(IntFlag):
    """Control register 0, SDM Vol. 3A 2.5."""

    PE = 1 << 0
    MP = 1 << 1
    ET = 1 << 4
    NE = 1 << 5
    WP = 1 << 16
    AM = 1 << 18
    NW = 1 << 29
    CD = 1 << 30
    PG = 1 << 31


class Cr4(IntFlag):
    """Control register 4, SDM Vol. 3A 2.5."""

    TSD = 1 << 2
    PAE = 1 << 5
    PGE = 1 << 7
    OSFXSR = 1 << 9
    OSXMMEXCPT = 1 << 10
    LA57 = 1 << 12
    FSGSBASE = 1 << 16
    PCIDE = 1 << 17
    OSXSAVE = 1 << 18
    SMEP = 1 << 20
    SMAP = 1 << 21


class Efer(IntFlag):
    """Model-specific register IA32_EFER, SDM Vol. 3A 2.2.1."""

    SCE = 1 << 0
    LME = 1 << 8
    LMA = 1 << 10
    NXE = 1 << 11


class Rflags(IntFlag):
    """The flags register, SDM Vol. 1 3.4.3."""

    CF = 1 << 0
    FIXED = 1 << 1
    PF = 1 << 2
    AF = 1 << 4
    ZF = 1 << 6
    SF = 1 << 7
    TF = 1 << 8
    IF = 1 << 9
    DF = 1 << 10
    OF = 1 << 11
    IOPL = 3 << 12
    NT = 1 << 14
    RF = 1 << 16
    VM = 1 << 17
    AC = 1 << 18
    VIF = 1 << 19
    VIP = 1 << 20
    ID = 1 << 21


class ErrorCode(IntFlag):
    """The page-fault error code, SDM Vol. 3A 4.7."""

    P = 1 << 0
    W = 1 << 1
    U = 1 << 2
    RSVD = 1 << 3
    I = 1 << 4  # noqa: E741 - the manual's name


def describe_entry(entry: int) -> str:
    """One entry in words: `not present`, or its pfn and its flags in the order of the bits."""
    if not entry & Pte.P:
        return "not present" if not entry else f"not present (raw {entry:#x})"
    flags = " ".join(flag.name or "" for flag in Pte if entry & flag)
    return f"pfn {(entry & ADDRESS_MASK) >> PAGE_SHIFT:#x} {flags}"


def describe_error_code(code: int) -> str:
    """A page-fault error code in words.

    >>> describe_error_code(6)
    'not-present write user'
    """
    words = ["protection" if code & ErrorCode.P else "not-present"]
    words.append("fetch" if code & ErrorCode.I else "write" if code & ErrorCode.W else "read")
    words.append("user" if code & ErrorCode.U else "kernel")
    if code & ErrorCode.RSVD:
        words.append("reserved-bit")
    return " ".join(words)
