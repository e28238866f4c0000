"""Reading the file that a person named: one clear error for everything that can be wrong with it."""

from __future__ import annotations

from pathlib import Path

from .exceptions import AssemblyError, ImageError

__all__ = ["decode_source", "read_input"]

PROGRAM = "expected assembly source (text) or a static x86-64 ELF executable"


def read_input(path: str | Path) -> bytes:
    """The bytes of a program file; raises ImageError when there is no such file, or nothing in it."""
    path = Path(path)
    try:
        if not path.exists() and (source := Path(f"{path}.asm")).is_file():
            raise ImageError(f"{path}: No such file or directory; did you mean {source}?")
        if path.exists() and not path.is_file():
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise ImageError(f"{path}: this is {kind}; {PROGRAM}")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(f"{path}: {reason}; {PROGRAM}") from None
    if not data:
        raise ImageError(f"{path}: this file is empty; {PROGRAM}")
    return data


def decode_source(data: bytes, name: str) -> str:
    """Source text from bytes; raises AssemblyError with the place of the first byte that is not text."""
    wrong = data.find(b"\0")
    try:
        text = data[: wrong if wrong >= 0 else None].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong < 0:
        return text
    line_start = data.rfind(b"\n", 0, wrong) + 1
    line, column = data.count(b"\n", 0, wrong) + 1, len(data[line_start:wrong].decode("utf-8", "replace")) + 1
    raise AssemblyError(name, line, column, f"byte {data[wrong]:#04x} is not text (UTF-8); {PROGRAM}")
