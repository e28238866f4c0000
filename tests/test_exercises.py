"""The exercises: a right solution passes, and a wrong one is told what is wrong, but not the answer."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import ROOT, cr3, cr3_process

from emu import InputError
from lab.exercises import Exercise, check, check_here, exercises, find_exercise

SOLUTIONS = ROOT / "tests" / "solutions"
RIGHT = sorted(SOLUTIONS.glob("*/right.*"))


@dataclass(frozen=True)
class Mistake:
    """A wrong solution of an exercise, and a part of what the student must be told."""

    exercise: str
    name: str
    says: str
    text: str


def mistakes() -> list[Mistake]:
    """Every mistake of wrong.toml: a solution of its own (`whole`), or changes of the right one."""
    found = []
    for path in RIGHT:
        for name, entry in tomllib.loads((path.parent / "wrong.toml").read_text()).items():
            text = entry.get("whole") or path.read_text()
            for old, new in entry.get("change", ()):
                assert text.count(old) == 1, f"{path.parent.name}: {name} changes what is not there once: {old}"
                text = text.replace(old, new)
            found.append(Mistake(path.parent.name, name, entry["says"], text))
    return found


WRONG = mistakes()


def test_every_exercise_has_a_right_solution_and_three_wrong_ones() -> None:
    assert [exercise.number for exercise in exercises()] == list(range(1, 11))
    for exercise in exercises():
        assert (SOLUTIONS / exercise.label / f"right{exercise.suffix}").exists(), exercise.label
        assert sum(mistake.exercise == exercise.label for mistake in WRONG) >= 3, exercise.label


@pytest.mark.parametrize("path", RIGHT, ids=lambda path: path.parent.name)
def test_a_right_solution_passes(path: Path) -> None:
    verdict = check_here(find_exercise(path.parent.name), str(path))
    assert verdict.passed, verdict.findings[-1].why


@pytest.mark.parametrize("mistake", WRONG, ids=lambda mistake: f"{mistake.exercise}-{mistake.name}")
def test_a_wrong_solution_is_told_why(mistake: Mistake, tmp_path: Path) -> None:
    exercise = find_exercise(mistake.exercise)
    path = tmp_path / f"mine{exercise.suffix}"
    path.write_text(mistake.text)
    verdict = check_here(exercise, str(path))
    assert not verdict.passed
    assert mistake.says in (verdict.findings[-1].why or "")


@pytest.mark.parametrize("exercise", exercises(), ids=lambda exercise: exercise.label)
def test_the_stub_is_read_but_solves_nothing(exercise: Exercise, tmp_path: Path) -> None:
    path = tmp_path / f"mine{exercise.suffix}"
    path.write_text(exercise.stub)
    assert not check_here(exercise, str(path)).passed


def test_a_solution_that_loops_for_ever_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def split(va):\n    while True: pass\n")
    verdict = check(find_exercise("address"), str(path), seconds=4)
    assert "stopped after 4 seconds" in (verdict.findings[-1].why or "")
    assert len(verdict.findings) + len(verdict.left) == len(find_exercise("address").checks)


def test_a_solution_that_ends_its_process_has_failed(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("import os\ndef split(va):\n    print('hello')\n    os._exit(0)\n")
    verdict = check(find_exercise("address"), str(path))
    assert "ended the process" in (verdict.findings[-1].why or "")


def test_the_command_says_what_is_right_and_what_is_not(tmp_path: Path) -> None:
    wrong = tmp_path / "mine.py"
    wrong.write_text("def split(va): return 0, 6, 0, 1, 8")
    outcome = cr3_process("check", "exercises/01", SOLUTIONS / "01_address" / "right.py")
    assert outcome.exit_code == 0
    assert outcome.stdout.endswith("all is right\n")
    outcome = cr3_process("check", "01", wrong, "--json")
    assert outcome.exit_code == 1
    verdict = json.loads(outcome.stdout)
    assert (verdict["schema"], verdict["passed"], verdict["exercise"]) == ("cr3.check/1", False, "01_address")


def test_the_command_lists_and_explains() -> None:
    assert [line.split()[1] for line in cr3("check").stdout.splitlines()] == [one.name for one in exercises()]
    assert "split(va)" in cr3("check", "address").stdout


def test_a_stub_is_written_once(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    assert cr3("check", "1", "--start", mine).exit_code == 0
    assert mine.read_text() == find_exercise("1").stub
    mine.write_text("precious")
    outcome = cr3("check", "1", "--start", mine)
    assert (outcome.exit_code, mine.read_text()) == (2, "precious")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mine.txt", "", "ends in .py"),
        ("mine.py", "def split(va:\n", "mine.py:1"),
        ("mine.py", "1 / 0\n", "ZeroDivisionError"),
        ("mine.py", "raise SystemExit(3)\n", "SystemExit"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_message(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        check_here(find_exercise("01"), str(path))


def test_an_exercise_that_is_not_there_is_said_so() -> None:
    outcome = cr3("check", "99")
    assert outcome.exit_code == 2
    assert "01_address" in outcome.stderr
    assert cr3("check", "01", "nowhere.py").exit_code == 2
