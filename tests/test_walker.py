"""The page walker does what the manual says, in every case there is.

`paging_cases` lists 1.4 million accesses: every combination of the bits of entries, controls and kinds of
access that could matter. `paging_oracle` is a second reading of Intel SDM Vol. 3A, chapter 4 that shares
nothing with the machine. Both look at the same memory; address, error code, the entries read and every accessed
and dirty flag must be equal. The manual leaves one thing open: which accessed flags a *faulting* access sets.
There the oracle gives what must and what may happen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby, islice

import paging_oracle
import pytest
from paging_cases import FAMILIES, RAM_SIZE, Case, cases
from paging_oracle import Controls, NotCanonical, Outcome, PageFault, Translation, translate

from emu.exceptions import MachineError, ProcessorException
from emu.machine import Machine
from emu.profile import PagingStructureCaches, TlbGeometry, Tlbs, load_profile
from emu.pte import Access, Cr0, Cr4, Efer, Pte
from emu.state import TlbKind

PAGE_FAULT, GENERAL_PROTECTION = 14, 13
SHOWN = 5
ONE_ENTRY = (TlbGeometry(sizes=("4K", "2M", "1G"), entries=1, ways="full", hash="linear"),)
SMALLEST_TLBS = Tlbs(itlb=ONE_ENTRY, dtlb=ONE_ENTRY, stlb=ONE_ENTRY)

_machines: dict[tuple[bool, int, bool, bool], Machine] = {}


def machine_for(controls: Controls, *, tlb: bool = False) -> Machine:
    """A machine whose CPUID and number of levels are those of `controls`; these no instruction can change."""
    key = (controls.cr4_la57, controls.physical_bits, controls.page1g, tlb)
    if key not in _machines:
        part = load_profile("skylake")
        part = replace(
            part,
            cpu=replace(part.cpu, physical_address_bits=controls.physical_bits),
            features=replace(part.features, page1g=controls.page1g, la57=True),
            tlb=SMALLEST_TLBS,
            paging_structure_caches=PagingStructureCaches(pml4e=1, pdpte=1, pde=1),
        )
        _machines[key] = Machine(part, RAM_SIZE, tlb=tlb, la57=controls.cr4_la57)
    return _machines[key]


def put_in_force(machine: Machine, controls: Controls) -> None:
    """Everything else about `controls`, through the registers."""
    control = machine.control
    machine.write_cr0(control.cr0 & ~Cr0.WP | Cr0.WP * controls.cr0_wp)
    on = Cr4.SMEP * controls.cr4_smep | Cr4.SMAP * controls.cr4_smap | Cr4.PGE * controls.cr4_pge
    machine.write_cr4(control.cr4 & ~(Cr4.SMEP | Cr4.SMAP | Cr4.PGE) | on)
    machine.write_msr(0xC000_0080, control.efer & ~Efer.NXE | Efer.NXE * controls.efer_nxe)
    machine.set_alignment_check(controls.rflags_ac)


def ask_oracle(machine: Machine, case: Case) -> tuple[Outcome, list[int]]:
    """What the manual says about an access to this machine's memory, and where it reads entries."""
    reads: list[int] = []

    def read(address: int) -> int:
        reads.append(address)
        return machine.ram.load64(address)

    return translate(read, case.cr3, case.va, case.access, case.cpl, case.controls, case.implicit), reads


def ask_machine(machine: Machine, case: Case) -> tuple[str, int]:
    """("pa", physical address), ("#PF", error code) or ("#GP", 0)."""
    try:
        return "pa", machine.mmu.translate(case.va, Access(case.access), implicit=case.implicit)
    except ProcessorException as refused:
        if refused.vector == GENERAL_PROTECTION:
            return "#GP", refused.error_code or 0
        assert (refused.vector, refused.address) == (PAGE_FAULT, case.va)
        return "#PF", refused.error_code or 0
    except MachineError:  # most cases map memory that this small machine does not have
        return "pa", machine.state.fault_code


def answer(outcome: Outcome) -> tuple[str, int]:
    """The oracle's outcome in the form of `ask_machine`."""
    if isinstance(outcome, Translation):
        return "pa", outcome.pa
    return ("#PF", outcome.error_code) if isinstance(outcome, PageFault) else ("#GP", 0)


def flags_are_right(before: dict[int, int], after: dict[int, int], outcome: Outcome) -> bool:
    """Whether A and D were set as the manual says: on a fault, before + must <= after <= before + may."""
    if isinstance(outcome, Translation):
        return after == before | dict(outcome.updates)
    if isinstance(outcome, NotCanonical):
        return after == before
    must, may = before | dict(outcome.must_set), dict(outcome.may_set)
    return all(value in (must[address], may.get(address)) for address, value in after.items())


def disagreement(machine: Machine, case: Case) -> str:
    """What the machine does otherwise than the oracle, or "". Leaves RAM as empty as it was."""
    ram, state, before = machine.ram, machine.state, case.memory()
    for address, entry in before.items():
        ram.store64(address, entry)
    outcome, reads = ask_oracle(machine, case)
    observed = ask_machine(machine, case)
    after = {address: ram.load64(address) for address in before}
    for address in before:
        ram.store64(address, 0)
    walked = [] if observed[0] == "#GP" else state.walk_addresses[: state.walk_depth]
    if observed == answer(outcome) and walked == reads and flags_are_right(before, after, outcome):
        return ""
    changed = {hex(a): hex(after[a]) for a in after if after[a] != before[a]}
    return f"{case.describe()}\n  oracle:  {outcome}\n  machine: {observed}, changed {changed}, read {walked}"


def disagreements(stream: Iterable[Case]) -> Iterable[str]:
    """Run cases in their order; those with the same situation follow each other, and set it up once."""
    for (_, cpl), group in groupby(stream, lambda case: (case.controls, case.cpl)):
        first = next(group)
        machine = machine_for(first.controls)
        put_in_force(machine, first.controls)
        machine.set_cpl(cpl)
        machine.write_cr3(first.cr3)
        for case in (first, *group):
            if found := disagreement(machine, case):
                yield found
        assert not machine.ram.words.any(), f"{first.family}: the walker wrote beside the entries it used"


def agree(stream: Iterable[Case]) -> None:
    found = list(islice(disagreements(stream), SHOWN))
    assert not found, "\n\n".join(["the machine and the manual differ:", *found])


def test_the_walker_agrees_with_the_manual_on_a_sample() -> None:
    agree(cases(step=97))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_walker_agrees_with_the_manual_on_every_case(family: str) -> None:
    agree(cases(family))


def load_supervisor_data(machine: Machine, case: Case) -> Translation | None:
    """Fill an empty DTLB with the access that has most rights; None if there is no translation."""
    machine.mmu.invalidate_all(global_too=True)
    for address, entry in case.memory().items():
        machine.ram.store64(address, entry)
    controls = replace(case.controls, rflags_ac=True)
    reader = replace(case, access=paging_oracle.Access.READ, cpl=0, implicit=False, controls=controls)
    put_in_force(machine, controls)
    machine.set_cpl(0)
    machine.write_cr3(case.cr3)
    outcome, _ = ask_oracle(machine, reader)
    assert ask_machine(machine, reader) == answer(outcome), case.describe()
    return outcome if isinstance(outcome, Translation) else None


def test_a_tlb_holds_the_page_with_the_rights_of_all_levels_together() -> None:
    for case in cases(step=389):
        machine = machine_for(case.controls, tlb=True)
        page = load_supervisor_data(machine, case)
        held = list(machine.mmu.entries(TlbKind.DTLB))
        if page is None:
            assert not held, case.describe()
            continue
        (entry,) = held
        place = (page.page_size, case.va & -page.page_size, page.pa & -page.page_size)
        rights = Pte.W * page.writable | Pte.U * page.user | Pte.NX * page.nx | Pte.G * page.global_
        assert (entry.page_size, entry.va, entry.pa) == place, case.describe()
        assert entry.flags & ~Pte.D == Pte.P | rights, case.describe()


def test_an_access_that_hits_a_tlb_is_judged_as_one_that_walks() -> None:
    for case in cases(step=389):
        machine = machine_for(case.controls, tlb=True)
        if load_supervisor_data(machine, case) is None:
            continue
        put_in_force(machine, case.controls)
        machine.set_cpl(case.cpl)
        before = {address: machine.ram.load64(address) for address in case.memory()}
        outcome, _ = ask_oracle(machine, case)
        assert ask_machine(machine, case) == answer(outcome), case.describe()
        assert flags_are_right(before, {address: machine.ram.load64(address) for address in before}, outcome)
