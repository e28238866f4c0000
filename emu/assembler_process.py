"""The assembler's process, seen from the program that uses it.

One process serves all assemblies of a program. It starts when it is first needed, or earlier and in parallel
with other work through `start`; the next one takes its place when it has ended, which is how LLVM reports an
error.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from . import assembler_worker
from .assembler_worker import read_message, write_message

__all__ = ["AssemblerEndedError", "request", "start"]


class AssemblerEndedError(Exception):
    """The process ended instead of answering; `messages` is what it printed."""

    def __init__(self, messages: str, exit_code: int) -> None:
        super().__init__(messages, exit_code)
        self.messages, self.exit_code = messages, exit_code


class AssemblerProcess:
    """One running process with its pipes. Its messages go to a file, since nobody would empty a pipe."""

    def __init__(self) -> None:
        llvmlite = importlib.util.find_spec("llvmlite")
        folders = [str(Path(llvmlite.origin).parent.parent)] if llvmlite and llvmlite.origin else []
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(assembler_worker.__file__), *folders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
        )

    @property
    def is_running(self) -> bool:
        """Whether it can still take a request."""
        return self._process.poll() is None

    def request(self, source: bytes) -> bytes:
        """The object file for a source; raises AssemblerEndedError, or whatever interrupts the wait."""
        assert self._process.stdin and self._process.stdout
        self._messages.seek(0)
        self._messages.truncate()
        answer = None
        with contextlib.suppress(OSError):  # it ended while we wrote; it has said why
            write_message(self._process.stdin, source)
            answer = read_message(self._process.stdout)
        if answer is None:
            exit_code = self._process.wait()
            self._messages.seek(0)
            raise AssemblerEndedError(self._messages.read().decode(errors="replace"), exit_code)
        return answer

    def end(self) -> None:
        """End the process, now."""
        self._process.kill()
        self._process.wait()
        self._close()

    def disown(self) -> None:
        """In a forked child: the process stays the parent's, only our copies of its pipes go."""
        self._process.returncode = 0  # nothing to wait for here
        self._close()

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._messages):
            if stream:
                with contextlib.suppress(OSError):  # bytes that a process which has ended will never read
                    stream.close()


_lock = threading.Lock()
_current: AssemblerProcess | None = None


def start() -> None:
    """Start the process now, in the background, so that the first assembly need not wait for it."""
    with _lock:
        _running()


def request(source: bytes) -> bytes:
    """The object file for a source; raises AssemblerEndedError with LLVM's messages when there is none."""
    with _lock:
        try:
            return _running().request(source)
        except BaseException:  # also Ctrl-C: what the process answers later must not pass for the next answer
            _end()
            raise


def _running() -> AssemblerProcess:
    global _current
    if _current and not _current.is_running:
        _end()
    if _current is None:
        _current = AssemblerProcess()
    return _current


def _end() -> None:
    global _current
    if _current:
        _current.end()
    _current = None


def _forked() -> None:
    """A forked child starts its own process when needed. The lock may belong to a thread that is not here."""
    global _current, _lock
    _lock = threading.Lock()
    if _current:
        _current.disown()
    _current = None


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
