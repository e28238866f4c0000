"""The command `cr3 check`: the exercises, their tasks, and what is wrong with a solution."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from .options import ExampleCommand
from .terminal import has_colour

if TYPE_CHECKING:
    from .exercises import Exercise, Verdict

__all__ = ["check"]

FAILED: Final = 1


@click.command(
    cls=ExampleCommand,
    examples=[
        ("cr3 check", "All exercises."),
        ("cr3 check 02", "What the second one asks for."),
        ("cr3 check 02 --start walk.py", "Begin with its stub."),
        ("cr3 check 02 walk.py || true", "Is it right? If not, why?"),
    ],
)
@click.argument("exercise", required=False)
@click.argument("solution", required=False)
@click.option("--start", metavar="FILE", help="Write the stub to begin with into a new file.")
@click.option("--seconds", type=click.FloatRange(1), default=60, metavar="N", help="End a solution that takes longer.")
@click.option("--json", "as_json", is_flag=True, help="The verdict for machines.")
def check(exercise: str | None, solution: str | None, start: str | None, seconds: float, as_json: bool) -> int:
    """List the exercises, show a task, or check a solution.

    EXERCISE is a number or a name. The checks go from the simple to the subtle and end with the first that fails. The
    exit code is 0 if all passed, and 1 if one failed.
    """
    from .exercises import exercises, find_exercise

    if as_json and solution is None:
        raise click.UsageError("--json is the verdict on a SOLUTION; name one")
    if start is not None and exercise is None:
        raise click.UsageError("--start needs to know which EXERCISE")
    if exercise is None:
        for one in exercises():
            click.echo(f"{one.number:02}  {one.name:12}  {one.title}")
        return 0
    chosen = find_exercise(exercise)
    if start is not None:
        _start(chosen, start)
        return 0
    if solution is None:
        click.echo(f"Exercise {chosen.label}: {chosen.task}")
        return 0
    return _check(chosen, solution, seconds, as_json)


def _start(exercise: Exercise, path: str) -> None:
    """Write a stub, but never over a file: it may be somebody's solution. Raises UsageError."""
    if Path(path).suffix != exercise.suffix:
        raise click.UsageError(f"--start {path}: exercise {exercise.label} wants a file that ends in {exercise.suffix}")
    try:
        with Path(path).open("x") as file:
            file.write(exercise.stub)
    except FileExistsError:
        raise click.UsageError(f"--start {path}: the file exists, and is left as it is") from None
    except OSError as error:
        raise click.UsageError(f"--start {path}: {error.strerror}") from None
    click.echo(f"{path} is yours now; check it with: cr3 check {exercise.number:02} {path}")


def _check(exercise: Exercise, path: str, seconds: float, as_json: bool) -> int:
    from .exercises import check as check_solution

    verdict = check_solution(exercise, path, seconds)
    if as_json:
        click.echo(json.dumps({"schema": "cr3.check/1", "passed": verdict.passed, **asdict(verdict)}, indent=2))
    else:
        _render(verdict)
    return 0 if verdict.passed else FAILED


def _render(verdict: Verdict) -> None:
    """A line for each check, and what the one that failed has to say."""
    colour = has_colour(sys.stdout)
    for finding in verdict.findings:
        failed = finding.why is not None
        answer = click.style("no   " if failed else "yes  ", fg="red" if failed else "green")
        click.echo(answer + finding.what, color=colour)
        if finding.why is not None:
            click.echo(click.wrap_text(finding.why, 100, initial_indent="     ", subsequent_indent="     "))
    for what in verdict.left:
        click.echo(click.style(f"  .  {what}", dim=True), color=colour)
    click.echo(f"\n{verdict.path}: " + ("all is right" if verdict.passed else "not yet"))
