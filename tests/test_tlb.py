"""What the manual promises of TLBs, and what it leaves to software (Intel SDM Vol. 3A 4.10).

A TLB is not coherent with the page tables: a translation that it holds is *used*, right or wrong, until
software invalidates it. The tests change page tables behind the TLB's back and look at what the processor
does then.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bare import USER, Bare, part

from emu.exceptions import ProcessorException
from emu.pte import Access, Cr0, Cr4, Pte
from emu.state import TlbKind

CODE, CODE_PA = 0x40_0000, 0x10_0000
PAGE, NEXT_PAGE, FAR_PAGE = 0x50_0000, 0x50_1000, 0x1234_5678_9000
OLD, NEW = 0x20_0000, 0x30_0000
NOFLUSH = 1 << 63
DIRTY = USER | Pte.A | Pte.D
PAGE_FAULT, GENERAL_PROTECTION = 14, 13


@pytest.fixture
def bare() -> Bare:
    """A Skylake without paging-structure caches, so that every walk reads all entries."""
    return Bare(part())


def walks(bare: Bare) -> int:
    return sum(bare.machine.state.walks_by)


def refused(bare: Bare, va: int, access: Access = Access.READ) -> int:
    """The error code of the page fault that an access causes."""
    with pytest.raises(ProcessorException) as caught:
        bare.machine.mmu.translate(va, access)
    assert (caught.value.vector, caught.value.address) == (PAGE_FAULT, va)
    return caught.value.error_code or 0


def translate(bare: Bare, va: int, access: Access = Access.READ) -> int:
    return bare.machine.mmu.translate(va, access)


# --- a stale translation ----------------------------------------------------------------------------------


def test_a_stale_translation_is_used_until_invlpg(bare: Bare) -> None:
    bare.tables.map(PAGE, OLD)
    assert translate(bare, PAGE + 5) == OLD + 5
    bare.tables.map(PAGE, NEW)
    assert translate(bare, PAGE + 5) == OLD + 5
    bare.machine.invlpg(PAGE + 0xFFF)  # any address in the page names it
    assert translate(bare, PAGE + 5) == NEW + 5


@pytest.mark.parametrize("engine", ["trap", "access"])
def test_a_program_reads_the_old_page_until_it_executes_invlpg(engine: str) -> None:
    bare = Bare(engine=engine)
    bare.tables.map(CODE, CODE_PA)
    bare.tables.map(PAGE, OLD, DIRTY)
    bare.tables.map(NEXT_PAGE, bare.tables.entry(PAGE) & ~0xFFF, DIRTY)  # the page table itself
    bare.machine.ram.store64(OLD, 0x01D)
    bare.machine.ram.store64(NEW, 0x4E3)
    pte = NEXT_PAGE + (bare.tables.entry(PAGE) & 0xFFF)
    bare.execute(
        f"""
        mov rbx, {PAGE}
        mov rcx, {pte}
        mov r8, [rbx]
        mov qword ptr [rcx], {NEW | DIRTY}
        mov r9, [rbx]
        invlpg [rbx]
        mov r10, [rbx]
        int 0x20
        """,
        CODE,
        CODE_PA,
    )
    registers = bare.machine.cpu.registers()
    assert [registers[name] for name in ("r8", "r9", "r10")] == [0x01D, 0x01D, 0x4E3]


def test_removed_rights_stay_usable_until_they_are_flushed(bare: Bare) -> None:
    bare.tables.map(PAGE, OLD, DIRTY)
    translate(bare, PAGE, Access.WRITE)
    for left in (DIRTY & ~Pte.W, 0):
        bare.tables.map(PAGE, OLD, left)
        assert translate(bare, PAGE, Access.WRITE) == OLD
    bare.machine.invlpg(PAGE)
    assert refused(bare, PAGE, Access.WRITE) == 2


def test_added_rights_need_no_flush_because_a_fault_drops_the_translation(bare: Bare) -> None:
    bare.tables.map(PAGE, OLD, Pte.P | Pte.U)
    translate(bare, PAGE)
    bare.tables.map(PAGE, OLD, USER)
    assert refused(bare, PAGE, Access.WRITE) == 3  # spurious: the TLB still said read-only
    assert translate(bare, PAGE, Access.WRITE) == OLD


@pytest.mark.parametrize("engine", ["trap", "access"])
@pytest.mark.parametrize("write", ["mov [rbx], al", "inc qword ptr [rbx]", "rcl byte ptr [rbx], 1", "rep stosb"])
def test_a_fault_handler_that_adds_rights_is_called_once(engine: str, write: str) -> None:
    bare = Bare(engine=engine)
    bare.tables.map(CODE, CODE_PA)
    bare.tables.map(PAGE, OLD, Pte.P | Pte.U)
    bare.on[14] = lambda _: bare.tables.map(PAGE, OLD)
    bare.execute(f"mov rbx, {PAGE}\n mov rdi, rbx\n mov ecx, 3\n mov al, [rbx]\n {write}\n int 0x20", CODE, CODE_PA)
    assert bare.faults == [(PAGE, 3)]


# --- accessed and dirty -----------------------------------------------------------------------------------


def test_only_a_walk_sets_accessed(bare: Bare) -> None:
    bare.tables.map(PAGE, OLD)
    translate(bare, PAGE)
    pte = bare.tables.entry(PAGE)
    assert bare.machine.ram.load64(pte) == OLD | USER | Pte.A
    bare.machine.ram.store64(pte, OLD | USER)
    translate(bare, PAGE)
    assert bare.machine.ram.load64(pte) == OLD | USER


def test_the_first_write_through_a_clean_translation_walks_again_to_set_dirty(bare: Bare) -> None:
    bare.tables.map(PAGE, OLD)
    translate(bare, PAGE)
    before = walks(bare)
    for _ in range(3):
        translate(bare, PAGE, Access.WRITE)
    assert bare.machine.ram.load64(bare.tables.entry(PAGE)) == OLD | USER | Pte.A | Pte.D
    assert (bare.machine.state.dirty_assists, walks(bare) - before) == (1, 1)


def test_a_write_that_walks_anyway_sets_dirty_at_once(bare: Bare) -> None:
    bare.tables.map(PAGE, OLD)
    translate(bare, PAGE, Access.WRITE)
    assert bare.machine.ram.load64(bare.tables.entry(PAGE)) == OLD | USER | Pte.A | Pte.D
    assert (bare.machine.state.dirty_assists, walks(bare)) == (0, 1)


def test_a_refused_write_does_not_set_dirty(bare: Bare) -> None:
    bare.tables.map(PAGE, OLD, Pte.P | Pte.U)
    assert refused(bare, PAGE, Access.WRITE) == 3
    assert not bare.machine.ram.load64(bare.tables.entry(PAGE)) & Pte.D


def test_software_that_clears_dirty_without_a_flush_misses_later_writes(bare: Bare) -> None:
    bare.tables.map(PAGE, OLD)
    translate(bare, PAGE, Access.WRITE)
    bare.tables.map(PAGE, OLD, USER | Pte.A)
    translate(bare, PAGE, Access.WRITE)
    assert not bare.machine.ram.load64(bare.tables.entry(PAGE)) & Pte.D


def test_a_clean_translation_whose_page_is_gone_faults_on_the_first_write(bare: Bare) -> None:
    bare.tables.map(PAGE, OLD)
    translate(bare, PAGE)
    bare.tables.map(PAGE, OLD, 0)
    assert translate(bare, PAGE) == OLD
    assert refused(bare, PAGE, Access.WRITE) == 2


# --- what each operation invalidates ----------------------------------------------------------------------

EVERYTHING = {"page", "next", "far", "other pcid", "global"}
"""`page`, `next` and `far` belong to the current PCID 1; `other pcid` is PAGE in PCID 2."""
GLOBAL_PAGE = 0x60_0000

Operation = Callable[[Bare], None]


def cr4_with(flags: int) -> Operation:
    return lambda bare: bare.machine.write_cr4(bare.machine.control.cr4 ^ flags)


INVALIDATIONS: list[tuple[str, Operation, set[str]]] = [
    ("INVLPG of a page", lambda bare: bare.machine.invlpg(PAGE), EVERYTHING - {"page"}),
    ("INVLPG of a global page", lambda bare: bare.machine.invlpg(GLOBAL_PAGE), EVERYTHING - {"global"}),
    ("INVLPG of a page that is not there", lambda bare: bare.machine.invlpg(0x70_0000), EVERYTHING),
    ("INVPCID 0, own PCID", lambda bare: bare.machine.invpcid(0, 1, PAGE), EVERYTHING - {"page"}),
    ("INVPCID 0, another PCID", lambda bare: bare.machine.invpcid(0, 2, PAGE), EVERYTHING - {"other pcid"}),
    ("INVPCID 0 spares globals", lambda bare: bare.machine.invpcid(0, 1, GLOBAL_PAGE), EVERYTHING),
    ("INVPCID 1, own PCID", lambda bare: bare.machine.invpcid(1, 1, 0), {"other pcid", "global"}),
    ("INVPCID 1, another PCID", lambda bare: bare.machine.invpcid(1, 2, 0), EVERYTHING - {"other pcid"}),
    ("INVPCID 2", lambda bare: bare.machine.invpcid(2, 0, 0), set()),
    ("INVPCID 3", lambda bare: bare.machine.invpcid(3, 0, 0), {"global"}),
    ("MOV CR3", lambda bare: bare.machine.write_cr3(bare.tables.top | 1), {"other pcid", "global"}),
    (
        "MOV CR3 to PCID 2",
        lambda bare: bare.machine.write_cr3(bare.tables.top | 2),
        EVERYTHING - {"other pcid"},
    ),
    ("MOV CR3, bit 63", lambda bare: bare.machine.write_cr3(bare.tables.top | 1 | NOFLUSH), EVERYTHING),
    ("MOV CR4, PGE off", cr4_with(Cr4.PGE), set()),
    ("MOV CR4, PCIDE off", cr4_with(Cr4.PCIDE), set()),
    ("MOV CR4, SMAP on", cr4_with(Cr4.SMAP), EVERYTHING),
    ("MOV CR4, TSD on", cr4_with(Cr4.TSD), EVERYTHING),
    ("MOV CR0, WP on", lambda bare: bare.machine.write_cr0(bare.machine.control.cr0 ^ Cr0.WP), EVERYTHING),
]


def held(bare: Bare, *kinds: TlbKind) -> set[str]:
    """What the TLBs of some kinds hold, by the names of EVERYTHING."""
    names = {PAGE: "page", NEXT_PAGE: "next", FAR_PAGE: "far", GLOBAL_PAGE: "global"}
    entries = bare.machine.mmu.entries(*kinds)
    return {"other pcid" if (e.va, e.pcid) == (PAGE, 2) else names[e.va] for e in entries}


def fill_every_kind(bare: Bare) -> None:
    """Bring all of EVERYTHING into DTLB and STLB, and end in PCID 1."""
    bare.machine.write_cr4(bare.machine.control.cr4 | Cr4.PCIDE | Cr4.PGE)
    bare.machine.write_cr0(bare.machine.control.cr0 & ~Cr0.WP)
    for va in (PAGE, NEXT_PAGE, FAR_PAGE):
        bare.tables.map(va, OLD)
    bare.tables.map(GLOBAL_PAGE, OLD, USER | Pte.G)
    bare.machine.write_cr3(bare.tables.top | 2)
    translate(bare, PAGE)
    bare.machine.write_cr3(bare.tables.top | 1)
    for va in (PAGE, NEXT_PAGE, FAR_PAGE, GLOBAL_PAGE):
        translate(bare, va)


@pytest.mark.parametrize(("operation", "left"), [pytest.param(o, left, id=name) for name, o, left in INVALIDATIONS])
def test_an_operation_invalidates_what_the_manual_says(bare: Bare, operation: Operation, left: set[str]) -> None:
    fill_every_kind(bare)
    assert held(bare, TlbKind.DTLB) == held(bare, TlbKind.STLB) == EVERYTHING
    operation(bare)
    assert (held(bare, TlbKind.DTLB), held(bare, TlbKind.STLB)) == (left, left)


def test_the_instructions_do_the_same_as_the_operations() -> None:
    bare = Bare(part())
    bare.tables.map(CODE, CODE_PA, DIRTY)
    fill_every_kind(bare)
    code = f"""
        lea rbx, [rip + descriptor]
        mov eax, 1
        invpcid rax, [rbx]
        mov rax, {bare.tables.top | 1 | NOFLUSH}
        mov cr3, rax
        invlpg [{GLOBAL_PAGE}]
        int 0x20
    descriptor: .quad 2, 0
    """
    bare.execute(code, CODE, CODE_PA)
    mine = {PAGE, NEXT_PAGE, FAR_PAGE, GLOBAL_PAGE}
    assert {e.va for e in bare.machine.mmu.entries(TlbKind.STLB) if e.va in mine} == mine - {GLOBAL_PAGE}
    assert not [e for e in bare.machine.mmu.entries() if e.pcid == 2]
    assert bare.machine.cr3_writes["noflush"] == 1


# --- PCIDs and global pages -------------------------------------------------------------------------------


def test_pcids_keep_address_spaces_apart(bare: Bare) -> None:
    other = bare.new_tables()
    bare.tables.map(PAGE, OLD)
    other.map(PAGE, NEW)
    machine = bare.machine
    machine.write_cr4(machine.control.cr4 | Cr4.PCIDE)
    for _ in range(3):
        machine.write_cr3(bare.tables.top | 1 | NOFLUSH)
        assert translate(bare, PAGE) == OLD
        machine.write_cr3(other.top | 2 | NOFLUSH)
        assert translate(bare, PAGE) == NEW
    assert walks(bare) == 2


def test_without_pcids_a_switch_that_does_not_flush_is_impossible(bare: Bare) -> None:
    other = bare.new_tables()
    bare.tables.map(PAGE, OLD)
    other.map(PAGE, NEW)
    translate(bare, PAGE)
    with pytest.raises(ProcessorException) as caught:
        bare.machine.write_cr3(other.top | NOFLUSH)
    assert (caught.value.vector, caught.value.error_code) == (GENERAL_PROTECTION, 0)
    bare.machine.write_cr3(other.top)
    assert translate(bare, PAGE) == NEW


def test_a_reused_pcid_shows_the_pages_of_its_last_owner(bare: Bare) -> None:
    other = bare.new_tables()
    bare.tables.map(PAGE, OLD)
    other.map(PAGE, NEW)
    bare.machine.write_cr4(bare.machine.control.cr4 | Cr4.PCIDE)
    bare.machine.write_cr3(bare.tables.top | 1)
    translate(bare, PAGE)
    bare.machine.write_cr3(other.top | 1 | NOFLUSH)
    assert translate(bare, PAGE) == OLD


@pytest.mark.parametrize(("pge", "expected_walks"), [(True, 1), (False, 2)])
def test_a_global_page_is_walked_once_for_all_address_spaces(bare: Bare, pge: bool, expected_walks: int) -> None:
    other = bare.new_tables()
    for tables in (bare.tables, other):
        tables.map(PAGE, OLD, USER | Pte.G)
    bare.machine.write_cr4(bare.machine.control.cr4 | Cr4.PGE * pge)
    translate(bare, PAGE)
    bare.machine.write_cr3(other.top)
    translate(bare, PAGE)
    assert walks(bare) == expected_walks


@pytest.mark.parametrize(("kind", "pcid", "va"), [(4, 0, 0), (0, 1 << 12, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1 << 47)])
def test_invpcid_refuses_a_bad_type_pcid_or_address(bare: Bare, kind: int, pcid: int, va: int) -> None:
    with pytest.raises(ProcessorException) as caught:
        bare.machine.invpcid(kind, pcid, va)
    assert (caught.value.vector, caught.value.error_code) == (GENERAL_PROTECTION, 0)


def test_pcids_are_turned_on_only_while_the_low_bits_of_cr3_are_clear(bare: Bare) -> None:
    machine = bare.machine
    machine.write_cr3(bare.tables.top | Pte.PCD)
    assert machine.control.cr3 == bare.tables.top | Pte.PCD
    with pytest.raises(ProcessorException):
        machine.write_cr4(machine.control.cr4 | Cr4.PCIDE)
    machine.write_cr3(bare.tables.top)
    machine.write_cr4(machine.control.cr4 | Cr4.PCIDE)
    machine.write_cr3(bare.tables.top | 0xFFF)
    assert machine.control.cr3 == bare.tables.top | 0xFFF
