"""Ask for huge pages.

The stub maps 32 MiB and stores a number into each page of 4 KiB of it: 8,192 page faults, and as many page walks again.
Change it so that the kernel delivers pages of 2 MiB: at most 40 page faults, at most 200 page walks for data. It must
still store into all 8,192 pages, and exit with 0.

The machine has 128 MiB and gives huge pages to those who ask for them, once they ask:
cr3 run 07_huge_pages.asm --ram 128M --thp madvise --stats
"""

from __future__ import annotations

from typing import Any, Final

from .exercise import Exercise, Solution, Wrong
from .programs import run

__all__ = ["EXERCISE"]

EXERCISE: Final = Exercise(7, "huge_pages", "Ask for huge pages", __doc__, ".asm")
PAGES: Final = 8192
MOST_FAULTS: Final = 40
MOST_WALKS: Final = 200


def _run(solution: Solution) -> dict[str, Any]:
    return run(solution.path, ram="128M", thp="madvise")


@EXERCISE.check("it assembles, runs, and exits with 0")
def ends(solution: Solution) -> None:
    code = _run(solution)["exit"]["code"]
    if code:
        raise Wrong(f"the program exits with {code}: does a system call fail, and does the program notice?")


@EXERCISE.check("all 32 MiB are used")
def all_used(solution: Solution) -> None:
    stats = _run(solution)
    if stats["accesses"]["user"]["write"] < PAGES:
        raise Wrong(
            f"the program makes {stats['accesses']['user']['write']:,} stores; 32 MiB have {PAGES:,} pages of 4 KiB"
        )
    if stats["frames"]["peak"] < PAGES:
        raise Wrong(
            f"only {stats['frames']['peak']:,} frames were ever in use: most of the stores go to the same pages"
        )


@EXERCISE.check("at most 40 page faults")
def few_faults(solution: Solution) -> None:
    faults = _run(solution)["faults"]["minor"]
    if faults > MOST_FAULTS:
        raise Wrong(
            f"{faults:,} page faults. Who may get huge pages is decided at each fault: had the program asked before "
            "it? Did the kernel agree? (Pages that MAP_POPULATE brings are counted, too.) And a huge page begins at a "
            "multiple of 2 MiB, as all pages begin at a multiple of their size"
        )


@EXERCISE.check("at most 200 page walks for data")
def few_walks(solution: Solution) -> None:
    walks = _run(solution)["walk"]["by"]["user"]["data"]
    if walks > MOST_WALKS:
        raise Wrong(
            f"{walks:,} page walks: the faults are gone, but the TLB still needs an entry for every 4 KiB. The pages "
            "came early, but they are small"
        )
