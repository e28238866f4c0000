"""The commands that run a program and look at its memory: `cr3 walk`, `cr3 maps` and `cr3 tlb`.

What the program prints goes to standard error; what is looked at is as it was before the program's memory was given
back, or at the moment that `--at` says.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, TextIO

import click

from .options import Options, ProgramCommand, machine_options, program_argument
from .running import begin, run_session
from .terminal import Status, console, has_colour, width

if TYPE_CHECKING:
    from .session import Session

__all__ = ["maps", "tlb", "walk"]

at_option: Final = click.option("--at", "--until", "until", metavar="SYMBOL", help="Stop before SYMBOL executes.")


def _session(options: Options) -> tuple[Session, Status]:
    """A session whose program shares standard error with us."""
    from .session import Session

    status = Status(lambda: f"{session.machine.state.instructions:,} instructions so far")
    session = Session(options, sys.stdin.buffer, status.beside(sys.stderr.buffer), status.beside(sys.stderr.buffer))
    return session, status


@click.command(
    cls=ProgramCommand,
    examples=[
        ("cr3 walk programs/lecture_walk.asm 0x180001008", "The lecture's address: 0, 6, 0, 1 and offset 8."),
        ("cr3 walk programs/hello.asm text --at _start", "A page that nobody has touched yet."),
        ("cr3 walk programs/hello.asm do_syscall_64 --json", "An address of the kernel, for machines."),
    ],
)
@program_argument
@click.argument("address", metavar="ADDRESS")
@at_option
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@machine_options
def walk(options: Options, address: str, as_json: bool) -> int:
    """Run a program to its end, and show the page walk of one address.

    ADDRESS is a number (0x401000), a symbol of the program or of the kernel, or symbol+0x10. The page tables
    are those of the moment before the program's memory is given back. What the program prints goes to
    standard error.
    """
    begin(options)
    from .session import EXIT_LIMIT, exit_status
    from .walk_view import as_dict, moment, parse_address, render

    session, status = _session(options)
    va = parse_address(address, session.kernel, session.images[0])
    result = run_session(session, status, before_exit=True)
    process = result.processes[0]
    report = session.kernel.page_walk(process, va, user=va >> 63 == 0)
    symbol = session.kernel.symbolize(va) if va >> 63 else process.image.symbolize(va)
    if as_json:
        click.echo(json.dumps(as_dict(report, process, symbol), indent=2))
    else:
        click.echo(render(report, symbol, moment(result, options.until)))
    return EXIT_LIMIT if exit_status(result) == EXIT_LIMIT else 0


@click.command(
    cls=ProgramCommand,
    examples=[
        ("cr3 maps programs/brk_heap.asm", "What was promised, and what is there when the program ends."),
        ("cr3 maps programs/brk_heap.asm --at _start", "Before the first instruction: only the stack has a page."),
        ("cr3 maps programs/sieve.asm --pages", "Every page, one character each."),
        ("cr3 maps programs/brk_heap.asm --follow", "Each page fault when it happens, and the result."),
        ("cr3 maps programs/hello.asm --kernel --pti on", "What user mode's page table knows of the kernel."),
    ],
)
@program_argument
@at_option
@click.option("--pages", is_flag=True, help="Show the state of every page, one character each.")
@click.option("--kernel", "of_kernel", is_flag=True, help="Show the kernel half: what each of the two PGDs maps.")
@click.option("--follow", is_flag=True, help="Show every page fault when it happens, too.")
@click.option("--json", "json_file", metavar="FILE", help="Write the same as JSON to FILE (-: standard output).")
@machine_options
def maps(options: Options, pages: bool, of_kernel: bool, follow: bool, json_file: str | None) -> int:
    """Run a program to its end, and show its address space.

    One line a VMA: where it is, what is allowed there, how many pages were promised, and how many of them are
    in memory, by kind. What the program prints goes to standard error.
    """
    begin(options)
    from .files import whole_file
    from .maps_view import as_dict, kernel_table, page_map, vma_table
    from .session import EXIT_LIMIT, exit_status
    from .walk_view import moment

    with ExitStack() as files:
        output = files.enter_context(whole_file(json_file)) if json_file not in (None, "-") else None
        session, status = _session(options)
        if follow:
            _follow(session, sys.stderr if json_file == "-" else sys.stdout)
        result = run_session(session, status, before_exit=True)
        process, when = result.processes[0], moment(result, options.until)
        if json_file is not None:
            (output or sys.stdout).write(json.dumps(as_dict(session.kernel, process, when), indent=2) + "\n")
        if json_file != "-":
            click.echo("\n" * follow + f"{process.image.path} (pid {process.pid}), {when}\n")
            view = kernel_table if of_kernel else page_map if pages else vma_table
            view(session.kernel, process, console(sys.stdout))
    return EXIT_LIMIT if exit_status(result) == EXIT_LIMIT else 0


def _follow(session: Session, stream: TextIO) -> None:
    """Write a line for each page fault at once."""
    from .trace import TextLines, Tracer

    def write(line: str) -> None:
        stream.write(line)
        stream.flush()

    Tracer(session, ("page_fault",), TextLines(width(stream), colour=has_colour(stream)), write)


@click.command(
    cls=ProgramCommand,
    examples=[
        ("cr3 tlb programs/hello.asm", "What is remembered when the program ends, and under which PCID."),
        ("cr3 tlb programs/hello.asm --pti on --pcid off", "Without PCIDs the last CR3 write has emptied nearly all."),
        ("cr3 tlb programs/stride.asm --at _start --json | jq '.tlbs[2].held | length'", "For machines."),
    ],
)
@program_argument
@at_option
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
@machine_options
def tlb(options: Options, as_json: bool) -> int:
    """Run a program to its end, and show what the TLBs hold.

    One line a translation: where it leads, the size of the page, the PCID under which it was filled, what it
    allows, and whether it serves every PCID. What the program prints goes to standard error.
    """
    begin(options)
    from .session import EXIT_LIMIT, exit_status
    from .tlb_view import as_dict, render
    from .walk_view import moment

    session, status = _session(options)
    result = run_session(session, status, before_exit=True)
    process, when = result.processes[0], moment(result, options.until)
    if as_json:
        click.echo(json.dumps(as_dict(session.kernel, process, when), indent=2))
    else:
        click.echo(f"{process.image.path} (pid {process.pid}), {when}\n")
        render(session.kernel, console(sys.stdout))
    return EXIT_LIMIT if exit_status(result) == EXIT_LIMIT else 0
