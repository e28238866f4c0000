"""Data and instruction caches: what they hold, what they count, and what RDTSC shows of them."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from bare import END, SKYLAKE, USER, USER_CODE, Bare
from cache_model import LINE, PlainCaches
from command import program, source, stats
from test_engines import COUNTERS, Scene

from emu import InputError, Machine, Pte, load_profile, profile_names
from emu.cache_state import CacheLevel, CacheUse
from emu.control import Msr
from emu.cpuid import cpuid
from emu.hierarchy import CACHE_NAMES
from emu.profile import Cache, Caches, Profile
from emu.state import TlbKind

USES = {use.name.lower(): use for use in CacheUse}


def small(inclusive: bool = True, *, llc_ways: int = 3) -> Profile:
    """Skylake with caches of a few lines, and a last level whose sets are no power of two."""
    few = {
        "l1d": Cache(size_kib=1, ways=4, latency=4, replacement="plru"),
        "l1i": Cache(size_kib=1, ways=8, latency=5, replacement="lru"),
        "l2": Cache(size_kib=2, ways=2, latency=12, replacement="plru"),
        "llc": Cache(size_kib=9, ways=llc_ways, latency=40, replacement="lru"),
    }
    return replace(SKYLAKE, caches=Caches(line=LINE, llc_inclusive=inclusive, dram_latency=200, **few))


def whole(cpu: Profile) -> Profile:
    """A processor whose instructions take a cycle each, so that differences of time are exact."""
    return replace(cpu, costs=replace(cpu.costs, instructions_per_cycle=1))


@pytest.mark.parametrize("cpu", [small(True), small(False, llc_ways=16), *map(load_profile, profile_names())])
def test_caches_hold_what_a_textbook_says(cpu):
    """Any sequence of uses and flushes: the same hits, misses, evictions and contents as the plain model."""
    random, caches, plain = Random(cpu.name), Machine(cpu, "1M", caches=True).caches, PlainCaches(cpu.caches)
    latencies = {name: getattr(cpu.caches, name).latency for name in CACHE_NAMES} | {"memory": cpu.caches.dram_latency}
    for _ in range(20_000):
        pa = random.choice(
            (random.randrange(1 << 14), random.randrange(0, 1 << 26, 1 << 12), random.randrange(1 << 26))
        )
        if random.random() < 0.02:
            caches.flush_line(pa)
            plain.flush(pa)
        else:
            use = random.choice(list(USES))
            assert caches.access(pa, USES[use]) == latencies[plain.access(pa, use)]
    assert caches.counts() == plain.counts()
    for level, name in enumerate(CACHE_NAMES):
        assert caches.lines(CacheLevel(level)) == plain.levels[name].lines()
    caches.flush()
    assert not any(caches.lines(CacheLevel(level)) for level in range(4))


def replayed(scene: Scene, cpu: Profile) -> PlainCaches:
    """Run a program; feed its recorded accesses and page walks to the plain model, which must predict each fill.

    Which lines of code are fetched is the machine's business, so a miss of the L1I is taken from its event.
    """
    plain, fills = PlainCaches(cpu.caches), []

    def predict(pas: list[int], use: str) -> None:
        predicted = [("l1d", pa // LINE * LINE, plain.access(pa, use), use) for pa in pas]
        assert fills == [fill for fill in predicted if fill[2] != "l1d"]
        fills.clear()

    def on_access(event) -> None:
        end = event.pa + event.size - 1
        second = end if event.va % 4096 + event.size <= 4096 else scene.bare.machine.mmu.peek(event.va + event.size - 1)
        predict([event.pa] if event.pa // LINE == end // LINE else [event.pa, second], event.kind)

    def on_fill(event) -> None:
        if event.use == "fetch":
            assert plain.access(event.pa, "l1i miss") == event.source
        else:
            fills.append((event.cache, event.pa, event.source, event.use))

    events = scene.machine.events
    events.on("access", on_access)
    events.on("page_walk", lambda event: predict([step.pa for step in event.steps], "walk"))
    events.on("cache_fill", on_fill)
    scene.run_up_to_the_end()
    return plain


@pytest.mark.parametrize("inclusive", [True, False])
def test_a_program_fills_the_caches_as_its_recorded_accesses_say(inclusive):
    for seed in range(4):
        cpu = small(inclusive)
        scene = Scene(seed, cpu=cpu, complete=True, caches=True, transient=False)
        plain, counts = replayed(scene, cpu), scene.machine.caches.counts()
        assert plain.misses["l1d"] > 20
        assert {name: plain.counts()[name] for name in ("l1d", "l2", "llc")} == {
            name: counts[name] for name in ("l1d", "l2", "llc")
        }


def test_caches_change_nothing_but_the_time():
    for seed in range(4):
        plain, cached = Scene(seed, engine="access", tlb_policy="lru"), Scene(seed, tlb_policy="lru", caches=True)
        first, second = plain.run(), cached.run()
        assert (first.registers, first.memory, first.faults) == (second.registers, second.memory, second.faults)
        assert {name: first.counters[name] for name in COUNTERS} == {name: second.counters[name] for name in COUNTERS}
        by_cause = cached.machine.clock.by_cause()
        assert by_cause["data_caches"] > 0 and sum(by_cause.values()) == cached.machine.clock.now


# --- time -----------------------------------------------------------------------------------------------------

TIMED = """
    mov rbx, 0x600000
    mov esi, [rbx + 128]
    rdtscp
    mov esi, eax
    {}
    rdtscp
    sub eax, esi
"""
FAR = {"l1d": [], "l2": range(1 << 12, 9 << 12, 1 << 12), "llc": range(1 << 16, 9 << 16, 1 << 16)}
"""How far from a line others lie that drive it out of what is nearer than this cache."""


def timed(instruction: str, place: str, result: str = "eax") -> int:
    """Cycles that two RDTSCP show around an instruction, in the middle of a block, with its line where it is said."""
    bare = Bare(whole(SKYLAKE), caches=True)
    pa, caches = bare.map(0x600000), bare.machine.caches
    for _ in range(2):  # the first time brings code and translations
        bare.user(TIMED.format(instruction).replace("sub eax", f"sub {result}"))
        if place == "memory":
            caches.flush_line(pa)
        else:
            for distance in (0, *FAR[place]):
                caches.access(pa + distance, CacheUse.READ)
        bare.run()
    return bare["r" + result[1:]]


def test_rdtscp_shows_the_latency_of_one_load():
    caches, nothing = SKYLAKE.caches, timed("nop", "l1d")
    for place in ("l1d", "l2", "llc"):
        assert timed("mov rdx, [rbx]", place) - nothing == getattr(caches, place).latency
    assert timed("mov rdx, [rbx]", "memory") - nothing == caches.dram_latency
    assert timed("mov [rbx], rdx", "memory") == nothing, "a store waits for nothing"


def test_a_fence_waits_for_loads():
    """RDTSC itself does not wait, so a hit shows only with LFENCE or MFENCE before it."""
    for fence, waits in (("lfence", True), ("mfence", True), ("sfence", False), ("nop", False)):
        shown = timed(f"mov rdx, [rbx]; {fence}; rdtsc; mov edi, eax; lfence", "l1d", result="edi")
        plain = timed(f"nop; {fence}; rdtsc; mov edi, eax; lfence", "l1d", result="edi")
        assert shown - plain == (SKYLAKE.caches.l1d.latency if waits else 0)


def test_a_timer_is_not_late_because_a_program_waits_for_memory():
    """The machine looks at the timer by instructions; when each of them waits for memory, it looks sooner."""
    for caches in (False, True):
        bare = Bare(caches=caches)
        for page in range(0x600000, 0x600000 + (64 << 12), 1 << 12):
            bare.map(page)
        bare.user("mov rbx, 0x600000; again: mov rax, [rbx]; clflush [rbx]; jmp again")
        bare.cpu.interrupt_flag = True
        bare.machine.set_timer(1_000_000, 0x30)
        assert bare.run().vector == 0x30
        assert 1_000_000 <= bare.machine.clock.now < 1_050_000


# --- instructions ---------------------------------------------------------------------------------------------

AREA, SUPERVISOR, MISSING, NOT_CANONICAL = 0x600000, 0x601000, 0x602000, 1 << 60
LINE_THERE = AREA + 0x488


def ran(instruction: str, rdi: int = LINE_THERE, cpu: Profile = SKYLAKE) -> Bare:
    """A machine on which a user executed one instruction, with the lines of a page in the caches."""
    bare = Bare(cpu, caches=True)
    pa = bare.map(AREA)
    bare.map(SUPERVISOR, flags=USER & ~Pte.U)
    for line in range(pa, pa + 4096, 64):
        bare.machine.caches.access(line, CacheUse.READ)
    bare.machine.write_msr(Msr.GS_BASE, AREA)
    bare.user(instruction)
    bare["rdi"], bare["r9"] = rdi, 1
    bare.run()
    return bare


@pytest.mark.parametrize("flush", ["clflush", "clflushopt"])
def test_a_flush_drops_one_line_from_every_cache(flush):
    far = LINE_THERE - USER_CODE - (8 if flush == "clflush" else 9)
    for operand, rdi in (
        ("[rdi]", LINE_THERE),
        ("[edi + 8]", LINE_THERE - 8 + (1 << 40)),
        ("[rdi + 4 * r9 - 64]", LINE_THERE + 60),
        (f"[rip + {far}]", 0),
        ("gs:[rdi]", LINE_THERE - AREA),
    ):
        bare = ran(f"{flush} {operand}", rdi)
        held = [
            [bare.machine.caches.holds(level, bare.physical(LINE_THERE) + line) for line in (-64, 0, 64)]
            for level in (CacheLevel.L1D, CacheLevel.L2, CacheLevel.LLC)
        ]
        assert (bare.last.vector, held) == (END, [[True, False, True]] * 3), operand


@pytest.mark.parametrize("flush", ["clflush", "clflushopt"])
@pytest.mark.parametrize("caches", [True, False])
def test_a_flush_is_checked_like_a_load(flush, caches):
    """SDM Vol. 2A, CLFLUSH: all permission checks and faults of a byte load; it sets A, and not D."""
    for rdi, fault, code in ((MISSING, "#PF", 4), (SUPERVISOR, "#PF", 5), (NOT_CANONICAL, "#GP", 0)):
        bare = Bare(caches=caches)
        bare.map(AREA)
        bare.map(SUPERVISOR, flags=USER & ~Pte.U)
        bare.user(f"nop; mov rdi, {rdi}; {flush} [rdi]; nop")
        frame = bare.run()
        assert (frame.name, frame.error_code, frame.rip) == (fault, code, USER_CODE + 1 + (10 if rdi >> 32 else 7))
        assert fault == "#GP" or frame.cr2 == rdi
    bare = Bare(caches=caches)
    bare.map(AREA)
    bare.user(f"mov rbp, {NOT_CANONICAL}; {flush} [rbp]")
    assert bare.run().name == "#SS"
    bare.user(f"mov edi, {AREA}; {flush} [rdi]")
    assert (bare.run().vector, bare.ram.load64(bare.entry(AREA)) & (Pte.A | Pte.D)) == (END, Pte.A)


@pytest.mark.parametrize("name", profile_names())
def test_clflushopt_clwb_and_cpuid_are_as_the_profile_says(name):
    cpu = load_profile(name)
    ebx7, ecx, edx1 = (cpuid(cpu, leaf, 0)[word] for leaf, word in ((7, 1), (0x8000_0001, 2), (1, 3)))
    features = {"clflushopt": ebx7 >> 23 & 1, "clwb": ebx7 >> 24 & 1, "prefetchw": ecx >> 8 & 1}
    assert features == {feature: getattr(cpu.features, feature) for feature in features}
    assert edx1 >> 19 & 1, "CLFLUSH"
    for instruction in ("clflushopt", "clwb"):
        bare = ran(f"{instruction} [rdi]", cpu=cpu)
        assert bare.last.name == ("int 0x20" if features[instruction] else "#UD")
        holds = bare.machine.caches.holds(CacheLevel.L1D, bare.physical(LINE_THERE))
        assert holds != (instruction == "clflushopt" and features[instruction])
    assert ran("lock clflush [rdi]").last.name == "#UD"


PREFETCHES = {"prefetcht0": "l1d", "prefetchnta": "l1d", "prefetchw": "l1d", "prefetcht1": "l2", "prefetcht2": "l2"}


@pytest.mark.parametrize("prefetch", PREFETCHES)
def test_a_prefetch_brings_a_line_and_a_translation_and_never_faults(prefetch):
    bare = Bare(caches=True)
    pa = bare.map(AREA, flags=USER & ~Pte.W)
    bare.map(SUPERVISOR, flags=USER & ~Pte.U)
    fills: list[tuple[str, int, str]] = []
    bare.machine.events.on("cache_fill", lambda event: fills.append((event.cache, event.pa, event.use)))
    for rdi in (MISSING, NOT_CANONICAL, SUPERVISOR, AREA + 100):
        bare.user(f"{prefetch} [rdi]")
        bare["rdi"] = rdi
        assert bare.run().vector == END
    assert [fill for fill in fills if fill[2] == "prefetch"] == [(PREFETCHES[prefetch], pa + 64, "prefetch")]
    assert {entry.va for entry in bare.machine.mmu.entries(TlbKind.DTLB)} >= {AREA}
    assert bare.ram.load64(bare.entry(AREA)) & (Pte.A | Pte.D) == Pte.A
    assert ran(f"{prefetch} [rdi]", cpu=load_profile("haswell")).last.vector == END


def test_the_time_of_a_prefetch_tells_which_supervisor_pages_are_mapped():
    """The translation of a page that is there stays in a TLB; one that is not there is walked for again."""
    times = {}
    for va in (SUPERVISOR, MISSING):
        bare = Bare(whole(SKYLAKE), caches=True)
        bare.map(SUPERVISOR, flags=USER & ~Pte.U)
        bare.user("prefetcht0 [rdi]; rdtscp; mov esi, eax; prefetcht0 [rdi]; rdtscp; sub eax, esi")
        bare["rdi"] = va
        bare.run()
        times[va] = bare["rax"]
    assert times[SUPERVISOR] < times[MISSING]


# --- options --------------------------------------------------------------------------------------------------


def test_caches_need_the_access_engine():
    assert Machine(ram="1M", caches=True).engine == "access"
    with pytest.raises(InputError, match="cannot model data caches"):
        Machine(ram="1M", caches=True, engine="trap")


def test_the_order_of_loops_shows_in_the_misses():
    def misses(order: str) -> int:
        counted = stats(program("matmul_order"), "--caches", "--", order)
        assert sum(counted["cycles"]["by_cause"].values()) == counted["cycles"]["total"]
        return counted["caches"]["l1d"]["misses"]

    assert misses("columns") > 5 * misses("rows")


CALLS = "_start: mov ebx, 20; again: mov eax, 39; syscall; dec ebx; jnz again; xor edi, edi; mov eax, 60; syscall"


def test_a_kernel_that_flushes_leaves_nothing_in_the_caches():
    """`--caches flush`: after each return the program's one line of code comes from memory again."""
    kept, flushed = (stats(source(CALLS), "--caches", how)["caches"]["llc"]["misses"] for how in ("on", "flush"))
    assert flushed > kept + 20 * 10
    assert "caches" not in stats(source(CALLS))
