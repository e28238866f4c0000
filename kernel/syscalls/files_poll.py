"""Waiting for several files at once (fs/select.c)."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from ..exceptions import Errno
from ..files.file import Poll
from ..wait import Wait, WaitQueue
from . import syscall
from .files_arguments import int32

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["poll", "ppoll"]

POLLFD: Final = struct.Struct("<ihh")
"""struct pollfd: fd, events, revents."""


@syscall(7)
def poll(kernel: Kernel, fds_va: int, count: int, timeout: int) -> int | Wait:
    """Wait until one of several files is ready, for some milliseconds; for ever if they are negative."""
    milliseconds = int32(timeout)
    return _poll(kernel, fds_va, count, None if milliseconds < 0 else milliseconds * 1_000_000)


@syscall(271)
def ppoll(kernel: Kernel, fds_va: int, count: int, timeout_va: int) -> int | Wait:
    """The same with a struct timespec, for ever if there is none."""
    nanoseconds = None
    if timeout_va:
        seconds, fraction = struct.unpack("<qq", kernel.user.copy_from(timeout_va, 16))
        if seconds < 0 or not 0 <= fraction < 1_000_000_000:
            raise Errno(errno.EINVAL)
        nanoseconds = seconds * 1_000_000_000 + fraction
    return _poll(kernel, fds_va, count, nanoseconds)


def _poll(kernel: Kernel, fds_va: int, count: int, nanoseconds: int | None) -> int | Wait:
    if count > kernel.current.files.limit:
        raise Errno(errno.EINVAL)
    records = list(POLLFD.iter_unpack(kernel.user.copy_from(fds_va, POLLFD.size * count)))

    def attempt() -> int | None:
        answers = [_ready(kernel, fd, events) for fd, events, _ in records]
        ready = sum(1 for answer in answers if answer)
        if not ready and nanoseconds != 0:
            return None
        for index, answer in enumerate(answers):
            kernel.user.copy_to(fds_va + POLLFD.size * index + 6, struct.pack("<h", answer))
        return ready

    result = attempt()
    if result is not None:
        return result
    deadline = None if nanoseconds is None else kernel.now + kernel.cycles(nanoseconds)
    return Wait(tuple(_queues(kernel, [fd for fd, _, _ in records])), attempt, deadline, on_signal=-errno.EINTR)


def _ready(kernel: Kernel, fd: int, events: int) -> int:
    """Which of the awaited events are true; errors always count."""
    if fd < 0:
        return 0
    try:
        file = kernel.current.files.file(fd)
    except Errno:
        return Poll.NVAL
    return file.poll() & (events | Poll.ERR | Poll.HUP)


def _queues(kernel: Kernel, fds: list[int]) -> dict[WaitQueue, None]:
    files = kernel.current.files
    return {queue: None for fd in fds if fd >= 0 for queue in files.file(fd).queues()}
