"""Every shipped program does what its header promises, in every configuration, and as the real kernel has it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import RunImage
from expectations import PROGRAMS, expectation
from native import count_instructions, requires_native, run_native

from emu import assemble

ids = {"ids": lambda program: program.stem}
CONFIGURATIONS = {
    "plain": ({}, {}),
    "access engine": ({"engine": "access"}, {}),
    "fifo": ({"tlb_policy": "fifo"}, {}),
    "lru": ({"tlb_policy": "lru"}, {}),
    "plru": ({"tlb_policy": "plru"}, {}),
    "zen2": ({"cpu": "zen2"}, {}),
    "haswell without pcid": ({"cpu": "haswell"}, {"pcid": False}),
    "populated": ({}, {"populate": True}),
    "little memory": ({"ram": "20M"}, {}),
    "huge pages": ({}, {"thp": "always"}),
}
SHORT = [
    program for program in PROGRAMS if program.stem in ("hello", "page_cross", "self_modify", "string_ops", "segv")
]


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("program", PROGRAMS, **ids)
def test_a_program_keeps_the_promise_of_its_header(program: Path, configuration: str, run_image: RunImage) -> None:
    machine, options = CONFIGURATIONS[configuration]
    promised = expectation(program.read_text())
    ended = run_image(assemble(program), machine, stdin=promised.stdin, **options)
    assert ended.stdout == promised.stdout
    assert (ended.result.exit_code, ended.result.signal) == (promised.exit_code, promised.signal)


@pytest.mark.parametrize("program", SHORT, **ids)
def test_without_a_tlb_a_program_does_the_same(program: Path, run_image: RunImage) -> None:
    promised = expectation(program.read_text())
    ended = run_image(assemble(program), {"tlb": False})
    assert ended.stdout == promised.stdout
    assert (ended.result.exit_code, ended.result.signal) == (promised.exit_code, promised.signal)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, **ids)
def test_both_engines_count_the_same_with_huge_pages(program: Path, run_image: RunImage) -> None:
    image, stdin = assemble(program), expectation(program.read_text()).stdin
    runs = [run_image(image, {"engine": engine}, stdin=stdin, thp="always") for engine in ("trap", "access")]
    assert runs[0].result.stats == runs[1].result.stats
    assert runs[0].stdout == runs[1].stdout


@pytest.mark.parametrize("policy", ["random", "fifo"])
@pytest.mark.parametrize("program", PROGRAMS, **ids)
def test_both_engines_count_the_same(program: Path, policy: str, run_image: RunImage) -> None:
    image = assemble(program)
    stdin = expectation(program.read_text()).stdin
    trap = run_image(image, {"engine": "trap", "tlb_policy": policy}, stdin=stdin).result
    access = run_image(image, {"engine": "access", "tlb_policy": policy}, stdin=stdin).result
    assert trap.stats == access.stats


@requires_native
@pytest.mark.native
@pytest.mark.parametrize("program", PROGRAMS, **ids)
def test_a_program_ends_as_under_the_real_kernel(program: Path, run_image: RunImage) -> None:
    stdin = expectation(program.read_text()).stdin
    ended = run_image(assemble(program), stdin=stdin)
    native = run_native(program, stdin=stdin)
    assert (ended.stdout, ended.result.exit_code, ended.result.signal) == (
        *(native.stdout, native.exit_code, native.signal),
    )


@requires_native
@pytest.mark.native
@pytest.mark.parametrize("program", SHORT, **ids)
def test_a_program_executes_as_many_instructions_as_on_the_real_processor(program: Path, run_image: RunImage) -> None:
    ended = run_image(assemble(program))
    assert ended.result.stats["instructions"]["user"] == count_instructions(program)


def test_the_lecture_counts_260_and_44_entry_reads_without_a_tlb(make_kernel) -> None:
    kernel = make_kernel({"tlb": False}, populate=True)
    kernel.spawn(assemble("programs/sum_loop.asm"))
    stats = kernel.run(until="done").stats
    user = stats["accesses"]["user"]
    assert (user["fetch"], user["read"] + user["write"]) == (65, 11)
    assert stats["walk"]["entry_reads"]["user"] == {"fetch": 260, "data": 44}


@pytest.mark.parametrize("engine", ["trap", "access"])
def test_with_a_tlb_the_lecture_needs_two_walks(engine: str, make_kernel) -> None:
    kernel = make_kernel({"engine": engine}, populate=True)
    kernel.spawn(assemble("programs/sum_loop.asm"))
    stats = kernel.run(until="done").stats
    assert stats["walk"]["by"]["user"] == {"fetch": 1, "data": 1}
    assert stats["accesses"]["user"] == {"fetch": 65, "read": 0, "write": 11}


def test_the_clock_is_the_sum_of_its_causes(run_image: RunImage) -> None:
    ended = run_image(assemble("programs/quicksort.asm"))
    cycles = ended.result.stats["cycles"]
    assert cycles["total"] == sum(cycles["by_cause"].values()) == ended.kernel.now


def test_the_same_seed_repeats_a_run_exactly(run_image: RunImage) -> None:
    image = assemble("programs/random_walk.asm")
    first, second = (run_image(image, {"seed": 7}).result.stats for _ in range(2))
    assert first == second
