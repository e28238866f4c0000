"""`cr3 compare` and `cr3 validate`: the commands, thin as those of `cli.py`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, cast

import click

from .options import ARGUMENTS, ExampleCommand, Options, ProgramCommand, WholeNumber, count_option, machine_options
from .terminal import console, say

if TYPE_CHECKING:
    from .compare_view import ProgramReport

__all__ = ["compare", "result_file", "validate"]

DIFFERENT: Final = 70
"""A program that notices which machine it runs on has found a bug of ours (EX_SOFTWARE)."""
LIMIT: Final = 124
MOST_RECORDED: Final = 10_000_000
"""Bytes of what the machines looked like over time, all together, in a report."""


class Report(Protocol):
    """What was measured, in all the forms that people may ask for."""

    @property
    def is_complete(self) -> bool:
        """Whether every run came to its end."""

    def difference(self) -> str | None:
        """What a program did otherwise on one of the machines; None: nothing."""

    def render(self, console: Any) -> None:
        """Print tables."""

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""

    def write_csv(self, file: IO[str]) -> None:
        """Write rows."""

    def draw(self, suffix: str) -> bytes:
        """Return a picture, in the format that a file's suffix asks for."""


jobs_option: Final = click.option(
    "--jobs", type=WholeNumber(1), metavar="N", help="Processes at a time; by default one for each core."
)


class Matrix(click.ParamType):  # type: ignore[type-arg]
    """One `--matrix`: `pti=on,off`, or `pti,cpu` for all values of each. Becomes pairs of option and values."""

    name = "matrix"

    def convert(self, value: Any, _param: click.Parameter | None, ctx: click.Context | None) -> dict[str, list[Any]]:
        """Read it with the options' own types, which refuse what they would refuse alone."""
        assert ctx is not None
        key, equals, values = str(value).partition("=")
        if equals:
            return {_field(key): self._values(key, values.split(","), ctx)}
        return {_field(key): self._values(key, self._all(key, ctx), ctx) for key in str(value).split(",")}

    def _option(self, key: str, ctx: click.Context) -> click.Parameter:
        able = [option for option in ctx.command.params if option.name in CROSSABLE and f"--{key}" in option.opts]
        if not able:
            self.fail(f"{key!r} is no option to cross; there are {', '.join(map(_key, CROSSABLE))}")
        return able[0]

    def _all(self, key: str, ctx: click.Context) -> Sequence[str]:
        option = self._option(key, ctx)
        if option.name == "cpu":
            from emu.profile import profile_names

            return profile_names()
        if isinstance(option.type, click.Choice):
            return [str(choice) for choice in option.type.choices if choice != "auto"]
        if isinstance(option.type, click.types.BoolParamType):
            return ["off", "on"]
        return self.fail(f"{key} has no list of values; write {key}=A,B")

    def _values(self, key: str, values: Sequence[str], ctx: click.Context) -> list[Any]:
        option = self._option(key, ctx)
        return [option.process_value(ctx, value) for value in dict.fromkeys(values)]


CROSSABLE: Final = (
    *("pti", "pcid", "cpu", "tlb_policy", "caches", "asid"),
    *("thp", "tlb", "engine", "populate", "ram", "seed"),
)


def _field(key: str) -> str:
    return key.replace("-", "_")


def _key(field: str) -> str:
    return field.replace("_", "-")


@click.command(
    cls=ProgramCommand,
    examples=[
        ("cr3 compare programs/null_syscall.asm", "PTI off, PTI with PCIDs, PTI without: where the time goes."),
        (
            "cr3 compare programs/fib.asm --matrix pti=off,on --matrix cpu=skylake,broadwell",
            "Any cross of machine options; the first one is the baseline.",
        ),
        (
            "cr3 compare programs/sieve.asm --repeat 3 --csv sieve.csv --json sieve.json",
            "For spreadsheets and scripts.",
        ),
        ("cr3 compare programs/null_syscall.asm --report null.html", "All three side by side, with TLBs and tables."),
        ("cr3 compare --help", "Without a program: a suite of six workloads; --curve: overhead by rate."),
    ],
)
@click.argument("programs", nargs=-1, metavar="[PROGRAM]...")
@click.option(
    "--matrix",
    "matrices",
    multiple=True,
    type=Matrix(),
    metavar="KEY=A,B",
    help="Cross machine options instead: pti=on,off; or pti,tlb-policy for all values of each. Can be repeated.",
)
@click.option("--curve", is_flag=True, help="Overhead by rate of system calls and working set.")
@click.option("--stdin", "stdin_file", type=click.File("rb"), metavar="FILE", help="Standard input of every run.")
@count_option("--repeat", default=1, metavar="N", help="Run with N seeds; show the median, and the spread.")
@click.option("--json", "json_file", metavar="FILE", help="Write all numbers to FILE as JSON (-: standard output).")
@click.option("--csv", "csv_file", metavar="FILE", help="Write a row for each run and seed.")
@click.option("--plot", "plot_file", metavar="FILE", help="Draw bars by cause: .svg, .png or .html.")
@click.option("--report", "report_file", metavar="FILE", help="Write one HTML page with all runs side by side.")
@jobs_option
@machine_options
def compare(
    options: Options,
    matrices: tuple[dict[str, list[Any]], ...],
    curve: bool,
    stdin_file: IO[bytes] | None,
    repeat: int,
    json_file: str | None,
    csv_file: str | None,
    plot_file: str | None,
    report_file: str | None,
    jobs: int | None,
) -> int:
    """Run a program on several machines, and show what page-table isolation costs it.

    The standard machines are PTI off, PTI with PCIDs, and PTI without; --pti and --pcid leave out those that do not
    fit. Every run gets the same standard input, and must end and print the same: a difference is exit code 70.

    Without PROGRAM a suite of workloads is compared. With --curve the rate of system calls and the working set
    are swept, and published points are shown beside.
    """
    axes = _axes(matrices)
    _check_outputs(json_file, csv_file, report_file)
    _check(options, axes, curve=curve, stdin=stdin_file is not None, report=report_file is not None)
    from .compare_plot import check_plot

    if plot_file is not None:
        check_plot(plot_file)
    with ExitStack() as files:
        outputs = [result_file(name, files) for name in (json_file, csv_file, plot_file, report_file)]
        stdin = stdin_file.read() if stdin_file else b""
        report = _measure(options, axes, stdin, curve=curve, repeat=repeat, jobs=jobs, report=report_file is not None)
        report.render(console(sys.stderr if "-" in (json_file, csv_file, report_file) else sys.stdout))
        json_output, csv_output, plot_output, page_output = outputs
        if json_output is not None:
            json_output.write(json.dumps(report.as_dict(), indent=2) + "\n")
        if csv_output is not None:
            report.write_csv(csv_output)
        if plot_output is not None:
            cast(io.TextIOWrapper, plot_output).buffer.write(report.draw(Path(plot_file or "").suffix))
        if page_output is not None:
            page_output.write(cast("ProgramReport", report).page())
    return _verdict(report, options)


def _axes(matrices: Sequence[Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    """All `--matrix` together. Raises click.UsageError for a key that comes twice."""
    axes: dict[str, list[Any]] = {}
    for matrix in matrices:
        if twice := axes.keys() & matrix.keys():
            raise click.UsageError(f"--matrix has {_key(min(twice))} twice; write {_key(min(twice))}=A,B")
        axes |= matrix
    return axes


def _check_outputs(*names: str | None) -> None:
    """Refuse two kinds of results on one stream. Raises click.UsageError."""
    if names.count("-") > 1:
        raise click.UsageError("only one of --json, --csv and --report can be standard output")


def _check(options: Options, axes: Mapping[str, Sequence[Any]], *, curve: bool, stdin: bool, report: bool) -> None:
    """Refuse options that exclude each other. Raises click.UsageError."""
    if curve and (options.programs or axes):
        raise click.UsageError("--curve has programs and machines of its own")
    if not options.programs and (stdin or click.get_current_context().meta.get(ARGUMENTS)):
        raise click.UsageError("the suite's programs take neither arguments nor standard input")
    if not options.programs and "ram" in axes:
        raise click.UsageError("the suite's programs have the memory that they need: leave out ram")
    if not options.programs and report:
        raise click.UsageError("--report shows one program on several machines: give a PROGRAM")
    if any(file.endswith(":rw") for file in options.files):
        raise click.UsageError("the runs go on side by side and cannot share a file to write: leave out :rw")


def result_file(name: str | None, files: ExitStack) -> IO[str] | None:
    """Where results go, opened before anything runs."""
    if name is None or name == "-":
        return sys.stdout if name else None
    from .files import whole_file

    return files.enter_context(whole_file(name))


def _measure(
    options: Options,
    axes: Mapping[str, Sequence[Any]],
    stdin: bytes,
    *,
    curve: bool,
    repeat: int,
    jobs: int | None,
    report: bool,
) -> Report:
    """Run everything that was asked for."""
    if curve:
        from .compare_curve import measure_curves

        return measure_curves(options, jobs=jobs)
    from .compare import compare, crossed, label, standard

    machines = crossed(options, axes) if axes else [(label(choice), choice) for choice in standard(options)]
    if not options.programs:
        from .compare_suite import measure_suite

        return measure_suite(machines, repeat=repeat, jobs=jobs)
    from .compare_view import ProgramReport

    recorded = MOST_RECORDED if report else 0
    return ProgramReport(compare(machines, stdin=stdin, repeat=repeat, jobs=jobs, recorded=recorded))


def _verdict(report: Report, options: Options) -> int:
    """The exit code, and on standard error why it is not 0."""
    if not report.is_complete:
        say(f"stopped after {options.max_instructions:,} instructions (--max-instructions)")
        return LIMIT
    if difference := report.difference():
        say(difference)
        return DIFFERENT
    return 0


# --- validate -----------------------------------------------------------------------------------------------------


@click.command(
    cls=ExampleCommand,
    examples=[
        ("cr3 validate", "Every published number that the model is held to, and what the model says."),
        ("cr3 validate --json validation.json", "For machines."),
    ],
)
@click.option("--json", "json_file", metavar="FILE", help="Write the rows to FILE as JSON (-: standard output).")
@jobs_option
def validate(json_file: str | None, jobs: int | None) -> None:
    """Hold the model to published measurements.

    Every row has the published value with its source, what this version measures, whether the model was fitted
    to that value or only compared with it, and whether it is within the published range. A row that misses is no
    error: docs/validation.md says what is behind it.
    """
    from .validate import as_dict, measure, render

    with ExitStack() as files:
        output = result_file(json_file, files)
        rows = measure(jobs=jobs)
        render(rows, console(sys.stderr if json_file == "-" else sys.stdout))
        if output is not None:
            output.write(json.dumps(as_dict(rows), indent=2) + "\n")
