"""When to look: a bounded number of moments of a run of any length.

Nobody knows at the start how long a run will be. So every event is looked at first; when there are twice as many
moments as wanted, every second one is dropped and only every second event is looked at from then on, and so on. A run
of a thousand events and one of a thousand million both end with some hundred moments, spread over what happened. Where
little happens for long, time itself makes a moment due.

>>> from lab.options import Options
>>> from lab.session import Session
>>> session = Session(Options(programs=("programs/hello.asm",)))
>>> recorder = Recorder(session)
>>> _ = session.run()
>>> recorder.finish("the end")[-1].what
'exit: code 0'
"""

from __future__ import annotations

from functools import partial
from typing import Final

from emu import Event
from emu.hub import Subscription

from ..event_text import describe
from ..session import Session
from .snapshot import Snapshot, Watcher

__all__ = ["MOMENTS", "Recorder", "thinned"]

MOMENTS: Final = 100
"""Moments that a report wants; it has up to twice as many."""
EVENTS: Final = (
    *("exec", "fork", "exit", "page_fault", "syscall_exit", "signal"),
    *("context_switch", "interrupt", "tlb_miss"),
)
"""What may change the picture."""
MOST_MISSES: Final = 50_000
"""TLB misses come by the million, and each that Python hears of costs microseconds. After so many, no more are heard;
faults, system calls and ticks of the timer still are."""


class Recorder:
    """Subscribes to a session that has not run yet, and keeps snapshots of it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.watcher = Watcher(session.kernel)
        self._kept: list[Snapshot] = []
        self._stride, self._waiting, self._misses = 1, 0, 0
        self._subscriptions: dict[str, Subscription] = {
            name: session.kernel.on(name, partial(self._happened, name)) for name in EVENTS
        }

    def _happened(self, name: str, event: Event) -> None:
        if name == "tlb_miss":
            self._misses += 1
            if self._misses == MOST_MISSES:
                self._subscriptions[name].off()
        self._waiting += 1
        kernel = self._session.kernel
        ends = name == "exit"
        is_last = ends and event.pid == kernel.processes[0].pid
        if is_last or (self._is_due(event.cycle) and (ends or kernel.living_processes())):
            what = f"{name.replace('_', ' ').replace('tlb', 'TLB')}: {describe(event)}"
            self._keep(self.watcher.look(event.cycle, event.pid, what, ends=ends, must_stay=is_last))

    def _is_due(self, cycle: int) -> bool:
        """Whether enough has happened since the last moment, or enough time went by."""
        if not self._kept:
            return True
        elapsed = cycle - self._kept[0].cycle
        return self._waiting >= self._stride or (cycle - self._kept[-1].cycle) * MOMENTS > elapsed > 0

    def _keep(self, snapshot: Snapshot) -> None:
        self._waiting = 0
        self._kept.append(snapshot)
        if len(self._kept) > 2 * MOMENTS:
            self._kept = thinned(self._kept)
            self._stride *= 2

    def finish(self, what: str) -> list[Snapshot]:
        """The run is over, or was stopped: all moments, in order."""
        for subscription in self._subscriptions.values():
            subscription.off()
        kernel = self._session.kernel
        if kernel.living_processes():
            self._keep(self.watcher.look(kernel.now, kernel.machine.pid, what, must_stay=True))
        return self._kept


def thinned(snapshots: list[Snapshot]) -> list[Snapshot]:
    """Every second moment, and those that must stay."""
    return [snapshot for number, snapshot in enumerate(snapshots) if number % 2 == 0 or snapshot.must_stay]
