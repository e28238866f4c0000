r"""The listing of a program: every address, the bytes there, and the source line that made them.

>>> from emu.assembler import assemble_source
>>> print(listing(assemble_source("_start:\n  mov edi, 42\n  ud2\n.bss\nbuffer: .skip 100", name="demo.asm")))
demo.asm: entry 0x401000 (_start)
<BLANKLINE>
.text  0x401000-0x401007  7 bytes  r-x
  401000                               1  _start:
  401000  bf 2a 00 00 00               2    mov edi, 42
  401005  0f 0b                        3    ud2
<BLANKLINE>
.bss  0x402000-0x402064  100 bytes  rw-
  402000  00 x 100                     5  buffer: .skip 100
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import capstone

from emu.image import Image, Segment

__all__ = ["listing"]

BYTES_A_ROW = 8
ROWS = 2  # of one source line; what is longer is folded
DIRECTIVE = re.compile(r"\s*(\.(?!\w+:)|[\w.$]+\s*=)")  # not a label, even if it is .local:


class Row(NamedTuple):
    """`size` bytes at `va`, and what made them: a line with its number, or a disassembled instruction."""

    va: int
    size: int
    number: str
    text: str


def listing(image: Image) -> str:
    """The whole listing; where there is no source (an ELF file), code is disassembled."""
    return "\n".join(_lines(image))


def _lines(image: Image) -> Iterator[str]:
    entry = f"entry {image.entry:#x} ({image.symbolize(image.entry)})" if image.entry else "no entry point"
    yield f"{image.path}: {entry}"
    for segment in image.segments:
        yield ""
        place = f"{segment.va:#x}-{segment.end:#x}  {segment.size} bytes"
        yield f"{segment.name}  {place}  {segment.permissions}"
        rows = list(_source_rows(image, segment)) or list(_symbol_rows(image, segment))
        for row in rows:
            yield from _render(row, segment)


def _source_rows(image: Image, segment: Segment) -> Iterator[Row]:
    """The source lines of a segment, without directives that make no bytes."""
    ends_here = image.segment_at(segment.end) is None  # so that a label at the end is this segment's
    lines = [line for line in image.lines if line.va in segment or (ends_here and line.va == segment.end)]
    for line in sorted(lines, key=lambda line: line.va):
        if line.size or not DIRECTIVE.match(line.text):
            yield Row(line.va, line.size, str(line.number), line.text.expandtabs().rstrip())


def _symbol_rows(image: Image, segment: Segment) -> Iterator[Row]:
    """A segment without source: cut at its symbols, and disassembled if it is code."""
    names = sorted((va, name) for name, va in image.symbols.items() if va in segment)
    cuts = sorted({segment.va, *(va for va, _ in names), segment.end})
    labels: dict[int, list[str]] = {}
    for va, name in names:
        labels.setdefault(va, []).append(name)
    for start, end in pairwise(cuts):
        yield from (Row(start, 0, "", f"{name}:") for name in labels.get(start, ()))
        if segment.executable:
            yield from _disassemble(segment, start, end)
        else:
            yield Row(start, end - start, "", "")


def _disassemble(segment: Segment, start: int, end: int) -> Iterator[Row]:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.skipdata = True
    code = segment.data[start - segment.va : end - segment.va]
    for va, size, mnemonic, operands in decoder.disasm_lite(code, start):
        yield Row(va, size, "", f"  {mnemonic} {operands}".rstrip())
    if start + len(code) < end:
        yield Row(start + len(code), end - start - len(code), "", "")


def _render(row: Row, segment: Segment) -> Iterator[str]:
    offset = row.va - segment.va
    data = segment.data[offset : offset + row.size]
    if row.size > BYTES_A_ROW and not any(data):
        chunks = [f"00 x {row.size}"]
    else:
        shown = data.ljust(row.size, b"\0")[: ROWS * BYTES_A_ROW]
        chunks = [shown[at : at + BYTES_A_ROW].hex(" ") for at in range(0, len(shown), BYTES_A_ROW)]
        if row.size > len(shown):
            chunks.append(f"... {row.size - len(shown)} more bytes")
    yield _columns(row.va, chunks[0] if chunks else "", row.number, row.text)
    for number, chunk in enumerate(chunks[1:], 1):
        yield _columns(row.va + number * BYTES_A_ROW, chunk, "", "")


def _columns(va: int, data: str, number: str, text: str) -> str:
    return f"{va:8x}  {data:{3 * BYTES_A_ROW}}{number:>6}  {text}".rstrip()
