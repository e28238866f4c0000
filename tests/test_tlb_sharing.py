"""Two processes at one address: what the TLB gives them under each way to switch between them."""

from __future__ import annotations

import pytest
from command import cr3, program

A, B = program("tlb_sharing_a"), program("tlb_sharing_b")
WRITTEN = "a writes: secret of a\n"


@pytest.mark.parametrize("pti", ["on", "off"])
@pytest.mark.parametrize("engine", ["trap", "access"])
def test_without_tags_and_flushes_a_process_reads_the_others_page(engine: str, pti: str) -> None:
    done = cr3("run", A, B, "--asid", "stale", "--pti", pti, "--engine", engine)
    assert done.stdout == WRITTEN + "b reads:  secret of a\n"


@pytest.mark.parametrize("pti", ["on", "off"])
@pytest.mark.parametrize("options", [("--asid", "flush"), ("--asid", "pcid"), ("--pcid", "off")], ids=" ".join)
def test_with_either_it_reads_its_own_zeros(options: tuple[str, ...], pti: str) -> None:
    done = cr3("run", A, B, *options, "--pti", pti)
    assert done.stdout == WRITTEN + "b reads:  ...........\n"


@pytest.mark.parametrize(("mode", "faults"), [("stale", 0), ("pcid", 1)])
def test_where_the_tlb_has_an_answer_there_is_no_page_fault(mode: str, faults: int) -> None:
    trace = cr3("trace", A, B, "--asid", mode, "--events", "fault").stdout.splitlines()
    of_b = [line for line in trace if line.split()[1:3] == ["2", "page_fault"] and "0x10000000 not-present" in line]
    assert len(of_b) == faults
