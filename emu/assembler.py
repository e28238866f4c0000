r"""The assembler: from source text to a program image.

Assembling is three steps. The source is annotated so that every byte can be traced to its line (`source`);
LLVM's integrated assembler turns it into an object file (`assembler_worker`, a process of its own); the
linker gives the sections their addresses (`link`).

    >>> image = assemble_source("_start: mov edi, 42\n mov eax, 60\n syscall", name="exit.asm")
    >>> image.segments[0].data.hex(" ")
    'bf 2a 00 00 00 b8 3c 00 00 00 0f 05'
    >>> image.symbolize(0x401005), image.line_of(0x401005)
    ('_start+0x5', ('exit.asm', 2))
    >>> assemble_source("_start: mov rax, rbx, 1", name="typo.asm")
    Traceback (most recent call last):
    ...
    emu.exceptions.AssemblyError: typo.asm:1:9: invalid operand for instruction
        _start: mov rax, rbx, 1
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from elftools.elf.elffile import ELFFile

from .assembler_process import AssemblerEndedError, request, start
from .assembler_worker import SECONDS, TOO_LONG
from .exceptions import AssemblyError
from .image import Image
from .inputs import decode_source, read_input
from .link import link, symbol_entries
from .source import EXPANDING, HEADER_LINES, LOCATION, TRUE, TWICE, Source, Syntax

__all__ = ["Syntax", "assemble", "assemble_source", "start"]

PASSES = 10
LLVM_ERROR = re.compile(r"^error: (?P<where>.*?):(?P<line>\d+):(?P<column>\d+): (?P<message>.*)\n(?P<text>.*)", re.M)


def assemble(path: str | Path, *, syntax: Syntax = "intel") -> Image:
    """Assemble a source file into an image as `as` and `ld` would.

    `.text` begins at 0x401000, every other section at the next free page, and the program at `_start`.
    `syntax` is what the file begins with (`.intel_syntax noprefix` and `.att_syntax` change it, as in GNU
    `as`).

    Raises AssemblyError for an error in the source, ImageError for a file that cannot be read.
    """
    return assemble_source(decode_source(read_input(path), str(path)), name=str(path), syntax=syntax)


def assemble_source(
    text: str,
    *,
    name: str = "<source>",
    syntax: Syntax = "intel",
    addresses: Mapping[str, int] | None = None,
    symbols: Mapping[str, int] | None = None,
    entry: str | None = "_start",
) -> Image:
    """Assemble a source text, which errors call `name`.

    `addresses` says where sections go (`{".text": 0xffffffff81000000}`); those it does not name follow the
    ones before them. `symbols` are labels outside the source that it may use. `entry` is the label where the
    program begins, None for code that is only ever called. Raises AssemblyError.
    """
    checked = decode_source(text.encode("utf-8", "surrogatepass"), name)
    source = Source(checked, name, syntax)
    return link(_object_file(source), source, addresses=addresses or {}, symbols=symbols or {}, entry=entry)


def _object_file(source: Source) -> bytes:
    """Assemble until the differences between addresses that went in are the ones that come out."""
    if not source.has_differences:
        return _assemble(source, source.prepared({}))
    known = _first_differences(source)
    for _ in range(PASSES):
        object_file = _assemble(source, source.prepared(known))
        found = _differences(object_file)
        if found == known:
            return object_file
        known = found
    raise source.error(0, 0, "the differences between labels depend on each other and do not settle")


def _first_differences(source: Source) -> dict[str, int]:
    try:
        return _differences(_assemble(source, source.prepared({})))
    except AssemblyError as error:
        try:
            return _differences(_assemble(source, source.prepared({}, guess=True)))
        except AssemblyError:
            raise error from None


def _assemble(source: Source, prepared: str) -> bytes:
    try:
        return request(prepared.encode())
    except AssemblerEndedError as end:
        raise _diagnosis(source, prepared, end) from None


def _differences(object_file: bytes) -> dict[str, int]:
    """What each difference came to, except those assigned twice, which have no single value."""
    entries = symbol_entries(ELFFile(BytesIO(object_file)))
    absolute = {entry.name: entry["st_value"] for entry in entries if entry["st_shndx"] == "SHN_ABS"}
    names = [name.removeprefix(TRUE) for name in absolute if name.startswith(TRUE)]
    return {name: absolute[TRUE + name] for name in names if TWICE + name not in absolute}


def _diagnosis(source: Source, prepared: str, end: AssemblerEndedError) -> AssemblyError:
    """LLVM's last words as an error at the user's line and column."""
    reached = EXPANDING.findall(end.messages)
    expanding = int(reached[-1]) if reached else 0
    error = LLVM_ERROR.search(end.messages)
    if error is None:
        return source.error(expanding, 0, f"the assembler gave up: {_reason(end)}")
    line, column, message = int(error["line"]), int(error["column"]), error["message"]
    if error["where"] != "<instantiation>":
        return source.error(*_position(source, prepared, line, column), message)
    location = LOCATION.match(error["text"].lstrip())
    if location is None:
        return source.error(*source.position_of("", expanding), message)
    line, expanded = int(location[1]), error["text"].lstrip()[location.end() :].strip()
    first_argument = source.lines[line - 1].find("\\") + 1  # from here on the expanded line is another one
    column = min(column - location.end(), first_argument or column)
    return source.error(line, column, f"{message} (in the expansion of line {expanding}: {expanded})")


def _position(source: Source, prepared: str, line: int, column: int) -> tuple[int, int]:
    """The user's line and column for LLVM's, which counts bytes, and may mean the end of the text."""
    lines = prepared.split("\n")
    if line > len(lines):
        return len(source.lines), 0
    before = lines[line - 1].encode()[: column - 1].decode(errors="ignore")
    return line - HEADER_LINES, source.column_of(line - HEADER_LINES, len(before) + 1)


def _reason(end: AssemblerEndedError) -> str:
    """Why the assembler ended, when it was not an error at a line."""
    if end.exit_code == TOO_LONG:
        return f"this takes longer than {SECONDS:g} seconds"
    if "out of memory" in end.messages:
        return "this takes too much memory"
    if end.exit_code < 0:
        return f"it crashed (signal {-end.exit_code}); is something nested very deeply?"
    said = [line for line in end.messages.splitlines() if line and not EXPANDING.match(line)]
    return said[-1].removeprefix("error: ") if said else f"its process ended with exit code {end.exit_code}"
