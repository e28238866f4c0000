"""A program as it lies in memory: segments, symbols, and which source line each byte came from.

An executable file is a recipe for an address space. Its *segments* say which bytes go to which
virtual address (va) and with which permissions; the tail of a segment that the file does not hold
(`.bss`) is zeros. Everything else, symbols and line numbers, is for people, not for the processor.

    >>> text = Segment(".text", 0x401000, bytes.fromhex("90 0f05"), 3, readable=True, executable=True)
    >>> image = Image("tiny", entry=0x401000, segments=(text,), symbols={"_start": 0x401000})
    >>> image.symbolize(0x401001)
    '_start+0x1'
    >>> image.segment_at(0x401002).permissions
    'r-x'
"""

from __future__ import annotations

import difflib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple

from .exceptions import ImageError
from .pte import PAGE_SIZE

__all__ = ["Image", "Line", "Segment"]

VA_BITS = 64


class Line(NamedTuple):
    """`size` bytes at `va` that came from line `number` (from 1) of `file`.

    A line that makes no bytes of its own, such as a label or a macro call, has size 0. `text` is the line
    itself, "" where only an ELF file's debug information told us about it.
    """

    va: int
    size: int
    file: str
    number: int
    text: str = ""


@dataclass(frozen=True)
class Segment:
    """A range of memory with one set of permissions: `data`, then zeros up to `size` bytes.

    `offset` is where the data lies in the program's file, if there is one.
    """

    name: str
    va: int
    data: bytes = field(repr=False)
    size: int
    readable: bool = False
    writable: bool = False
    executable: bool = False
    offset: int = field(default=0, compare=False)

    @property
    def end(self) -> int:
        """The first address behind the segment."""
        return self.va + self.size

    @property
    def permissions(self) -> str:
        """As `ls` and /proc/PID/maps show them: `r-x`."""
        flags = (self.readable, self.writable, self.executable)
        return "".join(letter if flag else "-" for letter, flag in zip("rwx", flags, strict=True))

    def __contains__(self, va: int) -> bool:
        return self.va <= va < self.end


@dataclass(frozen=True)
class Image:
    """A program ready to be mapped. No two segments share a page, so each can have its own permissions.

    `entry` is 0 for an image without an entry point, as in an ELF header. `symbols` are addresses;
    `constants` are names for plain numbers (`.equ N, 10`). `phdr` and `phnum` say where an ELF file's program
    headers lie in memory and how many there are (the kernel tells the program in AT_PHDR and AT_PHNUM); both
    are 0 when no segment holds them. `file` is the content of the file, empty for a program that has none yet
    (see `elf.with_file`).

    Raises ImageError when a segment does not fit into the address space or shares a page with another.
    """

    path: str
    entry: int
    segments: tuple[Segment, ...]
    symbols: Mapping[str, int] = field(default_factory=dict, repr=False)
    constants: Mapping[str, int] = field(default_factory=dict, repr=False)
    lines: tuple[Line, ...] = field(default=(), repr=False)
    phdr: int = 0
    phnum: int = 0
    file: bytes = field(default=b"", repr=False, compare=False)

    def __post_init__(self) -> None:
        end, previous = 0, ""
        for segment in sorted((s for s in self.segments if s.size), key=attrgetter("va")):
            where = f"{self.path}: segment {segment.name} at {segment.va:#x}"
            if segment.va < 0 or segment.end > 1 << VA_BITS or len(segment.data) > segment.size:
                raise ImageError(f"{where} with {segment.size:#x} bytes does not fit into the address space")
            if previous and segment.va // PAGE_SIZE <= (end - 1) // PAGE_SIZE:
                raise ImageError(f"{where} overlaps segment {previous}, or shares a page with it")
            end, previous = segment.end, segment.name

    def address_of(self, name: str) -> int:
        """Address of a symbol; raises ImageError, with the nearest name, when there is none."""
        if name in self.symbols:
            return self.symbols[name]
        near = difflib.get_close_matches(name, self.symbols, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ImageError(f"{self.path} has no symbol {name!r}{hint}")

    def segment_at(self, va: int) -> Segment | None:
        """The segment that contains `va`."""
        starts, segments = self._segments_by_va
        index = bisect_right(starts, va) - 1
        return segments[index] if index >= 0 and va in segments[index] else None

    def symbolize(self, va: int) -> str:
        """`symbol`, `symbol+0x12`, or the plain address when no symbol of the same segment lies before it."""
        segment = self.segment_at(va)
        addresses, names = self._symbols_by_va
        index = bisect_right(addresses, va) - 1
        if segment is None or index < 0 or addresses[index] < segment.va:
            return f"{va:#x}"
        offset = va - addresses[index]
        return f"{names[index]}+{offset:#x}" if offset else names[index]

    def line_of(self, va: int) -> tuple[str, int] | None:
        """File and line number of the source that made the byte at `va`."""
        starts, lines = self._lines_by_va
        index = bisect_right(starts, va) - 1
        if index < 0 or va >= starts[index] + lines[index].size:
            return None
        return lines[index].file, lines[index].number

    @cached_property
    def _segments_by_va(self) -> tuple[list[int], list[Segment]]:
        segments = sorted((s for s in self.segments if s.size), key=attrgetter("va"))
        return [segment.va for segment in segments], segments

    @cached_property
    def _symbols_by_va(self) -> tuple[list[int], list[str]]:
        """Addresses in order, and the first name of each."""
        by_va = {va: name for name, va in reversed(list(self.symbols.items()))}
        addresses = sorted(by_va)
        return addresses, [by_va[va] for va in addresses]

    @cached_property
    def _lines_by_va(self) -> tuple[list[int], list[Line]]:
        lines = sorted((line for line in self.lines if line.size), key=attrgetter("va"))
        return [line.va for line in lines], lines
