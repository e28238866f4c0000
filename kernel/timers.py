"""Timers: what shall happen at a time (kernel/time/hrtimer.c).

>>> timers, fired = Timers(), []
>>> late, soon = timers.start(200, lambda: fired.append("late")), timers.start(100, lambda: fired.append("soon"))
>>> timers.next_deadline
100
>>> timers.expire(150); timers.cancel(late); timers.expire(300); fired
['soon']
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["BOOT_TIME", "Timer", "Timers"]

BOOT_TIME: Final = 1_767_225_600
"""Seconds since 1970 at boot: the first of January 2026, so that runs repeat."""


@dataclass(frozen=True, eq=False, slots=True)
class Timer:
    """One thing that happens once, when the model's clock shows `deadline` (cycles)."""

    deadline: int
    action: Callable[[], None]


class Timers:
    """All timers that run."""

    def __init__(self) -> None:
        self._running: list[Timer] = []

    def start(self, deadline: int, action: Callable[[], None]) -> Timer:
        """Let something happen at a time."""
        timer = Timer(deadline, action)
        self._running.append(timer)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Let it not happen, if it has not yet."""
        if timer in self._running:
            self._running.remove(timer)

    @property
    def next_deadline(self) -> int | None:
        """When the first one is due; None if there is none."""
        return min((timer.deadline for timer in self._running), default=None)

    def expire(self, now: int) -> None:
        """Let happen what is due, in the order of time."""
        for timer in sorted(self._running, key=lambda timer: timer.deadline):
            if timer.deadline <= now and timer in self._running:
                self._running.remove(timer)
                timer.action()
