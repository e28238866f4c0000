"""Line tables: which source line made which bytes, as DWARF stores it in `.debug_line`.

A line table is a small program. Run, it yields rows of (address, file, line); the bytes from one row's
address to the next row's came from that line. A *sequence* of rows covers one section and ends with a row
that only says where. pyelftools runs the program; here its rows become ranges.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

from elftools.common.utils import struct_parse
from elftools.dwarf.lineprogram import LineProgram
from elftools.dwarf.structs import DWARFStructs

__all__ = ["Range", "line_ranges"]

UNIT_LENGTH_BYTES = 4


class Range(NamedTuple):
    """`size` bytes (or none) from `va` on that came from line `number`."""

    va: int
    size: int
    number: int


def line_ranges(debug_line: bytes) -> Iterator[Range]:
    """The ranges of a relocated `.debug_line` section that holds one table, as the assembler writes it."""
    stream = BytesIO(debug_line)
    structs = DWARFStructs(little_endian=True, dwarf_format=32, address_size=8, dwarf_version=4)
    header = struct_parse(structs.Dwarf_lineprog_header, stream, stream_pos=0)
    end = header.unit_length + UNIT_LENGTH_BYTES
    return _ranges(LineProgram(header, stream, structs, stream.tell(), end))


def _ranges(program: LineProgram) -> Iterator[Range]:
    previous = None
    for entry in program.get_entries():
        row = entry.state
        if row is None:
            continue
        if previous is not None:
            yield Range(previous.address, row.address - previous.address, previous.line)
        previous = None if row.end_sequence else row
