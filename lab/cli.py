"""The command line: `cr3` and `python -m lab`.

Every command is thin: it reads its options, asks another module, and prints. What takes time to import is
imported by the command that needs it, so that `cr3 --help` and `cr3 run` start at once.

Results go to standard output, everything else to standard error. Exit codes: the guest's own, 128 + N when
signal N ended it, 2 for input that is wrong, 124 for the instruction limit, 70 for a bug of ours, 130 after
Ctrl-C.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import os
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click

from .check_command import check
from .compare_commands import compare, validate
from .completion import completion
from .debug_commands import debug, gdb
from .meltdown_command import meltdown
from .memory_commands import maps, tlb, walk
from .options import (
    ExampleCommand,
    Options,
    ProgramCommand,
    machine_options,
    programs_argument,
    syntax_option,
    until_option,
)
from .policies_command import policies
from .report_command import report
from .running import begin, run_session, statistics_output, stats_option, write_statistics
from .terminal import Status, console, say
from .trace_command import trace

__all__ = ["cli", "main"]

WRONG_INPUT: Final = 2
BUG: Final = 70
"""EX_SOFTWARE of sysexits.h."""
INTERRUPTED: Final = 130
CLOSED_PIPE: Final = 141
"""128 + SIGPIPE: what `yes | head` leaves."""


class Commands(click.Group):
    """All commands; what goes wrong in one becomes a clear message and an exit code."""

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run a command line and exit."""
        try:
            status = super().main(*args, **{**settings, "prog_name": "cr3", "standalone_mode": False})
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "cr3"
            say(f"{error.format_message()}\nTry '{command} --help'.")
            status = WRONG_INPUT
        except OSError as error:
            status = _report(error)
        sys.exit(status)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command; who names a program or misspells a command is told what to type."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self.commands, n=1)
            meant = f"run {args[0]}" if Path(args[0]).is_file() else near[0] if near else ""
            hint = f" Did you mean 'cr3 {meant}'?" if meant else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", error.ctx or ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; returns its exit code."""
        try:
            status = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:
            _discard_output()
            return CLOSED_PIPE
        except (click.ClickException, click.exceptions.Exit):  # Exit is how --help ends
            raise
        except Exception as error:
            return _report(error)
        return status


def _discard_output() -> None:
    """Nobody can have our output any more: let Python's last flush at exit go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: Exception) -> int:
    """Say what an exception means to the person who typed the command, and return the exit code."""
    from emu import AssemblyError, InputError, MachineError
    from kernel import KernelPanic

    if isinstance(error, AssemblyError):
        click.echo(error, err=True)  # begins with file:line:column, which editors understand
        return WRONG_INPUT
    if isinstance(error, InputError):
        say(str(error))
        return WRONG_INPUT
    if isinstance(error, OSError) and error.filename is None:  # writing results: disk full ...
        _discard_output()
        say(f"cannot write the output: {error.strerror}")
        return WRONG_INPUT
    if isinstance(error, MemoryError):
        say("this computer does not have so much memory; give --ram less")
        return WRONG_INPUT
    if isinstance(error, KernelPanic):
        say(f"kernel panic: {error}")
        return BUG
    if isinstance(error, MachineError):
        say(f"the machine cannot go on: {error}")
        return BUG
    say("this is a bug of cr3, please report it:\n" + "".join(traceback.format_exception(error)).rstrip())
    return BUG


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        with contextlib.suppress(metadata.PackageNotFoundError):
            click.echo(f"cr3 {metadata.version('cr3-lab')}")
            ctx.exit()
        raise click.UsageError("this is a checkout, not an installed package: it has no version")


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", is_flag=True, callback=_version, is_eager=True, expose_value=False, help="Show the version.")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """A laboratory for virtual memory on x86-64.

    Runs assembly programs and static ELF files on a modelled machine with real page tables and a readable
    kernel, and shows every translation, page fault and CR3 write.

    Every program in the folder programs/ is a lesson; its first lines say what to try.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _command in (check, compare, completion, debug, gdb, maps, meltdown, policies, report, tlb, trace, validate, walk):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the script `cr3`."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started us, as in `cr3 run hello.asm <&-`
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - it stays open
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path or a symbol may hold what the locale cannot show
            stream.reconfigure(errors="backslashreplace")
    cli()


# --- run ------------------------------------------------------------------------------------------


@cli.command(
    cls=ProgramCommand,
    examples=[
        ("cr3 run programs/hello.asm", "Assemble and run; the exit code is the program's."),
        ("echo hello | cr3 run programs/echo.asm --stats", "The program reads your standard input."),
        (
            "cr3 run programs/sum_loop.asm --until done --populate --tlb none --stats",
            "The lecture's loop: 65 fetches and 11 data accesses, four entry reads each.",
        ),
        ("cr3 run programs/stride.asm --cpu zen2 --json stats.json", "Everything that was counted, as JSON."),
        ("cr3 run ./a.out -- -n 5", "A static ELF file with arguments."),
    ],
)
@programs_argument
@machine_options
@until_option
@stats_option
@click.option("--json", "json_file", metavar="FILE", help="Write the statistics to FILE (-: standard output).")
def run(options: Options, stats: bool, json_file: str | None) -> int:
    """Run programs, each as a process.

    PROGRAM is assembly source (.asm, .s; Intel syntax) or a static x86-64 Linux ELF file. The program's
    standard input, output and error are the command's own. ARGS go to every program.

    The exit code is that of the first program, or 128 + N if signal N ended it; 124 if the instruction limit
    did.
    """
    begin(options)
    from .session import Session, exit_status

    guest_stdout = sys.stderr.buffer if json_file == "-" else sys.stdout.buffer
    with ExitStack() as files:
        output = statistics_output(json_file, files)
        status = Status(lambda: f"{session.machine.state.instructions:,} instructions so far")
        stdout, stderr = status.beside(guest_stdout), status.beside(sys.stderr.buffer)
        session = Session(options, sys.stdin.buffer, stdout, stderr)
        result = run_session(session, status)
        write_statistics(session, result, stats, output)
    return exit_status(result)


# --- asm and profiles -----------------------------------------------------------------------------


@cli.command(
    cls=ExampleCommand,
    examples=[
        ("cr3 asm programs/hello.asm", "Addresses, bytes, and the source lines that they come from."),
        ("cr3 asm programs/hello.asm -o hello && ./hello", "A static ELF file, which Linux runs as well."),
    ],
)
@click.argument("program", metavar="PROGRAM")
@click.option("-o", "output", metavar="FILE", help="Write a static ELF executable instead of the listing.")
@syntax_option
def asm(program: str, output: str | None, syntax: Any) -> None:
    """Assemble PROGRAM and list it: address, bytes, source.

    An ELF file is listed with its code disassembled.
    """
    from emu.elf import load_program, write_elf

    from .files import spare_sources

    image = load_program(program, syntax=syntax)
    if output is not None:
        spare_sources(output)
        write_elf(image, output)
        return
    from .listing import listing

    click.echo(listing(image))


@cli.command(
    cls=ExampleCommand,
    examples=[
        ("cr3 profiles", "All CPU profiles, one line each."),
        ("cr3 profiles skylake", "Every value of one of them, and where it comes from."),
        ("cr3 profiles zen2 --json | jq '.values[] | select(.key | test(\"^tlb\"))'", "For machines."),
    ],
)
@click.argument("profile", metavar="[PROFILE]", required=False)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def profiles(profile: str | None, as_json: bool) -> None:
    """Show the CPU profiles, or one of them with the source of every number.

    PROFILE is a name from the list, or a .toml file of your own.
    """
    from .profiles_view import overview_as_dict, profile_as_dict, render_overview, render_profile

    if as_json:
        click.echo(json.dumps(profile_as_dict(profile) if profile else overview_as_dict(), indent=2))
        return
    if profile:
        render_profile(profile, console(sys.stdout))
    else:
        render_overview(console(sys.stdout))
