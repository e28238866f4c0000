"""The manual: every command in it runs, and shows what the manual shows.

A block that begins with ```console is a session: lines with `$ ` are commands, the others are what they print,
where a line `...` stands for any number of lines, and `...` in a line for any text. A command without output shown
may print anything. The last command of a line must succeed; `; echo $?` shows the exit code of one
that does not.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from command import ROOT, compile_once, cr3, program

from lab.cli import cli

MANUAL = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "programs" / "README.md",
    ROOT / "examples" / "README.md",
]


@dataclass(frozen=True)
class Session:
    """One block: its place, and the commands with the lines that they should print (None: any)."""

    place: str
    commands: tuple[tuple[str, tuple[str, ...] | None], ...]


def sessions() -> list[Session]:
    """Every console block of the manual."""
    found = []
    for page in MANUAL:
        text = page.read_text()
        for block in re.finditer(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, block.start()) + 2
            found.append(Session(f"{page.relative_to(ROOT)}:{line}", commands(block[1])))
    return found


def commands(block: str) -> tuple[tuple[str, tuple[str, ...] | None], ...]:
    """The commands of a block with what they print."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    assert not parts[0], f"output before the first command: {parts[0]!r}"
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return tuple((command, tuple(output.splitlines()) or None) for command, output in pairs)


def matches(expected: tuple[str, ...], actual: list[str]) -> bool:
    """Whether lines are as shown, with `...` for any number of them, or for the rest of one."""
    pattern = "".join(pattern_of(line.rstrip()) for line in expected)
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in actual)) is not None


def pattern_of(line: str) -> str:
    """What a shown line matches."""
    if line == "...":
        return "(?:.*\n)*?"
    return re.escape(line).replace(re.escape("..."), ".*") + "\n"


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with what a reader of the manual has around, and the commands `cr3` and `python`."""
    compile_once()
    for name in ("programs", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "bin").mkdir()
    for name, arguments in (("cr3", " -m lab"), ("python", "")):
        script = tmp_path / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        script.chmod(0o755)
    cr3("asm", program("hello"), "-o", tmp_path / "a.out")
    return tmp_path


def shell(command: str, workplace: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line as a reader would; standard error is on the same screen."""
    path = f"{workplace / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=workplace,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="the manual's commands are for a Unix shell")


@needs_bash
@pytest.mark.parametrize("session", sessions(), ids=lambda session: session.place)
def test_the_manual_shows_what_happens(session: Session, workplace: Path) -> None:
    for command, expected in session.commands:
        done = shell(command, workplace)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        if expected is not None and not matches(expected, done.stdout.splitlines()):
            shown = "\n".join(expected)
            pytest.fail(f"$ {command}\n{done.stdout}\n--- but {session.place} shows\n{shown}", pytrace=False)


def snippets() -> list[tuple[str, str]]:
    """Every Python block of the manual, with its place."""
    found = []
    for page in MANUAL:
        text = page.read_text()
        for block in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            found.append((f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, block.start()) + 2}", block[1]))
    return found


@needs_bash
@pytest.mark.parametrize(("place", "code"), snippets(), ids=[place for place, _ in snippets()])
def test_the_python_of_the_manual_runs(place: str, code: str, workplace: Path) -> None:
    (workplace / "snippet.py").write_text(code)
    done = shell("python snippet.py", workplace)
    assert done.returncode == 0, f"{place}\n{done.stdout}"


INTERACTIVE = ("debug", "gdb")
"""Commands that wait for somebody; test_debug.py and test_gdb.py run their examples."""


def examples() -> list[str]:
    """Every example of every `--help`."""
    commands = [command for name, command in cli.commands.items() if name not in INTERACTIVE]
    return [line for command in commands for line, _meaning in getattr(command, "examples", ())]


@needs_bash
@pytest.mark.parametrize("line", examples())
def test_the_examples_of_help_work(line: str, workplace: Path) -> None:
    for tool in ("jq",):
        if tool in line and shutil.which(tool) is None:
            pytest.skip(f"the example needs {tool}")
    done = shell(line, workplace)
    assert done.returncode == 0, done.stdout


def test_the_manual_names_every_option() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    for name, command in cli.commands.items():
        context = click.Context(command, info_name=name)
        options = {option for parameter in command.get_params(context) for option in parameter.opts}
        missing = {option for option in options if option.startswith("-") and f"`{option}" not in page}
        assert missing <= {"-h", "--help"}, f"docs/cli.md does not say what {sorted(missing)} of cr3 {name} mean"


def test_ellipses_stand_for_any_lines() -> None:
    assert matches(("a", "...", "d"), ["a", "b", "c", "d  "])
    assert matches(("...",), [])
    assert not matches(("a", "...", "d"), ["a", "b", "c"])


def test_an_ellipsis_in_a_line_stands_for_any_text() -> None:
    assert matches(("sum 3...",), ["sum 3  4"])
    assert matches(("... fault ... 0x5000 ...",), ["  17  page fault at 0x5000 write"])
    assert not matches(("sum 3...",), ["sum 2", "sum 3"])


@pytest.mark.slow
def test_the_manual_is_a_site_whose_links_lead_somewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "lessons" / "paging.html").read_text()
    assert "pictures/paging.svg" in page
    assert not re.search(r'(src|href)="https?://(?!squidfunk)', page), "a page wants something from the network"


def test_every_page_of_the_manual_can_be_found() -> None:
    contents = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in contents, f"{page.name} is not in the contents of mkdocs.yml"


def test_every_lesson_has_commands_a_picture_and_two_exercises() -> None:
    contents = (ROOT / "mkdocs.yml").read_text()
    lessons = re.findall(
        r"^      - .*: (\S+)$", contents.partition("- Lessons:")[2].partition("- Exercises:")[0], re.MULTILINE
    )
    assert len(lessons) == 9
    for lesson in lessons:
        page = ROOT / "docs" / lesson
        text = page.read_text()
        assert "```console" in text, lesson
        picture = re.search(r"!\[[^]]+\]\((.*?)\)", text)
        assert picture and (page.parent / picture[1]).is_file(), lesson
        exercises = text.partition("## Exercises")[2]
        assert "\n1. " in exercises and "\n2. " in exercises, lesson
