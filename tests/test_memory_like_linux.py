"""Memory and processes behave as they do under the real kernel: same answers, same end, same address space.

Each case of `memory_cases` and `process_cases` runs natively and under cr3 (see `native_space`). What is printed, the
exit code or signal, the address of a last fault and every mapping that is there at the end must be equal, and so must
the number of page faults.
"""

from __future__ import annotations

import io

import pytest
from conftest import MakeKernel
from memory_cases import MEMORY_CASES
from memory_programs import memory_program
from native import requires_native
from native_space import run_natively, run_under_cr3
from process_cases import PROCESS_CASES
from small_programs import STDIN

CASES = {**MEMORY_CASES, **PROCESS_CASES}
pytestmark = [pytest.mark.native, requires_native]


@pytest.mark.parametrize("case", CASES)
def test_memory_is_what_it_is_under_the_real_kernel(case: str, make_kernel: MakeKernel) -> None:
    source = memory_program(CASES[case])
    kernel = make_kernel(stdin=io.BytesIO(STDIN), stdout=io.BytesIO())
    native, ours = run_natively(source, STDIN), run_under_cr3(source, kernel)
    assert ours == native
    assert ours.minor_faults == native.minor_faults
