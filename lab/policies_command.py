"""The command `cr3 policies`: page faults under every replacement policy, for several numbers of frames."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .compare_commands import jobs_option
from .files import whole_binary_file
from .options import Options, ProgramCommand, machine_options, programs_argument
from .running import begin, run_session
from .terminal import Status

if TYPE_CHECKING:
    from .policies import Recording

__all__ = ["policies"]


@click.command(
    cls=ProgramCommand,
    examples=[
        ("cr3 policies programs/belady.asm --frames 3..5", "Belady's anomaly: see fifo with 3 and with 4 frames."),
        (
            "cr3 policies programs/matmul.asm --frames 3..10 --max-instructions 100k --plot faults.svg",
            "A curve for each policy.",
        ),
        ("cr3 policies programs/belady.asm --frames 3,4 --policy fifo,opt --json", "Two of them, for machines."),
    ],
)
@programs_argument
@click.option("--frames", default="16..256", metavar="RANGE", help="Numbers of frames: 16..256, or 8,12,16.")
@click.option("--policy", "chosen", metavar="LIST", help="Only these policies, by name or as FILE.py:CLASS.")
@click.option("--plot", "plot_file", metavar="FILE", help="Draw the curves (.svg, .png, .pdf); needs matplotlib.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@jobs_option
@machine_options
def policies(
    options: Options, frames: str, chosen: str | None, plot_file: str | None, as_json: bool, jobs: int | None
) -> None:
    """Count page faults under every replacement policy.

    The programs run once, with as much memory as they want, and the order in which they use their pages (code and
    data, 4 KiB) is recorded. Then it is replayed under each policy with each number of frames. What the programs
    print goes to standard error.
    """
    begin(options)
    from kernel.policies import find_policy, policy_names

    from .compare_plot import check_plot
    from .policies import FORMATS, as_dict, compare, frame_counts, plot

    counts, names = frame_counts(frames), chosen.split(",") if chosen else policy_names()
    for name in names:
        find_policy(name)
    with ExitStack() as files:
        if plot_file is not None:
            check_plot(plot_file, FORMATS)
            output = files.enter_context(whole_binary_file(plot_file))
        recording = _record(options)
        faults = compare(recording, names, counts, jobs)
        if plot_file is not None:
            plot(output, Path(plot_file).suffix, " ".join(options.programs), counts, faults)
    if as_json:
        click.echo(json.dumps(as_dict(options.programs, recording, counts, faults), indent=2))
    else:
        _render(recording, counts, faults)


def _record(options: Options) -> Recording:
    from .policies import record
    from .session import Session

    status = Status(lambda: f"{session.machine.state.instructions:,} instructions recorded")
    stderr = status.beside(sys.stderr.buffer)
    session = Session(options, sys.stdin.buffer, stderr, stderr)
    with record(session) as recording:
        run_session(session, status)
    return recording


def _render(recording: Recording, frames: list[int], faults: dict[str, list[int]]) -> None:
    """A row for each policy, a column for each number of frames."""
    click.echo(f"{recording.distinct:,} pages, used {len(recording.pages):,} times in turn; page faults by frames:\n")
    rows = [["policy", *map(str, frames)], *([name, *(f"{count:,}" for count in row)] for name, row in faults.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        padded = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        click.echo("  ".join([name.ljust(widths[0]), *padded]))
