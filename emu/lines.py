"""Line tables: which source line made which bytes, as DWARF stores it in `.debug_line`.

A line table is a small program. Run, it yields rows of (address, file, line); the bytes from one row's address to
the next row's came from that line. A *sequence* of rows covers one section and ends with a row that only says where.
pyelftools runs the program; here its rows become ranges.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

from elftools.common.utils import struct_parse
from elftools.dwarf.lineprogram import LineProgram
from elftools.dwarf.structs import DWARFStructs
from elftools.elf.elffile import ELFFile

from emu.image import Line

__all__ = ["Range", "elf_lines", "line_ranges"]

UNIT_LENGTH_BYTES = 4


class Range(NamedTuple):
    """`size` bytes (or none) from `va` on that came from line `number` of the table's file number `file`."""

    va: int
    size: int
    file: int
    number: int


def line_ranges(debug_line: bytes) -> Iterator[Range]:
    """The ranges of a relocated `.debug_line` section that holds one table, as the assembler writes it."""
    stream = BytesIO(debug_line)
    structs = DWARFStructs(little_endian=True, dwarf_format=32, address_size=8, dwarf_version=4)
    header = struct_parse(structs.Dwarf_lineprog_header, stream, stream_pos=0)
    end = header.unit_length + UNIT_LENGTH_BYTES
    return _ranges(LineProgram(header, stream, structs, stream.tell(), end))


def elf_lines(elf: ELFFile) -> Iterator[Line]:
    """All lines of an executable that was built with debug information (`gcc -g`)."""
    if not elf.has_dwarf_info():
        return
    dwarf = elf.get_dwarf_info(follow_links=False)
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        if program is None:
            continue
        names = _file_names(program)
        for line in _ranges(program):
            if line.size and line.file in names:
                yield Line(line.va, line.size, names[line.file], line.number)


def _ranges(program: LineProgram) -> Iterator[Range]:
    previous = None
    for entry in program.get_entries():
        row = entry.state
        if row is None:
            continue
        if previous is not None:
            yield Range(previous.address, row.address - previous.address, previous.file, previous.line)
        previous = None if row.end_sequence else row


def _file_names(program: LineProgram) -> dict[int, str]:
    """File names by number; they count from 0 since DWARF 5, from 1 before."""
    header = program.header
    version_5 = header.version >= 5
    folders = [b"", *header.include_directory] if not version_5 else list(header.include_directory)
    names = {}
    for number, entry in enumerate(header.file_entry, 0 if version_5 else 1):
        folder = folders[entry.dir_index] if entry.dir_index else b""
        names[number] = b"/".join(part for part in (folder, entry.name) if part).decode("utf-8", "replace")
    return names
