"""Where a read puts its bytes and a write takes them from (struct iov_iter, lib/iov_iter.c).

Files move bytes to and from an iterator and do not care whether it goes over one buffer of the user's (read), several
(readv), or memory of the kernel's own (sendfile). A bad address shows as a short count.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ..uaccess import UserMemory

__all__ = ["IovIter", "KernelIter", "UserIter"]


class IovIter(ABC):
    """`left` is how many bytes can still be moved."""

    left: int

    @abstractmethod
    def copy_from(self, size: int) -> bytes:
        """Take up to `size` bytes; fewer at the end or before a bad address."""

    @abstractmethod
    def copy_to(self, data: bytes) -> int:
        """Put bytes; returns how many, fewer than asked at the end or before a bad address."""


class UserIter(IovIter):
    """Over segments (va, size) of the current process's memory."""

    def __init__(self, user: UserMemory, segments: Sequence[tuple[int, int]]) -> None:
        self._user = user
        self._segments = [segment for segment in reversed(segments) if segment[1]]
        self.left = sum(size for _, size in segments)

    def _advance(self, size: int) -> None:
        va, length = self._segments.pop()
        if size < length:
            self._segments.append((va + size, length - size))
        self.left -= size

    def copy_from(self, size: int) -> bytes:
        """Take up to `size` bytes."""
        taken = bytearray()
        while self._segments and len(taken) < size:
            va, length = self._segments[-1]
            wanted = min(length, size - len(taken))
            part = self._user.read(va, wanted)
            taken += part
            self._advance(len(part))
            if len(part) < wanted:
                break
        return bytes(taken)

    def copy_to(self, data: bytes) -> int:
        """Put bytes."""
        done = 0
        while self._segments and done < len(data):
            va, length = self._segments[-1]
            part = data[done : done + length]
            written = self._user.write(va, part)
            done += written
            self._advance(written)
            if written < len(part):
                break
        return done


class KernelIter(IovIter):
    """Over memory of the kernel's own: `data` is what is left to take, or what was put. At most `room` can be put.

    >>> to = KernelIter(room=3)
    >>> to.copy_to(b"abcd"), to.data, to.left
    (3, b'abc', 0)
    """

    def __init__(self, data: bytes = b"", room: int = 0) -> None:
        self.data = data
        self.left = len(data) + room

    def copy_from(self, size: int) -> bytes:
        """Take up to `size` bytes."""
        taken, self.data = self.data[:size], self.data[size:]
        self.left -= len(taken)
        return taken

    def copy_to(self, data: bytes) -> int:
        """Put bytes."""
        part = data[: self.left]
        self.data += part
        self.left -= len(part)
        return len(part)
