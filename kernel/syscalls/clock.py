"""System calls on time. The clock is the model's: it starts at boot and knows nothing of the host's."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from ..exceptions import Errno
from ..signals import ERESTART_RESTARTBLOCK
from ..timers import BOOT_TIME
from ..wait import Wait
from . import syscall

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["clock_gettime", "clock_nanosleep", "nanosleep"]

SECOND: Final = 1_000_000_000
REALTIME, MONOTONIC, PROCESS, THREAD = 0, 1, 2, 3
CLOCKS: Final = frozenset(range(12)) - {10}
WALL_CLOCKS: Final = frozenset({0, 5, 8, 11})
ABSTIME: Final = 1


def _read(kernel: Kernel, clock: int) -> int:
    """Nanoseconds of a clock. Raises Errno(EINVAL)."""
    clock &= 0xFFFF_FFFF
    if clock not in CLOCKS:
        raise Errno(errno.EINVAL)
    if clock in (PROCESS, THREAD):
        kernel.scheduler.account()
        return kernel.machine.clock.nanoseconds(kernel.current.cycles)
    return kernel.nanoseconds() + (BOOT_TIME * SECOND if clock in WALL_CLOCKS else 0)


@syscall(228)
def clock_gettime(kernel: Kernel, clock: int, va: int) -> int:
    """What a clock shows (struct timespec)."""
    kernel.user.copy_to(va, struct.pack("<2q", *divmod(_read(kernel, clock), SECOND)))
    return 0


@syscall(229)
def clock_getres(kernel: Kernel, clock: int, va: int) -> int:
    """How fine a clock is: one nanosecond."""
    _read(kernel, clock)
    if va:
        kernel.user.copy_to(va, struct.pack("<2q", 0, 1))
    return 0


@syscall(96)
def gettimeofday(kernel: Kernel, va: int, zone: int) -> int:
    """Wall-clock time (struct timeval)."""
    if va:
        seconds, nanoseconds = divmod(_read(kernel, REALTIME), SECOND)
        kernel.user.copy_to(va, struct.pack("<2q", seconds, nanoseconds // 1000))
    if zone:
        kernel.user.copy_to(zone, bytes(8))
    return 0


@syscall(201)
def time(kernel: Kernel, va: int) -> int:
    """Wall-clock time in seconds."""
    seconds = _read(kernel, REALTIME) // SECOND
    if va:
        kernel.user.copy_to(va, struct.pack("<q", seconds))
    return seconds


@syscall(35)
def nanosleep(kernel: Kernel, wanted: int, rest: int) -> int | Wait:
    """Sleep for a time."""
    return _sleep(kernel, read_timespec(kernel, wanted), rest)


@syscall(230)
def clock_nanosleep(kernel: Kernel, clock: int, flags: int, wanted: int, rest: int) -> int | Wait:
    """Sleep for a time, or until a time."""
    now = _read(kernel, clock)
    length = read_timespec(kernel, wanted)
    if flags & ABSTIME:
        return _sleep(kernel, max(length - now, 0), 0)
    return _sleep(kernel, length, rest)


def read_timespec(kernel: Kernel, va: int) -> int:
    """A struct timespec in nanoseconds. Raises Errno: EFAULT, EINVAL."""
    seconds, nanoseconds = struct.unpack("<2q", kernel.user.copy_from(va, 16))
    if seconds < 0 or not 0 <= nanoseconds < SECOND:
        raise Errno(errno.EINVAL)
    return int(seconds * SECOND + nanoseconds)


def _sleep(kernel: Kernel, nanoseconds: int, rest: int) -> int | Wait:
    deadline = kernel.now + kernel.cycles(nanoseconds)

    def attempt() -> int | None:
        left = deadline - kernel.now
        if left > 0 and rest and kernel.current.signals.has_work:
            parts = divmod(kernel.machine.clock.nanoseconds(left), SECOND)
            kernel.user.write(rest, struct.pack("<2q", *parts))
        return None if left > 0 else 0

    return Wait((), attempt, deadline, 0, -ERESTART_RESTARTBLOCK)
