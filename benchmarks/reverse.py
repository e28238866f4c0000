"""How long does it take to go back? Run: python -m benchmarks.reverse

A program of some ten million instructions is run to its end, then gone through backwards: single steps back at places
all over the run, again and again from where the last one led; and searches backwards for a breakpoint that was last met
so many instructions before. Wall-clock milliseconds: the fastest, which other work on the computer disturbed least,
the median and the worst.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Final

from lab.debugger import AtAddress, Timeline
from lab.debugger.look import symbol
from lab.options import Options

__all__ = ["PROGRAM", "measure"]

PROGRAM: Final = """
        .equ    ROUNDS, {rounds}
        .text
        .globl  _start
_start: lea     rbx, [rip + area]
        mov     ecx, ROUNDS
again:  mov     edx, ecx
        imul    edx, edx, 2654435
        and     edx, {mask}
        mov     rsi, [rbx + rdx]
        add     rax, rsi
        mov     [rbx + rdx], rax
        lea     rdi, [rax + 1]
        xor     rdi, rcx
        cmp     ecx, {recent}
        je      recent
        cmp     ecx, {early}
        je      early
back:   add     rax, rdi
        dec     ecx
        jnz     again
        xor     edi, edi
        mov     eax, 60
        syscall
recent: jmp     back
early:  jmp     back
        .bss
        .balign 4096
area:   .skip   {size}
"""
A_ROUND: Final = 15
TEN_MILLION: Final = 10_000_000


def _timed(action: Callable[[], object]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - start)


def measure(instructions: int, size: int, steps: int) -> dict[str, list[float]]:
    """Milliseconds of each thing, with so many bytes that are read and written all over."""
    rounds = instructions // A_ROUND
    places = {"recent": 100_000 // A_ROUND, "early": rounds - 100}
    source = PROGRAM.format(rounds=rounds, mask=size - 8, size=size, **places)
    chosen = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ten_million.asm"
        path.write_text(source)
        with Timeline(Options(programs=(str(path),))) as timeline:
            found: dict[str, list[float]] = {"first run to the end": [_timed(lambda: timeline.go(1 << 60))]}
            end = timeline.position
            found["go anywhere"], found["step back"], found["step"] = [], [], []
            for _ in range(steps):
                found["go anywhere"].append(_timed(lambda: timeline.go(chosen.randrange(end))))
                found["step back"] += _each(lambda: timeline.go(timeline.position - 1), 3)
                found["step"] += _each(lambda: timeline.go(timeline.position + 1), 3)
            for name, distance in (("recent", "100,000"), ("early", "10,000,000")):
                stop = AtAddress(timeline.ask(symbol, name))
                what = f"continue back to a breakpoint {distance} instructions before"
                found[what] = _each(lambda stop=stop: timeline.find_last([stop], before=end), 10)  # type: ignore[misc]
    return found


def _each(action: Callable[[], object], times: int) -> list[float]:
    return [_timed(action) for _ in range(times)]


def main(sizes: Iterable[int] = (1 << 16, 1 << 21)) -> None:
    """Print a table for each size of memory."""
    for size in sizes:
        print(f"{f'{TEN_MILLION:,} instructions over {size >> 10} KiB':<60} fastest   median    worst [ms]")
        for what, times in measure(TEN_MILLION, size, 20).items():
            print(f"  {what:<58} {min(times):7.1f} {median(times):8.1f} {max(times):8.1f}")


if __name__ == "__main__":
    main()
