"""The commands that go through a run by hand, forwards and backwards: `cr3 debug` and `cr3 gdb`."""

from __future__ import annotations

import sys
from typing import BinaryIO, Final

import click

from .options import Options, ProgramCommand, WholeNumber, machine_options, programs_argument, until_option
from .running import begin
from .terminal import say

__all__ = ["debug", "gdb"]

PORT: Final = 1234
"""Where QEMU listens, and so many people look."""


@click.command(
    cls=ProgramCommand,
    examples=[
        ("cr3 gdb programs/hello.asm", "Then in another terminal: gdb -ex 'target remote 127.0.0.1:1234'"),
        ("cr3 gdb programs/quicksort.asm --port 4000 --until quicksort", "From a label on."),
        ("cr3 gdb programs/echo.asm < input.txt", "The program reads your standard input."),
    ],
)
@programs_argument
@click.option(
    "--port",
    type=WholeNumber(0, 65535),
    default=PORT,
    show_default=True,
    metavar="N",
    help="TCP port on the loopback address; 0 takes a free one.",
)
@machine_options
@until_option
def gdb(options: Options, port: int) -> int:
    """Run a program under GDB, forwards and backwards.

    Waits for a GDB on this computer (target remote 127.0.0.1:1234), and stops before the program's first
    instruction. GDB gets the program with its symbols from here. Everything in it works, reverse-stepi and
    reverse-continue too; monitor help tells what cr3 adds, such as monitor walk ADDRESS.

    Files that were passed with --file HOST:GUEST:rw, and the swap file, do not change.
    """
    begin(options)
    from .gdbserver import GdbServer

    server = GdbServer(options, port, sys.stdin.buffer, sys.stdout.buffer, sys.stderr.buffer)
    try:
        say(f"waiting for GDB: target remote 127.0.0.1:{server.port}")
        server.serve()
    finally:
        server.close()
    return 0


@click.command(
    cls=ProgramCommand,
    examples=[
        ("cr3 debug programs/page_cross.asm", "Then press ? for the keys."),
        ("cr3 debug programs/quicksort.asm --until quicksort --pti off", "From a label on, without isolation."),
        ("cr3 debug programs/echo.asm --stdin README.md", "The program reads a file; the keys are yours."),
    ],
)
@programs_argument
@click.option(
    "--stdin",
    "stdin_file",
    type=click.File("rb"),
    metavar="FILE",
    help="What the program reads as standard input; by default nothing.",
)
@machine_options
@until_option
def debug(options: Options, stdin_file: BinaryIO | None) -> int:
    """Step through a program on the whole screen, forwards and backwards.

    Shows code, registers, the page walks of the current instruction, TLBs, VMAs, memory and events at every
    position of the run, in user mode and in the kernel. Keys and mouse; ? lists the keys.

    Files that were passed with --file HOST:GUEST:rw, and the swap file, do not change.
    """
    from emu import InputError

    if not (sys.stdin.isatty() and sys.stderr.isatty()):  # Textual draws on standard error
        raise InputError("cr3 debug needs a terminal; cr3 gdb works without one")
    begin(options)
    try:
        from .debugger.app import DebuggerApp
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("textual"):
            raise
        raise InputError("cr3 debug needs textual: pip install 'cr3-lab[debug]'") from None
    app = DebuggerApp(options, stdin_file)
    try:
        app.run()
    finally:
        app.close()
    return app.return_code or 0
