"""How TLBs and paging-structure caches are built: page sizes, capacity, sets, replacement."""

from __future__ import annotations

import pytest
from bare import USER, Bare, geometry, part
from hypothesis import given, settings
from hypothesis import strategies as st
from tlb_model import PlainTlb

from emu.control import Msr
from emu.exceptions import InputError, ProcessorException
from emu.machine import Machine
from emu.profile import PAGE_SIZES, load_profile
from emu.pte import Access, Efer, Pte
from emu.state import TlbKind

PAGE, OLD, NEW = 0x50_0000, 0x20_0000, 0x30_0000
KIB4, MIB2, GIB1 = 1 << 12, 1 << 21, 1 << 30
DIRTY = USER | Pte.A | Pte.D


def translate(bare: Bare, va: int, access: Access = Access.READ) -> int:
    return bare.machine.mmu.translate(va, access)


def reads_of(bare: Bare, va: int) -> int:
    """How many entries the walk for one address reads (0: a TLB holds it)."""
    before = sum(bare.machine.state.entry_reads)
    translate(bare, va)
    return sum(bare.machine.state.entry_reads) - before


def sizes_held(bare: Bare, *kinds: TlbKind) -> list[int]:
    return [entry.page_size for entry in bare.machine.mmu.entries(*kinds)]


# --- paging-structure caches (SDM Vol. 3A 4.10.3) ---------------------------------------------------------

NEIGHBOURS = {"4 KiB away": KIB4, "2 MiB away": MIB2, "1 GiB away": GIB1, "512 GiB away": 512 * GIB1}


@pytest.mark.parametrize(
    ("psc", "expected"),
    [
        pytest.param((0, 0, 0), [4, 4, 4, 4], id="none"),
        pytest.param((4, 0, 0), [3, 3, 3, 4], id="PML4Es"),
        pytest.param((0, 4, 0), [2, 2, 4, 4], id="PDPTEs"),
        pytest.param((0, 0, 4), [1, 4, 4, 4], id="PDEs"),
        pytest.param((4, 4, 4), [1, 2, 3, 4], id="all"),
    ],
)
def test_a_walk_reads_only_the_entries_below_the_deepest_cached_one(
    psc: tuple[int, int, int], expected: list[int]
) -> None:
    bare = Bare(part(psc=psc), ram="16M")
    for distance in (0, *NEIGHBOURS.values()):
        bare.tables.map(PAGE + distance, OLD)
    assert reads_of(bare, PAGE) == 4
    assert [reads_of(bare, PAGE + distance) for distance in NEIGHBOURS.values()] == expected


@pytest.mark.parametrize("flush", ["invlpg", "mov cr3"])
def test_a_stale_table_is_used_until_it_is_flushed(flush: str) -> None:
    bare = Bare(part(psc=(4, 4, 4)), ram="16M")
    for page in range(3):
        bare.tables.map(PAGE + page * KIB4, OLD + page * KIB4)
    translate(bare, PAGE)
    bare.machine.ram.store64(bare.tables.entry(PAGE, level=2), 0)
    assert translate(bare, PAGE + KIB4) == OLD + KIB4  # through the page table that is no longer linked
    for page in range(3):
        bare.tables.map(PAGE + page * KIB4, NEW + page * KIB4)  # in a new page table
    if flush == "invlpg":
        bare.machine.invlpg(0)  # of any address: INVLPG drops all paging-structure caches of the PCID
    else:
        bare.machine.write_cr3(bare.tables.top)
    assert translate(bare, PAGE + 2 * KIB4) == NEW + 2 * KIB4


def test_a_cached_table_remembers_the_rights_of_the_levels_above_it() -> None:
    bare = Bare(part(psc=(0, 0, 4)), ram="16M")
    for va in (PAGE, PAGE + KIB4):
        bare.tables.map(va, OLD, DIRTY)
    translate(bare, PAGE)
    pml4e = bare.tables.entry(PAGE, level=4)
    bare.machine.ram.store64(pml4e, bare.machine.ram.load64(pml4e) & ~Pte.W)
    assert translate(bare, PAGE + KIB4, Access.WRITE) == OLD


@pytest.mark.parametrize("psc", [(4, 0, 0), (0, 4, 0), (0, 0, 4)], ids=["PML4E", "PDPTE", "PDE"])
@pytest.mark.parametrize(
    ("access", "cpl", "error_code"), [(Access.WRITE, 0, 3), (Access.FETCH, 0, 0x11), (Access.READ, 3, 5)]
)
def test_what_an_upper_level_forbids_is_forbidden_through_a_cached_table_too(
    psc: tuple[int, int, int], access: Access, cpl: int, error_code: int
) -> None:
    bare = Bare(part(psc=psc), ram="16M")
    bare.machine.write_msr(Msr.EFER, bare.machine.control.efer | Efer.NXE)
    for va in (PAGE, PAGE + KIB4):
        bare.tables.map(va, OLD, DIRTY)
    pml4e = bare.tables.entry(PAGE, level=4)
    bare.machine.ram.store64(pml4e, bare.machine.ram.load64(pml4e) & ~USER | Pte.P | Pte.NX)
    translate(bare, PAGE)
    bare.machine.set_cpl(cpl)
    with pytest.raises(ProcessorException) as caught:
        translate(bare, PAGE + KIB4, access)
    assert caught.value.error_code == error_code


def test_a_page_fault_drops_the_cached_tables_of_its_address() -> None:
    bare = Bare(part(psc=(4, 4, 4)), ram="16M")
    bare.tables.map(PAGE, OLD)
    translate(bare, PAGE)
    with pytest.raises(ProcessorException):
        translate(bare, PAGE + KIB4)
    bare.tables.map(PAGE + KIB4, OLD)
    assert reads_of(bare, PAGE + KIB4) == 4


# --- page sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "reads"), [(KIB4, 4), (MIB2, 3), (GIB1, 2)])
def test_a_large_page_is_one_entry_and_a_shorter_walk(size: int, reads: int) -> None:
    bare = Bare(part(), ram="16M")
    bare.tables.map(8 * GIB1, 0, size=size)
    assert reads_of(bare, 8 * GIB1) == reads
    last = min(size, bare.ram.size) - 8
    assert reads_of(bare, 8 * GIB1 + last) == 0
    assert sizes_held(bare, TlbKind.DTLB) == [size]
    assert translate(bare, 8 * GIB1 + last) == last


@pytest.mark.parametrize("cpu", ["skylake", "haswell", "broadwell", "zen2"])
def test_a_level_without_a_place_for_1g_pages_holds_the_2m_piece_that_was_used(cpu: str) -> None:
    bare = Bare(cpu, ram="16M")
    bare.tables.map(8 * GIB1, 0, DIRTY, size=GIB1)
    translate(bare, 8 * GIB1 + 5 * MIB2 + 7)
    levels = {TlbKind.DTLB: bare.machine.profile.tlb.dtlb, TlbKind.STLB: bare.machine.profile.tlb.stlb}
    for kind, arrays in levels.items():
        (entry,) = bare.machine.mmu.entries(kind)
        whole = any("1G" in array.sizes for array in arrays)
        assert entry.page_size == (GIB1 if whole else MIB2)
        assert entry.va - 8 * GIB1 == entry.pa == (0 if whole else 5 * MIB2)


@pytest.mark.parametrize("operation", ["INVLPG", "INVPCID"])
def test_invalidating_any_part_of_a_smashed_page_drops_all_its_pieces(operation: str) -> None:
    only_small = (geometry(8, "4K", "2M"),)
    bare = Bare(part(itlb=only_small, dtlb=only_small, stlb=only_small), ram="16M")
    bare.tables.map(8 * GIB1, 0, DIRTY, size=GIB1)
    bare.tables.map(9 * GIB1, 0, DIRTY, size=GIB1)
    for piece in range(3):
        translate(bare, 8 * GIB1 + piece * MIB2)
    translate(bare, 9 * GIB1)
    assert sizes_held(bare) == [MIB2] * 8
    if operation == "INVLPG":
        bare.machine.invlpg(8 * GIB1 + 300 * MIB2)  # a part that nobody used
    else:
        bare.machine.invpcid(0, 0, 8 * GIB1 + 300 * MIB2)
    assert {entry.va for entry in bare.machine.mmu.entries()} == {9 * GIB1}


def test_each_piece_of_a_smashed_page_learns_by_itself_that_the_page_is_dirty() -> None:
    only_small = (geometry(8, "4K", "2M"),)
    bare = Bare(part(dtlb=only_small, stlb=only_small), ram="16M")
    bare.tables.map(8 * GIB1, 0, size=GIB1)
    for piece in range(3):
        translate(bare, 8 * GIB1 + piece * MIB2)
    for piece in (0, 1, 2, 0, 1, 2):
        translate(bare, 8 * GIB1 + piece * MIB2, Access.WRITE)
    assert bare.machine.state.dirty_assists == 3


# --- capacity, sets, replacement --------------------------------------------------------------------------

SMALL = {
    "full": geometry(4, "4K"),
    "full, 3 ways": geometry(3, "4K"),
    "2 ways, linear": geometry(8, "4K", ways=2),
    "4 ways, xor": geometry(16, "4K", ways=4, fold="xor"),
    "12 ways, xor": geometry(24, "4K", ways=12, fold="xor"),
    "1 way, xor": geometry(8, "4K", ways=1, fold="xor"),
}
PAGES = 64
Steps = list[tuple[bool, int]]
steps: st.SearchStrategy[Steps] = st.lists(
    st.tuples(st.integers(0, 9).map(bool), st.integers(0, PAGES - 1)), min_size=50, max_size=400
)
"""(whether to access the page rather than to invalidate it, page)."""


def machine_with(name: str, policy: str, seed: int = 1) -> Bare:
    """A machine whose DTLB has the named shape for 4 KiB pages; the STLB has three entries."""
    large = geometry(1, "2M", "1G")
    bare = Bare(part(dtlb=(SMALL[name], large), stlb=(geometry(3, "4K"),)), tlb_policy=policy, seed=seed, ram="16M")
    for page in range(PAGES):
        bare.tables.map(page * KIB4, OLD)
    return bare


@pytest.mark.parametrize("policy", ["fifo", "lru", "plru"])
@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=5, deadline=None)
@given(steps=steps)
def test_a_tlb_hits_and_evicts_as_the_textbook_says(name: str, policy: str, steps: Steps) -> None:
    bare, dtlb = machine_with(name, policy), PlainTlb(SMALL[name], policy)
    stlb = PlainTlb(geometry(3, "4K"), policy)
    state = bare.machine.state
    for is_access, page in steps:
        if not is_access:
            bare.machine.invlpg(page * KIB4)
            dtlb.drop(page)
            stlb.drop(page)
            continue
        misses, walks = state.misses[TlbKind.DTLB], sum(state.walks_by)
        translate(bare, page * KIB4)
        hit = dtlb.access(page)
        assert state.misses[TlbKind.DTLB] - misses == (not hit)
        assert sum(state.walks_by) - walks == (not hit and not stlb.access(page))
    assert list(state.evictions)[1:] == [dtlb.evictions, stlb.evictions]


def pages_held(bare: Bare) -> list[int]:
    return sorted(entry.va // KIB4 for entry in bare.machine.mmu.entries(TlbKind.DTLB))


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=5, deadline=None)
@given(pages=st.lists(st.integers(0, PAGES - 1), min_size=50, max_size=300))
def test_random_replacement_is_a_function_of_its_seed_and_never_overfills_a_set(name: str, pages: list[int]) -> None:
    first, second = machine_with(name, "random", seed=3), machine_with(name, "random", seed=3)
    for page in pages:
        translate(first, page * KIB4)
        translate(second, page * KIB4)
    assert pages_held(first) == pages_held(second)
    assert list(first.machine.state.misses) == list(second.machine.state.misses)
    shape = SMALL[name]
    for number in range(shape.sets):
        used = {page for page in pages if shape.set_of(page) == number}
        kept = [page for page in pages_held(first) if shape.set_of(page) == number]
        assert len(kept) == min(len(used), shape.associativity)


def test_random_replacement_depends_on_the_seed() -> None:
    kept = set()
    for seed in range(1, 6):
        bare = machine_with("full", "random", seed=seed)
        for page in range(PAGES):
            translate(bare, page * KIB4)
        kept.add(tuple(pages_held(bare)))
    assert len(kept) > 1


@pytest.mark.parametrize("size", PAGE_SIZES)
@pytest.mark.parametrize("fold", ["linear", "xor"])
@settings(max_examples=25, deadline=None)
@given(first=st.integers(0, (1 << 17) - 1), second=st.integers(0, (1 << 17) - 1))
def test_two_pages_compete_if_the_hash_puts_them_into_one_set(size: str, fold: str, first: int, second: int) -> None:
    shape = geometry(16, ways=1, fold=fold)
    bare = Bare(part(dtlb=(shape,), stlb=()), ram="16M")
    bytes_each = 1 << PAGE_SIZES[size]
    for page in (first, second):
        bare.tables.map(page * bytes_each, 0, size=bytes_each)
        translate(bare, page * bytes_each)
    compete = first != second and shape.set_of(first) == shape.set_of(second)
    assert bare.machine.state.evictions[TlbKind.DTLB] == compete


@pytest.mark.parametrize("cpu", ["skylake", "haswell", "broadwell", "zen2"])
def test_the_tlbs_of_a_real_part_hold_exactly_their_entries(cpu: str) -> None:
    tlb = load_profile(cpu).tlb
    (dtlb,) = (array for array in tlb.dtlb if "4K" in array.sizes)
    bare = Bare(cpu, tlb_policy="fifo", ram="16M")
    for page in range(dtlb.entries + 1):
        bare.tables.map(page * KIB4, OLD, DIRTY)
        translate(bare, page * KIB4)
    assert len(sizes_held(bare, TlbKind.DTLB)) == dtlb.entries
    assert len(sizes_held(bare, TlbKind.STLB)) == dtlb.entries + 1
    assert bare.machine.state.evictions[TlbKind.DTLB] == 1
    assert translate(bare, 0) == OLD  # pushed out of the DTLB, still in the STLB
    assert sum(bare.machine.state.walks_by) == dtlb.entries + 1


def test_tree_plru_is_refused_for_more_ways_than_a_tree_has_room_for() -> None:
    with pytest.raises(InputError, match="128 ways; plru can be modelled for 64"):
        Machine(part(dtlb=(geometry(128),)), "1M", tlb_policy="plru")
