"""Be kind to the TLB.

The stub adds up all numbers of a matrix, 500 rows of 512 numbers of 8 bytes, one row a page. It goes down the columns,
and so nearly every load needs another translation than the one before: cr3 run 08_locality.asm --stats

Change the program so that it misses the data TLB on less than 1 % of its loads. It must still load every number, and
exit with the same sum (its lowest 8 bits are the exit code).
"""

from __future__ import annotations

from typing import Any, Final

from emu import assemble

from .exercise import STUBS, Exercise, Solution, Wrong
from .programs import run

__all__ = ["EXERCISE"]

EXERCISE: Final = Exercise(8, "locality", "Be kind to the TLB", __doc__, ".asm")
NUMBERS: Final = 500 * 512
MOST_MISSES: Final = 0.01
MATRIX: Final = 500 * 4096


def _run(solution: Solution) -> dict[str, Any]:
    return run(solution.path)


@EXERCISE.check("it assembles, runs, and ends by itself")
def ends(solution: Solution) -> None:
    _run(solution)


@EXERCISE.check("the sum is still right")
def same_sum(solution: Solution) -> None:
    expected = run(str(STUBS / f"{EXERCISE.label}.asm"))["exit"]["code"]
    found = _run(solution)["exit"]["code"]
    if found != expected:
        raise Wrong(
            f"the program exits with {found}, the stub with {expected}: some numbers are missing, or counted twice"
        )


@EXERCISE.check("every number is loaded")
def every_number(solution: Solution) -> None:
    reads = _run(solution)["accesses"]["user"]["read"]
    if reads < NUMBERS:
        raise Wrong(f"the program makes {reads:,} loads, but there are {NUMBERS:,} numbers to add up")


@EXERCISE.check("the matrix lies where it lay, a row to a page")
def same_matrix(solution: Solution) -> None:
    image = assemble(solution.path)
    size = sum(segment.size for segment in image.segments if segment.writable)
    if size < MATRIX:
        raise Wrong(f"the program's writable memory has {size:,} bytes; the matrix alone has {MATRIX:,}")


@EXERCISE.check("less than 1 % of the loads miss the TLB")
def few_misses(solution: Solution) -> None:
    tlb = _run(solution)["tlb"]["dtlb"]
    share = tlb["misses"] / NUMBERS
    if share >= MOST_MISSES:
        raise Wrong(
            f"{tlb['misses']:,} data TLB misses for {NUMBERS:,} numbers ({share:.1%}). How far apart are two numbers "
            "that are loaded one after the other, and how many of them lie on one page?"
        )
