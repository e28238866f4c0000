"""Programs on a real processor, under the real kernel: what the cr3 machine is measured against.

Every shipped program keeps the promise of its header, and the random programs that other tests compare the
machine with are fit for that: they end, soon and well, and always print the same.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from expectations import PROGRAMS, expectation
from hypothesis import given, settings
from native import NativeBuildError, NativeResult, count_instructions, requires_native, run_native
from random_programs import KINDS, PLACES, programs, random_program

pytestmark = [pytest.mark.native, requires_native]

SUM_LOOP = next(program for program in PROGRAMS if program.stem == "sum_loop")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_shipped_program_ends_as_its_header_promises(program: Path) -> None:
    promise = expectation(program.read_text())
    result = run_native(program, promise.stdin)
    assert result == NativeResult(promise.stdout, promise.exit_code, promise.signal)


def test_the_lecture_counts_right() -> None:
    """3 + 10 * 6 + 2 instructions from _start up to `done`, says the slide; the processor agrees."""
    assert count_instructions(SUM_LOOP, until="done") == 3 + 10 * 6 + 2


def test_a_program_that_does_not_assemble_is_refused_with_its_line() -> None:
    with pytest.raises(NativeBuildError, match=r":2: Error: no such instruction"):
        run_native("_start:\n    frobnicate rax\n")


def assert_fit_for_comparison(source: str) -> None:
    """The program ends with exit 0 and one line of two checksums, the same line every time."""
    result = run_native(source)
    assert (result.exit_code, result.signal) == (0, None)
    assert re.fullmatch(rb"[0-9a-f]{16} [0-9a-f]{16}\n", result.stdout)
    assert run_native(source) == result


@pytest.mark.parametrize("seed", range(40))
def test_a_random_program_ends_and_repeats_itself(seed: int) -> None:
    pages, place = (1, 2, 3, 16, 64, 300)[seed % 6], PLACES[seed % len(PLACES)]
    assert_fit_for_comparison(random_program(seed, pages=pages, place=place))


@settings(max_examples=15, deadline=None)
@given(programs())
def test_so_does_every_program_that_hypothesis_can_think_of(source: str) -> None:
    assert_fit_for_comparison(source)


def test_random_programs_contain_every_kind_of_statement() -> None:
    comments = re.findall(r"^ +# (\w+)$", random_program(0, size=400), re.MULTILINE)
    assert set(comments) == set(KINDS)


def test_different_seeds_are_different_programs() -> None:
    assert len({run_native(random_program(seed)).stdout for seed in range(10)}) == 10
