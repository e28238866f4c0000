"""`cr3 report`: a run as one HTML page."""

from __future__ import annotations

import io
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import click

from .options import Options, ProgramCommand, machine_options, programs_argument, until_option
from .running import begin, run_session
from .terminal import Status, say

__all__ = ["report"]


@click.command(
    cls=ProgramCommand,
    examples=[
        ("cr3 report programs/quicksort.asm", "Writes quicksort.html, to be opened in a browser."),
        ("cr3 report programs/random_walk.asm --pti on --pcid off -o walk.html", "With any machine; see the TLBs."),
        ("cr3 report programs/sum_loop.asm --until done -o - | wc -c", "Up to a label, to standard output."),
    ],
)
@programs_argument
@click.option("-o", "output", metavar="FILE", help="Where to write (-: standard output); by default PROGRAM.html.")
@machine_options
@until_option
def report(options: Options, output: str | None) -> int:
    """Run programs, and write what happened as one HTML page.

    The page needs nothing else, and no network: a summary, the cycles by cause, the address space as a map of pages
    with a slider over time, the page tables down to every entry, the TLBs, and the page faults by source line.

    The exit code is 0 however the program ends, and 124 if the instruction limit ended it.
    """
    begin(options)
    from .files import whole_file
    from .report import Observation, Report, render
    from .session import EXIT_LIMIT, Session, exit_status
    from .walk_view import moment

    name = output or f"{Path(options.programs[0]).stem}.html"
    with ExitStack() as files:
        file: IO[str] = sys.stdout if name == "-" else files.enter_context(whole_file(name))
        status = Status(lambda: f"{session.machine.state.instructions:,} instructions so far")
        stdout = _Kept(status.beside(sys.stderr.buffer if name == "-" else sys.stdout.buffer))
        stderr = status.beside(sys.stderr.buffer)
        session = Session(options, sys.stdin.buffer, cast(BinaryIO, stdout), stderr)
        observation = Observation(session)
        result = run_session(session, status)
        run = observation.finish(result, "", bytes(stdout.kept), moment(result, options.until))
        page = render(Report.of(options.programs, [run]))
        file.write(page)
    if name != "-":
        say(f"wrote {name} ({len(page.encode()) >> 10:,} KiB)")
    return EXIT_LIMIT if exit_status(result) == EXIT_LIMIT else 0


class _Kept(io.BufferedIOBase):
    """A stream that remembers the beginning of what went through it."""

    def __init__(self, stream: BinaryIO) -> None:
        from .report.document import MOST_OUTPUT

        self._stream, self._most, self.kept = stream, 4 * MOST_OUTPUT, bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.kept += bytes(data)[: self._most - len(self.kept)]
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()
