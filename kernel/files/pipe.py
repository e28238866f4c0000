"""Pipes and FIFOs: a ring of sixteen pages between writers and readers (fs/pipe.c).

Every write of up to PIPE_BUF bytes arrives in one piece: it fits into the last page as a whole, or gets a new one.

>>> Pipe.SLOTS * PAGE_SIZE
65536
"""

from __future__ import annotations

import errno
import stat
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SIZE

from ..exceptions import Errno
from ..wait import Wait, WaitQueue
from ..work import kernel_work
from .file import File, OpenFlag, Poll
from .inode import Dentry, Inode, SuperBlock
from .iov import IovIter

if TYPE_CHECKING:
    from ..kernel import Kernel
    from ..process import Process

__all__ = ["Fifo", "Pipe", "PipeEnd"]

SIGPIPE: Final = 13
PIPE_READ: Final = kernel_work("pipe_read", __name__, cycles=200)
PIPE_WRITE: Final = kernel_work("pipe_write", __name__, cycles=300)
"""Measured with a byte (see syscalls/__init__.py), less the 50 of the call itself."""


@dataclass(slots=True)
class Slot:
    """Bytes `start` to `end` of a page (struct pipe_buffer)."""

    pfn: int
    start: int
    end: int


class Pipe:
    """The ring. `readers` and `writers` count open ends; both queues wake at every change (struct pipe_inode_info)."""

    SLOTS: Final = 16
    MOST_SLOTS: Final = 256
    """A pipe can be made as large as 1 MiB (fs.pipe-max-size)."""

    def __init__(self, kernel: Kernel) -> None:
        self._memory, self._cache = kernel.memory, kernel.page_cache
        self.slots: deque[Slot] = deque()
        self._most = self.SLOTS
        self.readers = self.writers = 0
        self.readable, self.writable = WaitQueue(), WaitQueue()

    @property
    def full(self) -> bool:
        """Whether every page is taken."""
        return len(self.slots) >= self._most

    @property
    def capacity(self) -> int:
        """Bytes that it holds if every page is full."""
        return self._most * PAGE_SIZE

    def resize(self, size: int) -> int:
        """Have room for at least `size` bytes; returns for how many. Raises Errno: EINVAL, EPERM, EBUSY."""
        slots = 1 << max(-(-size // PAGE_SIZE) - 1, 0).bit_length()
        if size > 1 << 31:
            raise Errno(errno.EINVAL)
        if slots > self.MOST_SLOTS:
            raise Errno(errno.EPERM)
        if slots < len(self.slots):
            raise Errno(errno.EBUSY)
        self._most = slots
        self.writable.wake()
        return self.capacity

    @property
    def size(self) -> int:
        """Bytes that can be read."""
        return sum(slot.end - slot.start for slot in self.slots)

    def append(self, data: bytes) -> None:
        """Put up to a page into a new slot. Raises Errno(ENOMEM)."""
        pfn = self._cache.allocate(charge=False)
        self._memory.write(pfn * PAGE_SIZE, data)
        self.slots.append(Slot(pfn, 0, len(data)))
        self.readable.wake()

    def room_in_last(self, size: int) -> bool:
        """Whether so many bytes fit behind what the last page has."""
        return bool(self.slots) and self.slots[-1].end + size <= PAGE_SIZE

    def extend(self, data: bytes) -> None:
        """Put bytes behind those of the last page."""
        last = self.slots[-1]
        self._memory.write(last.pfn * PAGE_SIZE + last.end, data)
        last.end += len(data)
        self.readable.wake()

    def first(self, size: int) -> bytes:
        """Up to `size` bytes of the first page; they stay."""
        slot = self.slots[0]
        return self._memory.read(slot.pfn * PAGE_SIZE + slot.start, min(size, slot.end - slot.start))

    def consume(self, size: int) -> None:
        """Take so many bytes from the first page."""
        slot = self.slots[0]
        slot.start += size
        if slot.start == slot.end:
            self._cache.free(self.slots.popleft().pfn, charge=False)
            self.writable.wake()

    def close(self) -> None:
        """An end was closed: the others look again, and the last one leaves nothing behind."""
        self.readable.wake()
        self.writable.wake()
        if not self.readers and not self.writers:
            while self.slots:
                self._cache.free(self.slots.popleft().pfn, charge=False)


class Fifo(Inode):
    """A pipe as a file: with a name it is a FIFO, without one it is what pipe(2) makes."""

    def __init__(self, sb: SuperBlock, permissions: int = 0o600) -> None:
        super().__init__(sb, stat.S_IFIFO | permissions)
        self.pipe: Pipe | None = None

    def open(self, kernel: Kernel, dentry: Dentry, flags: int) -> PipeEnd:
        """An end of it. Raises Errno: ENXIO for a writer that would not wait while nobody reads (fifo_open)."""
        self.pipe = self.pipe or Pipe(kernel)
        only_writes = flags & OpenFlag.ACCMODE == OpenFlag.WRONLY
        if only_writes and flags & OpenFlag.NONBLOCK and not self.pipe.readers:
            raise Errno(errno.ENXIO)
        return PipeEnd(dentry, flags, kernel, self.pipe)


class PipeEnd(File):
    """One open end, or both."""

    def __init__(self, dentry: Dentry, flags: int, kernel: Kernel, pipe: Pipe) -> None:
        super().__init__(dentry, flags)
        self._kernel, self.pipe = kernel, pipe
        pipe.readers += self.readable
        pipe.writers += self.writable
        pipe.readable.wake()
        pipe.writable.wake()

    def partner(self) -> WaitQueue | None:
        """A FIFO's end waits for its other end, unless it is both or would not wait."""
        if self.nonblocking or self.readable == self.writable:
            return None
        if self.readable:
            return None if self.pipe.writers else self.pipe.readable
        return None if self.pipe.readers else self.pipe.writable

    def read(self, to: IovIter, position: int) -> int | Wait:
        """What is there, else wait for more until there is no writer. Raises Errno: EAGAIN, EFAULT."""
        if not to.left:
            return 0
        self._kernel.memory.enter(PIPE_READ)

        def attempt() -> int | None:
            return self._read_now(to)

        result = attempt()
        if result is not None:
            return result
        if self.nonblocking:
            raise Errno(errno.EAGAIN)
        return Wait((self.pipe.readable,), attempt)

    def _read_now(self, to: IovIter) -> int | None:
        """Bytes read, 0 at the end, None if there may be some later."""
        done = 0
        while self.pipe.slots and to.left:
            data = self.pipe.first(to.left)
            copied = to.copy_to(data)
            if copied < len(data):  # this page stays as it was
                if not done:
                    raise Errno(errno.EFAULT)
                return done
            self.pipe.consume(copied)
            done += copied
        return done if done or not self.pipe.writers else None

    def write(self, source: IovIter, position: int) -> int | Wait:
        """Put everything in, and wait for room if need be. Raises Errno: EPIPE, EAGAIN, EFAULT, ENOMEM."""
        if not source.left:
            return 0
        self._kernel.memory.enter(PIPE_WRITE)
        process = self._kernel.current
        self.check_readers(process)
        done = self._fill_last(source)

        def attempt() -> int | None:
            nonlocal done
            try:
                while source.left:
                    self.check_readers(process)
                    if self.pipe.full:
                        return None
                    done += self._fill_page(source)
                    wait.on_signal = done  # a signal ends the call, but what is in the pipe is written
            except Errno:
                if not done:
                    raise
            return done

        wait = Wait((self.pipe.writable,), attempt)
        if done:
            wait.on_signal = done
        result = attempt()
        if result is not None:
            return result
        if not self.nonblocking:
            return wait
        if not done:
            raise Errno(errno.EAGAIN)
        return done

    def check_readers(self, process: Process) -> None:
        """Raises Errno(EPIPE), and sends SIGPIPE, if nobody could ever read."""
        if self.pipe.readers:
            return
        self._kernel.send_signal(process, SIGPIPE, as_itself=True)
        raise Errno(errno.EPIPE)

    def _fill_last(self, source: IovIter) -> int:
        """Put the odd bytes of a write behind the last page's, if all of them fit. Raises Errno(EFAULT)."""
        odd = source.left % PAGE_SIZE
        if not odd or not self.pipe.room_in_last(odd):
            return 0
        data = source.copy_from(odd)
        if len(data) < odd:
            raise Errno(errno.EFAULT)
        self.pipe.extend(data)
        return odd

    def _fill_page(self, source: IovIter) -> int:
        """Put up to a page into a free slot, all or nothing. Raises Errno: EFAULT, ENOMEM."""
        wanted = min(source.left, PAGE_SIZE)
        data = source.copy_from(wanted)
        if len(data) < wanted:
            raise Errno(errno.EFAULT)
        self.pipe.append(data)
        return wanted

    def poll(self) -> int:
        """Readable with data or without writers; writable with a free page (pipe_poll)."""
        events = 0
        if self.readable:
            events |= Poll.READABLE if self.pipe.slots else 0
            events |= Poll.HUP if not self.pipe.writers else 0
        if self.writable:
            events |= Poll.WRITABLE if not self.pipe.full else 0
            events |= Poll.ERR if not self.pipe.readers else 0
        return events

    def available(self) -> int:
        """Bytes in the pipe."""
        return self.pipe.size

    def queues(self) -> tuple[WaitQueue, ...]:
        """Both directions."""
        return (self.pipe.readable, self.pipe.writable)

    def release(self) -> None:
        """One end less."""
        self.pipe.readers -= self.readable
        self.pipe.writers -= self.writable
        self.pipe.close()
