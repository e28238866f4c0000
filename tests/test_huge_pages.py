"""Transparent huge pages: what they change for a program is the number of its page faults, and nothing else."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import random
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeKernel
from huge_cases import COLLAPSES, FAULTS, FORKS, SPLITS, huge_program
from hugetlb_cases import HUGETLB_CASES
from native import requires_native
from native_space import run_natively, run_under_cr3

from emu.assembler import assemble_source
from kernel import SyscallEvent
from kernel.consistency import inconsistencies

LATER = {**FORKS, **COLLAPSES}
CASES = {**FAULTS, **SPLITS, **LATER}


@requires_native
@pytest.mark.native
@pytest.mark.usefixtures("host_huge_pages")
@pytest.mark.parametrize("case", [*FAULTS, *SPLITS, *(pytest.param(case, marks=pytest.mark.slow) for case in LATER)])
def test_huge_pages_are_what_they_are_under_the_real_kernel(case: str, make_kernel: MakeKernel) -> None:
    """The same output, mappings, huge pages at the end and page faults."""
    source = huge_program(CASES[case])
    kernel = make_kernel({"ram": "128M"}, stdout=io.BytesIO())
    native, ours = run_natively(source), run_under_cr3(source, kernel)
    assert ours == native
    assert ours.minor_faults == native.minor_faults


# --- pools ------------------------------------------------------------------------------------------------------------

POOLS = [Path(f"/proc/sys/vm/nr_{kind}hugepages") for kind in ("", "overcommit_")]


@pytest.fixture
def host_pool() -> Iterator[None]:
    """The host's pool of huge pages, for one test at a time; it is empty before and after."""
    if not all(os.access(path, os.W_OK) for path in POOLS) or any(path.read_text() != "0\n" for path in POOLS):
        pytest.skip("the host's pool of huge pages cannot be used")
    with (Path(tempfile.gettempdir()) / "cr3-huge-pages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        for path in POOLS:
            path.write_text("0")


@requires_native
@pytest.mark.native
@pytest.mark.usefixtures("host_pool", "host_huge_pages")
@pytest.mark.parametrize("case", HUGETLB_CASES)
def test_pools_are_what_they_are_under_the_real_kernel(case: str, make_kernel: MakeKernel) -> None:
    source = huge_program(HUGETLB_CASES[case])
    kernel = make_kernel({"ram": "64M"}, stdout=io.BytesIO())
    native, ours = run_natively(source), run_under_cr3(source, kernel)
    assert ours == native


@pytest.mark.slow
def test_a_page_of_1_gib_is_one_entry_and_is_never_cut(make_kernel: MakeKernel) -> None:
    gib = 1 << 30
    body = f"""
        anonymous {gib}, 3, 0x78040032, 0x40000000; show rax; mov rbx, rax; mov [rbx + 0x3ffff008], rbx
        invoke MPROTECT, rbx, MIB2, 1; show rax; invoke MUNMAP, rbx, MIB2; show rax
        invoke MREMAP, rbx, {gib}, {gib}, 3, 0xc0000000; show rax; mov rbx, 0xc0000000; show [rbx + 0x3ffff008]
        invoke MADVISE, rbx, {gib}, DONTNEED; show rax; mov [rbx], bl
        anonymous {gib}, 3, 0x78040022; show rax; nop"""
    stdout = io.BytesIO()
    kernel = make_kernel({"ram": "3G"}, stdout=stdout)
    process = kernel.spawn(assemble_source(huge_program(body)))
    pool = kernel.manager.hugetlb.pools[30]
    with kernel.kernel_mode():
        pool.resize(1)
    kernel.run(before_exit=True)
    shown = [int(line, 16) for line in stdout.getvalue().split()]
    wrong, full = (1 << 64) - errno.EINVAL, (1 << 64) - errno.ENOMEM
    assert shown == [0x40000000, wrong, wrong, 0xC0000000, 0x40000000, 0, full]
    walk = kernel.page_walk(process, 0xFFFF_F000)
    assert (walk.page_size, len(walk.steps), pool.total, pool.free) == (gib, 2, 1, [])


# --- what /proc says --------------------------------------------------------------------------------------------------

SMAPS = """
    lea r12, [rip + path]; invoke 2, r12, 0; mov r13, rax; lea r12, [rip + buffer]
1:  invoke READ, r13, r12, 4096; test rax, rax; jz 2f; invoke WRITE, 1, r12, rax; jmp 1b
    .section .rodata
path: .asciz "/proc/self/smaps"
    .text
2:  nop"""
SEEN = {
    "transparent": "area; mov [rbx], bl; mov rax, [rbx + MIB2]",
    "without advice": "anonymous 2 * MIB2, 3, AT, 0x10000000; mov [rax], al",
    "cut": "area; sweep 0x10000000, 2 * MIB2; invoke MPROTECT, 0x10100000, 3 * PAGE, 1",
    "shared with a child": "area; sweep 0x10000000, MIB2; invoke FORK; test eax, eax; jnz 3f; invoke 34; 3: nop",
    "of a pool": "pool 3; pages 2 * MIB2; mov [rbx], bl",
    "of a pool, shared": "pool 3; pages 2 * MIB2, HUGETLB_SHARED; mov [rbx], bl; mov rax, [rbx + MIB2]",
}


def mapping_at(smaps: str, start: str) -> list[str]:
    """The lines of one mapping, without its inode."""
    blocks = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps, flags=re.MULTILINE)
    (found,) = (block for block in blocks if block.startswith(start))
    return re.sub(r" \d\d:\w\w \d+ *", " ", found).split("\n")


@requires_native
@pytest.mark.native
@pytest.mark.usefixtures("host_pool", "host_huge_pages")
@pytest.mark.parametrize("case", SEEN)
def test_smaps_tells_of_huge_pages_what_the_real_kernel_tells(case: str, make_kernel: MakeKernel) -> None:
    source = huge_program(f"{SEEN[case]}; {SMAPS}")
    kernel = make_kernel(stdout=io.BytesIO())
    native, ours = run_natively(source), run_under_cr3(source, kernel)
    assert mapping_at(ours.stdout, "10000000") == mapping_at(native.stdout, "10000000")


# --- whatever the memory, programs do the same ------------------------------------------------------------------------


def outcome(
    body: str, make_kernel: MakeKernel, *, engine: str, shrink: bool, **options: Any
) -> tuple[Any, dict[str, int]]:
    """What a program prints and how it ends, and what happened to huge pages."""
    stdout = io.BytesIO()
    kernel = make_kernel({"ram": "32M", "engine": engine}, stdout=stdout, **options)
    if shrink:
        kernel.on("syscall", lambda _: kernel.reclaim.shrink(1 << 20, "direct"))
    kernel.spawn(assemble_source(huge_program(body, tell_faults=False)))
    result = kernel.run()
    return (stdout.getvalue(), result.exit_code, result.signal), kernel.manager.huge.counts


@pytest.mark.slow
@pytest.mark.parametrize("case", [*{**SPLITS, **FORKS}][::3])
def test_huge_pages_and_swap_change_nothing_but_the_time(case: str, make_kernel: MakeKernel) -> None:
    """With everything swapped out before each system call, huge pages are split all the time, and come back small."""
    body = CASES[case]
    plain, _ = outcome(body, make_kernel, engine="trap", shrink=False, thp="never")
    huge, counts = outcome(body, make_kernel, engine="access", shrink=False, thp="always")
    swapped, split = outcome(body, make_kernel, engine="trap", shrink=True, thp="always", swap="64M")
    assert huge == swapped == plain
    assert counts["fault_alloc"] + counts["zero_page_alloc"] > 0
    assert split["split_page"] + split["zero_page_alloc"] > 0


@pytest.mark.slow
def test_a_program_of_four_times_the_ram_computes_the_right_sum_in_huge_pages(make_kernel: MakeKernel) -> None:
    body = "area 8 * MIB2; sweep 0x10000000, 8 * MIB2; sum 0x10000000, 8 * MIB2; sum 0x10000000, 8 * MIB2"
    stdout = io.BytesIO()
    kernel = make_kernel({"ram": "4M"}, stdout=stdout, swap="64M")
    kernel.spawn(assemble_source(huge_program(body, tell_faults=False)))
    kernel.run()
    total = b"%016x\n" % sum(range(0x10000000, 0x11000000, 4096))
    assert stdout.getvalue() == 2 * total
    counts = kernel.manager.huge.counts
    assert min(counts["fault_alloc"], counts["fault_fallback"], counts["split_page"], kernel.manager.swap.reads) > 0


def test_memory_that_nobody_maps_comes_back_when_it_is_short(make_kernel: MakeKernel) -> None:
    """One page of each huge page is kept: 511 others go when somebody needs them, without any swap."""
    body = """
        area 4 * MIB2; sweep 0x10000000, 4 * MIB2
        mov rbx, 0x10000000; mov ebp, 4
    1:  lea r12, [rbx + PAGE]; invoke MUNMAP, r12, 511 * PAGE; add rbx, MIB2; dec ebp; jnz 1b
        anonymous 3 * MIB2, 3, AT, 0x20000000; sweep 0x20000000, 3 * MIB2; mov rbx, 0x10000000; show [rbx + 8]"""
    stdout = io.BytesIO()
    kernel = make_kernel({"ram": "13M"}, stdout=stdout)
    kernel.spawn(assemble_source(huge_program(body, tell_faults=False)))
    assert kernel.run().exit_code == 0
    assert stdout.getvalue() == b"0000000010000000\n"
    assert kernel.manager.huge.counts["split_page"] == 4


# --- knobs and khugepaged ---------------------------------------------------------------------------------------------

THP = "/sys/kernel/mm/transparent_hugepage"
KNOBS = {
    "enabled": ("always [madvise] never", "never", "always madvise [never]"),
    "defrag": ("always defer defer+madvise [madvise] never", "defer", "always [defer] defer+madvise madvise never"),
    "use_zero_page": ("1", "0", "0"),
    "hpage_pmd_size": ("2097152", "", "2097152"),
    "khugepaged/pages_to_scan": ("4096", "512", "512"),
    "khugepaged/scan_sleep_millisecs": ("10000", "0", "0"),
    "khugepaged/alloc_sleep_millisecs": ("60000", "5", "5"),
    "khugepaged/max_ptes_none": ("511", "512", "511"),
    "khugepaged/max_ptes_swap": ("64", "nonsense", "64"),
    "khugepaged/max_ptes_shared": ("256", "0", "0"),
    "khugepaged/defrag": ("1", "2", "1"),
    "khugepaged/pages_collapsed": ("0", "", "0"),
    "khugepaged/full_scans": ("0", "", "0"),
}
"""What a file says, what a program writes to it, and what it says then."""


def test_programs_read_and_turn_the_knobs(make_kernel: MakeKernel) -> None:
    body, data = "", ""
    for number, (name, (_, written, _)) in enumerate(KNOBS.items()):
        data += f'\npath{number}: .asciz "{THP}/{name}"\ntext{number}: .ascii "{written}\\n"'
        read = f"lea r12, [rip + path{number}]; invoke 2, r12, 0; mov r13, rax; lea r12, [rip + buffer]\n"
        read += "invoke READ, r13, r12, 4096; invoke WRITE, 1, r12, rax; invoke CLOSE, r13\n"
        write = f"lea r12, [rip + path{number}]; invoke 2, r12, 1; mov r13, rax; lea r12, [rip + text{number}]\n"
        write += f"invoke WRITE, r13, r12, {len(written) + 1}; invoke CLOSE, r13\n"
        body += read + (write if written else "") + read
    stdout = io.BytesIO()
    kernel = make_kernel(stdout=stdout)
    kernel.spawn(assemble_source(huge_program(f"{body}\n.data{data}\n.text\n")))
    kernel.run()
    assert stdout.getvalue().decode().splitlines() == [
        line for before, _, after in KNOBS.values() for line in (before, after)
    ]
    assert (kernel.manager.huge.enabled, kernel.khugepaged.pages_to_scan) == ("never", 512)


WAIT = "mov ecx, 30000000; 79: dec ecx; jnz 79b;"
SMALL_PAGES = "anonymous 2 * MIB2, 3, AT, 0x10000000; mov rbx, 0x10000000; sweep 0x10000000, 2 * MIB2;"


def collapsed(body: str, make_kernel: MakeKernel, **knobs: int) -> tuple[int, bytes]:
    """How many huge pages khugepaged made while a program waited, and what it found afterwards."""
    stdout = io.BytesIO()
    kernel = make_kernel(stdout=stdout)
    for name, value in knobs.items():
        setattr(kernel.khugepaged, name, value)
    kernel.spawn(assemble_source(huge_program(body, tell_faults=False)))
    kernel.run()
    return kernel.khugepaged.pages_collapsed, stdout.getvalue()


def test_khugepaged_makes_huge_pages_of_small_ones(make_kernel: MakeKernel) -> None:
    total = b"%016x\n" % sum(range(0x10000000, 0x10400000, 4096))
    asks = "invoke MADVISE, rbx, 2 * MIB2, HUGEPAGE;"
    end = "sum 0x10000000, 2 * MIB2"
    assert collapsed(f"{SMALL_PAGES} {WAIT} {end}", make_kernel) == (0, total), "nobody asked"
    assert collapsed(f"{SMALL_PAGES} {asks} {WAIT} {end}", make_kernel) == (2, total)
    assert collapsed(f"{SMALL_PAGES} {asks} {WAIT} {end}", make_kernel, pages_to_scan=1) == (1, total)
    hole = "invoke MADVISE, rbx, 9 * PAGE, DONTNEED;"
    count, _ = collapsed(f"{SMALL_PAGES} {hole} {asks} {WAIT}", make_kernel, max_ptes_none=8)
    assert count == 1, "nine pages are missing in one of the two"
    count, _ = collapsed(f"{SMALL_PAGES} in_child; {asks} {WAIT} child_ends", make_kernel, max_ptes_shared=8)
    assert count == 0, "all pages are shared with the parent"


# --- however it ends, nothing is left ---------------------------------------------------------------------------------

BUSY = """
    pool 4; mov ebp, 5
1:  anonymous 2 * MIB2, 3, 0x40032, 0x28000000; mov [rax], rbp; area; mov [rbx], rbp; mov rax, [rbx + MIB2]
    anonymous MIB2, 3, 0x40031, 0x20000000; mov [rax], rbp
    invoke FORK; test eax, eax; jz 2f
    invoke MREMAP, 0x10000000, MIB2, MIB2, 3, 0x30000000; mov rbx, 0x30000000; mov [rbx + 3 * PAGE], rbp
    invoke MUNMAP, 0x30001000, PAGE; invoke WAIT4, -1, 0, 0, 0
    invoke MUNMAP, 0x30000000, MIB2; invoke MUNMAP, 0x10000000, 2 * MIB2; dec ebp; jnz 1b; pool 0; invoke EXIT, 0
2:  mov [rbx + PAGE], rbp; invoke MADVISE, rbx, MIB2, COLLAPSE; mov rax, 0x20000000; mov [rax + 8], rbp
    invoke MPROTECT, 0x10005000, PAGE, 1; test ebp, 1; jz 3f; mov al, [8]
3:  nop
"""
"""Takes huge pages of every kind, shares, cuts and moves them, and dies now and then."""


@pytest.mark.parametrize("seed", range(6))
def test_processes_with_huge_pages_may_be_killed_at_any_instruction(seed: int, make_kernel: MakeKernel) -> None:
    chance = random.Random(seed)
    kernel = make_kernel({"ram": "64M"}, stdout=io.BytesIO())
    for _ in range(2):
        kernel.spawn(assemble_source(huge_program(BUSY)))
    for _ in range(chance.randrange(1, 4)):
        kernel.machine.max_instructions = kernel.machine.state.instructions + chance.randrange(1, 9000)
        kernel.run()
        assert inconsistencies(kernel) == []


@pytest.mark.parametrize("frames", range(0, 12, 3))
def test_a_fork_of_huge_pages_that_fails_half_way_leaves_nothing(frames: int, make_kernel: MakeKernel) -> None:
    """So many frames are left when the fork begins: too few for all the tables."""
    kernel = make_kernel({"ram": "32M"}, stdout=io.BytesIO())
    kernel.spawn(assemble_source(huge_program("area 3 * MIB2; sweep 0x10000000, 3 * MIB2; invoke FORK; show rax")))
    taken: list[int] = []

    def squeeze(event: SyscallEvent) -> None:
        if event.name == "fork" and not taken:
            taken.extend(kernel.frames.allocate() for _ in range(kernel.frames.free_frames - frames))

    kernel.on("syscall", squeeze)
    kernel.run()
    for pfn in taken:
        kernel.frames.free(pfn)
    assert taken


def test_pagemap_shows_the_frames_of_a_huge_page_one_after_the_other(make_kernel: MakeKernel) -> None:
    stdout = io.BytesIO()
    kernel = make_kernel({"ram": "64M"}, stdout=stdout)
    pread = "lea r12, [rip + buffer]; invoke 17, r13, r12, 32, 0x10000000 >> 9"
    opened = '.section .rodata; pagemap: .asciz "/proc/self/pagemap"; .text; lea r12, [rip + pagemap]; invoke 2, r12, 0'
    kernel.spawn(
        assemble_source(
            huge_program(f"area; mov [rbx], bl; {opened}; mov r13, rax; {pread}; show [r12]; show [r12 + 24]")
        )
    )
    kernel.run()
    first, fourth = (int(line, 16) & (1 << 55) - 1 for line in stdout.getvalue().split()[:2])
    assert first % 512 == 0
    assert fourth == first + 3
