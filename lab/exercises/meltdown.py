"""Read what may not be read: Flush+Reload.

The kernel keeps a byte to itself. On a processor that checks rights too late, a load of it faults, but the loads behind
it have run by then, and the line that they touched stays in the cache. The stub has the signal handler, the clock and
the address. Write the three pieces that are missing:

    1. take 256 lines out of the caches, one in each page of the array
    2. load the byte, and touch the line of the page that it names
    3. find out which line is in the cache

The program exits with the byte, or with 63, a question mark, if no line was faster than a load from memory: then there
was nothing to find, and a guess is no answer. Try it: cr3 run 10_meltdown.asm --caches on --secret K --pti off; echo $?
"""

from __future__ import annotations

import random
from typing import Any, Final

from .exercise import Exercise, Solution, Wrong
from .programs import run

__all__ = ["EXERCISE"]

EXERCISE: Final = Exercise(10, "meltdown", "Read what may not be read", __doc__, ".asm")
NOTHING: Final = ord("?")
LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SECRETS: Final = random.SystemRandom().sample(LETTERS, 3)
"""Another choice in each run: an answer that was written into the program is none."""


def _run(solution: Solution, secret: str, *, pti: bool) -> dict[str, Any]:
    return run(solution.path, caches="on", secret=secret, pti=pti)


@EXERCISE.check("it assembles, runs, and ends by itself")
def ends(solution: Solution) -> None:
    _run(solution, SECRETS[0], pti=False)


@EXERCISE.check("the core runs ahead of the forbidden load")
def window(solution: Solution) -> None:
    transient = _run(solution, SECRETS[0], pti=False)["transient"]
    if not transient["windows"]["fault"]:
        raise Wrong(
            "no load of the program's was refused by a page that is the kernel's: is r12 still where the secret is?"
        )
    if transient["loads"] < 2:
        raise Wrong(
            f"behind the forbidden load {transient['instructions'] - 1} instructions were executed that never retired, "
            "and none of them was a load. Does something wait for the forbidden load to be over? Does anything use its "
            "byte as an address?"
        )


@EXERCISE.check("the byte is found")
def found(solution: Solution) -> None:
    answers = {secret: _run(solution, secret, pti=False)["exit"]["code"] for secret in SECRETS}
    for secret, answer in answers.items():
        if answer == NOTHING:
            raise Wrong(
                "the answer is 63: no line was fast. Is the line that was touched one of the 256 that you time? A byte "
                "names a page, and a page has 4,096 bytes"
            )
        if answer != ord(secret) and len(set(answers.values())) == 1:
            raise Wrong(
                f"the answer is {answer}, whatever the secret is. Which lines were in the cache before the forbidden "
                "load, and which of the 256 times says something?"
            )
        if answer != ord(secret):
            raise Wrong(f"the secret was {ord(secret)}, the answer {answer}")


@EXERCISE.check("where nothing leaks, it does not guess")
def isolated(solution: Solution) -> None:
    answer = _run(solution, SECRETS[0], pti=True)["exit"]["code"]
    if answer != NOTHING:
        raise Wrong(
            f"with page-table isolation the answer is {answer}; but the byte was not even mapped. How does a line that "
            "comes from memory differ from one that was there?"
        )
