"""Events: everything that happens, as typed frozen records.

An event says what happened and when; who hears of it is the hub's business (`hub.py`). The record itself never changes,
but the machine does: `event.guest` is the machine as it is now, to look at and to change, and `event.stop()` ends the
run.

>>> Cr3Write(cycle=7, pid=1, value=0x5001, pcid=1, flush=False)
Cr3Write(cycle=7, pid=1, value=20481, pcid=1, flush=False)
>>> event_class("cr3_write").__name__
'Cr3Write'

A new kind of event is one frozen dataclass with the `@event` decorator, here or in the kernel.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from .exceptions import InputError

if TYPE_CHECKING:
    from .guest import Guest

__all__ = [
    "AccessEvent",
    "CacheFill",
    "Cr3Write",
    "Event",
    "ExceptionEvent",
    "InstructionEvent",
    "InterruptEvent",
    "ModeSwitch",
    "PageWalk",
    "TlbFlush",
    "TlbHit",
    "TlbMiss",
    "TransientEvent",
    "WalkStep",
    "event",
    "event_class",
    "event_name",
    "event_names",
]

_CLASSES: dict[str, type[Event]] = {}
_E = TypeVar("_E", bound="type[Event]")


class Happened:
    """Where an event happened; no field of it, so that it is neither compared nor shown nor written to a file."""

    __slots__ = ("_guest",)

    @property
    def guest(self) -> Guest:
        """The machine, now: its registers and memory. Raises InputError for an event that no machine told."""
        try:
            guest: Guest = self._guest  # type: ignore[attr-defined]
        except AttributeError:
            raise InputError("this event was not told by a machine, so there is no guest to look at") from None
        return guest

    def happen(self, guest: Guest) -> None:
        """Note whose event this is."""
        object.__setattr__(self, "_guest", guest)

    def stop(self) -> None:
        """End the run. It can be gone on with: nothing is left half done.

        At an `instruction` event the machine stops before that instruction; in the middle of an instruction (accesses,
        TLB, walks) at the end of its basic block; while the kernel works, when it is done.
        """
        self.guest.stop()


@dataclass(frozen=True, slots=True)
class Event(Happened):
    """What every event has: the model's clock in cycles, and the process (0: none)."""

    cycle: int
    pid: int


def event(name: str) -> Callable[[_E], _E]:
    """Class decorator: give a kind of event its name."""

    def register(cls: _E) -> _E:
        _CLASSES[name] = cls
        return cls

    return register


def event_names() -> list[str]:
    """All kinds of events that exist, sorted."""
    return sorted(_CLASSES)


def event_class(name: str) -> type[Event]:
    """The class of a kind of events. Raises InputError if there is no such kind."""
    if name not in _CLASSES:
        close = difflib.get_close_matches(name, _CLASSES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(event_names())}"
        raise InputError(f"unknown event {name!r}: {hint}")
    return _CLASSES[name]


def event_name(happened: Event) -> str:
    """The name of an event's kind."""
    return _NAMES[type(happened)]


class _Names(dict[type, str]):
    """Class to name, looked up lazily so that the kernel's events need no second registration."""

    def __missing__(self, cls: type) -> str:
        """Find the name of a class that is asked for the first time."""
        name = next(name for name, known in _CLASSES.items() if known is cls)
        self[cls] = name
        return name


_NAMES: Final = _Names()


@event("instruction")
@dataclass(frozen=True, slots=True)
class InstructionEvent(Event):
    """An instruction of `size` bytes (0: there is no such instruction) is about to execute.

    `cpl` is 3 in user mode and 0 in the kernel. A REP is one instruction, however often it repeats.
    """

    va: int
    size: int
    cpl: int


@event("access")
@dataclass(frozen=True, slots=True)
class AccessEvent(Event):
    """A load or store of `size` bytes. `kind` is `read` or `write`; `pa` is the physical address.

    What the kernel's Python functions touch is told as well, whole copies as one access a page, and as a `fetch` that
    one was entered.
    """

    kind: str
    va: int
    pa: int
    size: int
    cpl: int


@event("cache_fill")
@dataclass(frozen=True, slots=True)
class CacheFill(Event):
    """A line of 64 bytes at the physical address `pa` was brought into a cache (`l1d`, `l1i`; `l2` by a prefetch).

    `source` is where it was: `l2`, `llc` or `memory`. `use` is read, write, fetch, walk (an entry of a page table) or
    prefetch.
    """

    cache: str
    pa: int
    source: str
    use: str
    cpl: int


@event("tlb_hit")
@dataclass(frozen=True, slots=True)
class TlbHit(Event):
    """A TLB (`itlb`, `dtlb`; `stlb` where those missed) held the page; `access` is read, write or fetch.

    An instruction is one fetch; an access across two pages asks for both. Who listens has every instruction and every
    access looked at.
    """

    tlb: str
    va: int
    access: str
    cpl: int


@event("tlb_miss")
@dataclass(frozen=True, slots=True)
class TlbMiss(Event):
    """A first-level TLB (`itlb` or `dtlb`) did not hold the page; `access` is read, write or fetch."""

    tlb: str
    va: int
    access: str
    cpl: int


@dataclass(frozen=True, slots=True)
class WalkStep:
    """One entry that a page walk read: where it stands and what it held (before A and D were set)."""

    pa: int
    entry: int


@event("page_walk")
@dataclass(frozen=True, slots=True)
class PageWalk(Event):
    """A page walk, from the first entry that had to be read. `ok` is False if it ended in a fault."""

    va: int
    access: str
    cpl: int
    ok: bool
    steps: tuple[WalkStep, ...]


@event("exception")
@dataclass(frozen=True, slots=True)
class ExceptionEvent(Event):
    """An exception is delivered through the IDT. `address` is CR2 for a page fault; `rip` is what is pushed."""

    vector: int
    name: str
    error_code: int | None
    address: int | None
    rip: int
    cpl: int


@event("interrupt")
@dataclass(frozen=True, slots=True)
class InterruptEvent(Event):
    """An external interrupt is delivered."""

    vector: int
    rip: int
    cpl: int


@event("mode_switch")
@dataclass(frozen=True, slots=True)
class ModeSwitch(Event):
    """The processor enters the kernel (`cpl` 0) or goes to user mode (3); `rip` is where it comes from."""

    rip: int
    cpl: int


@event("cr3_write")
@dataclass(frozen=True, slots=True)
class Cr3Write(Event):
    """MOV to CR3. `flush` says whether it invalidated the PCID's translations (bit 63 clear)."""

    value: int
    pcid: int
    flush: bool


@event("tlb_flush")
@dataclass(frozen=True, slots=True)
class TlbFlush(Event):
    """Translations were invalidated; `reason` is the instruction, `va` and `pcid` its operands where it has them."""

    reason: str
    va: int | None
    pcid: int | None


@event("transient")
@dataclass(frozen=True, slots=True)
class TransientEvent(Event):
    """A transient window closed, and nothing of it retires.

    `cause` says what opened it at `rip`: a `fault` of the load of `address` there, or a `branch` or `return` that was
    guessed to lead there. It executed so many instructions, loads
    and stores, and brought `fills` lines to the first-level caches. `end` is what closed it: `capacity` (the
    reorder buffer is full, or the branch was known), `store_buffer` (it is full), `serializing` (an instruction that
    waits for all earlier ones) or `fault` (an exception inside).
    """

    cause: str
    rip: int
    address: int | None
    instructions: int
    loads: int
    stores: int
    fills: int
    end: str
