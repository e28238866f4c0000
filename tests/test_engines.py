"""Both engines count the same, and neither they nor any TLB change what a program computes.

The trap engine never sees an access that Unicorn translates by itself. It is right only while Unicorn's own TLB holds
a subset of the modelled first-level TLBs. Random programs on processors with TLBs of a few entries break
that rule at once if anything leaves a TLB unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from bare import USER, Bare, Frame, geometry, part
from scattered_programs import (
    ALIAS,
    CODE,
    CODE_BYTES,
    CODE_PAGES,
    CODES,
    DATA,
    DATA_PAGES,
    HUGE,
    LARGE,
    NOTES,
    PLAIN,
    STACK,
    TOP,
    random_program,
)
from tlb_model import PlainTlb

from emu.assembler import assemble_source
from emu.machine import Halt
from emu.profile import Profile, TlbGeometry
from emu.pte import Cr4, Pte
from emu.state import TlbKind

ENGINES = ("trap", "access")
PAGE, MIB2, GIB1 = 0x1000, 1 << 21, 1 << 30
STACK_PA = 0x30_0000
NOFLUSH = 1 << 63
PF = 14
PATIENCE = 200_000
"""Instructions; the programs need some hundred."""

READ_ONLY = Pte.P | Pte.U
COUNTERS = ("instructions", "reads", "writes", "dirty_assists", "accessed_assists")
ARRAYS = ("misses", "evictions", "walks_by", "entry_reads")
Tlb = tuple[TlbGeometry, ...]


def random_part(random: Random) -> Profile:
    """A processor whose TLBs overflow at once, in any of the shapes that profiles allow."""

    def few() -> int:
        return random.choice([1, 2, 3, 4, 8])

    def first_level() -> list[Tlb]:
        return [
            (geometry(few()),),
            (geometry(few(), "4K"), geometry(few(), "2M"), geometry(few(), "1G")),
            (geometry(few(), "4K", "2M"),),
            (geometry(8, "4K", ways=2, fold="xor"), geometry(2, "2M")),
            (geometry(4, "4K", ways=2), geometry(few(), "2M", "1G")),
        ]

    second_level = [*first_level(), (geometry(few(), "4K"),), ()]
    caches = tuple(random.choice([0, 0, 1, 2]) for _ in range(3))
    itlb, dtlb, stlb = (random.choice(level) for level in (first_level(), first_level(), second_level))
    return part(psc=(caches[0], caches[1], caches[2]), itlb=itlb, dtlb=dtlb, stlb=stlb)


@dataclass(frozen=True)
class Outcome:
    """What a program did to the machine, and what the machine counted on the way."""

    registers: dict[str, int]
    memory: bytes
    faults: list[tuple[int, int]]
    counters: dict[str, Any]
    tlbs: list[Any]


class Scene:
    """Two address spaces with all views, a random program, and a fault handler that maps pages and takes others away.

    With `careful`, the handler invalidates whatever it takes away, and no page is global; otherwise it forgets to
    now and then, and the program works with stale translations. With `complete`, all pages are there, writable and
    dirty from the start, so that nothing faults. Without `cpu`, the processor is random, too.
    """

    def __init__(
        self, seed: int, *, cpu: Profile | None = None, careful: bool = False, complete: bool = False, **options: Any
    ) -> None:
        random = Random(seed)
        self.bare = Bare(cpu or random_part(random), "16M", seed=seed, **options)
        self.machine, self.careful, self.complete = self.bare.machine, careful, complete
        self.spaces = [self.bare.tables, self.bare.new_tables()]
        self.order = random.sample(range(DATA_PAGES), DATA_PAGES)
        self.user, self.pcids = complete or random.random() < 0.4, random.random() < 0.5
        for tables in self.spaces:
            self._map_views(tables, random)
        source = random_program(random, privileged=not self.user)
        image = assemble_source(source, addresses={".text": CODES[0]}, entry=None)
        self.machine.ram.write(CODE, image.segments[0].data)
        self.start, self.end = image.symbols["start"], image.symbols["finish"] - CODES[0]
        self._choose_address_space(random)
        self.bare.on[PF] = self._on_fault
        self._whims = Random(seed + 1)

    def _map_views(self, tables: Any, random: Random) -> None:
        clean_or_dirty = [USER | Pte.D] if self.complete else [USER, USER | Pte.D]
        for view, count in ((PLAIN, DATA_PAGES), (ALIAS, DATA_PAGES), (TOP, 3)):
            for va in range(view, view + count * PAGE, PAGE):
                self._map_somehow(tables, va, random)
        around = [PLAIN - PAGE, PLAIN + DATA_PAGES * PAGE, ALIAS - PAGE, ALIAS + DATA_PAGES * PAGE, TOP - PAGE, 0]
        for number, va in enumerate([*around, LARGE - PAGE]):
            tables.map(va, DATA + number * PAGE, USER | Pte.D)
        tables.map(LARGE, DATA, random.choice(clean_or_dirty), MIB2)
        tables.map(LARGE + MIB2, CODE, random.choice(clean_or_dirty), MIB2)
        tables.map(HUGE, 0, random.choice(clean_or_dirty), GIB1)
        for view in (*CODES[:2], NOTES):
            for offset in range(0, CODE_BYTES, PAGE):
                tables.map(view + offset, CODE + offset, random.choice(clean_or_dirty))
        for offset in (0, PAGE):
            tables.map(STACK + offset, STACK_PA + offset, random.choice(clean_or_dirty))

    def _frame(self, va: int) -> int:
        """The frame behind a page of PLAIN, ALIAS or TOP."""
        if va >= TOP:
            return DATA + (va - TOP)
        number = (va - PLAIN) // PAGE
        return DATA + (number if 0 <= number < DATA_PAGES else self.order[(va - ALIAS) // PAGE]) * PAGE

    def _map_somehow(self, tables: Any, va: int, random: Random) -> None:
        shared = USER | Pte.D if self.careful else USER | Pte.D | Pte.G
        flags = random.choice([0, USER, USER | Pte.D, USER | Pte.D, shared, READ_ONLY, READ_ONLY | Pte.D])
        tables.map(va, self._frame(va), USER | Pte.D if self.complete else flags)

    def _choose_address_space(self, random: Random) -> None:
        machine, registers = self.machine, self.machine.cpu.gprs
        machine.write_cr4(machine.control.cr4 | Cr4.PGE | Cr4.PCIDE * self.pcids)
        keep = NOFLUSH if self.pcids and random.random() < 0.7 else 0
        first, second = (tables.top | (n + 1) * self.pcids for n, tables in enumerate(self.spaces))
        machine.write_cr3(first)
        registers[13], registers[14] = first | keep, second | keep

    def _on_fault(self, fault: Frame) -> None:
        """Map the page; every other time also change another one."""
        current = next(tables for tables in self.spaces if tables.top == self.machine.state.cr3)
        page, whims = fault.cr2 & -PAGE, self._whims
        current.map(page, self._frame(page), USER | whims.choice([0, Pte.D]))
        victim = whims.choice([PLAIN, ALIAS]) + whims.randrange(DATA_PAGES) * PAGE
        if victim != page and whims.random() < 0.5:
            self._map_somehow(current, victim, whims)
            if self.careful:
                self.machine.mmu.invalidate_page(victim, self.machine.state.pcid, global_too=True)
            elif whims.random() < 0.7:
                self.machine.invlpg(victim)

    def _go(self) -> Halt:
        if self.user:
            self.bare.enter_user_mode()
        self.machine.max_instructions = PATIENCE
        return self.bare.go(self.start)

    def run_up_to_the_end(self) -> None:
        """Run the program up to, but not including, the interrupt that ends it."""
        self.machine.stop_before(*(view + self.end for view in CODES))
        assert self._go() is Halt.BREAKPOINT

    def run(self) -> Outcome:
        """Run the program to its end."""
        assert self._go() is Halt.STOPPED
        machine, state = self.machine, self.machine.state
        registers = {name: value for name, value in machine.cpu.registers().items() if name != "rflags"}
        memory = machine.ram.read(DATA, DATA_PAGES * PAGE) + machine.ram.read(CODE, CODE_PAGES * PAGE)
        counters = {name: getattr(state, name) for name in COUNTERS}
        counters |= {name: list(getattr(state, name)) for name in ARRAYS}
        counters |= {"cycles": machine.clock.by_cause()}
        return Outcome(registers, memory, self.bare.faults, counters, list(machine.mmu.entries()))


# --- random programs --------------------------------------------------------------------------------------


def engines_agree(seeds: Iterable[int], policy: str) -> None:
    for seed in seeds:
        trap = Scene(seed, engine="trap", tlb_policy=policy).run()
        access = Scene(seed, engine="access", tlb_policy=policy).run()
        assert trap == access, f"seed {seed}"


@pytest.mark.parametrize("policy", ["fifo", "random"])
def test_both_engines_count_the_same(policy: str) -> None:
    engines_agree(range(20), policy)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["fifo", "random"])
def test_both_engines_count_the_same_in_many_programs(policy: str) -> None:
    engines_agree(range(20, 170), policy)


MACHINES: list[dict[str, Any]] = [
    {"engine": "trap", "tlb_policy": "fifo"},
    {"engine": "access", "tlb_policy": "random"},
    {"engine": "access", "tlb_policy": "lru"},
    {"engine": "access", "tlb_policy": "plru"},
    {"tlb": False},
]


def tlbs_are_invisible(seeds: Iterable[int]) -> None:
    """Software that invalidates what it changes computes the same with every TLB and with none."""
    for seed in seeds:
        scenes = [Scene(seed, careful=True, **options) for options in MACHINES]
        watched = Scene(seed, careful=True, engine="trap", tlb_policy="fifo")
        for name in ("instruction", "access", "page_walk", "tlb_miss"):
            watched.machine.events.on(name, lambda _: None)
        outcomes = [scene.run() for scene in (*scenes, watched)]
        architecture = [
            (o.registers, o.memory, o.faults, [o.counters[name] for name in COUNTERS[:3]]) for o in outcomes
        ]
        assert all(seen == architecture[0] for seen in architecture), f"seed {seed}"


def test_no_tlb_and_no_listener_changes_what_a_program_computes() -> None:
    tlbs_are_invisible(range(8))


@pytest.mark.slow
def test_no_tlb_and_no_listener_changes_what_many_programs_compute() -> None:
    tlbs_are_invisible(range(8, 50))


# --- against a textbook's TLB -----------------------------------------------------------------------------


def pages_touched(va: int, size: int) -> list[tuple[str, int]]:
    """The array and the number in it of each page that `size` bytes lie on."""
    if HUGE <= va < HUGE + GIB1:
        return [("large", va // MIB2 // 512 * 512)]
    if LARGE <= va < LARGE + 2 * MIB2:
        return [("large", page) for page in sorted({va // MIB2, (va + size - 1) // MIB2})]
    return [("small", page) for page in sorted({va // PAGE, (va + size - 1) // PAGE})]


class Textbook:
    """Two arrays, for small and for large pages, that see every access."""

    def __init__(self, small: TlbGeometry, large: TlbGeometry) -> None:
        self._arrays = {"small": PlainTlb(small, "fifo"), "large": PlainTlb(large, "fifo")}
        self.misses = 0

    def touch(self, va: int, size: int) -> None:
        for array, page in pages_touched(va, size):
            self.misses += not self._arrays[array].access(page)


@pytest.mark.parametrize("seed", range(15))
def test_both_engines_miss_where_a_textbooks_tlb_misses(seed: int) -> None:
    random = Random(seed)
    small = random.choice([geometry(2, "4K"), geometry(4, "4K", ways=2), geometry(8, "4K", ways=2, fold="xor")])
    large = geometry(random.choice([2, 3]), "2M", "1G")
    cpu = part(itlb=(small, large), dtlb=(small, large))
    scenes = [Scene(seed, cpu=cpu, complete=True, tlb_policy="fifo", engine=engine) for engine in ENGINES]
    itlb, dtlb = Textbook(small, large), Textbook(small, large)
    watched = scenes[0].machine
    watched.events.on("instruction", lambda event: itlb.touch(event.va, event.size))
    watched.events.on("access", lambda event: dtlb.touch(event.va, event.size))
    for scene in scenes:
        scene.run_up_to_the_end()
        if scene is scenes[0]:
            itlb.touch(watched.cpu.rip, 1)  # the instruction before which it stopped was fetched
        assert list(scene.machine.state.misses)[:2] == [itlb.misses, dtlb.misses]


# --- one special case each --------------------------------------------------------------------------------


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def misses(bare: Bare, kind: TlbKind) -> int:
    return int(bare.machine.state.misses[kind])


def counting_stops_at(bare: Bare, source: str, va: int, pa: int) -> None:
    """Run a program that ends at its label `end`, and not further: no interrupt delivery is counted."""
    image = assemble_source(source, addresses={".text": va}, entry=None)
    bare.machine.ram.write(pa, image.segments[0].data)
    bare.machine.stop_before(image.symbols["end"])
    assert bare.go(va) is Halt.BREAKPOINT


def test_each_round_of_a_loop_across_two_pages_misses_twice_in_an_itlb_of_one_entry(engine: str) -> None:
    counted = []
    for rounds in (100, 300):
        bare = Bare(part(itlb=(geometry(1),)), "16M", engine=engine, tlb_policy="fifo")
        for offset in (0, PAGE):
            bare.tables.map(CODES[0] + offset, CODE + offset)
        loop = f"mov ecx, {rounds}\n1: inc rax\n dec ecx\n jnz 1b"
        counting_stops_at(bare, f"base: jmp start\n .org base + 4089\nstart: {loop}\nend: nop", CODES[0], CODE)
        counted.append(misses(bare, TlbKind.ITLB))
    assert counted[1] - counted[0] == 2 * 200


def test_a_stale_small_page_wins_over_the_large_one_that_replaced_it(engine: str) -> None:
    """The dirty small page needs no assist, whichever of the two was used last."""
    bare = Bare(part(dtlb=(geometry(8),)), "16M", engine=engine, tlb_policy="fifo")
    old, new = 8 * GIB1, 8 * GIB1 + 5 * PAGE
    bare.tables.map(CODES[0], CODE)
    bare.tables.map(PLAIN, DATA)
    bare.tables.map(old, DATA, USER | Pte.D)
    directory = bare.tables.entry(old, level=2)
    bare.tables.map(NOTES, directory & -PAGE, USER | Pte.D)
    program = f"""
        mov rbx, {old}
        mov rcx, {new}
        mov rdx, {PLAIN}
        mov rsi, {NOTES + directory % PAGE}
        mov [rbx], al
        mov al, [rdx]
        mov qword ptr [rsi], {DATA | USER | Pte.PS}
        mov al, [rcx]
        mov al, [rdx]
        invlpg [rdi]
        mov [rbx], al
    end: nop
    """
    counting_stops_at(bare, program, CODES[0], CODE)
    assert {entry.page_size for entry in bare.machine.mmu.entries(TlbKind.DTLB)} == {PAGE, MIB2}
    assert bare.machine.state.dirty_assists == 0


def test_a_store_across_two_pages_changes_nothing_if_the_second_is_missing(engine: str) -> None:
    bare = Bare(ram="16M", engine=engine)
    bare.tables.map(CODES[0], CODE)
    bare.tables.map(PLAIN, DATA)
    before: list[bytes] = []

    def bring(_fault: Frame) -> None:
        before.append(bare.machine.ram.read(DATA, PAGE))
        bare.tables.map(PLAIN + PAGE, DATA + PAGE)

    bare.on[PF] = bring
    program = f"mov rbx, {PLAIN + PAGE - 3}\n mov rax, -1\n mov [rbx], rax\nend: nop"
    counting_stops_at(bare, program, CODES[0], CODE)
    assert bare.faults == [(PLAIN + PAGE, 2)]
    assert before == [bytes(PAGE)]
    assert bare.machine.ram.read(DATA + PAGE - 3, 8) == b"\xff" * 8
    assert bare.machine.state.writes == 1 + 6  # and six that delivered the fault


def test_a_copy_between_two_views_of_one_frame_sees_its_own_stores(engine: str) -> None:
    bare = Bare(part(dtlb=(geometry(1),)), "16M", engine=engine, tlb_policy="fifo")
    bare.tables.map(CODES[0], CODE)
    for view in (PLAIN, ALIAS):
        bare.tables.map(view, DATA, USER | Pte.A | Pte.D)
    bare.machine.ram.write(DATA, b"ab")
    program = f"mov rsi, {PLAIN}\n mov rdi, {ALIAS + 2}\n mov ecx, 20\n rep movsb\nend: nop"
    counting_stops_at(bare, program, CODES[0], CODE)
    assert bare.machine.ram.read(DATA, 22) == b"ab" * 11
    assert misses(bare, TlbKind.DTLB) == 40


def test_a_privileged_instruction_may_end_a_block_that_lies_on_two_pages(engine: str) -> None:
    bare = Bare(ram="16M", engine=engine)
    for offset in (0, PAGE):
        bare.tables.map(CODES[0] + offset, CODE + offset)
    place = "base: jmp start\n .org base + 4091\nstart: mov rax, cr3\n mov cr3, rax\n inc rdx\nend: nop"
    counting_stops_at(bare, place, CODES[0], CODE)
    assert bare.machine.cpu.registers()["rdx"] == 1
    assert bare.machine.cr3_writes["flush"] == 2
    assert bare.machine.state.instructions == 4
