"""What /proc tells about processes: in Linux's own formats, and what Linux would tell of the same program."""

from __future__ import annotations

import ctypes
import io
import re
import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import MakeKernel
from memory_programs import memory_program
from native import build_native, requires_native

from emu import PAGE_SIZE
from emu.assembler import assemble_source
from emu.elf import load_elf
from kernel import Errno, Kernel, Process
from kernel.files.iov import KernelIter
from kernel.pagewalk import mapped_pages
from kernel.pte import pfn_of, swap_entry

ADDR_NO_RANDOMIZE = 0x40000

CAT = """
    .equ    OPEN, 2
    .macro  cat path
    .section .rodata
87: .asciz  "\\path"
    .text
    lea     r12, [rip + 87b]
    invoke  OPEN, r12, 0
    mov     r13, rax
88: lea     r12, [rip + buffer]
    invoke  READ, r13, r12, 1000
    mov     r14, rax
    test    rax, rax
    jle     89f
    lea     r12, [rip + buffer]
    invoke  WRITE, 1, r12, r14
    jmp     88b
89: invoke  CLOSE, r13
    .endm
"""

MANY_MAPPINGS = """
    invoke  BRK, 0
    lea     rdi, [rax + 3 * PAGE]
    invoke  BRK, rdi
    mov     byte ptr [rax - 1], 1
    three_signed
    invoke  MPROTECT, rbx, PAGE, 1
    anonymous 2 * PAGE, 3, SHARED_AT, 0x20000000
    mov     byte ptr [rax], 1
    anonymous 4 * PAGE, 3, AT, 0x30000000
    mov     rbx, rax
    mov     al, [rbx]                       # the zero page
    mov     byte ptr [rbx + PAGE], 1
    invoke  MADVISE, rbx, PAGE, DONTFORK
    lea     rdi, [rip + text]
    invoke  MEMFD_CREATE, rdi, 0
    mov     r13, rax
    invoke  FTRUNCATE, r13, 2 * PAGE
    invoke  MMAP, 0x40000000, 2 * PAGE, 3, 0x100001, r13, 0
    mov     byte ptr [rax + PAGE], 1
    invoke  MMAP, 0x50000000, PAGE, 1, 0x100002, r13, PAGE
    mov     al, [rax]
    anonymous 2 * PAGE, 0, AT, 0x60000000
    invoke  MLOCK, 0x10000000, PAGE
    mov     byte ptr [rsp - 5 * PAGE], 1
    in_child
    lea     r12, [rip + buffer]
    mov     byte ptr [r12], 1
    cat     {path}
    child_ends
"""


def natively(source: str) -> str:
    """What a program prints under the real kernel without randomised addresses."""
    libc = ctypes.CDLL(None)
    done = subprocess.run(
        [build_native(source)],
        stdout=subprocess.PIPE,
        env={},
        timeout=10,
        preexec_fn=lambda: libc.personality(ADDR_NO_RANDOMIZE),
    )
    return done.stdout.decode("latin-1")


def under_cr3(source: str, make_kernel: MakeKernel) -> str:
    """What the same file prints under cr3."""
    stdout = io.BytesIO()
    kernel = make_kernel({"ram": "16M"}, stdout=stdout)
    path = build_native(source)
    kernel.spawn(load_elf(path), [str(path)])
    kernel.run()
    return stdout.getvalue().decode("latin-1")


def read(kernel: Kernel, path: str, position: int = 0, size: int = 1 << 20) -> bytes:
    """The content of a file in /proc, read by people."""
    dentry = kernel.file_system.walk().find(path.encode())
    file = dentry.inode.open(kernel, dentry, 0)
    to = KernelIter(room=size)
    try:
        file.read(to, position)
    finally:
        file.put()
    return bytes(to.data)


def shape(maps: str) -> list[str]:
    """Addresses, rights, offset and name of every line, without what only a real kernel maps."""
    lines = [line for line in maps.splitlines() if not re.search(r"\[v|\[uprobes", line)]
    return [" ".join([*line.split()[:3], name_of(line)]) for line in lines]


def name_of(line: str) -> str:
    """A name, of which places in the host's file system may differ."""
    name = line[73:]
    return "program" if name.startswith("/tmp") else name


@requires_native
@pytest.mark.native
def test_maps_has_the_lines_that_the_real_kernel_writes(make_kernel: MakeKernel) -> None:
    source = memory_program(CAT + MANY_MAPPINGS.format(path="/proc/self/maps"))
    ours, native = under_cr3(source, make_kernel), natively(source)
    assert shape(ours) == shape(native)
    assert "[heap]" in ours and "[stack]" in ours and "/memfd:" in ours and "/dev/zero (deleted)" in ours


LINE = re.compile(r"[0-9a-f]{8,16}-[0-9a-f]{8,16} [r-][w-][x-][ps] [0-9a-f]{8} [0-9a-f]{2,}:[0-9a-f]{2} \d+ (.*)")


@requires_native
@pytest.mark.native
def test_names_in_maps_begin_in_the_same_column(make_kernel: MakeKernel) -> None:
    source = memory_program(CAT + MANY_MAPPINGS.format(path="/proc/self/maps"))
    for text in (under_cr3(source, make_kernel), natively(source)):
        lines = [line for line in text.splitlines() if "-" in line]
        assert all(LINE.fullmatch(line) for line in lines)
        assert {len(line) - len(name) for line in lines if (name := LINE.fullmatch(line)[1].strip())} == {73}


def blocks(smaps: str) -> dict[str, list[str]]:
    """The lines of each VMA by its own line; what only some processors have is left out."""
    found: dict[str, list[str]] = {}
    for line in smaps.splitlines():
        if re.match(r"[0-9a-f]+-", line):
            found[" ".join([*line.split()[:3], name_of(line)])] = lines = []
        elif ":" in line and not line.startswith("ProtectionKey"):
            lines.append(line)
    return found


@requires_native
@pytest.mark.native
def test_smaps_counts_the_pages_of_memory_as_the_real_kernel_does(make_kernel: MakeKernel) -> None:
    source = memory_program(CAT + MANY_MAPPINGS.format(path="/proc/self/smaps"))
    ours, native = blocks(under_cr3(source, make_kernel)), blocks(natively(source))
    checked = 0
    for head, lines in ours.items():
        theirs = native[head]
        assert [line.split()[0] for line in lines] == [line.split()[0] for line in theirs]
        assert [len(line) for line in lines[:-1]] == [len(line) for line in theirs[:-1]]
        if not head.endswith(("program", "[stack]")):
            # A real kernel remembers references in the frame, too, which fork does not make forget.
            ours_here, native_here = (
                [line for line in some if not line.startswith("Referenced")] for some in (lines, theirs)
            )
            assert ours_here == native_here, head
            checked += 1
    assert checked >= 8


def keys(text: str) -> list[str]:
    return [line.partition(":")[0] for line in text.splitlines() if ":" in line]


@pytest.mark.native
@requires_native
@pytest.mark.parametrize("name", ["smaps_rollup", "status"])
def test_a_file_has_the_lines_of_the_real_kernels_file(name: str, make_kernel: MakeKernel) -> None:
    source = memory_program(f"{CAT}\n cat /proc/self/{name}")
    ours, native = under_cr3(source, make_kernel).splitlines(), natively(source).splitlines()
    optional = ("x86_Thread_features", "ProtectionKey")
    native = [line for line in native if not line.startswith(optional)]
    assert keys("\n".join(ours)) == keys("\n".join(native))
    for line, theirs in zip(ours, native, strict=True):
        if line.endswith("kB"):
            assert len(line) == len(theirs)


SAME_IN_STATUS = (
    *("VmLck", "VmPin", "RssAnon", "RssShmem", "VmData", "VmStk", "VmExe", "VmSwap"),
    *("Threads", "SigPnd", "SigBlk", "SigCgt", "Uid", "Gid", "State", "Umask", "Kthread"),
)


@pytest.mark.native
@requires_native
def test_status_and_statm_measure_memory_as_the_real_kernel_does(make_kernel: MakeKernel) -> None:
    status, statm = (
        memory_program(CAT + MANY_MAPPINGS.format(path=f"/proc/self/{name}")) for name in ("status", "statm")
    )
    ours, native = under_cr3(status, make_kernel), natively(status)
    for name in SAME_IN_STATUS:
        line = re.compile(rf"^{name}:.*$", re.MULTILINE)
        assert line.findall(ours) == line.findall(native) != []
    ours, native = under_cr3(statm, make_kernel), natively(statm)
    numbers = re.compile(r"^\d+ .*$", re.MULTILINE)
    assert numbers.search(ours)[0].split()[3:] == numbers.search(native)[0].split()[3:]


@pytest.mark.native
@requires_native
def test_stat_has_52_fields_in_the_order_of_the_real_kernel(make_kernel: MakeKernel) -> None:
    source = memory_program(f"{CAT}\n cat /proc/self/stat")
    ours, native = (text.rpartition(") ")[2].split() for text in (under_cr3(source, make_kernel), natively(source)))
    assert len(ours) == len(native) == 50
    same = {"state": 3, "priority": 18, "nice": 19, "threads": 20, "exit signal": 38}
    places = {"start of code": 26, "end of code": 27, "start of data": 45, "end of data": 46, "heap": 47}
    for name, number in {**same, **places}.items():
        assert ours[number - 3] == native[number - 3], name
    stack, *strings = (int(ours[number - 3]) for number in (28, 48, 49, 50, 51))
    assert stack < strings[0] < strings[1] == strings[2] == strings[3] < 0x7FFFFFFFF000


# --- pagemap ----------------------------------------------------------------------------------------------------------

PAGES = """
    anonymous 6 * PAGE, 3, AT, 0x30000000
    mov     rbx, rax
    mov     al, [rbx + PAGE]                # page 1: the zero page
    mov     byte ptr [rbx + 2 * PAGE], 1    # page 2: our own
    mov     byte ptr [rbx + 3 * PAGE], 1    # page 3: ours, without rights
    lea     r12, [rbx + 3 * PAGE]
    invoke  MPROTECT, r12, PAGE, 0
    anonymous PAGE, 3, SHARED_AT, 0x40000000
    mov     byte ptr [rax], 1
"""


FLAGS = 1 << 56 | 1 << 61 | 1 << 62 | 1 << 63
READ_PAGEMAP = """
    .section .rodata
pagemap: .asciz "/proc/self/pagemap"
    .text
    lea     r12, [rip + pagemap]
    invoke  2, r12, 0
    mov     r13, rax
    .irp    at, 0x30000000, 0x30001000, 0x30002000, 0x30003000, 0x40000000, 0x7fffffffe000, 0x7ffffffff000
    lea     r12, [rip + buffer]
    mov     r14, \\at
    shr     r14, 9
    invoke  17, r13, r12, 8, r14            # pread64
    show    rax
    show    [rip + buffer]
    .endr
    invoke  8, r13, 16, 0                   # lseek
    show    rax
    invoke  8, r13, 0, 2
    show    rax
    lea     r12, [rip + buffer]
    invoke  READ, r13, r12, 24
    show    rax
    invoke  8, r13, 0, 1
    show    rax
    invoke  READ, r13, r12, 7
    show    rax
    invoke  17, r13, r12, 8, 4
    show    rax
"""


def flags_only(text: str) -> list[int]:
    """The numbers that a program showed, pagemap entries without frame numbers: those differ."""
    numbers = [int(line, 16) for line in text.split()]
    return [number & FLAGS if number >> 63 and number >> 48 != 0xFFFF else number for number in numbers]


@pytest.mark.native
@requires_native
def test_pagemap_answers_as_the_real_kernel_bit_for_bit(make_kernel: MakeKernel) -> None:
    source = memory_program(PAGES + READ_PAGEMAP)
    assert flags_only(under_cr3(source, make_kernel)) == flags_only(natively(source))


@pytest.fixture
def looked_at(make_kernel: MakeKernel) -> tuple[Kernel, Process]:
    """A program that is about to end, with pages of each kind."""
    kernel = make_kernel({"ram": "16M"})
    process = kernel.spawn(assemble_source(memory_program(f"{PAGES}\nend:")))
    kernel.run(until="end")
    return kernel, process


def entries(kernel: Kernel, process: Process, va: int, pages: int) -> list[int]:
    """What pagemap says of pages."""
    data = read(kernel, f"/proc/{process.pid}/pagemap", va // PAGE_SIZE * 8, 8 * pages)
    return list(struct.unpack(f"<{pages}Q", data))


def test_pagemap_has_the_pfns_of_the_page_table(looked_at: tuple[Kernel, Process]) -> None:
    kernel, process = looked_at
    told = entries(kernel, process, 0x3000_0000, 6)
    leaves = process.mm.page_table.leaves(0x3000_0000, 0x3000_6000, kernel.manager.early)
    there = {va - 0x3000_0000 >> 12: pfn_of(entry) for va, entry, _ in leaves}
    assert {page: entry & (1 << 55) - 1 for page, entry in enumerate(told) if entry} == there
    assert sorted(there) == [1, 2, 3] and there[1] == kernel.manager.zero_pfn


def test_pagemap_tells_where_a_swapped_page_lies(looked_at: tuple[Kernel, Process]) -> None:
    kernel, process = looked_at
    ((_, before, place),) = process.mm.page_table.leaves(0x3000_2000, 0x3000_3000, kernel.manager.early)
    kernel.manager.early.store64(place, swap_entry(3, 0x12345))
    try:
        assert entries(kernel, process, 0x3000_2000, 1) == [1 << 62 | 0x12345 << 5 | 3]
        assert b"Swap:                  4 kB" in read(kernel, "/proc/1/smaps_rollup")
    finally:
        kernel.manager.early.store64(place, before)


LOOKED_AT = ("maps", "smaps", "smaps_rollup", "status", "statm", "stat", "task/1/maps")


def test_people_who_look_change_nothing(looked_at: tuple[Kernel, Process]) -> None:
    kernel, process = looked_at
    before = kernel.machine.retired(0), kernel.machine.clock.by_cause(), kernel.machine.mmu.entries()
    before_entries = set(before[2])
    for name in LOOKED_AT:
        assert read(kernel, f"/proc/1/{name}")
    assert any(entries(kernel, process, 0x3000_0000, 6))
    assert (kernel.machine.retired(0), kernel.machine.clock.by_cause()) == before[:2]
    assert set(kernel.machine.mmu.entries()) == before_entries


def test_the_sums_of_smaps_are_those_of_the_pages(looked_at: tuple[Kernel, Process]) -> None:
    kernel, process = looked_at
    pages = [page for vma in process.mm.vmas for page in mapped_pages(kernel, process.mm, vma.start, vma.end)]
    counted = sum(not page.is_zero_page for page in pages)
    sizes = re.findall(r"^Rss: +(\d+) kB", read(kernel, "/proc/1/smaps").decode(), re.MULTILINE)
    assert sum(map(int, sizes)) * 1024 == counted * PAGE_SIZE
    assert process.mm.resident() == counted


# --- threads, programs, the system ----------------------------------------------------------------------------------


def test_a_process_has_a_directory_of_its_threads(make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"ram": "16M"}, stdout=io.BytesIO())
    thread = "lea r12, [rbx + 3 * PAGE]; invoke CLONE, 0x10f00, r12; test rax, rax; jz sleep"
    source = memory_program(f"""
        three
        {thread.replace(";", chr(10))}
        invoke  SCHED_YIELD
        jmp     main
    sleep:
        invoke  SCHED_YIELD
        jmp     sleep
    main:
        nop
    """)
    kernel.spawn(assemble_source(source))
    kernel.run(until="main")
    assert [process.pid for process in kernel.threads(kernel.process(1))] == [1, 2]
    assert b"Pid:\t2\n" in read(kernel, "/proc/1/task/2/status") and b"Tgid:\t1\n" in read(kernel, "/proc/2/status")
    assert b"Threads:\t2\n" in read(kernel, "/proc/1/status")
    directory = kernel.file_system.walk().find(b"/proc/1/task").inode
    names = [entry.name for entry in directory.entries(kernel, kernel.file_system.walk().find(b"/proc/1/task"), 2)]
    assert names == [b"1", b"2"]
    with pytest.raises(Errno):
        kernel.file_system.walk().find(b"/proc/1/task/2/task")
    tree = kernel.file_system.walk().find(b"/proc")
    listed = [entry.name for entry in tree.inode.entries(kernel, tree, 2) if entry.name.isdigit()]
    assert listed == [b"1"]


@pytest.mark.native
@requires_native
def test_a_program_can_open_its_own_file(make_kernel: MakeKernel) -> None:
    source = memory_program(CAT.replace("1000", "4") + "cat /proc/self/exe\n")
    elf = natively(source)
    assert elf.startswith("\x7fELF") and under_cr3(source, make_kernel) == elf
    stdout = io.BytesIO()
    kernel = make_kernel({"ram": "16M"}, stdout=stdout)
    kernel.spawn(assemble_source(source))
    kernel.run()
    assert stdout.getvalue().startswith(b"\x7fELF")


def test_the_systems_files_have_linuxs_formats(make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"ram": "16M"})
    kernel.spawn(assemble_source(memory_program("nop")))
    kernel.run()
    assert re.fullmatch(rb"\d+\.\d\d \d+\.\d\d \d+\.\d\d \d+/\d+ \d+\n", read(kernel, "/proc/loadavg"))
    assert re.fullmatch(rb"\d+\.\d\d \d+\.\d\d\n", read(kernel, "/proc/uptime"))
    lines = read(kernel, "/proc/stat").decode().splitlines()
    assert [line.split()[0] for line in lines][:3] == ["cpu", "cpu0", "intr"]
    assert lines[0].startswith("cpu  ") and len(lines[0].split()) == 11


def test_vmstat_has_the_names_of_the_real_kernels_in_its_order(make_kernel: MakeKernel) -> None:
    real = Path("/proc/vmstat")
    if not real.exists():
        pytest.skip("this system has no /proc/vmstat")
    kernel = make_kernel({"ram": "16M"})
    process = kernel.spawn(assemble_source(memory_program("three_signed")))
    kernel.run(before_exit=True)
    counts = dict(line.split() for line in read(kernel, "/proc/vmstat").decode().splitlines())
    theirs = {line.split()[0]: place for place, line in enumerate(real.read_text().splitlines())}
    places = [theirs[name] for name in counts]
    assert all(low < high for low, high in pairwise(places))
    assert int(counts["pgfault"]) >= process.minor_faults > 0
    assert int(counts["nr_anon_pages"]) == kernel.pages.anonymous
