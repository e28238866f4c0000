"""What the commands that run programs share: an early start, and notices for people about how it went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import Options
from .terminal import Status

if TYPE_CHECKING:
    from kernel import Result

    from .session import Session

__all__ = ["begin", "run_session"]


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
