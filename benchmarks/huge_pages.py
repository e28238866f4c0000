"""What the size of pages costs and saves. Run: python -m benchmarks.huge_pages

A program maps memory, touches every 4 KiB of it, and then reads as many words at random: with small pages, with
transparent huge pages, and with those of a pool of 2 MiB or 1 GiB. All do the same work; what differs is how many page
faults, tables, walks and entry reads it takes. Counts and cycles are the model's, and exact; seconds are processor
time of this process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import click

from emu import Machine
from emu.assembler import assemble_source
from kernel import Kernel

__all__ = ["CASES", "Case", "Measured", "measure"]

PROGRAM: Final = """
    .globl  _start
_start:
    mov     edi, 0
    mov     esi, SIZE
    mov     edx, 3
    mov     r10d, FLAGS
    mov     r8, -1
    mov     r9d, 0
    mov     eax, 9                          # mmap
    syscall
    mov     r12, rax
    mov     rdi, rax
    mov     esi, SIZE
    mov     edx, ADVICE
    mov     eax, 28                         # madvise
    syscall
begin:
    mov     ecx, SIZE / 4096
    mov     rsi, r12
1:  mov     [rsi], rcx
    add     rsi, 4096
    dec     ecx
    jnz     1b
touched:
    mov     ecx, SIZE / 4096
    movabs  r8, 6364136223846793005         # a linear congruential generator (Knuth, MMIX)
    movabs  r9, 1442695040888963407
    mov     rdx, 1
2:  imul    rdx, r8
    add     rdx, r9
    mov     rsi, rdx
    shr     rsi, 33
    and     esi, SIZE / 4096 - 1
    shl     rsi, 12
    add     rax, [r12 + rsi]
    dec     ecx
    jnz     2b
done:
    xor     edi, edi
    mov     eax, 60
    syscall
"""
PRIVATE: Final = 0x22
HUGEPAGE, NOHUGEPAGE = 14, 15
RAM: Final = 3
"""GiB: the first one is never free as a whole."""


@dataclass(frozen=True)
class Case:
    """A way to have memory: flags of mmap, advice, and the pool that is filled before, by its page size."""

    flags: int
    advice: int
    pool: int = 0


CASES: Final = {
    "4 KiB": Case(PRIVATE, NOHUGEPAGE),
    "2 MiB, transparent": Case(PRIVATE, HUGEPAGE),
    "2 MiB, of a pool": Case(PRIVATE | 0x5404_0000, NOHUGEPAGE, 21),
    "1 GiB, of a pool": Case(PRIVATE | 0x7804_0000, NOHUGEPAGE, 30),
}


@dataclass(frozen=True)
class Measured:
    """The first touch: `faults`, `seconds`, page `tables` afterwards. The reads: DTLB `misses`, `walks`, entry `reads`,
    and `cycles` for each. `levels` is how many entries are read for each without any TLB.
    """

    faults: int
    seconds: float
    tables: int
    misses: int
    walks: int
    reads: int
    cycles: float
    levels: float


def measure(case: Case, size: int) -> Measured:
    """Run the program with so many bytes; and with the smallest that has a huge page, where every access walks."""
    faults, seconds, tables, touched, done = _run(case, size, tlb=True)
    *_, first, last = _run(case, 2 << 20, tlb=False)
    _, walks, reads, _ = _reads(first, last, 512)
    return Measured(faults, seconds, tables, *_reads(touched, done, size // 4096), reads / walks)


def _run(case: Case, size: int, *, tlb: bool) -> tuple[int, float, int, dict[str, Any], dict[str, Any]]:
    """Page faults and seconds of the first touch, the tables, and all statistics before and after the reads."""
    kernel = Kernel(Machine(ram=f"{RAM}G", tlb=tlb), thp="madvise")
    if case.pool:
        with kernel.kernel_mode():
            kernel.manager.hugetlb.pools[case.pool].resize(max(size >> case.pool, 1))
    numbers = {"SIZE": size, "FLAGS": case.flags, "ADVICE": case.advice}
    source = PROGRAM
    for name, number in numbers.items():
        source = source.replace(name, str(number))
    process = kernel.spawn(assemble_source(source, name="huge_pages"))
    kernel.run(until="begin")
    begin = time.process_time()
    before = process.minor_faults
    touched = kernel.run(until="touched").stats
    seconds, faults = time.process_time() - begin, process.minor_faults - before
    tables = process.mm.page_table.tables_below
    done = kernel.run(until="done").stats
    kernel.run()
    kernel.close()
    return faults, seconds, tables, touched, done


def _reads(before: dict[str, Any], after: dict[str, Any], count: int) -> tuple[int, int, int, float]:
    """What the reads took."""
    return (
        after["tlb"]["dtlb"]["misses"] - before["tlb"]["dtlb"]["misses"],
        after["walk"]["by"]["user"]["data"] - before["walk"]["by"]["user"]["data"],
        after["walk"]["entry_reads"]["user"]["data"] - before["walk"]["entry_reads"]["user"]["data"],
        (after["cycles"]["total"] - before["cycles"]["total"]) / count,
    )


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="Little memory: whether it works, no more.")
def main(quick: bool) -> None:
    size = 16 << 20 if quick else 1 << 30
    click.echo(f"{size >> 20:,} MiB, touched and then read at random {size // 4096:,} times\n")
    columns = ("faults", "seconds", "tables", "DTLB misses", "walks", "entry reads", "cycles a read", "levels")
    click.echo(f"{'':18}" + "".join(f"{name:>14}" for name in columns))
    for name, case in CASES.items():
        found = measure(case, size)
        exact = (found.misses, found.walks, found.reads)
        click.echo(
            f"{name:18}{found.faults:14,}{found.seconds:14.2f}{found.tables:14,}"
            + "".join(f"{count:14,}" for count in exact)
            + f"{found.cycles:14.1f}{found.levels:14.1f}"
        )


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.huge_pages")
