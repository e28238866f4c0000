"""Whatever a program does to its memory, in any order: it sees what it would see under the real kernel.

Sequences of mmap, munmap, mprotect, mremap, brk, madvise, mlock, mincore, fork and touches run natively and under cr3
(see `random_memory`). Every answer, every value that is read, every signal, the page faults of every single step and
the mappings that are there at the end must be equal.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from native import requires_native
from native_space import run_natively, run_under_cr3
from random_memory import HUGE_UNIT, Step, describe, program_of, sequences

from emu import Machine
from kernel import Kernel
from kernel.consistency import inconsistencies

pytestmark = [pytest.mark.native, requires_native]

ANSWER = struct.Struct("<QqQQ")
ALIKE = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # the first step that differs says enough
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def assert_alike(groups: Sequence[Sequence[Step]], ram: str = "64M") -> None:
    kernel = Kernel(Machine(ram=ram), stdout=io.BytesIO())
    source = program_of(groups)
    native, ours = run_natively(source), run_under_cr3(source, kernel)
    for step, theirs, mine in zip(describe(groups), _answers(native.stdout), _answers(ours.stdout), strict=False):
        assert (step, mine) == (step, theirs)
    assert ours == native
    assert inconsistencies(kernel) == []
    kernel.close()
    assert kernel.leaks() == {}


def _answers(stdout: str) -> list[tuple[int, ...]]:
    """Result, page faults, and two words of mincore, step by step."""
    return list(ANSWER.iter_unpack(stdout.encode("latin-1")))


@settings(ALIKE, max_examples=40)
@given(groups=sequences(count=8, size=25))
def test_any_sequence_of_calls_leaves_what_the_real_kernel_leaves(groups: tuple[list[Step], ...]) -> None:
    assert_alike(groups)


@pytest.mark.slow
@settings(ALIKE, max_examples=120)
@given(groups=sequences(count=8, size=40))
def test_longer_sequences_do_the_same(groups: tuple[list[Step], ...]) -> None:
    assert_alike(groups)


@pytest.mark.usefixtures("host_huge_pages")
@settings(ALIKE, max_examples=12)
@given(groups=sequences(count=4, size=25, unit=HUGE_UNIT))
def test_any_sequence_of_calls_on_huge_pages_does_the_same(groups: tuple[list[Step], ...]) -> None:
    assert_alike(groups, ram="256M")


@settings(ALIKE, max_examples=8)
@given(groups=sequences(count=4, size=25, unit=HUGE_UNIT))
def test_huge_pages_for_all_change_no_answer(groups: tuple[list[Step], ...]) -> None:
    endings = []
    for thp in ("never", "always"):
        kernel = Kernel(Machine(ram="256M"), stdout=io.BytesIO(), thp=thp)
        ending = run_under_cr3(program_of(groups), kernel)
        assert inconsistencies(kernel) == []
        kernel.close()
        assert kernel.leaks() == {}
        answers = zip(describe(groups), _answers(ending.stdout), strict=False)
        endings.append(([(step, answer[0]) for step, answer in answers], ending.exit_code, ending.space))
    assert endings[0] == endings[1]
