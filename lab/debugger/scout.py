"""The scout: a guest that goes along a stretch, hears of what it was told to look for, and is then thrown away."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from emu import Event
from emu.probes import Probes

from ..event_text import describe
from ..places import Locator
from .guest import RSP, TICK, Edit, Guest
from .stops import Stop

__all__ = ["Found", "Happened", "Hit", "Scout"]

MOST_EVENTS: Final = 200
"""Lines of a log that anybody reads."""

Watched = Callable[[], Iterable[tuple[int, int, int]]]


@dataclass(frozen=True, slots=True)
class Hit:
    """Stop `number` was met. The run stops at `position` on its way forwards, at `back` on its way backwards."""

    number: int
    position: int
    back: int
    what: str


@dataclass(frozen=True, slots=True)
class Happened:
    """One event for a log: before the instruction at a position was done."""

    position: int
    cycle: int
    pid: int
    name: str
    symbol: str
    what: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a stretch held: the stop that was met first (or last), the events, and how far the scout came."""

    hit: Hit | None
    events: tuple[Happened, ...]
    position: int
    ended: bool


class Scout:
    """One search by one guest, beyond position `after`; to the first hit, or to the last one before `before`."""

    def __init__(self, guest: Guest, after: int, before: int | None) -> None:
        self.guest, self.machine, self.kernel = guest, guest.machine, guest.kernel
        self.probes = Probes(self.machine)
        self._after, self._before = after, before
        self._at: dict[int, list[Callable[[], object]]] = {}
        self._watched: list[tuple[Watched, Callable[[bool, int, int], None]]] = []
        self._pieces: list[tuple[int, int, int, Callable[[bool, int, int], None]]] = []
        self._compared: list[list[Any]] = []
        self._events: deque[Happened] = deque(maxlen=MOST_EVENTS)
        self._tried: tuple[int, ...] = ()
        self._function_at: int | None = None
        self._va = 0
        self.hit: Hit | None = None

    # --- what stops ask for -----------------------------------------------------------------------------------------

    def at(self, va: int, callback: Callable[[], object]) -> None:
        """Call back before the instruction at an address."""
        self._at.setdefault(va, []).append(callback)

    def on(self, name: str, callback: Callable[[Any], object]) -> None:
        """Call back when an event happens. Raises InputError for one that does not exist."""
        self.machine.events.on(name, callback)

    def watch(self, pieces: Watched, callback: Callable[[bool, int, int], None]) -> None:
        """Call back with (is_write, va, size) for accesses to pieces of memory, (pa, va, size), wherever they are."""
        self._watched.append((pieces, callback))

    def compare(self, value: Callable[[], object], callback: Callable[[], object], *, walks: bool = False) -> None:
        """Call back when a value is another one after a kernel function, with `walks` also after a page walk."""
        self._compared.append([value(), value, callback])
        if walks:
            self.on("page_walk", lambda _event: self._look())

    def log(self, names: Iterable[str]) -> None:
        """Keep the last events of some kinds."""
        locator = Locator(self.kernel)
        for name in names:
            self.on(name, partial(self._note, locator, name))

    def _note(self, locator: Locator, name: str, event: Event) -> None:
        position = self._now()
        if position >= self._after and (self._before is None or position < self._before):
            place = locator.place(event)
            symbol = place.symbol if place else ""
            self._events.append(Happened(position, event.cycle, event.pid, name, symbol, describe(event)))

    # --- what was found ---------------------------------------------------------------------------------------------

    @property
    def rsp(self) -> int:
        """The stack pointer now."""
        return int(self.machine.cpu.gprs[RSP])

    def _now(self) -> int:
        """Position of the instruction that is being done."""
        if self._function_at is not None:
            return self._function_at
        return self.probes.retired(self._va or self.machine.cpu.rip)

    def found(self, number: int, what: str = "", *, after: bool = False, retries: bool = False) -> None:
        """Stop `number` is met by the instruction that is being done; `after`: the run stops when it is done.

        With `retries` the same instruction, tried again after a fault, is not met again.
        """
        back = self._now()
        position = back + 1 if after else back
        if retries:
            tried = (number, self._va, self.machine.pid, self.probes.user_part(back))
            if tried == self._tried:
                return
            self._tried = tried
        hit = Hit(number, position, back, what)
        if self._before is not None:
            if back < self._before:
                self.hit = hit
        elif self.hit is None and position > self._after:
            self.hit = hit
            self._leave()

    def _leave(self) -> None:
        if self._function_at is not None:
            self.machine.stop()
        else:
            self.probes.stop()

    # --- listening --------------------------------------------------------------------------------------------------

    def arm(self, stops: Sequence[Stop]) -> None:
        """Listen for what the stops want. Raises InputError."""
        for number, stop in enumerate(stops):
            stop.arm(self, number)
        if self._at:
            self.probes.before(self._at, self._on_instruction)
        if self._watched:
            self._follow()
        function, self.machine.monitor = self.machine.monitor, self._on_function
        assert function is not None
        self._function = function

    def _on_instruction(self, va: int) -> None:
        self._va = va
        for callback in self._at[va]:
            callback()
        self._va = 0

    def _on_function(self, rip: int) -> None:
        """A kernel function: it may change data, page tables, and where everything is."""
        self._function_at = int(self.machine.state.instructions) - 1  # VMCALL has been counted
        try:
            for compared in self._compared:  # the guest may have changed it itself
                now = compared[1]()
                compared[0] = compared[0] if now is None else now
            self._function(rip)
            self._look()
            if self._watched:
                self._follow()
        finally:
            self._function_at = None

    def _look(self) -> None:
        for compared in self._compared:
            before, value, callback = compared
            compared[0] = now = value()
            if now != before and None not in (now, before):
                callback()
            elif now is None:
                compared[0] = before

    def _follow(self) -> None:
        """Find the frames of what is watched."""
        pieces = [(*piece, callback) for watched, callback in self._watched for piece in watched()]
        if pieces != self._pieces:
            self._pieces = pieces
            self.probes.accesses([(pa, pa + size - 1) for pa, _, size, _ in pieces], self._on_access)

    def _on_access(self, is_write: bool, pa: int, size: int) -> None:
        for first, va, length, callback in self._pieces:
            if first <= pa < first + length:
                callback(is_write, va + pa - first, size)

    # --- going ------------------------------------------------------------------------------------------------------

    def go(self, end: int | None, edits: Sequence[Edit], report: Callable[[int], None]) -> Found:
        """Go on to position `end` or until the first hit; `report(position)` is called now and then."""
        guest = self.guest
        target = guest.limit if end is None else end
        guest.apply(edits)
        while guest.position < target and not guest.ended:
            guest.run_to(guest.next_stop(target, edits))
            self.probes.settle()
            if self.hit is not None and self._before is None:
                break
            guest.apply(edits)
            if guest.position % (16 * TICK) == 0:
                report(guest.position)
        return Found(self.hit, tuple(self._events), guest.position, guest.ended)


def search(
    guest: Guest,
    stops: Sequence[Stop],
    span: tuple[int, int | None, int | None],
    edits: Sequence[Edit],
    report: Callable[[int], None],
    log: Sequence[str] = (),
) -> Found:
    """Send a guest to search: `span` is (after, before, end). Raises InputError for a stop that cannot be."""
    after, before, end = span
    scout = Scout(guest, after, before)
    scout.log(log)
    scout.arm(stops)
    return scout.go(end, edits, report)
