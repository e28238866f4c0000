"""System calls on files: for now the three that every process has open (fs/read_write.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from ..exceptions import Errno
from ..layout import TASK_SIZE
from . import syscall

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["read", "write"]

STDIN, STDOUT, STDERR = 0, 1, 2
MAX_RW_COUNT: Final = 0x7FFF_F000
"""Most bytes that one call moves (include/linux/fs.h)."""
CHUNK: Final = 1 << 20


def _descriptor(fd: int) -> int:
    return fd & 0xFFFF_FFFF


def _check_range(buffer: int, count: int) -> None:
    """Refuse a range that is not all in the user half, whatever is mapped there (access_ok). Raises Errno(EFAULT)."""
    if buffer + count > TASK_SIZE:
        raise Errno(errno.EFAULT)


@syscall(0)
def read(kernel: Kernel, fd: int, buffer: int, count: int) -> int:
    """Read from standard input."""
    if _descriptor(fd) != STDIN:
        raise Errno(errno.EBADF)
    _check_range(buffer, count)
    data = kernel.stdin_read(min(count, CHUNK))
    written = kernel.user.write(buffer, data)
    kernel.stdin_return(data[written:])
    if data and not written:
        raise Errno(errno.EFAULT)
    return written


@syscall(1)
def write(kernel: Kernel, fd: int, buffer: int, count: int) -> int:
    """Write to standard output or standard error; the count is shorter if the buffer is bad in the middle."""
    if _descriptor(fd) not in (STDOUT, STDERR):
        raise Errno(errno.EBADF)
    _check_range(buffer, count)
    stream = kernel.stdout if _descriptor(fd) == STDOUT else kernel.stderr
    done, count = 0, min(count, MAX_RW_COUNT)
    while done < count:
        wanted = min(CHUNK, count - done)
        data = kernel.user.read(buffer + done, wanted)
        stream.write(data)
        done += len(data)
        if len(data) < wanted:
            break
    stream.flush()
    if count and not done:
        raise Errno(errno.EFAULT)
    return done
