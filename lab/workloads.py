"""Small programs made to measure: what each does is one line, how often and how far apart is a number.

Every workload has two symbols. Before `begin` it gets ready; from `begin` to `end` it does its operation `count` times,
and only that is counted. So a few hundred operations are enough, and starting a process does not blur them.

>>> workload = null_system_calls(100)
>>> workload.source.splitlines()[2]
'begin:  mov     ebx, 100'
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

__all__ = [
    "Workload",
    "computing",
    "dont_need",
    "forks",
    "null_system_calls",
    "page_faults",
    "pipe_tokens",
    "source_files",
    "working_set",
    "zero_page_faults",
]

PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Workload:
    """A program: its name, what it does in a line, and how many operations are in its window."""

    name: str
    what: str
    operation: str
    count: int
    source: str
    ram: str = "64M"


@contextmanager
def source_files(workloads: list[Workload]) -> Iterator[dict[str, str]]:
    """Files with the workloads' sources, by name, for as long as the block runs."""
    with TemporaryDirectory(prefix="cr3-") as folder:
        files = {workload.name: Path(folder) / f"{workload.name.replace(' ', '_')}.asm" for workload in workloads}
        for workload in workloads:
            files[workload.name].write_text(workload.source, encoding="utf-8")
        yield {name: str(file) for name, file in files.items()}


def _program(setup: str, loop: str, count: int, *, bss: int = 0, rest: str = "") -> str:
    """A whole source: set up, do the loop's body `count` times in a window, exit."""
    memory = f".bss\n.balign {PAGE}\nmemory: .zero {bss}\n" if bss else ""
    return f"""_start:
{setup}
begin:  mov     ebx, {count}
again:
{loop}
        dec     ebx
        jnz     again
end:
{rest}
        xor     edi, edi
        mov     eax, 60                 # exit(0)
        syscall
{memory}"""


def null_system_calls(count: int) -> Workload:
    """getpid() and nothing else."""
    loop = """
        mov     eax, 39                 # getpid()
        syscall"""
    source = _program("", loop, count)
    return Workload("null system call", "getpid() in a loop", "call", count, source)


def computing(count: int, cycles: int, name: str = "compute") -> Workload:
    """A system call after every so many cycles of pure arithmetic (two instructions a cycle)."""
    loop = f"""
        mov     ecx, {cycles}
1:      dec     ecx
        jnz     1b
        mov     eax, 39
        syscall"""
    what = f"a system call every {cycles:,} cycles, no memory"
    return Workload(name, what, "call", count, _program("", loop, count))


def working_set(count: int, touches: int, cycles: int, pages: int, name: str = "working set") -> Workload:
    """Between system calls, loads from random pages of a working set, and arithmetic for so many cycles.

    Every page is written once before the window, so that none is missing and none is the zero page.
    """
    setup = f"""
        lea     r12, [rip + memory]
        mov     r13d, 12345             # a linear congruential generator: Knuth's MMIX
        mov     r14, 6364136223846793005
        mov     ecx, {pages}
        mov     rsi, r12
1:      mov     byte ptr [rsi], 1
        add     rsi, {PAGE}
        dec     ecx
        jnz     1b
        mov     ebp, 1"""
    loop = f"""
        mov     ecx, {touches}
1:      imul    r13, r14
        add     r13, 1442695
        mov     rsi, r13
        shr     rsi, 32
        imul    rsi, rsi, {pages}
        shr     rsi, 32                 # which page
        shl     rsi, 12
        mov     al, [r12 + rsi]
        dec     ecx
        jnz     1b
        mov     ecx, {max(cycles, 1)}
2:      dec     ecx
        jnz     2b
        mov     eax, 39
        syscall"""
    mebibytes = pages * PAGE >> 20
    what = f"{touches:,} loads from random pages of {mebibytes} MB between system calls"
    source = _program(setup, loop, count, bss=pages * PAGE)
    return Workload(name, what, "call", count, source, ram=f"{max(64, 2 * mebibytes)}M")


def page_faults(count: int) -> Workload:
    """Stores to pages that nobody has touched."""
    loop = "        mov     byte ptr [rsi], 1"
    return _touching("page fault", "stores to new pages of anonymous memory", loop, count)


def zero_page_faults(count: int) -> Workload:
    """Loads from pages that nobody has touched: all of them get the one page of zeros."""
    return _touching("zero page", "loads from untouched memory", "        mov     al, [rsi]", count)


def _touching(name: str, what: str, touch: str, count: int) -> Workload:
    """An access to one new page after the other."""
    loop = f"""
{touch}
        add     rsi, {PAGE}"""
    source = _program("        lea     rsi, [rip + memory]", loop, count, bss=count * PAGE)
    return Workload(name, what, "fault", count, source)


def forks(count: int) -> Workload:
    """Fork, exit of the child, wait4."""
    loop = """
        mov     eax, 57                 # fork()
        syscall
        test    eax, eax
        jz      child
        mov     edi, eax
        xor     esi, esi
        xor     edx, edx
        xor     r10d, r10d
        mov     eax, 61                 # wait4(child, 0, 0, 0)
        syscall"""
    rest = """
        nop                             # the child does not pass `end`
child:"""
    source = _program("", loop, count, rest=rest)
    return Workload("fork and exit", "fork(), the child's exit(), wait4()", "child", count, source)


def pipe_tokens(count: int) -> Workload:
    """Two processes pass a byte to and fro through two pipes: two switches a round."""
    setup = f"""
        lea     rdi, [rip + there]
        mov     eax, 22                 # pipe(there)
        syscall
        lea     rdi, [rip + back]
        mov     eax, 22                 # pipe(back)
        syscall
        mov     eax, 57                 # fork()
        syscall
        test    eax, eax
        jnz     begin
        mov     ebx, {count}
echo:   mov     edi, [rip + there]
        xor     eax, eax
        call    token                   # read
        mov     edi, [rip + back + 4]
        mov     eax, 1
        call    token                   # write
        dec     ebx
        jnz     echo
        xor     edi, edi
        mov     eax, 60
        syscall
token:  lea     rsi, [rip + byte]
        mov     edx, 1
        syscall
        ret"""
    loop = """
        mov     edi, [rip + there + 4]
        mov     eax, 1
        call    token                   # write
        mov     edi, [rip + back]
        xor     eax, eax
        call    token                   # read"""
    source = _program(setup, loop, count) + ".bss\nthere: .zero 8\nback: .zero 8\nbyte: .zero 8\n"
    return Workload("pipe token", "two processes pass a byte to and fro", "round", count, source)


def dont_need(count: int, pages: int) -> Workload:
    """Give back pages that were just written; the program itself times each call with RDTSC.

    It prints the sum as eight bytes, as the measured programs of the mailing list do in decimal.
    """
    setup = "        xor     ebp, ebp"
    touch = "".join(f"\n        mov     byte ptr [rip + memory + {PAGE * page}], 1" for page in range(pages))
    loop = f"""{touch}
        rdtsc
        mov     r12d, eax
        lea     rdi, [rip + memory]
        mov     esi, {pages * PAGE}
        mov     edx, 4
        mov     eax, 28                 # madvise(memory, pages, MADV_DONTNEED)
        syscall
        rdtsc
        sub     eax, r12d
        add     rbp, rax"""
    rest = """
        push    rbp
        mov     edi, 1
        mov     rsi, rsp
        mov     edx, 8
        mov     eax, 1                  # write(1, sum, 8)
        syscall"""
    source = _program(setup, loop, count, bss=pages * PAGE, rest=rest)
    return Workload(f"madvise {pages}", f"madvise(MADV_DONTNEED) of {pages} pages", "call", count, source)
