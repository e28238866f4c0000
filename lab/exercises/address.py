"""Take a virtual address apart.

With four levels of page tables, an address of 48 bits selects one of 512 entries in each of four tables, and then a
byte of a page of 4 KiB. Write

    split(va) -> (pgd, pud, pmd, pte, offset)

which returns the four indices and the offset. Any canonical address may come, the kernel's too: those have bits 63 to
48 set. `cr3 walk PROGRAM ADDRESS` shows how the processor does it.
"""

from __future__ import annotations

import random
from typing import Any, Final

from .exercise import Exercise, Solution, Wrong

__all__ = ["EXERCISE"]

EXERCISE: Final = Exercise(1, "address", "Take an address apart", __doc__)
PARTS: Final = ("PGD index", "PUD index", "PMD index", "PTE index", "offset")
LECTURE: Final = 0x1_8000_1008
SEED: Final = 48


def _split(solution: Solution, va: int) -> tuple[int, ...]:
    answer: Any = solution.call("split", va)
    if not isinstance(answer, tuple | list) or len(answer) != len(PARTS) or not all(type(n) is int for n in answer):
        raise Wrong(f"split({va:#x}) returned {answer!r}: expected five whole numbers, four indices and the offset")
    return tuple(answer)


def _part_of(bit: int) -> str:
    """Which part of an address a bit belongs to."""
    return PARTS[4] if bit < 12 else PARTS[3 - (bit - 12) // 9]


@EXERCISE.check("five numbers come back, and put together they are the address")
def lecture(solution: Solution) -> None:
    parts = _split(solution, LECTURE)
    for name, part in zip(PARTS, parts, strict=True):
        limit = 4096 if name == "offset" else 512
        if not 0 <= part < limit:
            raise Wrong(f"the {name} of {LECTURE:#x} is {part:#x}, but there are only {limit} to choose from")
    if _split(solution, 1)[0] == 1:
        raise Wrong("the parts come in the wrong order: the processor begins with the PGD")


@EXERCISE.check("each bit of the address belongs to one part")
def one_part(solution: Solution) -> None:
    for bit in range(48):
        before, after = _split(solution, LECTURE), _split(solution, LECTURE ^ 1 << bit)
        changed = [name for name, a, b in zip(PARTS, before, after, strict=True) if a != b]
        if changed != [_part_of(bit)]:
            which = f"changed {' and '.join(changed)}" if changed else "changed nothing"
            raise Wrong(
                f"a single bit, number {bit}, was turned over in {LECTURE:#x}, and that {which}. It should change one "
                "part, the right one: how many bits does it take to choose among 512 entries?"
            )


@EXERCISE.check("indices stay below 512 in the kernel's half")
def kernel_half(solution: Solution) -> None:
    draw = random.Random(SEED)
    for _ in range(200):
        va = 0xFFFF_8000_0000_0000 | draw.getrandbits(47)
        for name, part in zip(PARTS, _split(solution, va), strict=True):
            if not 0 <= part < (4096 if name == "offset" else 512):
                raise Wrong(f"the {name} of {va:#x} is {part:#x}: bits 63 to 48 select nothing")


@EXERCISE.check("random addresses agree with the processor")
def random_addresses(solution: Solution) -> None:
    draw = random.Random(SEED)
    for _ in range(500):
        va = draw.getrandbits(47)
        expected = (*(va >> shift & 511 for shift in (39, 30, 21, 12)), va & 4095)
        if _split(solution, va) != expected:
            wrong = [name for name, a, b in zip(PARTS, _split(solution, va), expected, strict=True) if a != b]
            raise Wrong(f"for {va:#x} the processor uses another {' and another '.join(wrong)}")
