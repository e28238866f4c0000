"""Waiting: a system call that cannot go on sleeps in the queues of what it waits for (include/linux/wait.h).

Whoever changes a state wakes its queue; everybody in it tries again, and sleeps on if it was too little.

>>> queue, log = WaitQueue(), []
>>> class Sleeper:
...     def on_wake(self):
...         log.append("awake")
>>> queue.waiters.append(Sleeper())
>>> queue.wake(); log
['awake']
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Wait", "WaitQueue", "Waiter"]


class Waiter(Protocol):
    """Who sleeps in a queue."""

    def on_wake(self) -> None:
        """The state has changed."""
        ...


class WaitQueue:
    """Those who wait for one state to change (struct wait_queue_head)."""

    def __init__(self) -> None:
        self.waiters: list[Waiter] = []

    def wake(self) -> None:
        """Let everybody look again (wake_up)."""
        for waiter in tuple(self.waiters):
            waiter.on_wake()


@dataclass(frozen=True, slots=True)
class Wait:
    """What a system call returns that must wait.

    `attempt` is called in the process's own context after each wake-up: it returns the result, or None to go on
    sleeping, or raises Errno. At `deadline`, a cycle of the model's clock, the call returns `on_timeout`.
    """

    queues: tuple[WaitQueue, ...]
    attempt: Callable[[], int | None]
    deadline: int | None = None
    on_timeout: int = 0
