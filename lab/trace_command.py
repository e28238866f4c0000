"""`cr3 trace`: a run as lines, as tables, as a timeline."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import click

from .options import Options, ProgramCommand, count_option, machine_options, programs_argument, until_option
from .running import begin, run_session, statistics_output, stats_option, write_statistics
from .terminal import Status, has_colour, say, width

if TYPE_CHECKING:
    from emu.recording import Mode

    from .session import Session
    from .trace import Trace

__all__ = ["trace"]

TIMELINES: Final = (".perfetto-trace", ".pftrace")
TABLES: Final = (".csv", ".parquet")
"""File names that ask for something else than lines."""


class TraceCommand(ProgramCommand):
    """`--json` alone asks for JSON lines; with the name of a .json file, for the statistics in it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Mark a `--json` that has no file."""
        end = args.index("--") if "--" in args else len(args)
        pairs = zip(args[:end], [*args[1:end], ""], strict=True)
        own = ["--json=-" if (arg, name.endswith(".json")) == ("--json", False) else arg for arg, name in pairs]
        return super().parse_args(ctx, own + args[end:])


@click.command(
    cls=TraceCommand,
    examples=[
        ("cr3 trace programs/hello.asm", "System calls, page faults and signals, like strace."),
        ("cr3 trace programs/page_cross.asm --events access,tlb,fault --user", "Only user mode."),
        ("cr3 trace programs/sum_loop.asm --events insn --until done", "Every instruction up to a label."),
        ("cr3 trace programs/hello.asm --json | jq 'select(.event == \"page_fault\")'", "For machines."),
        (
            "cr3 trace programs/fib.asm --events all --limit 10000 --out fib.jsonl",
            "Into a file, with an end.",
        ),
        ("cr3 trace programs/sieve.asm --events access --user --out sieve.parquet", "Every access, as a table."),
        ("cr3 trace programs/sigchld.asm --out sigchld.perfetto-trace", "A timeline for ui.perfetto.dev."),
        ("cr3 trace programs/hello.asm --events insn --user --last 5", "What came before the end."),
    ],
)
@programs_argument
@click.option(
    "--events",
    "names",
    metavar="LIST",
    help="Which events, by default exec,syscall,fault,signal,exit; also insn, access, tlb, walk, cr3, switch, swap, "
    "any event name of the manual, or all.",
)
@click.option("--user", "mode", flag_value="user", help="Of instructions and accesses, only those in user mode.")
@click.option("--kernel", "mode", flag_value="kernel", help="Only those in kernel mode.")
@click.option(
    "--out",
    metavar="FILE",
    help="Write to FILE: JSON lines (.jsonl), a table (.csv, .parquet), a timeline (.perfetto-trace), or text.",
)
@click.option(
    "--json",
    "json_file",
    metavar="[FILE.json]",
    help="JSON lines instead of text. With the name of a .json file: the statistics go there, as in cr3 run.",
)
@count_option("--limit", metavar="N", help="Stop after N events.")
@count_option("--last", metavar="N", help="Keep only the last N events; in a table, of each kind.")
@machine_options
@until_option
@stats_option
def trace(
    options: Options,
    names: str | None,
    mode: Mode | None,
    out: str | None,
    json_file: str | None,
    limit: int | None,
    last: int | None,
    stats: bool,
) -> int:
    """Run programs and print what happens, one event a line.

    A line has the clock in cycles, the process, the event, the instruction at which it happened (symbol,
    source line, disassembly), and the values. The trace goes to standard output and the program's own output
    to standard error; with --out FILE the program has standard output to itself. A file appears when the run
    has ended, whole.

    The exit code is the program's, as in cr3 run.
    """
    out = None if out == "-" else out  # standard output, as everywhere
    if options.caches == "off" and {"cache", "cache_fill"} & set((names or "").split(",")):
        raise click.UsageError("there are no caches to watch; add --caches")
    begin(options)
    from .session import Session, exit_status

    with ExitStack() as files:
        statistics = statistics_output(None if json_file == "-" else json_file, files)
        watch = _watcher(names, out, json_file == "-", limit, last, mode, files)
        status = Status(lambda: f"{seen.count:,} events so far")
        stdout = status.beside(sys.stdout.buffer if out else sys.stderr.buffer)
        session = Session(options, sys.stdin.buffer, stdout, status.beside(sys.stderr.buffer))
        seen = watch(session)
        try:
            result = run_session(session, status)
        finally:
            seen.end()
        if seen.is_full:
            say(f"stopped after {limit:,} events (--limit)")
        if seen.dropped:
            lost = "1 event" if seen.dropped == 1 else f"{seen.dropped:,} events"
            say(f"{lost} dropped: the trace has only the last ones (--last {last:,})")
        write_statistics(session, result, stats, statistics)
    return exit_status(result)


def _watcher(
    names: str | None,
    out: str | None,
    as_json: bool,
    limit: int | None,
    last: int | None,
    mode: Mode | None,
    files: ExitStack,
) -> Callable[[Session], Trace]:
    """What will watch the session, with its file open before anything runs. Raises InputError."""
    from emu import InputError

    from .files import whole_binary_file, whole_file
    from .perfetto_timeline import Timeline
    from .trace import DEFAULT, JsonLines, TextLines, Tracer, expand
    from .trace_tables import CsvTable, ParquetTable, TableTrace

    kind = Path(out).suffix if out else ""
    wanted = {"limit": limit, "last": last, "mode": mode}
    if kind in TIMELINES:
        if names is not None or any(wanted.values()) or as_json:
            raise InputError(f"a timeline ({kind}) has events of its own, and all of them: only --out goes with it")
        timeline = files.enter_context(whole_binary_file(out or ""))
        return lambda session: Timeline(session, timeline)
    kinds = expand(DEFAULT if names is None else names)
    if kind in TABLES:
        if as_json:
            raise InputError(f"a table ({kind}) is not JSON: leave out --json, or name a .jsonl file")
        table = (
            CsvTable(files.enter_context(whole_file(out or "")), kinds)
            if kind == ".csv"
            else ParquetTable(files.enter_context(whole_binary_file(out or "")), kinds)
        )
        return lambda session: TableTrace(session, kinds, table, limit=limit, last=last, mode=mode)
    output = files.enter_context(whole_file(out)) if out else _line_by_line(sys.stdout)
    lines = JsonLines() if as_json or kind == ".jsonl" else TextLines(width(output), colour=has_colour(output))
    return lambda session: Tracer(session, kinds, lines, output.write, limit=limit, last=last, mode=mode)


def _line_by_line(stream: TextIO) -> TextIO:
    """The stream, made to write each line at once: in a pipe the guest's output comes between the right ones."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(line_buffering=True)
    return stream
