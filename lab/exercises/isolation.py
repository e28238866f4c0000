"""Isolate the page tables.

With page-table isolation every process has two PGDs, side by side: the kernel's, and 4 KiB above it the user's. The
entry code changes from one to the other by arithmetic on CR3 alone:

    bits 11-0   the PCID: 1 to 6 for the kernel; for the user the same with bit 11 set
    bit 12      which of the two PGDs
    bit 63      only written, never read back: 1 keeps what the TLB holds under the new PCID (NOFLUSH)

Write the three pieces that Linux has for it:

    to_kernel(cr3) -> the value to write to CR3 when the kernel is entered. It never flushes.
    to_user(cr3, flush) -> the value to write on the way out. `flush` says that the user's translations are out of date.
    user_entry(index, entry) -> what stands in the user's PGD where the kernel's has `entry`: the same for the user's
        half (indices 0 to 255), nothing for the kernel's half, except for index 508, the cpu_entry_area, which it
        takes to get in. The kernel's own entries of the user's half have NX (bit 63) set; the user's must not.
"""

from __future__ import annotations

from typing import Any, Final

from emu.pte import CR3_NOFLUSH, Pte

from .exercise import Exercise, Solution, Wrong

__all__ = ["EXERCISE"]

EXERCISE: Final = Exercise(9, "isolation", "Isolate the page tables", __doc__)
PGD: Final = 0x123_4000
USER_BITS: Final = 0x1800
ENTRY_AREA: Final = 508
NX: Final = int(Pte.NX)


def _value(solution: Solution, name: str, *arguments: Any) -> int:
    answer = solution.call(name, *arguments)
    if type(answer) is not int or not 0 <= answer < 1 << 64:
        shown = ", ".join(hex(a) if type(a) is int else str(a) for a in arguments)
        raise Wrong(f"{name}({shown}) returned {answer!r}: expected a number of 64 bits")
    return answer


def _parts(cr3: int) -> str:
    return f"PGD {cr3 & 0xFFFFFFFFFF000:#x}, PCID {cr3 & 0xFFF:#x}, {'NOFLUSH' if cr3 & CR3_NOFLUSH else 'flush'}"


def _same(call: str, answer: int, expected: int) -> None:
    if answer != expected:
        raise Wrong(f"{call}: {_parts(answer)}; expected {_parts(expected)}")


@EXERCISE.check("the kernel is entered on its own PGD, with its own PCID, without a flush")
def to_kernel(solution: Solution) -> None:
    for pcid in range(1, 7):
        cr3 = PGD | USER_BITS | pcid
        _same(f"to_kernel({cr3:#x})", _value(solution, "to_kernel", cr3), PGD | pcid | CR3_NOFLUSH)


@EXERCISE.check("an interrupt of the kernel itself changes nothing")
def nested(solution: Solution) -> None:
    cr3 = PGD | 3
    answer = _value(solution, "to_kernel", cr3)
    _same(f"to_kernel({cr3:#x}), when the kernel itself was interrupted", answer, cr3 | CR3_NOFLUSH)


@EXERCISE.check("the user gets the user's PGD and PCID, and keeps what the TLB holds")
def to_user(solution: Solution) -> None:
    for pcid in range(1, 7):
        answer = _value(solution, "to_user", PGD | pcid, False)
        _same(f"to_user({PGD | pcid:#x}, False)", answer, PGD | USER_BITS | pcid | CR3_NOFLUSH)


@EXERCISE.check("translations that are out of date are flushed, once")
def flushed(solution: Solution) -> None:
    _same(f"to_user({PGD | 2:#x}, True)", _value(solution, "to_user", PGD | 2, True), PGD | USER_BITS | 2)
    answer = _value(solution, "to_user", PGD | 2, False)
    _same("to_user(..., False) after a to_user(..., True)", answer, PGD | USER_BITS | 2 | CR3_NOFLUSH)


@EXERCISE.check("there and back again is where it began")
def round_trip(solution: Solution) -> None:
    user = PGD | USER_BITS | 5
    kernel = _value(solution, "to_kernel", user) & ~CR3_NOFLUSH  # as reading CR3 would give it
    back = _value(solution, "to_user", kernel, False) & ~CR3_NOFLUSH
    _same("to_user(to_kernel(cr3))", back, user)


@EXERCISE.check("the user's PGD has the user's half")
def users_half(solution: Solution) -> None:
    for index in (0, 1, 255):
        entry = 0x55_5067
        answer = _value(solution, "user_entry", index, entry | NX)
        if answer & NX:
            raise Wrong(f"user_entry({index}, {entry | NX:#x}) has NX set: nothing of the program could be executed")
        if answer != entry:
            raise Wrong(f"user_entry({index}, {entry | NX:#x}) is {answer:#x}, expected {entry:#x}")
    if _value(solution, "user_entry", 7, 0):
        raise Wrong("user_entry(7, 0): where the kernel's PGD has nothing, the user's has something")


@EXERCISE.check("and of the kernel's half only what it takes to get in")
def kernels_half(solution: Solution) -> None:
    for index in (256, 273, 402, 509, 511):
        if answer := _value(solution, "user_entry", index, 0x77_7063):
            raise Wrong(
                f"user_entry({index}, ...) is {answer:#x}: with this entry, an out-of-order load of user mode finds "
                "the kernel's memory"
            )
    if not _value(solution, "user_entry", ENTRY_AREA, 0x77_7063):
        raise Wrong(f"user_entry({ENTRY_AREA}, ...) is nothing: the next system call would be a double fault")
    if _value(solution, "user_entry", ENTRY_AREA, 0x77_7063 | NX) != 0x77_7063 | NX:
        raise Wrong(f"user_entry({ENTRY_AREA}, ...): the entry of the kernel's own half is not the same in both PGDs")
