"""Writing result files: whole or not at all.

>>> import tempfile
>>> from pathlib import Path
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder) / "numbers.json"
...     with whole_file(path) as file:
...         _ = file.write("[1, 2")
...         path.exists()
...     path.read_text()
False
'[1, 2'
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, AnyStr, Final

from emu.exceptions import InputError

__all__ = ["spare_sources", "whole_binary_file", "whole_file"]

SOURCES: Final = (".asm", ".s", ".S", ".c", ".py")
"""What people write by hand, and no command writes."""


def whole_file(name: str | Path) -> AbstractContextManager[IO[str]]:
    """A text file that gets its name when the block ends well, and leaves nothing behind when it does not.

    What is no regular file (/dev/stderr, a named pipe) is written directly. Raises InputError when it cannot
    be written, or would replace somebody's source, before anything else happens.
    """
    return _whole(name, lambda path: path.open("w", encoding="utf-8"))


def whole_binary_file(name: str | Path) -> AbstractContextManager[IO[bytes]]:
    """The same for bytes."""
    return _whole(name, lambda path: path.open("wb"))


def spare_sources(name: str | Path) -> None:
    """Refuse to write over a file that somebody wrote by hand, as a slip like -o mine.asm would. Raises InputError."""
    if Path(name).suffix in SOURCES and Path(name).exists():
        raise InputError(f"{name}: this is a source, and is left as it is; name another file to write")


@contextmanager
def _whole(name: str | Path, opened: Callable[[Path], IO[AnyStr]]) -> Iterator[IO[AnyStr]]:
    if Path(name).exists() and not Path(name).is_file():
        with _open(Path(name), name, opened) as file:
            yield file
        return
    spare_sources(name)
    path = Path(os.path.realpath(name))  # a link stays a link
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with _open(temporary, name, opened) as file:
        try:
            yield file
            file.close()
            _rename(temporary, path, name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _open(path: Path, name: str | Path, opened: Callable[[Path], IO[AnyStr]]) -> IO[AnyStr]:
    try:
        return opened(path)
    except OSError as error:
        raise _refusal(name, error) from None


def _rename(temporary: Path, path: Path, name: str | Path) -> None:
    try:
        temporary.replace(path)
    except OSError as error:
        raise _refusal(name, error) from None


def _refusal(name: str | Path, error: OSError) -> InputError:
    return InputError(f"{name}: cannot write this file: {error.strerror}")
