"""What the commands know about where their output goes: a terminal, with its width and colours, or a pipe.

Colours are for terminals only, and for nobody who set NO_COLOR (https://no-color.org).
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final, cast

import click

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Status", "console", "has_colour", "say", "width"]

PATIENCE: Final = 2.0
"""Seconds that people wait without wondering."""
INTERVAL: Final = 0.25
ERASE: Final = "\r\x1b[K"


def has_colour(stream: IO[str]) -> bool:
    """Whether colours may go to a stream."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width(stream: IO[str]) -> int | None:
    """Columns of the terminal behind a stream; None if there is none, and lines may have any length."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def console(stream: IO[str]) -> Console:
    """A console for tables on a stream."""
    from rich.console import Console

    class OurConsole(Console):
        def on_broken_pipe(self) -> None:
            raise  # not with an exit code of rich

    return OurConsole(file=stream, color_system="auto" if has_colour(stream) else None, highlight=False)


def say(message: str) -> None:
    """Tell something on standard error."""
    name = click.style("cr3:", fg="red", bold=True) if has_colour(sys.stderr) else "cr3:"
    click.echo(f"{name} {message}", err=True, color=True)


class Status:
    """A line on the terminal that says how far a long run is, from its third second on.

    It shares the terminal with the guest: it goes away before the guest writes, stays away while the guest's
    line is not at its end, and does not come while nothing moves, because then the guest waits for input.
    """

    def __init__(self, text: Callable[[], str]) -> None:
        self._text, self._shown, self._at_line_start = text, "", True
        self._lock, self._ended = threading.Lock(), threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show the status while the block runs, if standard error is a terminal."""
        if not sys.stderr.isatty():
            yield
            return
        thread = threading.Thread(target=self._show_until_end, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            self._hide()

    def _show_until_end(self) -> None:
        self._ended.wait(PATIENCE)
        before = self._text()  # not of the start: a guest that waits for its first input has moved since
        while not self._ended.wait(INTERVAL):
            text = self._text()
            if text != before:
                self._show(text)
            before = text

    def _show(self, text: str) -> None:
        with self._lock:
            if self._at_line_start:
                self._shown = text
                sys.stderr.write(ERASE + text[: shutil.get_terminal_size().columns - 1])
                sys.stderr.flush()

    def _hide(self) -> None:
        if self._shown:
            self._shown = ""
            sys.stderr.write(ERASE)
            sys.stderr.flush()

    def say(self, message: str) -> None:
        """Tell something on standard error while the status may be shown."""
        with self._lock:
            self._hide()
            say(message)

    def beside(self, stream: BinaryIO) -> BinaryIO:
        """The stream, made to hide the status before it writes."""
        return cast(BinaryIO, _Beside(stream, self)) if stream.isatty() else stream

    def make_way(self, data: bytes, write: Callable[[bytes], int]) -> int:
        """Write the guest's bytes to the terminal."""
        with self._lock:
            self._hide()
            self._at_line_start = data.endswith(b"\n")
            return write(data)


class _Beside(io.BufferedIOBase):
    """A stream to the terminal on which a status may be shown."""

    def __init__(self, stream: BinaryIO, status: Status) -> None:
        self._stream, self._status = stream, status

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._status.make_way(data, self._stream.write)

    def flush(self) -> None:
        self._stream.flush()
