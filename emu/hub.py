"""Who listens to which events.

An event that nobody listens to is never built: the emitter asks `hub.wants("cr3_write")` first, and events of the
native code have a bit that it tests. A listener may be choosy: `pid`, `range` (of addresses) and `kind` say which
events of its kind it hears of, `once` that the first of them is enough.

>>> from emu.events import Cr3Write
>>> hub = Hub()
>>> @hub.on("cr3_write", pid=1)
... def show(event):
...     print(event)
>>> hub.emit(Cr3Write(cycle=7, pid=1, value=0x5001, pcid=1, flush=False))
Cr3Write(cycle=7, pid=1, value=20481, pcid=1, flush=False)
>>> hub.emit(Cr3Write(cycle=8, pid=2, value=0x6002, pcid=2, flush=False))
>>> show.off()
>>> hub.wants("cr3_write")
False
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack, overload

from .events import Event, event_class, event_name
from .exceptions import InputError

if TYPE_CHECKING:
    from .guest import Guest

__all__ = ["Choice", "Hub", "Subscription"]

Callback = Callable[[Any], object]

ADDRESS_FIELDS: Final = ("va", "address")
KIND_FIELDS: Final = ("kind", "access", "outcome", "name", "reason")
"""What `range=` and `kind=` look at: the first of these fields that an event has."""


class Choice(TypedDict, total=False):
    """Which events of its kind a listener hears of.

    `pid` is a process or several. `range` are virtual addresses: those events count that touch it. `kind` is a word, or
    several: read, write or fetch of an access, a TLB miss or a walk, the outcome of a page fault, the name of a system
    call, a signal or an exception, the reason of a flush. `once` ends the subscription with the first event.
    """

    once: bool
    pid: int | Collection[int] | None
    range: builtins.range | None
    kind: str | Collection[str] | None


class Subscription:
    """One listener. `off()` removes it; calling it calls the function, so a decorated function stays usable."""

    def __init__(self, hub: Hub, name: str, callback: Callback, choice: Choice) -> None:
        self._hub, self.name, self._callback = hub, name, callback
        self._once = choice.get("once", False)
        self._tests = _tests(name, choice)
        self.range = choice.get("range")

    def __call__(self, happened: Event) -> None:
        """Tell the listener, if this is one of those that it wants to hear of."""
        for test in self._tests:
            if not test(happened):
                return
        if self._once:
            self.off()
        self._callback(happened)

    def off(self) -> None:
        """Listen no more."""
        self._hub.remove(self)


def _tests(name: str, choice: Choice) -> list[Callable[[Any], bool]]:
    """What an event must pass. Raises InputError for a choice that its kind does not offer."""
    tests: list[Callable[[Any], bool]] = []
    pid, span, kind = choice.get("pid"), choice.get("range"), choice.get("kind")
    if pid is not None:
        pids = frozenset([pid] if isinstance(pid, int) else pid)
        tests.append(lambda happened: happened.pid in pids)
    if span is not None:
        tests.append(_touches(_field(name, "range", ADDRESS_FIELDS), span))
    if kind is not None:
        field, kinds = _field(name, "kind", KIND_FIELDS), frozenset([kind] if isinstance(kind, str) else kind)
        tests.append(lambda happened: getattr(happened, field) in kinds)
    return tests


def _touches(field: str, span: builtins.range) -> Callable[[Any], bool]:
    """A test whether an event's address, and the bytes from it on where it has a size, are in a range."""

    def test(happened: Any) -> bool:
        address = getattr(happened, field)
        if address is None:
            return False
        return bool(address < span.stop and address + max(getattr(happened, "size", 1), 1) > span.start)

    return test


def _field(name: str, asked: str, names: tuple[str, ...]) -> str:
    """The field of an event that a choice looks at. Raises InputError if there is none."""
    own = {field.name for field in fields(event_class(name))}
    found = next((field for field in names if field in own), None)
    if found is None:
        raise InputError(f"the event {name!r} has no {' or '.join(names)}, so it cannot be chosen by {asked}=")
    return found


def _hand_on(_happened: Event, error: BaseException) -> None:
    raise error


class Hub:
    """Who listens to what.

    `changed(name, wanted)` is called when a listener of a kind comes or goes, `failed(event, error)` when one raises.
    `guest` is what the events tell of.
    """

    def __init__(self) -> None:
        self._listeners: dict[str, list[Subscription]] = {}
        self.changed: Callable[[str, bool], None] = lambda _name, _wanted: None
        self.failed: Callable[[Event, BaseException], None] = _hand_on
        self.guest: Guest | None = None

    @overload
    def on(self, name: str, callback: Callback, **choice: Unpack[Choice]) -> Subscription: ...
    @overload
    def on(self, name: str, callback: None = None, **choice: Unpack[Choice]) -> Callable[[Callback], Subscription]: ...
    def on(
        self, name: str, callback: Callback | None = None, **choice: Unpack[Choice]
    ) -> Subscription | Callable[[Callback], Subscription]:
        """Subscribe to a kind of event, as a decorator or with a callback.

        Raises InputError for an unknown kind, and for a choice that the kind does not offer.
        """
        event_class(name)

        def subscribe(function: Callback) -> Subscription:
            subscription = Subscription(self, name, function, choice)
            listeners = self._listeners.setdefault(name, [])
            listeners.append(subscription)
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
            self.changed(subscription.name, bool(listeners))

    def wants(self, name: str) -> bool:
        """Whether anybody listens to this kind of event."""
        return name in self._listeners

    def span(self, name: str) -> tuple[int, int] | None:
        """First and last address that any listener of a kind asked for; None: all of them."""
        ranges = [listener.range for listener in self._listeners.get(name, ())]
        chosen = [span for span in ranges if span is not None and span.stop > span.start]
        if not chosen or len(chosen) < len(ranges):
            return None
        return min(span.start for span in chosen), max(span.stop for span in chosen) - 1

    def emit(self, happened: Event) -> None:
        """Hand an event to its listeners, in the order in which they came."""
        if self.guest is not None:
            happened.happen(self.guest)
        for listener in tuple(self._listeners.get(event_name(happened), ())):
            try:
                listener(happened)
            except BaseException as error:  # the machine stops first, then hands it on
                self.failed(happened, error)
