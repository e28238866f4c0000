"""The assembler: from source text to a program image.

Assembling is three steps. The source is annotated so that every byte can be traced to its line (`source`); LLVM's
integrated assembler turns it into an object file (`assembler_worker`, a process of its own); the linker gives the
sections their addresses (`link`).

    >>> image = assemble_source(".globl _start\\n_start: mov edi, 42\\n mov eax, 60\\n syscall", name="exit.asm")
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

import atexit
import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import IO

from elftools.elf.elffile import ELFFile

from emu import assembler_worker
from emu.assembler_worker import read_message, write_message
from emu.exceptions import AssemblyError
from emu.image import Image
from emu.inputs import decode_source, read_input
from emu.link import link
from emu.source import EXPANDING, HEADER_LINES, LOCATION, TRUE, TWICE, Source, Syntax

__all__ = ["Syntax", "assemble", "assemble_source", "start"]

PASSES = 10
LLVM_ERROR = re.compile(r"^error: (?P<where>.*?):(?P<line>\d+):(?P<column>\d+): (?P<message>.*)\n(?P<text>.*)", re.M)


def assemble(path: str | Path, *, syntax: Syntax = "intel") -> Image:
    """Assemble a source file into an image as `as` and `ld` would.

    `.text` begins at 0x401000, every other section at the next free page, and the program at `_start`. `syntax` is
    what the file begins with (`.intel_syntax noprefix` and `.att_syntax` change it, as in GNU `as`).

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

    `addresses` says where sections go (`{".text": 0xffffffff81000000}`); those it does not name follow the ones
    before them. `symbols` are labels outside the source that it may use. `entry` is the label where the program
    begins, None for code that is only ever called. Raises AssemblyError.
    """
    if "\0" in text:
        decode_source(text.encode("utf-8", "surrogatepass"), name)
    source = Source(text, name, syntax)
    return link(_object_file(source), source, addresses=addresses or {}, symbols=symbols or {}, entry=entry)


def start() -> None:
    """Start the assembler's process now, in the background, so that the first `assemble` does not wait for it."""
    _worker.start()


def _object_file(source: Source) -> bytes:
    """Assemble until the differences between addresses that went in are the ones that come out."""
    known: dict[str, int] = {}
    for _ in range(PASSES):
        prepared = source.prepared(known)
        try:
            object_file = _worker.assemble(prepared.encode())
        except _Ended as end:
            raise _diagnosis(source, prepared, end) from None
        found = _differences(object_file) if source.has_differences else {}
        if found == known:
            return object_file
        known = found
    raise source.error(0, 0, "the differences between labels depend on each other and do not settle")


def _differences(object_file: bytes) -> dict[str, int]:
    """What the assignments of differences came to; without those assigned twice, which have no single value."""
    table = ELFFile(BytesIO(object_file)).get_section_by_name(".symtab")
    absolute = {s.name: s["st_value"] for s in table.iter_symbols() if s["st_shndx"] == "SHN_ABS"}
    names = [name.removeprefix(TRUE) for name in absolute if name.startswith(TRUE)]
    return {name: absolute[TRUE + name] for name in names if TWICE + name not in absolute}


def _diagnosis(source: Source, prepared: str, end: _Ended) -> AssemblyError:
    """LLVM's last words as an error at the user's line and column."""
    reached = EXPANDING.findall(end.messages)
    expanding = int(reached[-1]) if reached else 0
    error = LLVM_ERROR.search(end.messages)
    if error is None:
        return source.error(expanding, 0, f"the assembler gave up: {end.reason}")
    line, column, message = int(error["line"]), int(error["column"]), error["message"]
    if error["where"] != "<instantiation>":
        before = prepared.split("\n")[line - 1].encode()[: column - 1]
        line -= HEADER_LINES
        return source.error(line, source.column_of(line, len(before.decode(errors="ignore")) + 1), message)
    location = LOCATION.match(error["text"].lstrip())
    if location is None:
        return source.error(expanding, 0, message)
    line, expanded = int(location[1]), error["text"].lstrip()[location.end() :]
    same = os.path.commonprefix([expanded, source.lines[line - 1]])
    column = min(column - location.end(), len(same) + 1)
    return source.error(line, column, f"{message} (in the expansion of line {expanding}: {expanded.strip()})")


class _Ended(Exception):
    """The assembler's process ended instead of answering."""

    def __init__(self, messages: str, exit_code: int) -> None:
        super().__init__(messages)
        self.messages, self.exit_code = messages, exit_code

    @property
    def reason(self) -> str:
        """Why, when it was not an error at a line."""
        if self.exit_code == assembler_worker.TOO_LONG:
            return f"this takes longer than {assembler_worker.SECONDS:g} seconds"
        said = [line for line in self.messages.splitlines() if line and not EXPANDING.match(line)]
        return said[0].removeprefix("error: ") if said else f"its process ended with exit code {self.exit_code}"


class _Worker:
    """The assembler's process: started when first needed, kept for the next source, replaced when it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: IO[bytes] | None = None

    def start(self) -> None:
        with self._lock:
            self._running()

    def stop(self) -> None:
        with self._lock:
            self._end(kill=True)

    def assemble(self, source: bytes) -> bytes:
        """Object file for a prepared source; raises _Ended."""
        with self._lock:
            process, messages = self._running()
            messages.seek(0)
            messages.truncate()
            try:
                answer = _exchange(process, source)
            except BaseException:  # Ctrl-C, say: what it answers later would be taken for the next answer
                self._end(kill=True)
                raise
            if answer is None:
                raise self._end()
            return answer

    def forget(self) -> None:
        """In a forked child: the process belongs to the parent, only our copies of its pipes must go."""
        self._lock = threading.Lock()
        if self._process:
            self._process.returncode = 0  # not ours to wait for
            self._close(self._process)

    def _running(self) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        if self._process and self._process.poll() is not None:
            self._end()
        if self._process is None or self._messages is None:
            llvmlite = importlib.util.find_spec("llvmlite")
            folders = [str(Path(llvmlite.origin).parent.parent)] if llvmlite and llvmlite.origin else []
            self._messages = tempfile.TemporaryFile()
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(assembler_worker.__file__), *folders],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._messages,
            )
        return self._process, self._messages

    def _end(self, *, kill: bool = False) -> _Ended | None:
        """Wait for the end of the process (or bring it about) and read what it said."""
        if self._process is None or self._messages is None:
            return None
