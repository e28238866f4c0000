"""Guest RAM: one host buffer, mapped into Unicorn at physical address 0.

Page tables are real 8-byte entries in it, and nothing about translation is kept anywhere else.

>>> ram = Ram(1 << 20)
>>> ram.write(0x1000, b"hello")
>>> ram.read(0x1000, 5)
b'hello'
>>> ram.store64(0x2000, 0x8000_0000_0000_0067)
>>> hex(ram.load64(0x2000))
'0x8000000000000067'
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from .exceptions import InputError, MachineError
from .pte import PAGE_SHIFT, PAGE_SIZE

__all__ = ["Ram", "parse_size"]

_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parse_size(text: str | int) -> int:
    """Bytes of a size such as `64M`, `4096` or `1G`. Raises InputError.

    >>> parse_size("64M")
    67108864
    """
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"(\d+)\s*([kmg]?)(?:i?b)?", text.strip().lower())
    if not match:
        raise InputError(f"{text!r} is not a size; write it as 64M, 1G or a number of bytes")
    return int(match[1]) * _UNITS[match[2]]


class Ram:
    """`size` bytes of physical memory, all zero at power-on.

    `words` is the whole of it as unsigned 64-bit words. `on_code_write` is called with a frame number when the
    host writes to a frame whose code Unicorn may have translated (`frame_flags` knows which).
    """

    def __init__(self, size: int) -> None:
        if size < 16 * PAGE_SIZE or size % PAGE_SIZE:
            raise InputError(f"RAM of {size} bytes: it must be a multiple of 4096 and at least 64K")
        self.size = size
        self.words = np.zeros(size // 8, dtype=np.uint64)
        self.bytes: npt.NDArray[np.uint8] = self.words.view(np.uint8)
        self._memory = memoryview(self.bytes)  # type: ignore[arg-type]
        self._words = memoryview(self.words)  # type: ignore[arg-type]
        self.frame_flags = np.zeros(size >> PAGE_SHIFT, dtype=np.uint64)
        self.frame_va = np.zeros(size >> PAGE_SHIFT, dtype=np.uint64)
        self._flags = memoryview(self.frame_flags)  # type: ignore[arg-type]
        self.on_code_write: Callable[[int], None] = lambda _pfn: None

    def _check(self, pa: int, size: int) -> None:
        if pa < 0 or pa + size > self.size:
            raise MachineError(f"physical address {pa:#x} is outside RAM ({self.size:#x} bytes)")

    def _note_write(self, pa: int, size: int) -> None:
        for pfn in range(pa >> PAGE_SHIFT, ((pa + size - 1) >> PAGE_SHIFT) + 1):
            if self._flags[pfn] & 1:
                self.on_code_write(pfn)

    def read(self, pa: int, size: int) -> bytes:
        """`size` bytes at a physical address. Raises MachineError outside RAM."""
        self._check(pa, size)
        return bytes(self._memory[pa : pa + size])

    def write(self, pa: int, data: bytes) -> None:
        """Store bytes at a physical address. Raises MachineError outside RAM."""
        if data:
            self._check(pa, len(data))
            self._memory[pa : pa + len(data)] = data
            self._note_write(pa, len(data))

    def zero(self, pa: int, size: int) -> None:
        """Clear `size` bytes."""
        self._check(pa, size)
        self.bytes[pa : pa + size] = 0
        self._note_write(pa, size)

    def load64(self, pa: int) -> int:
        """The 8-byte word at an aligned physical address."""
        self._check(pa, 8)
        return self._words[pa >> 3]

    def store64(self, pa: int, value: int) -> None:
        """Store an 8-byte word at an aligned physical address."""
        self._check(pa, 8)
        self._words[pa >> 3] = value
        if self._flags[pa >> PAGE_SHIFT] & 1:
            self.on_code_write(pa >> PAGE_SHIFT)
