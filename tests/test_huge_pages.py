"""Transparent huge pages: what they change for a program is the number of its page faults, and nothing else."""

from __future__ import annotations

import fcntl
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeKernel
from huge_cases import COLLAPSES, FAULTS, FORKS, SPLITS, huge_program
from hugetlb_cases import HUGETLB_CASES
from native import requires_native
from native_space import run_natively, run_under_cr3

LATER = {**FORKS, **COLLAPSES}
CASES = {**FAULTS, **SPLITS, **LATER}


@requires_native
@pytest.mark.native
@pytest.mark.parametrize("case", [*FAULTS, *SPLITS, *(pytest.param(case, marks=pytest.mark.slow) for case in LATER)])
def test_huge_pages_are_what_they_are_under_the_real_kernel(case: str, make_kernel: MakeKernel) -> None:
    """The same output, mappings, huge pages at the end and page faults. The host's knob must be at madvise."""
    source = huge_program(CASES[case])
    kernel = make_kernel({"ram": "128M"}, stdout=io.BytesIO())
    native, ours = run_natively(source), run_under_cr3(source, kernel)
    assert ours == native
    assert ours.minor_faults == native.minor_faults


# --- pools ------------------------------------------------------------------------------------------------------------

POOLS = [Path(f"/proc/sys/vm/nr_{kind}hugepages") for kind in ("", "overcommit_")]


@pytest.fixture
def host_pool() -> Iterator[None]:
    """The host's pool of huge pages, for one test at a time; it is empty before and after."""
    if not all(os.access(path, os.W_OK) for path in POOLS) or any(path.read_text() != "0\n" for path in POOLS):
        pytest.skip("the host's pool of huge pages cannot be used")
    with (Path(tempfile.gettempdir()) / "cr3-huge-pages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        for path in POOLS:
            path.write_text("0")


@requires_native
@pytest.mark.native
@pytest.mark.usefixtures("host_pool")
@pytest.mark.parametrize("case", HUGETLB_CASES)
def test_pools_are_what_they_are_under_the_real_kernel(case: str, make_kernel: MakeKernel) -> None:
    source = huge_program(HUGETLB_CASES[case])
    kernel = make_kernel({"ram": "64M"}, stdout=io.BytesIO())
    native, ours = run_natively(source), run_under_cr3(source, kernel)
    assert ours == native
