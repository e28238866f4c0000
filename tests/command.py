"""The command `cr3` for tests: in this process, where it starts at once, or as a process of its own.

>>> cr3("walk", "nowhere.asm", "0x1000").exit_code
2
>>> cr3("run", source("_start: mov edi, 7; mov eax, 60; syscall")).exit_code
7
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from emu import Machine
from lab.cli import cli

__all__ = ["PROGRAMS", "ROOT", "Outcome", "compile_once", "cr3", "cr3_process", "program", "source", "stats"]

ROOT = Path(__file__).parent.parent
PROGRAMS = ROOT / "programs"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str


def cr3(*arguments: object, stdin: bytes = b"") -> Outcome:
    """Run a command line in this process. What it raises is raised."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def cr3_process(*arguments: object, stdin: bytes = b"", **options: Any) -> Outcome:
    """Run a command line as a process, from the root of the project unless `cwd` says otherwise."""
    compile_once()
    command = [sys.executable, "-m", "lab", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=120, **{"cwd": ROOT, **options})
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


@functools.cache
def compile_once() -> None:
    """Compile the memory hardware here and now, so that no process tells people about it."""
    Machine(ram="1M")


def program(name: str) -> Path:
    """A shipped program."""
    return PROGRAMS / f"{name}.asm"


@functools.cache
def source(text: str) -> Path:
    """A file with a program; the same text is the same file."""
    path = Path(tempfile.mkdtemp(dir=_session_folder())) / "program.asm"
    path.write_text(text)
    return path


@functools.cache
def _session_folder() -> str:
    folder = tempfile.mkdtemp(prefix="cr3-command-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def stats(*arguments: object, stdin: bytes = b"") -> dict[str, Any]:
    """The statistics of `cr3 run` with these arguments."""
    document: dict[str, Any] = json.loads(cr3("run", "--json", "-", *arguments, stdin=stdin).stdout)
    return document
