"""Events: everything that happens, as typed frozen records, for whoever subscribed.

An event that nobody listens to is never built: the emitter asks `hub.wants("cr3_write")` first, and events of the
native code set a bit that it tests.

>>> hub = Hub()
>>> @hub.on("cr3_write")
... def show(event):
...     print(event)
>>> hub.emit(Cr3Write(cycle=7, pid=1, value=0x5001, pcid=1, flush=False))
Cr3Write(cycle=7, pid=1, value=20481, pcid=1, flush=False)
>>> show.off()
>>> hub.wants("cr3_write")
False

A new kind of event is one frozen dataclass with the `@event` decorator, here or in the kernel.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, overload

from .exceptions import InputError

__all__ = [
    "AccessEvent",
    "Cr3Write",
    "Event",
    "ExceptionEvent",
    "Hub",
    "InstructionEvent",
    "InterruptEvent",
    "PageWalk",
    "Subscription",
    "TlbFlush",
    "TlbMiss",
    "TransientEvent",
    "WalkStep",
    "event",
    "event_class",
    "event_names",
]

_CLASSES: dict[str, type[Event]] = {}
_E = TypeVar("_E", bound="type[Event]")


@dataclass(frozen=True, slots=True)
class Event:
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
    """The dataclass of a kind of event. Raises KeyError."""
    return _CLASSES[name]


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
    """A load or store of `size` bytes. `kind` is `read` or `write`; `pa` is the physical address."""

    kind: str
    va: int
    pa: int
    size: int
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

    `cause` says what opened it at `rip`: a `fault` of the load of `address`. It executed so many instructions, loads
    and stores; `end` is what closed it: `reorder_buffer` or `store_buffer` (it is full), `serializing` (an
    instruction that waits for all earlier ones) or `fault` (an exception inside).
    """

    cause: str
    rip: int
    address: int | None
    instructions: int
    loads: int
    stores: int
    end: str


class Subscription:
    """One listener. `off()` removes it; calling it calls the function, so a decorated function stays usable."""

    def __init__(self, hub: Hub, name: str, callback: Callable[[Any], object], once: bool) -> None:
        self._hub, self.name, self._callback, self._once = hub, name, callback, once

    def __call__(self, happened: Event) -> None:
        """Tell the listener."""
        if self._once:
            self.off()
        self._callback(happened)

    def off(self) -> None:
        """Listen no more."""
        self._hub.remove(self)


class Hub:
    """Who listens to what. `changed(name, wanted)` is called when the first listener comes or the last one goes."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Subscription]] = {}
        self.changed: Callable[[str, bool], None] = lambda _name, _wanted: None

    @overload
    def on(self, name: str, callback: Callable[[Any], object], *, once: bool = False) -> Subscription: ...
    @overload
    def on(
        self, name: str, callback: None = None, *, once: bool = False
    ) -> Callable[[Callable[[Any], object]], Subscription]: ...
    def on(
        self, name: str, callback: Callable[[Any], object] | None = None, *, once: bool = False
    ) -> Subscription | Callable[[Callable[[Any], object]], Subscription]:
        """Subscribe to a kind of event, as a decorator or with a callback. Raises InputError for an unknown kind."""
        if name not in _CLASSES:
            close = difflib.get_close_matches(name, _CLASSES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(event_names())}"
            raise InputError(f"unknown event {name!r}: {hint}")

        def subscribe(function: Callable[[Any], object]) -> Subscription:
            subscription = Subscription(self, name, function, once)
            listeners = self._listeners.setdefault(name, [])
            listeners.append(subscription)
            if len(listeners) == 1:
                self.changed(name, True)
            return subscription

        return subscribe if callback is None else subscribe(callback)

    def remove(self, subscription: Subscription) -> None:
        """Remove one listener; removing it twice does no harm."""
        listeners = self._listeners.get(subscription.name, [])
        if subscription in listeners:
            listeners.remove(subscription)
            if not listeners:
                del self._listeners[subscription.name]
                self.changed(subscription.name, False)

    def wants(self, name: str) -> bool:
        """Whether anybody listens to this kind of event."""
        return name in self._listeners

    def emit(self, happened: Event) -> None:
        """Hand an event to its listeners, in the order in which they came."""
        for listener in tuple(self._listeners.get(_NAMES[type(happened)], ())):
            listener(happened)


class _Names(dict[type, str]):
    """Class to name, looked up lazily so that the kernel's events need no second registration."""

    def __missing__(self, cls: type) -> str:
        """Find the name of a class that is asked for the first time."""
        name = next(name for name, known in _CLASSES.items() if known is cls)
        self[cls] = name
        return name


_NAMES: Final = _Names()
