"""What the commands that run programs share: an early start, and notices for people about how it went."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import click

from .options import Options
from .terminal import Status, console

if TYPE_CHECKING:
    from kernel import Result

    from .session import Session

__all__ = ["begin", "run_session", "statistics_output", "stats_option", "write_statistics"]

stats_option: Final = click.option("--stats", is_flag=True, help="Show what was counted, on standard error.")


def begin(options: Options) -> None:
    """Start the assembler's process, which then gets ready while we import the rest."""
    from emu import assembler

    if any(Path(program).suffix in (".asm", ".s", ".S") for program in options.programs):
        assembler.start()


def run_session(session: Session, status: Status, *, before_exit: bool = False) -> Result:
    """Run a session with notices for people about how it went; it is closed when the command ends.

    What our own listeners raise is raised as it is.
    """
    from emu import HookError

    from .notices import Notices

    click.get_current_context().call_on_close(session.close)
    notices = Notices(session, status.say)
    with status.running():
        try:
            result = session.run(before_exit=before_exit)
        except HookError as error:
            raise error.__cause__ or error from None
    notices.ended(result)
    return result


def statistics_output(name: str | None, files: ExitStack) -> IO[str] | None:
    """Where the statistics go, opened before anything runs."""
    if name is None or name == "-":
        return sys.stdout if name else None
    from .files import whole_file

    return files.enter_context(whole_file(name))


def write_statistics(session: Session, result: Result, stats: bool, output: IO[str] | None) -> None:
    """Write the statistics as JSON where that is wanted, and the tables to standard error."""
    if not stats and output is None:
        return
    from .statistics import as_json, document, render

    statistics = document(session, result)
    if output is not None:
        output.write(as_json(statistics))
    if stats:
        render(statistics, console(sys.stderr))
