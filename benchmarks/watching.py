"""What it costs to watch a run. Run: python -m benchmarks.watching

Each kind of event is produced by a program that makes little else, four times: nobody listens; somebody listened before
the program began, and went; a Python function is called that does nothing; the events are recorded as columns. Times
are processor time of this process, medians of several runs in turns. `slower` is the time against that where nobody
listens, and `a second` are the events. Where a kind needs the access engine, the runs without listeners have it, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final

import click

from emu import Machine
from emu.assembler import assemble_source
from kernel import Kernel

__all__ = ["WATCHED", "Watched", "measure"]

LOADS: Final = """
_start: mov ecx, {count} / 4
1:  mov rax, [page]; mov rdx, [page + 64]; mov [page + 128], rax; mov [page + 192], rdx; dec ecx; jnz 1b
    mov eax, 60; xor edi, edi; syscall
.bss; page: .skip 4096
"""
STRIDES: Final = """
_start: mov ecx, {count}; xor ebx, ebx
1:  mov rax, [pages + rbx]; add ebx, 4096; and ebx, 2048 * 4096 - 1; dec ecx; jnz 1b
    mov eax, 60; xor edi, edi; syscall
.bss; .balign 4096; pages: .skip 2048 * 4096
"""
FAULTS: Final = """
_start: mov ecx, {count}; lea rbx, [pages]
1:  mov [rbx], rcx; add rbx, 4096; dec ecx; jnz 1b
    mov eax, 60; xor edi, edi; syscall
.bss; pages: .skip {count} * 4096
"""
CALLS: Final = """
_start: mov ebx, {count}
1:  mov eax, 39; syscall; dec ebx; jnz 1b
    mov eax, 60; xor edi, edi; syscall
"""


@dataclass(frozen=True)
class Watched:
    """A kind of event, a program that makes it, and how often: for Python functions, and for recordings."""

    name: str
    program: str
    few: int
    many: int
    engine: str = "trap"
    span: range | None = None


WATCHED: Final = (
    Watched("access", LOADS, 200_000, 8_000_000, "access"),
    Watched("access", LOADS, 200_000, 0, "access", range(0x1000)),
    Watched("instruction", LOADS, 200_000, 4_000_000, "access"),
    Watched("tlb_hit", LOADS, 100_000, 2_000_000, "access"),
    Watched("tlb_miss", STRIDES, 50_000, 1_000_000),
    Watched("page_walk", STRIDES, 50_000, 1_000_000),
    Watched("cr3_write", CALLS, 2_000, 2_000),
    Watched("mode_switch", CALLS, 2_000, 2_000),
    Watched("syscall", CALLS, 2_000, 2_000),
    Watched("page_fault", FAULTS, 2_000, 2_000),
)

Watch = Callable[[Kernel], Callable[[], int]]
"""Begins to watch a kernel; what it returns says afterwards how many events there were."""


def nobody(_kernel: Kernel) -> Callable[[], int]:
    """Nobody watches."""
    return lambda: 0


def seconds(watched: Watched, count: int, watch: Watch) -> tuple[float, int]:
    """Processor time of a run, and how many events were seen."""
    kernel = Kernel(Machine(ram="64M", engine=watched.engine), pti=True)
    kernel.spawn(assemble_source(watched.program.format(count=count)))
    seen = watch(kernel)
    start = time.process_time()
    kernel.run()
    return time.process_time() - start, seen()


Cost = tuple[float, float]
"""How many times slower a run is, and events a second."""


def measure(watched: Watched, repetitions: int, share: int = 1) -> tuple[float, Cost, Cost]:
    """The slowdown after a listener has gone; slowdown and events a second of a function, and of a recording."""

    def gone(kernel: Kernel) -> Callable[[], int]:
        kernel.on(watched.name, id, range=watched.span).off()
        return lambda: 0

    def hook(kernel: Kernel) -> Callable[[], int]:
        told: list[None] = []
        kernel.on(watched.name, lambda _event: told.append(None), range=watched.span)
        return lambda: len(told)

    def record(kernel: Kernel) -> Callable[[], int]:
        recording = kernel.record(watched.name)
        return lambda: recording.count

    few, many = watched.few // share, watched.many // share
    runs = [
        (seconds(watched, few, nobody)[0], seconds(watched, few, gone)[0], seconds(watched, few, hook))
        for _ in range(repetitions)
    ]
    base, removed = median(run[0] for run in runs), median(run[1] for run in runs)
    told = median(run[2][0] for run in runs)
    called = told / base, runs[0][2][1] / told
    if not many:
        return removed / base, called, (0.0, 0.0)
    pairs = [(seconds(watched, many, nobody)[0], seconds(watched, many, record)) for _ in range(repetitions)]
    recorded = median(pair[1][0] for pair in pairs)
    return removed / base, called, (recorded / median(pair[0] for pair in pairs), pairs[0][1][1] / recorded)


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="One short run of each: whether it works, no more.")
def main(quick: bool) -> None:
    click.echo(f"{'':24}{'gone':>8}{'hook: slower':>16}{'a second':>12}{'recording: slower':>20}{'a second':>14}")
    for watched in WATCHED:
        removed, (slower, rate), (recording, rows) = measure(watched, 1 if quick else 5, 50 if quick else 1)
        name = f"{watched.name}{' (elsewhere)' if watched.span else ''}"
        line = f"{name:24}{removed:8.2f}{slower:16.2f}{rate:12,.0f}"
        click.echo(line + (f"{recording:20.2f}{rows:14,.0f}" if recording else ""))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.watching")
