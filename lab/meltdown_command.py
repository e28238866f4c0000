"""The command `cr3 meltdown`: the attack with page-table isolation off and on, side by side."""

from __future__ import annotations

import io
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final, cast

import click

from .compare_commands import result_file
from .options import ExampleCommand, Options, WholeNumber
from .terminal import Status, console

__all__ = ["meltdown"]

SECRET: Final = "The kernel maps all of memory."


@click.command(
    cls=ExampleCommand,
    examples=[
        ("cr3 meltdown", "A vulnerable processor, without page-table isolation and with it."),
        ("cr3 meltdown --secret 'my password' --plot latencies.svg", "Your own secret, and what the clock said."),
        ("cr3 meltdown --report meltdown.html", "One page to explore: latencies, TLBs, page tables."),
        ("cr3 meltdown --cpu zen2 --pti off", "A processor that checks in time."),
        ("cr3 meltdown --json - | jq '.runs[].leaked'", "For machines."),
    ],
)
@click.option("--secret", default=SECRET, metavar="TEXT", help="What the kernel keeps for itself.")
@click.option(
    "--pti",
    type=click.Choice(["on", "off", "both"]),
    default="both",
    help="Page-table isolation; both: one attack without, one with it.",
)
@click.option("--cpu", default="skylake", metavar="NAME", help="CPU profile: a name (see cr3 profiles), or a file.")
@click.option("--seed", type=WholeNumber(0), default=1, metavar="N", help="Seed of all that is random.")
@click.option("--plot", "plot_file", metavar="FILE", help="Draw the latencies (.svg, .png, .html); needs matplotlib.")
@click.option("--json", "json_file", metavar="FILE", help="Write the results to FILE as JSON; - is standard output.")
@click.option("--report", "report_file", metavar="FILE", help="Write one HTML page with the attacks side by side.")
def meltdown(
    secret: str, pti: str, cpu: str, seed: int, plot_file: str | None, json_file: str | None, report_file: str | None
) -> None:
    """Read the kernel's memory from a program, as Meltdown did.

    The kernel gets a secret. An ordinary program (programs/meltdown_string.asm) loads its bytes, which is refused, and
    finds out by Flush+Reload what the processor did with them before it was. Shown are what leaked, how often the
    program had to try, and how fast it was in the model's time.
    """
    from emu import assembler

    assembler.start()
    from .compare_plot import check_plot
    from .meltdown import PROGRAM, Attack, as_dict, attack, draw, page, render

    if plot_file is not None:
        check_plot(plot_file)
    settings = [False, True] if pti == "both" else [pti == "on"]
    with ExitStack() as files:
        names = (json_file, plot_file, report_file)
        json_output, plot_output, page_output = (result_file(name, files) for name in names)
        attacks: list[Attack] = []
        with Status(lambda: f"{len(attacks)} of {len(settings)} attacks").running():
            for isolated in settings:
                options = Options((str(PROGRAM),), cpu=cpu, seed=seed, pti=isolated, secret=secret, caches="on")
                attacks.append(attack(options, recorded=page_output is not None))
        render(attacks, console(sys.stderr if json_file == "-" else sys.stdout))
        if json_output is not None:
            json_output.write(json.dumps(as_dict(attacks), indent=2) + "\n")
        if plot_output is not None:
            cast(io.TextIOWrapper, plot_output).buffer.write(draw(attacks, Path(plot_file or "").suffix))
        if page_output is not None:
            page_output.write(page(attacks))
