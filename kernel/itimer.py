"""The alarm clock of a process: alarm(2), setitimer(ITIMER_REAL) (kernel/time/itimer.c).

When it rings, the process gets SIGALRM. An alarm that repeats is set again when that signal is *taken*, not when it is
sent: alarms that nobody takes do not pile up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from .siginfo import SIGALRM
from .timers import Timer

if TYPE_CHECKING:
    from .kernel import Kernel
    from .process import Process

__all__ = ["IntervalTimer", "read_itimer", "restart_itimer", "set_itimer"]


@dataclass(slots=True)
class IntervalTimer:
    """Times in cycles. `timer` is None while it does not run; `interval` is 0 if it rings only once."""

    timer: Timer | None = None
    last: int = 0
    interval: int = 0


def read_itimer(kernel: Kernel, process: Process) -> tuple[int, int]:
    """Cycles until it rings (0: never), and between two rings."""
    clock = process.alarm
    left = max(clock.timer.deadline - kernel.now, 1) if clock.timer is not None else 0
    return left, clock.interval


def set_itimer(kernel: Kernel, process: Process, cycles: int, interval: int) -> None:
    """Let it ring in so many cycles (0: not any more), and then again and again if there is an interval."""
    clock = process.alarm
    if clock.timer is not None:
        kernel.scheduler.timers.cancel(clock.timer)
        clock.timer = None
    clock.interval = interval if cycles else 0
    if cycles:
        _start(kernel, process, kernel.now + cycles)


def restart_itimer(kernel: Kernel, process: Process) -> None:
    """SIGALRM was taken: the next ring is a whole number of intervals after the last one (hrtimer_forward)."""
    clock = process.alarm
    if clock.interval and clock.timer is None:
        missed = max(kernel.now - clock.last, 0) // clock.interval
        _start(kernel, process, clock.last + (missed + 1) * clock.interval)


def _start(kernel: Kernel, process: Process, deadline: int) -> None:
    process.alarm.timer = kernel.scheduler.timers.start(deadline, partial(_ring, kernel, process))
    kernel.scheduler.start_timer()


def _ring(kernel: Kernel, process: Process) -> None:
    """Its time has come (it_real_fn)."""
    clock = process.alarm
    assert clock.timer is not None
    clock.last, clock.timer = clock.timer.deadline, None
    kernel.send_signal(process, SIGALRM)
