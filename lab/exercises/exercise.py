"""What an exercise is: a task, a stub to begin with, and checks that say what is wrong and why.

An exercise is one module of this package. Its docstring is the task; its checks are functions that take what the
student wrote and raise `Wrong` with a sentence that leads to the mistake, but not to the answer:

    EXERCISE = Exercise(1, "address", "Take an address apart", __doc__)

    @EXERCISE.check("the offset is what the page cannot change")
    def offset(solution: Solution) -> None:
        part = solution.call("split", 0x1234)[-1]
        if part != 0x234:
            raise Wrong(f"the offset of 0x1234 is {part:#x}: how many bits does a page of 4 KiB leave?")

The checks go from the simple to the subtle, and the first that fails is the last that is tried: what is wrong after
it may come from the same mistake.

>>> exercise = Exercise(1, "even", "Tell even numbers", "Write even(n).")
>>> @exercise.check("two is even")
... def two(solution):
...     if not solution.call("even", 2):
...         raise Wrong("2 is not odd")
>>> exercise.try_on(Solution("mine.py", {"even": lambda n: n % 3 == 0})).findings[-1].why
'2 is not odd'
"""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from emu import InputError

__all__ = ["Exercise", "Finding", "Solution", "Verdict", "Wrong", "exercises", "find_exercise"]

STUBS: Final = Path(__file__).parent / "stubs"


class Wrong(Exception):  # noqa: N818 - it reads as a sentence where it is raised
    """A solution does not do what was asked; the message is for the student."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, and why it failed (None: it did not)."""

    what: str
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings about one solution, up to the first that failed. `left` are the checks that were not tried."""

    exercise: str
    path: str
    findings: tuple[Finding, ...]
    left: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all checks were tried, and none failed."""
        return not self.left and all(finding.why is None for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Solution:
    """What a student wrote: a file, and for Python the names that it defines."""

    path: str
    names: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str) -> Any:
        """Something that the file must define. Raises Wrong."""
        if name not in self.names:
            raise Wrong(f"the file defines no {name!r}; the stub says what is asked for")
        return self.names[name]

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the student's."""
        function = self.get(name)
        if not callable(function):
            raise Wrong(f"{name!r} is {function!r}, not a function")
        return function(*arguments)


Check = Callable[[Solution], None]


@dataclass(slots=True)
class Exercise:
    """A task with its checks, in the order in which they are tried."""

    number: int
    name: str
    title: str
    task: str
    suffix: str = ".py"
    checks: list[tuple[str, Check]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.task = self.task.strip()

    @property
    def label(self) -> str:
        """Number and name, as files are called: `02_page_walk`."""
        return f"{self.number:02}_{self.name}"

    @property
    def stub(self) -> str:
        """The file to begin with."""
        return (STUBS / f"{self.label}{self.suffix}").read_text()

    def check(self, what: str) -> Callable[[Check], Check]:
        """Decorator: add a check."""

        def register(function: Check) -> Check:
            self.checks.append((what, function))
            return function

        return register

    def try_on(self, solution: Solution, begins: Callable[[str], object] = str) -> Verdict:
        """Try the checks up to the first that fails; `begins` is told of each before it is tried."""
        findings: list[Finding] = []
        for what, function in self.checks:
            begins(what)
            findings.append(Finding(what, _why(function, solution)))
            if findings[-1].why is not None:
                break
        left = tuple(what for what, _ in self.checks[len(findings) :])
        return Verdict(self.label, solution.path, tuple(findings), left)


def _why(function: Check, solution: Solution) -> str | None:
    """What a check has to say. An exception out of the student's own code is one more thing that can be wrong."""
    try:
        function(solution)
    except Wrong as wrong:
        return str(wrong)
    except SystemExit:
        return "your code wants to end the program; it shall return"
    except Exception as error:
        place = place_of(error, solution.path)
        if place is None:
            raise
        return f"your code raised {type(error).__name__}: {error}, at {place}"
    return None


def place_of(error: Exception, path: str) -> str | None:
    """The last line of a student's file that an exception came through; None if it did not come through it."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == path:
            return f"{path}:{frame.lineno}: {frame.line}"
    return None


def exercises() -> list[Exercise]:
    """All exercises, by number: every module of this package that has an EXERCISE."""
    package = importlib.import_module(__package__ or "")
    found = []
    for module in pkgutil.iter_modules(package.__path__, f"{__package__}."):
        exercise = getattr(importlib.import_module(module.name), "EXERCISE", None)
        if isinstance(exercise, Exercise):
            found.append(exercise)
    return sorted(found, key=lambda exercise: exercise.number)


def find_exercise(text: str) -> Exercise:
    """An exercise by number or name, also as a path: `3`, `03`, `tlb`, `exercises/03`. Raises InputError.

    >>> find_exercise("exercises/02").name
    'page_walk'
    """
    wanted = Path(text).stem
    every = exercises()
    for exercise in every:
        if wanted in (exercise.name, exercise.label) or (wanted.isdecimal() and int(wanted) == exercise.number):
            return exercise
    raise InputError(f"there is no exercise {text!r}; there are {', '.join(one.label for one in every)}")
