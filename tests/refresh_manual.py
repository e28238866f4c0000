"""Put the numbers that commands print today into the manual: `PYTHONPATH=.:tests python tests/refresh_manual.py`.

Only lines that differ in numbers are replaced, each by the line in the output that is otherwise the same. What differs
in words is left, and said: a person should look at it.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from command import ROOT
from test_docs import Session, matches, sessions, shell, workplace


def shape(line: str) -> str:
    """A line without its numbers and the blanks and rules around them."""
    return re.sub(r"0x[0-9a-f]+|[0-9][0-9,.]*|[─━=-]{2,}|\s+", " ", line).strip()


def refreshed(expected: tuple[str, ...], actual: list[str]) -> list[str] | None:
    """The shown lines with today's numbers; None if a line is not to be found."""
    lines, at = [], 0
    for line in expected:
        if line == "...":
            lines.append(line)
            continue
        if "..." in line.removesuffix("..."):
            at = next((i for i in range(at, len(actual)) if matches((line,), actual[i : i + 1])), len(actual))
            if at == len(actual):
                return None
            lines.append(line)
            at += 1
            continue
        cut = line.endswith("...")
        wanted = shape(line.removesuffix("..."))
        while at < len(actual) and not (shape(actual[at]).startswith(wanted) if cut else shape(actual[at]) == wanted):
            at += 1
        if at == len(actual):
            return None
        lines.append(f"{actual[at][: len(line) - 3]}..." if cut else actual[at].rstrip())
        at += 1
    return lines


def refresh(session: Session, folder: Path) -> None:
    """Rewrite one block."""
    page = ROOT / session.place.partition(":")[0]
    for command, expected in session.commands:
        actual = shell(command, folder).stdout.splitlines()
        if expected is None or matches(expected, actual):
            continue
        lines = refreshed(expected, actual)
        old, text = "\n".join(expected), page.read_text()
        if lines is None or not matches(tuple(lines), actual) or old not in text:
            print(f"{session.place}: look at it: $ {command}\n" + "\n".join(actual), file=sys.stderr)
            continue
        page.write_text(text.replace(old, "\n".join(lines), 1))
        print(f"{session.place}: $ {command}", file=sys.stderr)


def main() -> None:
    """Refresh every block of the manual."""
    with tempfile.TemporaryDirectory() as folder:
        place = workplace.__wrapped__(Path(folder))  # type: ignore[attr-defined]
        for session in sessions():
            refresh(session, place)


if __name__ == "__main__":
    main()
