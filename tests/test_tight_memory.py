"""However short memory is, programs do the same.

Before every system call all pages go that can, in the order of a replacement policy: the program's code, its stack, its
arguments, shared pages, a child's. What it prints and how it ends is what it is without swap. Left out are only
programs that ask about that: how often they faulted, which pages are there, how much of the swap area is used.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import file_cases
import pytest
from expectations import PROGRAMS, expectation
from file_programs import program
from memory_cases import MEMORY_CASES
from memory_programs import memory_program
from process_cases import PROCESS_CASES
from small_programs import STDIN, small_program
from test_like_linux import CASES

from emu import Machine, assemble
from emu.assembler import assemble_source
from emu.image import Image
from kernel import Kernel, reclaim
from kernel.consistency import inconsistencies
from kernel.policies import find_policy, policy_names

ASKS = re.compile(r"\b(faults|residents)|/proc/swaps")
POLICIES = [name for name in policy_names() if not find_policy(name).knows_future]
EVERYTHING = 1 << 20
"""More pages than there are."""


def suite() -> Iterator[tuple[Callable[[], Image], bytes]]:
    """Programs, and what they find on standard input."""
    for path in PROGRAMS:
        yield lambda path=path: assemble(path), expectation(path.read_text()).stdin  # type: ignore[misc]
    for cases, make in (
        (CASES, small_program),
        (MEMORY_CASES, memory_program),
        (PROCESS_CASES, memory_program),
        (file_cases.CASES, program),
    ):
        for case in cases.values():
            if not ASKS.search(case):
                yield lambda case=case, make=make: assemble_source(make(case)), STDIN  # type: ignore[misc]


SUITE = list(suite())


def run(image: Image, stdin: bytes, *, engine: str = "trap", policy: str | None = None) -> tuple[Any, int]:
    """Output, exit code and signal, and how many pages came back from swap. With a policy memory is short."""
    stdout = io.BytesIO()
    options = {} if policy is None else {"swap": "4M", "swap_policy": policy}
    kernel = Kernel(Machine(ram="8M", engine=engine), stdin=io.BytesIO(stdin), stdout=stdout, **options)
    if policy is not None:
        kernel.on("syscall", lambda _: kernel.reclaim.shrink(EVERYTHING, "direct"))
    kernel.spawn(image)
    result = kernel.run()
    assert inconsistencies(kernel) == [], "the books do not agree"
    kernel.close()
    assert kernel.leaks() == {}, "something leaked"
    return (stdout.getvalue(), result.exit_code, result.signal), result.stats["swap"]["in"]


def check(policy: str, engine: str, part: slice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run some programs of the suite as they are, and with everything out before each system call."""
    monkeypatch.setattr(reclaim, "LEAST_PAGES", 0)
    total = 0
    for make, stdin in SUITE[part]:
        image = make()
        ending, swapped = run(image, stdin, engine=engine, policy=policy)
        assert ending == run(image, stdin)[0]
        total += swapped
    assert total > 0


@pytest.mark.parametrize(("number", "policy"), [*enumerate(POLICIES)])
def test_a_program_ends_as_if_there_were_memory_for_all(
    number: int, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(policy, ("trap", "access")[number % 2], slice(number, None, 8 * len(POLICIES)), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "policy"), [*enumerate(POLICIES)])
def test_many_more_programs_do(number: int, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(policy, ("access", "trap")[number % 2], slice(number + len(POLICIES), None, 2 * len(POLICIES)), monkeypatch)
