"""Waiting: a system call that cannot answer yet sleeps until something changes (include/linux/wait.h).

It returns a `Wait` in place of a result. Whoever changes something wakes the queue; then `attempt` runs again, as the
process that waits, and either has the result now or sleeps on. That is Linux's wait_event: the condition is looked at
again after every wake-up, because somebody else may have been faster.

>>> queue, box = WaitQueue(), []
>>> wait = Wait((queue,), lambda: box.pop() if box else None)
>>> woken = []
>>> queue.add(lambda: woken.append("me"))
>>> wait.attempt() is None
True
>>> box.append(7); queue.wake(); woken, wait.attempt()
(['me'], 7)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .siginfo import SIGKILL
from .signals import Signals, bit

__all__ = ["Wait", "WaitQueue"]


class WaitQueue:
    """Who wants to know when something changes."""

    def __init__(self) -> None:
        self.waiters: list[Callable[[], None]] = []

    def add(self, on_wake: Callable[[], None]) -> None:
        """Call `on_wake` at the next change."""
        self.waiters.append(on_wake)

    def remove(self, on_wake: Callable[[], None]) -> None:
        """Do not call it any more."""
        if on_wake in self.waiters:
            self.waiters.remove(on_wake)

    def wake(self) -> None:
        """Something changed."""
        for on_wake in list(self.waiters):
            on_wake()


@dataclass(slots=True)
class Wait:
    """A system call or a page fault that waits for any of `queues`, at most until the model's clock shows `deadline`
    (cycles).

    `attempt` returns the result or None, and may raise Errno. A signal ends the wait with `on_signal`: a negative
    errno, or one of Linux's -ERESTART codes (see signals.py).
    """

    queues: tuple[WaitQueue, ...]
    attempt: Callable[[], int | None]
    deadline: int | None = None
    on_timeout: int = 0
    on_signal: int = -512
    is_killable: bool = False
    """Only SIGKILL ends the wait."""
    is_io: bool = False
    """A page fault waits for a device (io_schedule): there is no system call to answer."""

    def ends_by(self, signals: Signals) -> bool:
        """Whether a signal that is pending ends the wait."""
        return bool(signals.pending & bit(SIGKILL)) if self.is_killable else signals.has_work
