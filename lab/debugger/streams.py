"""What passes between a guest that may run the same stretch many times, and a host where everything happens once.

The guest's input is read from the host once and remembered; a guest that comes by again gets the same bytes in the
same portions. Its output is shown the first time only.

>>> import io
>>> shown = io.BytesIO()
>>> record = Output(shown)
>>> record.take(0, b"hello "), record.take(6, b"world"), record.take(0, b"hello ")
(None, None, None)
>>> shown.getvalue(), record.until(6)
(b'hello world', b'hello ')
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO

from emu.pte import PAGE_SIZE

__all__ = ["Input", "Output", "RecordedInput", "ReportedOutput"]


class Input:
    """Everything that was ever read from the host's stream, in portions. `wait` returns when there may be more."""

    def __init__(self, stream: BinaryIO | None, wait: Callable[[BinaryIO], None] = lambda _stream: None) -> None:
        self._stream, self._wait = stream or io.BytesIO(), wait
        self._portions: list[bytes] = []

    def portion(self, number: int, size: int) -> bytes:
        """What the read with a number gets: at most `size` bytes, the same every time; empty at the end."""
        if number == len(self._portions):
            self._wait(self._stream)
            read = getattr(self._stream, "read1", self._stream.read)
            self._portions.append(bytes(read(size)))
        portion = self._portions[number]
        if len(portion) > size:  # another guest than the one that read it: somebody changed the past
            self._portions[number : number + 1] = [portion[:size], portion[size:]]
        return self._portions[number]


class Output:
    """Everything that was ever written to one of the guest's streams; what is new goes on to the host's."""

    def __init__(self, stream: BinaryIO | None) -> None:
        self._stream, self._written = stream, bytearray()

    def take(self, offset: int, data: bytes) -> None:
        """The guest wrote at an offset."""
        new = data[max(len(self._written) - offset, 0) :]
        self._written += new
        if new and self._stream is not None:
            self._stream.write(new)
            self._stream.flush()

    def until(self, offset: int) -> bytes:
        """What was written before an offset."""
        return bytes(self._written[:offset])

    def forget(self, offset: int) -> None:
        """The past was changed: what comes from an offset on will be new again."""
        del self._written[offset:]


class RecordedInput(io.RawIOBase):
    """Standard input in the machine's process: `ask(number, size)` gets a portion from the record."""

    def __init__(self, ask: Callable[[int, int], bytes]) -> None:
        self._ask, self.number = ask, 0

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next portion."""
        portion = self._ask(self.number, size if size >= 0 else PAGE_SIZE)
        self.number += 1
        return portion


class ReportedOutput(io.RawIOBase):
    """Standard output or error in the machine's process: `tell(offset, data)` reports what is written."""

    def __init__(self, tell: Callable[[int, bytes], None]) -> None:
        self._tell, self.offset = tell, 0

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Report all of it."""
        self._tell(self.offset, bytes(data))
        self.offset += len(data)
        return len(data)
