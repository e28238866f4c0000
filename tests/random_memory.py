"""Programs that use memory at random: sequences of system calls and touches, each in an arena of its own, which has 16
units: pages, or for huge pages pieces of 512 KiB.

A program is a table of steps and an interpreter for it. A step leaves its answer and the page faults that it took in
shared memory, which is printed at the end; a touch that is refused leaves the signal's code. So nothing ends such a
program early, and one program can have many sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st
from memory_programs import memory_program

__all__ = ["ARENA_PAGES", "HUGE_UNIT", "Step", "describe", "program_of", "sequences"]

PAGE = 4096
ARENA_PAGES = 16
HUGE_UNIT = 0x8_0000
"""A quarter of a huge page."""
FIRST_ARENA, ARENA_DISTANCE = 0x1000_0000, 0x100_0000
READ, WRITE, FORK, CHILD_ENDS, RESIDENTS, END = -1, -2, -3, -4, -5, -6
ANSWER_SIZE = 32

_INTERPRETER = r"""
    .equ    ANSWERS, 0x70000000
    .equ    SCRATCH, 0x6ffff000
    invoke  MMAP, SCRATCH, 4096 + answers_size, 3, 0x31, -1, 0
    mov     rdi, SCRATCH
    mov     ecx, (4096 + answers_size) / 8
    xor     eax, eax
    rep     stosq                           # every page is there from now on
    call    touch_steps
    lea     rsi, [rsp - 0x8000]
6:  mov     byte ptr [rsi], 0
    add     rsi, 4096
    cmp     rsi, rsp
    jb      6b
    lea     r12, [rip + on_segv]
    mov     [rip + action], r12
    lea     r12, [rip + restorer]
    mov     [rip + action + 16], r12
    lea     r12, [rip + action]
    invoke  RT_SIGACTION, 11, r12, 0, 8
    invoke  RT_SIGACTION, 7, r12, 0, 8
    lea     r14, [rip + steps]
    mov     r13, ANSWERS
    jmp     next
touch_steps:                                # their faults shall not be among those that are counted
    lea     rsi, [rip + steps]
5:  mov     al, [rsi]
    add     rsi, 4096
    lea     rdi, [rip + steps_end]
    cmp     rsi, rdi
    jb      5b
    ret
next:
    invoke  GETRUSAGE, 0, SCRATCH
    mov     r12, SCRATCH
    mov     r15, [r12 + 64]
    mov     rax, [r14]
    cmp     rax, -1
    je      read
    cmp     rax, -2
    je      write
    cmp     rax, -3
    je      fork
    cmp     rax, -4
    je      child_end
    cmp     rax, -5
    je      residents_of
    cmp     rax, -6
    je      end
    mov     rdi, [r14 + 8]
    mov     rsi, [r14 + 16]
    mov     rdx, [r14 + 24]
    mov     r10, [r14 + 32]
    mov     r8, [r14 + 40]
    xor     r9d, r9d
    syscall
answered:
    mov     [r13], rax
    invoke  GETRUSAGE, 0, SCRATCH
    mov     r12, SCRATCH
    mov     rax, [r12 + 64]
    sub     rax, r15
    mov     [r13 + 8], rax
done:
    add     r13, 32
    add     r14, 48
    jmp     next
read:
    mov     rbx, [r14 + 8]
    .byte   0x48, 0x8b, 0x03                # mov rax, [rbx]
    jmp     touched
write:
    mov     rbx, [r14 + 8]
    mov     rcx, [r14 + 16]
    xor     eax, eax
    .byte   0x48, 0x89, 0x0b                # mov [rbx], rcx
touched:
    cmp     rax, -1
    jne     answered
    mov     [r13], rdx                      # the signal's code; a frame takes as many faults as it is large
    jmp     done
on_segv:
    mov     rax, [rsi + 8]                  # si_code
    mov     [rdx + 136], rax                # uc_mcontext.rdx
    mov     qword ptr [rdx + 144], -1       # rax
    add     qword ptr [rdx + 168], 3        # rip
    ret
restorer:
    mov     eax, 15
    syscall
fork:
    invoke  FORK
    test    rax, rax
    jnz     7f
    call    touch_steps
    jmp     done
7:  invoke  WAIT4, -1, SCRATCH + 256, 0, 0
    mov     r12, SCRATCH
    mov     eax, [r12 + 256]
    mov     [r13], rax
    mov     rcx, [r14 + 8]                  # steps of the child
    imul    rax, rcx, 32
    add     r13, rax
    imul    rax, rcx, 48
    add     r14, rax
    jmp     done
child_end:
    invoke  EXIT, [r14 + 8]
residents_of:
    lea     rdx, [r13 + 16]
    mov     rdi, [r14 + 8]
    mov     rsi, [r14 + 16]
    mov     eax, MINCORE
    syscall
    jmp     answered
end:
    invoke  WRITE, 1, ANSWERS, answers_size
    invoke  EXIT, 0
    .data
action:
    .quad   0, 0x44000004, 0, 0
    .section .rodata
    .balign 4096
steps:
"""


@dataclass(frozen=True)
class Step:
    """One step: a system call by number with its arguments, or one of the special ones. `child` is what a fork runs."""

    number: int
    arguments: tuple[int | str, ...]
    child: tuple[Step, ...] = field(default=())


def program_of(groups: Sequence[Sequence[Step]]) -> str:
    """One program that runs all sequences, one behind the other."""
    rows = [row for steps in groups for step in steps for row in _rows(step)]
    table = "".join(
        f"    .quad {', '.join(str(value) for value in (number, *arguments, *[0] * (5 - len(arguments))))}\n"
        for number, *arguments in [*rows, (END,)]
    )
    size = f"    .equ answers_size, {-(-len(rows) * ANSWER_SIZE // PAGE) * PAGE}\n"
    return memory_program(f"{size}{_INTERPRETER}{table}steps_end:\n    .text")


def _rows(step: Step) -> list[tuple[int | str, ...]]:
    if step.number != FORK:
        return [(step.number, *step.arguments)]
    child = [row for inner in step.child for row in _rows(inner)] + [(CHILD_ENDS, *step.arguments)]
    return [(FORK, len(child)), *child]


def describe(groups: Sequence[Sequence[Step]]) -> list[str]:
    """What each row of the answers is the answer to."""
    return [str(row) for steps in groups for step in steps for row in _rows(step)]


# --- what is tried --------------------------------------------------------------------------------------------------

MMAP, MPROTECT, MUNMAP, BRK, MREMAP, MSYNC, MADVISE = 9, 10, 11, 12, 25, 26, 28
MLOCK, MUNLOCK, MLOCK2 = 149, 150, 325
PRIVATE, SHARED, FIXED, NOREPLACE = 0x22, 0x21, 0x10, 0x10_0000
EXTRAS = (0, 0, 0, 0, 0x100, 0x4000, 0x8000, 0x2000, 0x2_0000)
"""GROWSDOWN, NORESERVE, POPULATE, LOCKED, STACK."""
PROTS = (3, 3, 3, 3, 1, 1, 0, 2, 5, 7)
"""Not 4 alone: a processor with protection keys makes that unreadable, others do not."""
ADVICE = (4, 4, 4, 8, 10, 11, 16, 17, 18, 19, 20, 22, 23, 24)
"""DONTNEED, FREE, DONTFORK, DOFORK, DONTDUMP, DODUMP, WIPEONFORK, KEEPONFORK, COLD, POPULATE_READ and _WRITE."""
ADVICE_FOR_HUGE_PAGES = (14, 14, 15)
"""HUGEPAGE, NOHUGEPAGE."""

_page = st.integers(0, ARENA_PAGES - 1)
_count = st.integers(1, 6)


def _steps(base: int, unit: int) -> st.SearchStrategy[Step]:
    """Any step but a fork, in the arena at `base`."""
    at = _page.map(lambda page: base + page * unit)
    size = _count.map(lambda pages: pages * unit)
    few = _count.map(lambda pages: pages * PAGE)  # mincore has room for so many
    advice = (*ADVICE, *ADVICE_FOR_HUGE_PAGES) if unit > PAGE else ADVICE
    where = st.sampled_from((FIXED, FIXED, NOREPLACE, NOREPLACE, 0))
    flags = st.tuples(st.sampled_from((PRIVATE, PRIVATE, PRIVATE, SHARED)), where, st.sampled_from(EXTRAS)).map(sum)
    prot = st.sampled_from(PROTS)
    touch = st.tuples(at, st.integers(0, PAGE // 8 - 2), st.integers(1, 255))

    def call(number: int, *arguments: st.SearchStrategy[int] | st.SearchStrategy[str]) -> st.SearchStrategy[Step]:
        return st.tuples(*arguments).map(lambda values: Step(number, tuple(values)))

    nothing = st.just(-1)
    mmap = call(MMAP, at, size, prot, flags, nothing)
    kinds = (
        *(mmap, mmap, mmap, call(MUNMAP, at, size), call(MPROTECT, at, size, prot), call(MPROTECT, at, size, prot)),
        call(MREMAP, at, size, size, st.sampled_from((0, 1, 1, 3, 3, 5, 7)), at),
        call(BRK, st.integers(0, 6).map(lambda pages: f"_end + {pages * unit}")),
        *(call(MADVISE, at, size, st.sampled_from(advice)) for _ in range(2)),
        *(call(MLOCK, at, size), call(MUNLOCK, at, size), call(MLOCK2, at, size, st.just(1))),
        call(MSYNC, at, size, st.sampled_from((1, 2, 4))),
        *(touch.map(lambda values: Step(READ, (values[0] + 8 * values[1],))) for _ in range(4)),
        *(touch.map(lambda values: Step(WRITE, (values[0] + 8 * values[1], values[2]))) for _ in range(6)),
        st.tuples(at, few).map(lambda values: Step(RESIDENTS, values)),
    )
    return st.one_of(*kinds)


def _sequence(number: int, size: int, unit: int) -> st.SearchStrategy[list[Step]]:
    step = _steps(FIRST_ARENA + number * ARENA_DISTANCE, unit)
    child = st.lists(step, min_size=1, max_size=6).map(tuple)
    fork = st.builds(lambda steps, code: Step(FORK, (code,), steps), child, st.integers(0, 9))
    steps = st.lists(st.one_of(step, step, step, step, step, step, step, fork), min_size=10, max_size=size)
    first = st.sampled_from((PRIVATE, PRIVATE, SHARED)).map(lambda kind: _whole_arena(number, kind, unit))
    return st.tuples(first, steps).map(lambda parts: [*parts[0], *parts[1]])


def _whole_arena(number: int, kind: int, unit: int) -> list[Step]:
    """Most calls want memory that is there; where units are large, with huge pages."""
    start = FIRST_ARENA + number * ARENA_DISTANCE
    advice = [Step(MADVISE, (start, 12 * unit, ADVICE_FOR_HUGE_PAGES[0]))] if unit > PAGE else []
    return [Step(MMAP, (start, 12 * unit, 3, kind | FIXED, -1)), *advice]


def sequences(count: int, size: int, unit: int = PAGE) -> st.SearchStrategy[tuple[list[Step], ...]]:
    """So many sequences of 10 to `size` steps, each in its own arena of 16 units of a size."""
    return st.tuples(*(_sequence(number, size, unit) for number in range(count)))
