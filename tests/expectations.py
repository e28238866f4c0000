r"""What a program promises in its header, in lines that people and tests both read.

Every program in programs/ begins with a comment, and the comment says how the program ends:

    # expect: exit 45                       its exit status, or
    # expect: signal SIGSEGV                the signal that ends it
    # expect stdout: Hello, world!          one line of its output; repeat it for more
    # given stdin: What goes in             one line of the input that it needs for that

Without `expect stdout` the program must print nothing.  The same promise is kept natively and under cr3.

>>> promise = expectation('''
... # given stdin: 20
... # expect: exit 0
... # expect stdout: fib(20) = 6765
... ''')
>>> promise.exit_code, promise.signal, promise.stdin, promise.stdout
(0, None, b'20\n', b'fib(20) = 6765\n')

>>> expectation("# expect: success")
Traceback (most recent call last):
ValueError: expected 'exit N' or 'signal NAME', found 'success'
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PROGRAMS", "Expectation", "expectation"]

PROGRAMS = sorted((Path(__file__).parent.parent / "programs").glob("*.asm"))
"""The shipped programs."""


@dataclass(frozen=True)
class Expectation:
    """How a program ends, and what it prints: either `exit_code` or `signal` is None."""

    exit_code: int | None
    signal: int | None
    stdout: bytes = b""
    stdin: bytes = b""


def expectation(source: str) -> Expectation:
    """Read the promise in the comment lines of `source`; ValueError if there is none, or more than one."""
    endings = re.findall(r"^# expect: (.*)$", source, re.MULTILINE)
    if len(endings) != 1:
        raise ValueError(f"expected one line '# expect: exit N' or '# expect: signal NAME', found {len(endings)}")
    exit_code, signal_number = _ending(endings[0])
    return Expectation(
        exit_code, signal_number, stdout=_lines(source, "expect stdout"), stdin=_lines(source, "given stdin")
    )


def _ending(text: str) -> tuple[int | None, int | None]:
    match text.split():
        case ["exit", code] if code.isdecimal() and int(code) < 256:
            return int(code), None
        case ["signal", name] if name in signal.Signals.__members__:
            return None, int(signal.Signals[name])
    raise ValueError(f"expected 'exit N' or 'signal NAME', found '{text}'")


def _lines(source: str, key: str) -> bytes:
    return "".join(f"{line}\n" for line in re.findall(rf"^# {key}: (.*)$", source, re.MULTILINE)).encode()
