"""Transparent huge pages: what they change for a program is the number of its page faults, and nothing else."""

from __future__ import annotations

import io

import pytest
from conftest import MakeKernel
from huge_cases import HUGE_CASES, huge_program
from native import requires_native
from native_space import run_natively, run_under_cr3


@requires_native
@pytest.mark.native
@pytest.mark.parametrize("case", HUGE_CASES)
def test_huge_pages_are_what_they_are_under_the_real_kernel(case: str, make_kernel: MakeKernel) -> None:
    """The same output, mappings, huge pages at the end and page faults. The host's knob must be at madvise."""
    source = huge_program(HUGE_CASES[case])
    kernel = make_kernel({"ram": "128M"}, stdout=io.BytesIO())
    native, ours = run_natively(source), run_under_cr3(source, kernel)
    assert ours == native
    assert ours.minor_faults == native.minor_faults
