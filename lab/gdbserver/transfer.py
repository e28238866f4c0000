r"""What GDB reads from the other side as files: the target description, and the program itself with its symbols.

>>> chunk(b"target", b"0,4"), chunk(b"target", b"4,4")
(b'mtarg', b'let')
>>> files = Files(("hello", b"\x7fELF"))
>>> files.answer(b"open:" + b"hello".hex().encode() + b",0,0"), files.answer(b"pread:3,64,1"), files.answer(b"close:3")
(b'F0', b'F-1,9', b'F-1,9')
>>> files.answer(b"pread:0,64,1")
b'F3;ELF'
"""

from __future__ import annotations

import errno
import struct
from typing import Final

from .packets import escaped

__all__ = ["Files", "chunk"]

MODE: Final = 0o100755
LARGEST: Final = 0x1000


def chunk(content: bytes, place: bytes) -> bytes:
    """A part of an object that is read with qXfer: `place` is `offset,length`."""
    offset, length = (int(number, 16) for number in place.split(b","))
    part = content[offset : offset + min(length, LARGEST)]
    return (b"m" if offset + len(part) < len(content) else b"l") + escaped(part)


class Files:
    """The only file that there is: the program, open as descriptor 0 whenever somebody asks (File-I/O packets)."""

    def __init__(self, program: tuple[str, bytes]) -> None:
        self.name, self._content = program

    def answer(self, request: bytes) -> bytes:
        """What follows `vFile:`. Empty for what there is not."""
        verb, _, rest = request.partition(b":")
        if verb == b"setfs":
            return b"F0"
        if verb == b"open":
            name = bytes.fromhex(rest.split(b",")[0].decode()).decode(errors="replace")
            return b"F0" if name.lstrip("/") == self.name.lstrip("/") else b"F-1,%x" % errno.ENOENT
        if verb not in (b"pread", b"fstat", b"close"):
            return b""
        descriptor, *numbers = (int(number, 16) for number in rest.split(b","))
        if descriptor:
            return b"F-1,%x" % errno.EBADF
        if verb == b"close":
            return b"F0"
        if verb == b"fstat":
            stat = struct.pack(">7I3Q3I", 0, 0, MODE, 1, 0, 0, 0, len(self._content), LARGEST, 0, 0, 0, 0)
            return b"F%x;" % len(stat) + escaped(stat)
        length, offset = numbers
        part = self._content[offset : offset + min(length, LARGEST)]
        return b"F%x;" % len(part) + escaped(part)
