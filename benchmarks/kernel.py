"""What the kernel's memory management costs. Run: python -m benchmarks.kernel

Each program does one thing many times between its symbols `begin` and `done`. Only what lies between them is measured,
in processor time of this process; the number is the median of several runs, each on a kernel of its own. Where the work
should grow with the pages touched, and with nothing else, two sizes are measured and the ratio is told: 1.0 is linear.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Final

import click

from emu import Machine
from emu.assembler import assemble_source
from kernel import Kernel

__all__ = ["BENCHES", "Bench", "measure"]

MACROS: Final = """
    .macro  invoke number, a=0, b=0, c=0, d=0
    mov     rdi, \\a
    mov     rsi, \\b
    mov     rdx, \\c
    mov     r10, \\d
    mov     r8, -1
    xor     r9d, r9d
    mov     eax, \\number
    syscall
    .endm

    .macro  map pages
    invoke  9, 0, \\pages * 4096, 3, 0x22
    .endm

    .macro  touch pages
    mov     rdx, rbx
    mov     ecx, \\pages
1:  mov     [rdx], rcx
    add     rdx, 4096
    dec     ecx
    jnz     1b
    .endm

    .bss
pipes:
    .skip   16
byte:
    .skip   8
    .text
_start:
"""
END: Final = """
done:
    invoke  60
"""


@dataclass(frozen=True)
class Bench:
    """`count` times `what`: the program's text has N for it."""

    what: str
    body: str
    count: int
    linear: bool = False

    def seconds(self, count: int) -> float:
        """Processor time of one run, from `begin` to `done`."""
        source = MACROS + self.body.replace("N", str(count)) + END
        kernel = Kernel(Machine(ram="256M", engine="trap"))
        kernel.spawn(assemble_source(source, name=self.what))
        kernel.run(until="begin")
        begin = time.process_time()
        kernel.run(until="done")
        seconds = time.process_time() - begin
        kernel.close()
        return seconds


_FAULTS: Final = """
    map     N
    mov     rbx, rax
begin:
    touch   N
"""
_COW: Final = """
    map     N
    mov     rbx, rax
    touch   N
    invoke  57                          # fork; the child waits, and keeps its pages
    test    eax, eax
    jz      child
begin:
    touch   N
    jmp     done
child:
    invoke  34                          # pause
"""
_FORK: Final = """
    map     N
    mov     rbx, rax
    touch   N
begin:
    invoke  57
    test    eax, eax
    jnz     done
    invoke  34
"""
_PAIRS: Final = """
    mov     r15d, N
begin:
    nop
again:
    map     4
    mov     rbx, rax
    invoke  11, rbx, 4 * 4096           # munmap
    dec     r15d
    jnz     again
"""
_SWITCHES: Final = """
    invoke  57
    test    eax, eax
    jz      child
    mov     r15d, N / 2
begin:
    nop
again:
    invoke  24                          # sched_yield: there and back are two switches
    dec     r15d
    jnz     again
    jmp     done
child:
    invoke  24
    jmp     child
"""
_PIPES: Final = """
    lea     rbx, [rip + pipes]
    lea     rbp, [rip + byte]
    invoke  22, rbx                     # pipe, twice
    lea     r14, [rbx + 8]
    invoke  22, r14
    invoke  57
    mov     r15d, N
    test    eax, eax
    jz      child
begin:
    nop
ask:
    invoke  1, 4, rbp, 1
    invoke  0, 5, rbp, 1
    dec     r15d
    jnz     ask
    jmp     done
child:
    invoke  0, 3, rbp, 1
    invoke  1, 6, rbp, 1
    jmp     child
"""

BENCHES: Final = (
    Bench("minor faults", _FAULTS, 4096, linear=True),
    Bench("copy-on-write faults", _COW, 4096, linear=True),
    Bench("pages of a fork (64 MiB)", _FORK, 16384, linear=True),
    Bench("mmap and munmap of 4 pages", _PAIRS, 1000),
    Bench("context switches", _SWITCHES, 2000),
    Bench("round trips through two pipes", _PIPES, 500),
)


def measure(bench: Bench, repetitions: int, share: int = 1) -> tuple[float, float | None]:
    """How many a second, and for linear work the cost of one in the whole against one in a quarter of it."""
    count = bench.count // share
    whole = median([bench.seconds(count) for _ in range(repetitions)])
    if not bench.linear:
        return count / whole, None
    quarter = median([bench.seconds(count // 4) for _ in range(repetitions)])
    return count / whole, whole / (4 * quarter)


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="One short run of each: whether it works, no more.")
def main(quick: bool) -> None:
    click.echo(f"{'':32}{'a second':>12}{'each':>12}{'growth':>10}")
    for bench in BENCHES:
        rate, growth = measure(bench, 1 if quick else 5, 16 if quick else 1)
        shown = f"{growth:10.2f}" if growth is not None else ""
        click.echo(f"{bench.what:32}{rate:12,.0f}{1e6 / rate:9.1f} us{shown}")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.kernel")
