"""The oracle says what Intel SDM Vol. 3A, chapter 4 says, and the case list leaves nothing out.

Every expectation here was derived from the manual by hand; the first word of each is its section.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paging_cases import FAMILIES, RAM_SIZE, batches, cases, entry_addresses
from paging_oracle import Access, Controls, NotCanonical, Outcome, PageFault, Translation, translate

FLAGS = {"p": 0, "rw": 1, "us": 2, "pwt": 3, "pcd": 4, "a": 5, "d": 6, "ps": 7, "g": 8, "nx": 63}
ERROR_FLAGS = {"p": 1, "wr": 2, "us": 4, "rsvd": 8, "id": 16}
LEVELS = ["pml5e", "pml4e", "pdpte", "pde", "pte"]
CR3 = 0x1000
VA = 0x0000_0081_4060_5ABC  # PML4 index 1, PDPT index 5, PD index 3, PT index 5
POINTS_TO = {"pml5e": 0x5000, "pml4e": 0x2000, "pdpte": 0x4000_3000, "pde": 0x20_4000, "pte": 0x9000}
PLAIN = Controls(cr0_wp=False, cr4_smep=False, cr4_smap=False, cr4_pge=False, efer_nxe=False)


def bits(words: str) -> int:
    """`"p rw 51"` is an entry with P, R/W and bit 51."""
    return sum(1 << (FLAGS[word] if word in FLAGS else int(word)) for word in words.split())


def switched(words: str) -> Controls:
    """`"wp nxe ac"` is a processor with just these on; `M=36` and `no1g` are about CPUID."""
    names = {"wp": "cr0_wp", "smep": "cr4_smep", "smap": "cr4_smap", "pge": "cr4_pge", "la57": "cr4_la57"}
    names |= {"nxe": "efer_nxe", "ac": "rflags_ac"}
    controls = PLAIN
    for word in words.split():
        if word.startswith("M="):
            controls = replace(controls, physical_bits=int(word[2:]))
        elif word == "no1g":
            controls = replace(controls, page1g=False)
        else:
            controls = replace(controls, **{names[word]: True})
    return controls


def hierarchy(va: int, controls: Controls, entries: dict[str, str]) -> dict[int, int]:
    """Tables that map `va`: an entry a level, `p rw us` where `entries` does not say otherwise."""
    memory, table = {}, CR3
    for level in LEVELS if controls.cr4_la57 else LEVELS[1:]:
        shift = 12 + 9 * (4 - LEVELS.index(level))
        memory[table + 8 * (va >> shift & 511)] = POINTS_TO[level] | bits(entries.get(level, "p rw us"))
        table = POINTS_TO[level]
    return memory


class Ram(dict[int, int]):
    """Physical memory, zero where nothing was written; `reads` are the addresses a walk read, in order."""

    def __init__(self, content: dict[int, int]) -> None:
        super().__init__(content)
        self.reads: list[int] = []

    def read(self, address: int) -> int:
        self.reads.append(address)
        return self.get(address, 0)


def access(kind: str, memory: dict[int, int], controls: Controls, va: int = VA) -> Outcome:
    """`kind` is "user read", "supervisor fetch", "implicit write" ... ("implicit" at CPL 3)."""
    who, what = kind.split()
    cpl = 0 if who == "supervisor" else 3
    ram = memory if isinstance(memory, Ram) else Ram(memory)
    return translate(ram.read, CR3, va, Access[what.upper()], cpl, controls, who == "implicit")


OK = "ok"
MANUAL: list[tuple[str, str, str, str, str]] = [
    # promise, access, entries that are not "p rw us", controls that are on, what happens
    ("4.6.1 users read user-mode addresses", "user read", "", "", OK),
    ("4.6.1 users write them if R/W", "user write", "", "", OK),
    ("4.6.1 users fetch from them", "user fetch", "", "nxe", OK),
    ("4.6.1 no U/S in the PTE: no user reads", "user read", "pte=p rw", "", "p us"),
    ("4.6.1 no U/S in the PDE: no user reads", "user read", "pde=p rw", "", "p us"),
    ("4.6.1 no U/S in the PDPTE: no user reads", "user read", "pdpte=p rw", "", "p us"),
    ("4.6.1 no U/S in the PML4E: no user reads", "user read", "pml4e=p rw", "", "p us"),
    ("4.6.1 no U/S in the PML5E: no user reads", "user read", "pml5e=p rw", "la57", "p us"),
    ("4.6.1 no U/S: no user writes", "user write", "pml4e=p rw", "", "p wr us"),
    ("4.6.1 no U/S: no user fetches", "user fetch", "pml4e=p rw", "nxe", "p us id"),
    ("4.6.1 no R/W in the PTE: no user writes", "user write", "pte=p us", "", "p wr us"),
    ("4.6.1 no R/W in the PDE: no user writes", "user write", "pde=p us", "", "p wr us"),
    ("4.6.1 no R/W in the PDPTE: no user writes", "user write", "pdpte=p us", "", "p wr us"),
    ("4.6.1 no R/W in the PML4E: no user writes", "user write", "pml4e=p us", "", "p wr us"),
    ("4.6.1 no R/W in the PML5E: no user writes", "user write", "pml5e=p us", "la57", "p wr us"),
    ("4.6.1 R/W has no say in reads", "user read", "pte=p us", "wp", OK),
    ("4.6.1 R/W has no say in fetches", "user fetch", "pte=p us", "wp nxe", OK),
    ("4.6.1 XD in the PTE: no user fetches", "user fetch", "pte=p us nx", "nxe", "p us id"),
    ("4.6.1 XD in the PML4E: no user fetches", "user fetch", "pml4e=p us nx", "nxe", "p us id"),
    ("4.6.1 XD in the PML5E: no user fetches", "user fetch", "pml5e=p us nx", "nxe la57", "p us id"),
    ("4.6.1 XD has no say in reads", "user read", "pte=p us nx", "nxe", OK),
    ("4.6.1 XD has no say in writes", "user write", "pte=p rw us nx", "nxe", OK),
    ("4.6.1 SMAP is not about user-mode accesses", "user read", "", "smap", OK),
    ("4.6.1 SMEP is not about user-mode fetches", "user fetch", "", "smep", OK),
    ("4.6.1 WP = 0 does not help users", "user write", "pte=p us", "", "p wr us"),
    ("4.6.1 AC does not help users", "user read", "pte=p rw", "smap ac", "p us"),
    ("4.6.1 supervisors read supervisor addresses", "supervisor read", "pte=p", "wp smap", OK),
    ("4.6.1 supervisors write supervisor addresses", "supervisor write", "pte=p rw", "wp smap", OK),
    ("4.6.1 WP: not without R/W", "supervisor write", "pte=p", "wp", "p wr"),
    ("4.6.1 WP: R/W counts at every level", "supervisor write", "pml4e=p us", "wp", "p wr"),
    ("4.6.1 WP = 0: R/W is not asked", "supervisor write", "pte=p", "", OK),
    ("4.6.1 WP = 0: nor at user-mode addresses", "supervisor write", "pte=p us", "", OK),
    ("4.6.1 WP: R/W at user-mode addresses", "supervisor write", "pte=p us", "wp", "p wr"),
    ("4.6.1 WP does not forbid reads", "supervisor read", "pte=p", "wp", OK),
    ("4.6.1 no SMAP: supervisors read user pages", "supervisor read", "", "", OK),
    ("4.6.1 no SMAP: supervisors write user pages", "supervisor write", "", "wp", OK),
    ("4.6.1 SMAP: no explicit reads of user pages", "supervisor read", "", "smap", "p"),
    ("4.6.1 SMAP: no explicit writes either", "supervisor write", "", "smap", "p wr"),
    ("4.6.1 SMAP forbids the write even with WP = 0", "supervisor write", "pte=p us", "smap", "p wr"),
    ("4.6.1 AC lifts SMAP for explicit reads", "supervisor read", "", "smap ac", OK),
    ("4.6.1 AC lifts SMAP for explicit writes", "supervisor write", "", "wp smap ac", OK),
    ("4.6.1 AC does not lift WP", "supervisor write", "pte=p us", "wp smap ac", "p wr"),
    ("4.6.1 one entry without U/S: no SMAP matter", "supervisor read", "pdpte=p rw", "smap", OK),
    ("4.6.1 SMAP is not about fetches", "supervisor fetch", "", "smap", OK),
    ("4.6.1 implicit accesses are supervisor-mode", "implicit read", "pte=p", "wp", OK),
    ("4.6.1 implicit: user pages without SMAP", "implicit read", "", "", OK),
    ("4.6.1 implicit: not with SMAP", "implicit read", "", "smap", "p"),
    ("4.6.1 implicit: AC does not lift SMAP", "implicit read", "", "smap ac", "p"),
    ("4.6.1 implicit writes: AC does not lift SMAP", "implicit write", "", "smap ac", "p wr"),
    ("4.6.1 implicit writes obey WP", "implicit write", "pte=p", "wp", "p wr"),
    ("4.6.1 implicit writes ignore R/W with WP = 0", "implicit write", "pte=p", "", OK),
    ("4.6.1 no SMEP: supervisors fetch from user pages", "supervisor fetch", "", "nxe", OK),
    ("4.6.1 SMEP: they do not", "supervisor fetch", "", "smep", "p id"),
    ("4.6.1 SMEP: AC does not help", "supervisor fetch", "", "smep smap ac", "p id"),
    ("4.6.1 SMEP: one entry without U/S is enough", "supervisor fetch", "pdpte=p rw", "smep", OK),
    ("4.6.1 SMEP is not about reads", "supervisor read", "", "smep", OK),
    ("4.6.1 XD forbids supervisor fetches", "supervisor fetch", "pde=p rw nx", "nxe", "p id"),
    ("4.6.1 with SMEP too", "supervisor fetch", "pde=p rw nx", "nxe smep", "p id"),
    ("4.7 not present: P is 0", "user read", "pte=", "", "us"),
    ("4.7 a PDE not present", "user write", "pde=rw us", "", "wr us"),
    ("4.7 a PDPTE not present", "supervisor write", "pdpte=rw us", "", "wr"),
    ("4.7 a PML4E not present", "supervisor read", "pml4e=rw us", "smap", ""),
    ("4.7 a PML5E not present", "supervisor read", "pml5e=rw us", "la57", ""),
    ("4.7 implicit at CPL 3: U/S is 0", "implicit write", "pte=", "", "wr"),
    ("4.7 I/D needs NXE or SMEP", "user fetch", "pte=", "", "us"),
    ("4.7 I/D with NXE", "user fetch", "pte=", "nxe", "us id"),
    ("4.7 I/D with SMEP", "user fetch", "pte=", "smep", "us id"),
    ("4.7 I/D: not for reads", "user read", "pte=", "smep nxe", "us"),
    ("4.7 without P, reserved bits are not checked", "user read", "pte=51 nx", "", "us"),
    ("4.5.4 bit 51 is reserved below MAXPHYADDR 52", "user read", "pte=p us 51", "M=46", "p us rsvd"),
    ("4.5.4 bit MAXPHYADDR is the first reserved", "user read", "pml4e=p us 36", "M=36", "p us rsvd"),
    ("4.5.4 the bit below is part of the address", "user read", "pte=p us 35", "M=36", OK),
    ("4.5.4 with MAXPHYADDR 52 none is reserved", "user read", "pte=p us 51", "M=52", OK),
    ("4.5.4 bits 62:52 are ignored", "user read", "pte=p us 52 58 59 62", "", OK),
    ("4.5.4 bits 11:9 are ignored", "user read", "pde=p us 9 10 11", "", OK),
    ("4.5.4 D and G are ignored above the page", "user read", "pml4e=p us d g", "pge", OK),
    ("4.5.4 NXE = 0: XD in a PTE is reserved", "user read", "pte=p us nx", "", "p us rsvd"),
    ("4.5.4 NXE = 0: XD in a PML4E is reserved", "supervisor write", "pml4e=p nx", "", "p wr rsvd"),
    ("4.5.4 PS in a PML4E is reserved", "user read", "pml4e=p us ps", "", "p us rsvd"),
    ("4.5.4 PS in a PML5E is reserved", "user read", "pml5e=p us ps", "la57", "p us rsvd"),
    ("4.5.4 PS in a PDPTE needs 1-GByte pages", "user read", "pdpte=p us ps", "no1g", "p us rsvd"),
    ("4.5.4 bits 29:13 of a 1-GByte PDPTE", "user read", "pdpte=p us ps", "", "p us rsvd"),  # 13 is set
    ("4.5.4 bit 7 of a PTE is PAT", "user read", "pte=p us ps", "no1g", OK),
    ("4.5.4 bits 20:13 of a 2-MByte PDE", "user read", "pde=p us ps", "", "p us rsvd"),  # 14 is set
    ("4.7 reserved before access rights", "user write", "pte=p 51", "wp", "p wr us rsvd"),
    ("4.7 reserved above, not present below", "user read", "pde=p us 51; pte=", "", "p us rsvd"),
    ("4.7 not present above, reserved below", "user read", "pde=us; pte=p us 51", "", "us"),
    ("4.7 rights above, not present below", "user read", "pml4e=p; pte=us", "", "us"),
    ("4.7 rights above, reserved below", "user write", "pml4e=p; pte=p us 51", "", "p wr us rsvd"),
    ("4.7 RSVD in a fetch", "supervisor fetch", "pte=p 51", "smep", "p rsvd id"),
]


def entries_of(words: str) -> dict[str, str]:
    pairs = (item.split("=") for item in words.split(";") if item)
    return {level.strip(): flags for level, flags in pairs}


@pytest.mark.parametrize(
    ("kind", "entries", "controls", "result"), [row[1:] for row in MANUAL], ids=[row[0] for row in MANUAL]
)
def test_the_manual_says(kind: str, entries: str, controls: str, result: str) -> None:
    switches = switched(controls)
    outcome = access(kind, hierarchy(VA, switches, entries_of(entries)), switches)
    if result == OK:
        assert isinstance(outcome, Translation)
    else:
        assert isinstance(outcome, PageFault)
        assert outcome.error_code == sum(ERROR_FLAGS[flag] for flag in result.split())


def through(entries: list[int], va: int = 0, kind: str = "supervisor read", controls: Controls = PLAIN) -> Outcome:
    """An access with 4-level paging through raw entries, from the top; their tables hold nothing else."""
    memory, table = {}, CR3
    for shift, entry in zip((39, 30, 21, 12), entries, strict=False):
        memory[table + 8 * (va >> shift & 511)] = entry
        table = entry & 0x000F_FFFF_FFFF_F000
    return access(kind, memory, controls, va)


@pytest.mark.parametrize(
    ("entries", "va", "pa", "page_size"),
    [
        # 4.5.4: 51:12 from the PTE, 11:0 from the address.
        ([0x2001, 0x3001, 0x4001, 0x1_2345_6001], 0x7FFF_FFFF_FFFF, 0x1_2345_6FFF, 1 << 12),
        ([0x2001, 0x3001, 0x4001, 0x1_2345_6001], 0xFFFF_8000_0000_0008, 0x1_2345_6008, 1 << 12),
        # 51:21 from the PDE, 20:0 from the address.
        ([0x2001, 0x3001, 0x1_2340_0081], 0x7FFF_FFFF_FFFF, 0x1_235F_FFFF, 1 << 21),
        # Bit 12 of such a PDE is PAT, not a bit of the address.
        ([0x2001, 0x3001, 0x1_2340_1081], 0x0000_1234_5600_0123, 0x1_2340_0123, 1 << 21),
        # 51:30 from the PDPTE, 29:0 from the address.
        ([0x2001, 0x1_4000_0081], 0x7FFF_FFFF_FFFF, 0x1_7FFF_FFFF, 1 << 30),
        ([0x2001, 0x1_4000_1081], 0x0000_0000_2000_0001, 0x1_6000_0001, 1 << 30),
        # The highest frame, MAXPHYADDR 46.
        ([0x2001, 0x3001, 0x4001, 0x3FFF_FFFF_F001], 0x1FF, 0x3FFF_FFFF_F1FF, 1 << 12),
    ],
)
def test_the_physical_address_is_composed_as_in_4_5_4(entries: list[int], va: int, pa: int, page_size: int) -> None:
    outcome = through(entries, va)
    assert isinstance(outcome, Translation)
    assert (outcome.pa, outcome.page_size) == (pa, page_size)


@pytest.mark.parametrize("bit", range(13, 21))
def test_bits_20_to_13_of_a_pde_that_maps_a_page_are_reserved_4_5_4(bit: int) -> None:
    outcome = through([0x2001, 0x3001, 0x1_2340_0081 | 1 << bit])
    assert outcome == PageFault(0b1001, must_set=(), may_set=((0x1000, 0x2021), (0x2000, 0x3021)))


@pytest.mark.parametrize("bit", range(13, 30))
def test_bits_29_to_13_of_a_pdpte_that_maps_a_page_are_reserved_4_5_4(bit: int) -> None:
    outcome = through([0x2001, 0x1_4000_0081 | 1 << bit])
    assert outcome == PageFault(0b1001, must_set=(), may_set=((0x1000, 0x2021),))


def test_ps_in_a_pdpte_is_reserved_without_1_gbyte_pages_4_5_4() -> None:
    outcome = through([0x2001, 0x1_4000_0081], controls=replace(PLAIN, page1g=False))
    assert outcome == PageFault(0b1001, must_set=(), may_set=((0x1000, 0x2021),))


@pytest.mark.parametrize("width", range(36, 53))
def test_maxphyaddr_parts_the_address_from_the_reserved_bits_4_1_4(width: int) -> None:
    controls = replace(PLAIN, physical_bits=width)
    top = 1 << width - 1
    entries = [top | 0x2001, top | 0x3001, top | 0x4001, top | 0x9001]
    outcome = through(entries, controls=controls)
    assert isinstance(outcome, Translation)
    assert outcome.pa == top | 0x9000
    for n in range(4) if width < 52 else ():
        outcome = through([*entries[:n], entries[n] | 1 << width, *entries[n + 1 :]], controls=controls)
        assert isinstance(outcome, PageFault)
        assert outcome.error_code == 0b1001


def test_low_bits_of_cr3_take_no_part_in_the_walk_4_5_2() -> None:
    read = Ram(hierarchy(VA, PLAIN, {})).read
    plain, with_pcid = (translate(read, cr3, VA, Access.READ, 0, PLAIN) for cr3 in (CR3, CR3 | 0xFFF))
    assert isinstance(plain, Translation)
    assert plain == with_pcid


@pytest.mark.parametrize(
    ("va", "levels"),
    [
        (0x0000_8000_0000_0000, 4),
        (0xFFFF_7FFF_FFFF_FFFF, 4),
        (0x8000_0000_0000_0000, 4),
        (0x0001_0000_0000_0000, 4),
        (0x0100_0000_0000_0000, 5),
        (0xFEFF_FFFF_FFFF_FFFF, 5),
        (0x8000_0000_0000_0000, 5),
    ],
)
def test_an_address_that_is_not_sign_extended_reads_no_entry_vol_1_3_3_7_1(va: int, levels: int) -> None:
    ram = Ram({})
    controls = replace(PLAIN, cr4_la57=levels == 5)
    assert translate(ram.read, CR3, va, Access.READ, 0, controls) == NotCanonical()
    assert ram.reads == []


@pytest.mark.parametrize(
    ("va", "levels"),
    [
        (0x0000_7FFF_FFFF_FFFF, 4),
        (0xFFFF_8000_0000_0000, 4),
        (0x0000_8000_0000_0000, 5),
        (0xFFFF_7FFF_FFFF_FFFF, 5),
        (0x00FF_FFFF_FFFF_FFFF, 5),
        (0xFF00_0000_0000_0000, 5),
    ],
)
def test_the_last_canonical_addresses_are_translated_vol_1_3_3_7_1(va: int, levels: int) -> None:
    controls = replace(PLAIN, cr4_la57=levels == 5)
    assert isinstance(access("user read", hierarchy(va, controls, {}), controls, va), Translation)


def test_a_read_sets_a_in_every_entry_from_the_top_down_4_8() -> None:
    outcome = access("user read", hierarchy(VA, PLAIN, {"pdpte": "p rw us a"}), PLAIN)
    assert isinstance(outcome, Translation)
    assert outcome.updates == ((0x1008, 0x2027), (0x4000_3018, 0x20_4027), (0x20_4028, 0x9027))


def test_a_write_also_sets_d_but_only_in_the_entry_that_maps_the_page_4_8() -> None:
    memory = hierarchy(VA, PLAIN, {"pml4e": "p rw us a", "pde": "p rw us a"})
    outcome = access("user write", memory, PLAIN)
    assert isinstance(outcome, Translation)
    assert outcome.updates == ((0x2028, 0x4000_3027), (0x20_4028, 0x9067))


@pytest.mark.parametrize(
    ("kind", "pte", "updates"),
    [
        ("user read", "p rw us a", ()),
        ("user fetch", "p rw us a", ()),
        ("user write", "p rw us a", ((0x20_4028, 0x9067),)),
        ("user write", "p rw us a d", ()),
        ("user write", "p rw us d", ((0x20_4028, 0x9067),)),
        ("user read", "p rw us d", ((0x20_4028, 0x9067),)),
        ("supervisor write", "p a", ((0x20_4028, 0x9061),)),  # CR0.WP = 0: D does not need R/W
    ],
)
def test_flags_that_are_set_stay_and_are_not_written_again_4_8(
    kind: str, pte: str, updates: tuple[tuple[int, int], ...]
) -> None:
    upper = dict.fromkeys(("pml4e", "pdpte", "pde"), "p rw us a")
    outcome = access(kind, hierarchy(VA, PLAIN, upper | {"pte": pte}), PLAIN)
    assert isinstance(outcome, Translation)
    assert outcome.updates == updates


def test_d_of_a_large_page_is_in_the_entry_that_maps_it_4_8() -> None:
    outcome = through([0x2021, 0x1_4000_0083], kind="supervisor write")
    assert isinstance(outcome, Translation)
    assert outcome.updates == ((0x2000, 0x1_4000_00E3),)


@pytest.mark.parametrize(
    ("entries", "may_be_accessed"),
    [
        ({"pml4e": "rw us"}, []),
        ({"pdpte": "rw us"}, [0x1008]),
        ({"pde": "p 51"}, [0x1008, 0x2028]),
        ({"pte": ""}, [0x1008, 0x2028, 0x4000_3018]),
        ({"pdpte": "p rw us a", "pte": ""}, [0x1008, 0x4000_3018]),
        # There is a translation and all entries were used for it, but it does not permit the write.
        ({"pml4e": "p us"}, [0x1008, 0x2028, 0x4000_3018, 0x20_4028]),
    ],
)
def test_a_fault_may_set_a_where_an_entry_was_used_and_nothing_else_4_8(
    entries: dict[str, str], may_be_accessed: list[int]
) -> None:
    memory = hierarchy(VA, PLAIN, entries)
    outcome = access("user write", memory, PLAIN)
    assert isinstance(outcome, PageFault)
    assert outcome.must_set == ()
    assert list(outcome.may_set) == [(address, memory[address] | 1 << 5) for address in may_be_accessed]


@pytest.mark.parametrize(
    ("entries", "writable", "user", "nx"),
    [
        ({}, True, True, False),
        ({"pml4e": "p us"}, False, True, False),
        ({"pde": "p rw"}, True, False, False),
        ({"pdpte": "p rw us nx"}, True, True, True),
        ({"pml4e": "p us", "pdpte": "p rw", "pte": "p rw us nx"}, False, False, True),
    ],
)
def test_rights_are_combined_over_all_levels_4_6_1(
    entries: dict[str, str], writable: bool, user: bool, nx: bool
) -> None:
    outcome = access("supervisor read", hierarchy(VA, PLAIN, entries), switched("nxe"))
    assert isinstance(outcome, Translation)
    assert (outcome.writable, outcome.user, outcome.nx) == (writable, user, nx)


@pytest.mark.parametrize(
    ("entries", "controls", "is_global"),
    [
        ({"pte": "p us g"}, "pge", True),
        ({"pte": "p us g"}, "", False),
        ({"pde": "p us g"}, "pge", False),
        ({"pml4e": "p us g", "pdpte": "p us g"}, "pge", False),
    ],
)
def test_a_translation_is_global_by_the_entry_that_maps_the_page_4_10_2_4(
    entries: dict[str, str], controls: str, is_global: bool
) -> None:
    outcome = access("user read", hierarchy(VA, PLAIN, entries), switched(controls))
    assert isinstance(outcome, Translation)
    assert outcome.global_ is is_global


@pytest.mark.parametrize(
    "call",
    [
        lambda: translate(Ram({}).read, CR3, -1, Access.READ, 0, PLAIN),
        lambda: translate(Ram({}).read, CR3, 1 << 64, Access.READ, 0, PLAIN),
        lambda: translate(Ram({}).read, CR3, 0, Access.READ, 4, PLAIN),
        lambda: translate(Ram({}).read, CR3, 0, Access.FETCH, 3, PLAIN, implicit=True),
        lambda: Controls(physical_bits=53),
    ],
)
def test_a_question_without_sense_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"expected|never"):
        call()


# What must hold for any entries whatever.

FLAG_WORDS = ["rw", "us", "a", "d", "ps", "g", "nx", "51", "13", "9", "60"]
FLAG_SETS = st.builds(
    lambda present, flags: " ".join([*present, *flags]),
    st.sampled_from([["p"]] * 7 + [[]]),
    st.one_of(st.just(["rw", "us"]), st.lists(st.sampled_from(FLAG_WORDS), unique=True)),
)
HIERARCHIES = st.fixed_dictionaries(dict.fromkeys(LEVELS, FLAG_SETS))
SWITCHES = st.lists(st.sampled_from(["wp", "smep", "smap", "pge", "nxe", "ac", "la57", "no1g"]), unique=True).map(
    " ".join
)
EXPLICIT_KINDS = [f"{who} {what}" for who in ("user", "supervisor") for what in ("read", "write", "fetch")]
KINDS = st.sampled_from([*EXPLICIT_KINDS, "implicit read", "implicit write"])
LEVEL = st.sampled_from(LEVELS)
untimed = settings(deadline=None)


def succeeds(kind: str, entries: dict[str, str], controls: Controls) -> bool:
    return isinstance(access(kind, hierarchy(VA, controls, entries), controls), Translation)


def changed(entries: dict[str, str], level: str, without: str = "", plus: str = "") -> dict[str, str]:
    words = set(entries[level].split()) - {without} | ({plus} if plus else set())
    return entries | {level: " ".join(words)}


@untimed
@given(HIERARCHIES, LEVEL, SWITCHES, KINDS)
def test_taking_away_rw_or_setting_nx_never_helps(
    entries: dict[str, str], level: str, switches: str, kind: str
) -> None:
    controls = switched(switches)
    for poorer in (changed(entries, level, without="rw"), changed(entries, level, plus="nx")):
        assert succeeds(kind, entries, controls) or not succeeds(kind, poorer, controls)


@untimed
@given(HIERARCHIES, LEVEL, SWITCHES, st.sampled_from(["user read", "user write", "user fetch"]))
def test_taking_away_us_never_helps_a_user(entries: dict[str, str], level: str, switches: str, kind: str) -> None:
    controls = switched(switches)
    poorer = changed(entries, level, without="us")
    assert succeeds(kind, entries, controls) or not succeeds(kind, poorer, controls)


@untimed
@given(HIERARCHIES, SWITCHES, KINDS, st.sampled_from(["cr0_wp", "cr4_smep", "cr4_smap"]))
def test_turning_a_protection_on_never_helps(
    entries: dict[str, str], switches: str, kind: str, protection: str
) -> None:
    without, protected = (replace(switched(switches), **{protection: on}) for on in (False, True))
    assert succeeds(kind, entries, without) or not succeeds(kind, entries, protected)


@untimed
@given(HIERARCHIES, SWITCHES, KINDS)
def test_turning_nxe_or_1_gbyte_pages_off_never_helps(entries: dict[str, str], switches: str, kind: str) -> None:
    controls = switched(switches)
    for less in (replace(controls, efer_nxe=False), replace(controls, page1g=False)):
        assert succeeds(kind, entries, controls) or not succeeds(kind, entries, less)


@untimed
@given(HIERARCHIES, SWITCHES, st.sampled_from(["read", "write"]))
def test_an_implicit_access_may_do_no_more_than_an_explicit_one(
    entries: dict[str, str], switches: str, what: str
) -> None:
    controls = switched(switches)
    explicit = succeeds(f"supervisor {what}", entries, controls)
    assert explicit or not succeeds(f"implicit {what}", entries, controls)


@untimed
@given(HIERARCHIES, LEVEL, SWITCHES, KINDS, st.sampled_from(["a", "d", "9", "60"]))
def test_accessed_dirty_and_ignored_bits_decide_nothing(
    entries: dict[str, str], level: str, switches: str, kind: str, flag: str
) -> None:
    controls = switched(switches)
    outcomes = [
        access(kind, hierarchy(VA, controls, variant), controls)
        for variant in (changed(entries, level, without=flag), changed(entries, level, plus=flag))
    ]
    assert len({getattr(outcome, "error_code", None) for outcome in outcomes}) == 1
    assert len({getattr(outcome, "pa", None) for outcome in outcomes}) == 1


@untimed
@given(HIERARCHIES, SWITCHES, KINDS)
def test_an_access_repeated_changes_nothing_more(entries: dict[str, str], switches: str, kind: str) -> None:
    controls = switched(switches)
    memory = hierarchy(VA, controls, entries)
    first = access(kind, memory, controls)
    if isinstance(first, Translation):
        assert access(kind, memory | dict(first.updates), controls) == replace(first, updates=())
    elif isinstance(first, PageFault):
        assert access(kind, memory | dict(first.may_set), controls) == replace(first, may_set=())


@untimed
@given(HIERARCHIES, SWITCHES, KINDS)
def test_a_transparent_fifth_level_only_adds_its_own_accessed_flag(
    entries: dict[str, str], switches: str, kind: str
) -> None:
    four, five = (replace(switched(switches), cr4_la57=on) for on in (False, True))
    shorter = hierarchy(VA, four, entries)
    # The PML4 table moves from where CR3 points to where a PML5E points.
    longer = {address + 0x4000 if address < 0x2000 else address: value for address, value in shorter.items()}
    expected = access(kind, shorter, four)
    outcome = access(kind, longer | {CR3: POINTS_TO["pml5e"] | bits("p rw us a")}, five)
    if isinstance(expected, PageFault):
        assert isinstance(outcome, PageFault)
        assert outcome.error_code == expected.error_code
    else:
        assert isinstance(expected, Translation)
        assert isinstance(outcome, Translation)
        assert replace(outcome, updates=()) == replace(expected, updates=())


@untimed
@given(HIERARCHIES, SWITCHES, KINDS)
def test_a_walk_reads_one_entry_a_level_and_stops_where_it_ends(
    entries: dict[str, str], switches: str, kind: str
) -> None:
    controls = switched(switches)
    ram = Ram(hierarchy(VA, controls, entries))
    access(kind, ram, controls)
    assert 1 <= len(ram.reads) <= (5 if controls.cr4_la57 else 4)
    assert all(ram[address] & bits("p") for address in ram.reads[:-1])


# The case list.

ERROR_CODES = {0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 15, 16, 17, 20, 21, 25, 29}


def test_the_cases_are_as_many_as_can_be_run_in_a_test() -> None:
    total = sum(len(batch) for _, batch in batches())
    assert 300_000 <= total <= 2_000_000


@pytest.mark.parametrize("family", FAMILIES)
def test_no_case_comes_twice_in_a_batch(family: str) -> None:
    for _, batch in batches(family):
        assert len(np.unique(batch.view(f"V{batch.itemsize}"))) == len(batch)


def test_the_cases_meet_every_error_code_every_page_size_and_non_canonical_addresses() -> None:
    outcomes = [case.expected() for case in cases(step=97)]
    assert {o.error_code for o in outcomes if isinstance(o, PageFault)} == ERROR_CODES
    assert {o.page_size for o in outcomes if isinstance(o, Translation)} == {1 << 12, 1 << 21, 1 << 30}
    assert NotCanonical() in outcomes


def test_the_rights_of_four_levels_come_in_all_2_to_the_12_combinations() -> None:
    combinations = {
        tuple(entry & bits("rw us nx") for entry in entries)
        for _, batch in batches("rights")
        for entries in np.unique(batch["entries"][batch["levels"] == 4], axis=0).tolist()
        if entries[3]
    }
    assert len(combinations) == 1 << 12


def test_every_entry_of_a_walk_lies_in_the_ram_of_the_cases() -> None:
    for case in cases(step=97):
        ram = Ram(case.memory())
        translate(ram.read, case.cr3, case.va, case.access, case.cpl, case.controls, case.implicit)
        assert all(0 < address < RAM_SIZE for address in [*ram, *ram.reads])


def test_arrays_and_cases_tell_the_same() -> None:
    rows = np.concatenate([batch[::997] for _, batch in batches()])
    for row, addresses, case in zip(rows, entry_addresses(rows).tolist(), cases(step=997), strict=True):
        told = dict(zip(addresses, row["entries"].tolist(), strict=True))
        assert {address: entry for address, entry in told.items() if address} == case.memory()
        for name in ("cr3", "va", "access", "cpl", "implicit"):
            assert row[name] == getattr(case, name)
        for field in fields(Controls):
            assert row[field.name] == getattr(case.controls, field.name)


def test_a_case_says_in_words_what_it_is() -> None:
    descriptions = [case.describe() for case in cases("trouble", step=997)]
    assert all(text.startswith("trouble: ") and "pml4e @ " in text for text in descriptions)
    assert len(set(descriptions)) == len(descriptions)
