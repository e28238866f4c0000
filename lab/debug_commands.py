"""The commands that go through a run by hand, forwards and backwards: `cr3 gdb`."""

from __future__ import annotations

import sys
from typing import Final

import click

from .options import Options, ProgramCommand, machine_options, programs_argument, until_option
from .running import begin
from .terminal import say

__all__ = ["gdb"]

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
    type=click.IntRange(0, 65535),
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
