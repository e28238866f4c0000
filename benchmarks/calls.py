"""What system calls take on this machine, natively and in the model. Run: python -m benchmarks.calls

The same static program runs under the kernel of this machine (an x86-64 Linux) and under cr3. It times each call with
RDTSC, many times, and writes all the times; shown are medians, less what an empty measurement takes. The column
*beyond getppid* is what the kernel's own work takes, without the way in and out: from such a table come the cycles
that system calls declare (`@syscall(28, cycles=700)`). The model runs without page-table isolation here.
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import click

from emu import Machine
from emu.assembler import assemble_source
from emu.elf import write_elf
from emu.image import Image
from kernel import Kernel

COUNT: Final = 2000
FEW: Final = 40
"""Slow calls are timed less often."""


@dataclass(frozen=True)
class Call:
    """A call to time: what is done before and after each (`setup`: once), and the call itself without `syscall`."""

    name: str
    arguments: str
    before: str = ""
    after: str = ""
    setup: str = ""
    count: int = COUNT

    def image(self) -> Image:
        """The program that times it and writes all times, 8 bytes each."""
        return assemble_source(PROGRAM.format(**vars(self)), name=f"{self.name}.asm")


PROGRAM: Final = """
_start: lea     r15, [rip + times]
        lea     r14, [rip + page]
        {setup}
        mov     ebp, {count}
again:  {before}
        {arguments}
        mov     r12, rax
        mov     r13, rdx
        lfence
        rdtsc
        shl     rdx, 32
        lea     rbx, [rax + rdx]
        mov     rax, r12
        mov     rdx, r13
        test    eax, eax
        js      1f                      # an empty measurement
        syscall
1:      mov     r12, rax
        lfence
        rdtsc
        shl     rdx, 32
        add     rax, rdx
        sub     rax, rbx
        mov     [r15], rax
        add     r15, 8
        mov     rax, r12
        {after}
        dec     ebp
        jnz     again
        mov     edi, 1
        lea     rsi, [rip + times]
        mov     edx, 8 * {count}
        mov     eax, 1
        syscall
        xor     edi, edi
        mov     eax, 60
        syscall
        .data
null:   .asciz  "/dev/null"
        .bss
        .balign 4096
page:   .zero   65536
fds:    .zero   8
times:  .zero   8 * {count}
"""
MMAP: Final = "xor edi, edi; mov esi, 16384; mov edx, 3; mov r10d, 34; mov r8, -1; xor r9d, r9d; mov eax, 9"
MUNMAP: Final = "mov rdi, rax; mov esi, 16384; mov eax, 11"
PIPE: Final = "lea rdi, [rip + fds]; mov eax, 22; syscall"
WRITE: Final = "mov edi, [rip + fds + 4]; mov rsi, r14; mov edx, 1; mov eax, 1"
READ: Final = "mov edi, [rip + fds]; mov rsi, r14; mov edx, 1; xor eax, eax"
NULL: Final = "lea rdi, [rip + null]; mov esi, 1; mov eax, 2; syscall; mov [rip + fds + 4], eax"
EXIT: Final = "xor edi, edi; mov eax, 60; syscall"
FORK: Final = f"mov eax, 57; syscall; test eax, eax; jnz 7f; {EXIT}; 7:"
WAIT: Final = "mov edi, eax; xor esi, esi; xor edx, edx; xor r10d, r10d; mov eax, 61"
CALLS: Final = (
    Call("nothing", "mov eax, -1"),
    Call("getppid", "mov eax, 110"),
    Call("madvise", "mov rdi, r14; mov esi, 4096; mov edx, 4; mov eax, 28", setup="mov byte ptr [r14 + 4096], 1"),
    Call("madvise of a page", "mov rdi, r14; mov esi, 4096; mov edx, 4; mov eax, 28", before="mov byte ptr [r14], 1"),
    Call("mmap", MMAP, after=f"{MUNMAP}; syscall"),
    Call("munmap", MUNMAP, before=f"{MMAP}; syscall"),
    Call("mprotect", "mov rdi, r14; mov esi, 4096; mov eax, 10", before="mov edx, ebp; and edx, 2; or edx, 1"),
    Call(
        "brk",
        "lea rdi, [r8 + 4096]; mov eax, 12",
        before="xor edi, edi; mov eax, 12; syscall; mov r8, rax",
        after="mov rdi, r8; mov eax, 12; syscall",
    ),
    Call("write to /dev/null", WRITE, setup=NULL),
    Call("write to a pipe", WRITE, setup=PIPE, after=f"{READ}; syscall"),
    Call("read from a pipe", READ, setup=PIPE, before=f"{WRITE}; syscall"),
    Call("sched_yield", "mov eax, 24"),
    Call("fork", "mov eax, 57", after=f"test eax, eax; jnz 8f; {EXIT}; 8: {WAIT}; syscall", count=FEW),
    Call("exit and wait4", WAIT, before=FORK, count=FEW),
    Call("vfork, exit", "mov eax, 58", after=f"test eax, eax; jnz 8f; {EXIT}; 8: {WAIT}; syscall", count=FEW),
)


def natively(image: Image) -> bytes:
    """What the program writes under the kernel of this machine, on one processor."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "program"
        write_elf(image, file)
        ours = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(ours)})  # which the program inherits: a child runs when its parent waits
        try:
            return subprocess.run([file], stdout=subprocess.PIPE, check=True).stdout
        finally:
            os.sched_setaffinity(0, ours)


def in_the_model(image: Image) -> bytes:
    """What it writes under cr3, without page-table isolation."""
    stdout = io.BytesIO()
    kernel = Kernel(Machine(), stdout=stdout)
    kernel.spawn(image)
    kernel.run()
    kernel.close()
    return stdout.getvalue()


def middle(times: bytes) -> float:
    """The median of the times that a program wrote."""
    return median(struct.unpack(f"<{len(times) // 8}Q", times))


@click.command(help=__doc__)
def main() -> None:
    """Measure and print everything."""
    measured = {call.name: (middle(natively(call.image())), middle(in_the_model(call.image()))) for call in CALLS}
    empty, getppid = measured.pop("nothing"), measured["getppid"]
    click.echo(f"{'':26}{'native':>10}{'model':>10}{'beyond getppid':>18}{'model':>10}")
    for name, times in measured.items():
        beyond = [time - base for time, base in zip(times, getppid, strict=True)]
        each = [time - base for time, base in zip(times, empty, strict=True)]
        click.echo(f"{name:26}{each[0]:10,.0f}{each[1]:10,.0f}{beyond[0]:18,.0f}{beyond[1]:10,.0f}")


if __name__ == "__main__":
    main()
