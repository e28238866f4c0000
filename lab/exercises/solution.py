"""Checking a file: read it, run it in a process of its own, and stop it where it does not end.

A student's code may do anything: loop for ever, call exit(), print. So it runs in another process that is ended when
its time is over; what it prints goes to standard error.

>>> import tempfile
>>> from pathlib import Path
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder) / "mine.py"
...     _ = path.write_text("def split(va): return 0, 0, 0, 0, va")
...     verdict = check_here(find_exercise("address"), str(path))
>>> verdict.passed, len(verdict.findings)
(False, 1)
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emu import InputError

from .exercise import Exercise, Finding, Solution, Verdict, find_exercise, place_of

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["SECONDS", "check", "check_here", "read_solution"]

SECONDS: Final = 60
"""How long a solution may take; the reference solutions take less than five."""


def read_solution(exercise: Exercise, path: str) -> Solution:
    """Read a student's file; Python is executed. Raises InputError."""
    file = Path(path)
    if not file.is_file():
        raise InputError(
            f"cannot read {path}: " + ("it is no regular file" if file.exists() else "there is no such file")
        )
    if file.suffix != exercise.suffix:
        raise InputError(f"{path}: exercise {exercise.label} wants a file that ends in {exercise.suffix}")
    if exercise.suffix != ".py":
        return Solution(path)
    names: dict[str, Any] = {"__name__": file.stem, "__file__": path}
    try:
        exec(compile(file.read_bytes(), path, "exec", dont_inherit=True), names)
    except SyntaxError as error:
        raise InputError(f"{path}:{error.lineno}:{error.offset}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        place = place_of(error, path) if isinstance(error, Exception) else None
        raise InputError(f"{place or path}: {type(error).__name__}: {error}") from None
    return Solution(path, names)


def check_here(exercise: Exercise, path: str) -> Verdict:
    """Check a file in this process, which waits as long as it takes. Raises InputError."""
    return exercise.try_on(read_solution(exercise, path))


def check(exercise: Exercise, path: str, seconds: float = SECONDS) -> Verdict:
    """Check a file in a process of its own, for so many seconds at most. Raises InputError."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(exercise.name, path, theirs), daemon=True)
    process.start()
    theirs.close()
    tried: list[str] = []
    try:
        while ours.poll(seconds):
            answer = ours.recv()
            if isinstance(answer, Verdict):
                return answer
            if isinstance(answer, Exception):
                raise answer
            tried.append(answer)
        return _unfinished(exercise, path, tried, f"this does not end: it was stopped after {seconds:g} seconds")
    except EOFError:
        return _unfinished(exercise, path, tried, "your code ended the process that runs it")
    finally:
        process.kill()
        process.join()


def _unfinished(exercise: Exercise, path: str, tried: list[str], why: str) -> Verdict:
    """The verdict about a solution that never came to its end; `tried` are the checks that it began."""
    every = [what for what, _ in exercise.checks]
    begun = tried or every[:1]
    findings = [*(Finding(what) for what in begun[:-1]), Finding(begun[-1], why)]
    return Verdict(exercise.label, path, tuple(findings), tuple(every[len(begun) :]))


def _work(name: str, path: str, answers: Connection) -> None:
    """The other process: tells which check begins, and then the verdict."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    exercise = find_exercise(name)
    with contextlib.suppress(BrokenPipeError):
        try:
            answers.send(exercise.try_on(read_solution(exercise, path), answers.send))
        except InputError as error:
            answers.send(error)
