"""What the processor's events tell: each happens once, with the size, the address and the rights of what happened."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from bare import IDT, ISTS, KERNEL, KERNEL_CODE, RSP0, TSS, USER_CODE, Bare

from emu import Halt
from emu.pte import PAGE_SIZE, Cr4

DATA = 0x50_0000
ENGINES = ("trap", "access")
PF = 14
SYSTEM = """
    mov rbx, cr0; mov cr0, rbx; mov rbx, cr3; mov cr3, rbx; mov rbx, cr2; mov r12, cr4; mov cr4, r12; mov cr2, rbx
    clac; stac; vmcall; swapgs; swapgs; invlpg [rbx]; cli; sti; pushfq; popfq; wbinvd; mov rax, ss; mov ss, eax
    sgdt [rsp - 32]; lgdt [rsp - 32]; mov ecx, 0xC0000082; rdmsr; wrmsr; cpuid; rdtsc; rdtscp; xor eax, eax; ltr ax
"""


def heard(bare: Bare, name: str) -> list[object]:
    """The events of one kind from now on."""
    events: list[object] = []
    bare.machine.events.on(name, events.append)
    return events


def lazy(bare: Bare, *pages: int) -> None:
    """Pages that are there once they have been touched."""
    frames = {page: bare.map(page) for page in pages}
    for page in pages:
        bare.unmap(page)
    bare.on[PF] = lambda frame: bare.map(frame.cr2 & ~0xFFF, frames[frame.cr2 & ~0xFFF])


# --- instructions -----------------------------------------------------------------------------------------------


def test_an_instruction_event_tells_the_size_that_the_instruction_has() -> None:
    """Also of those that Unicorn refuses before it has read their ends."""
    bare = Bare()
    bare.machine.control.write_cr4(bare.machine.control.cr4 | Cr4.SMAP)
    events = heard(bare, "instruction")
    bare.kernel(SYSTEM)
    bare["rsp"] = RSP0
    vmcall = bare.ram.read(bare.physical(KERNEL_CODE), 100).index(b"\x0f\x01\xc1")
    bare.calls[KERNEL_CODE + vmcall] = lambda: None
    assert bare.run().name == "#GP"  # LTR refuses the null selector
    own = [event for event in events if KERNEL_CODE <= event.va < KERNEL_CODE + PAGE_SIZE]  # type: ignore[attr-defined]
    assert len(own) == SYSTEM.count(";") + SYSTEM.count("\n") - 1
    for event, after in pairwise(own):
        assert event.va + event.size == after.va  # type: ignore[attr-defined]


def test_what_is_no_instruction_has_no_size() -> None:
    bare = Bare()
    bare.user(b"\x90\x06")
    events = heard(bare, "instruction")
    assert bare.run().name == "#UD"
    assert [event.size for event in events][:2] == [1, 0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_rep_is_one_instruction(engine: str) -> None:
    bare = Bare(engine=engine)
    bare.map(DATA)
    bare.user("mov ecx, 9; rep stosb; mov ecx, 9; nop; rep stosb; xor ecx, ecx; rep stosb")
    bare["rdi"] = DATA
    events = heard(bare, "instruction")
    bare.run()
    assert len([event for event in events if event.cpl == 3]) == 8  # type: ignore[attr-defined]
    assert bare.machine.retired(3) == (8, 0, 18)


# --- accesses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["mov [rbx], rax", "mov rax, [rbx]", "add [rbx], rax", "lock add [rbx], rax"])
@pytest.mark.parametrize("missing", [(), (DATA,), (DATA + PAGE_SIZE,), (DATA, DATA + PAGE_SIZE)])
def test_an_access_across_two_pages_is_told_once_though_either_is_missing(missing: tuple[int, ...], code: str) -> None:
    bare = Bare(engine="access")
    for page in {DATA, DATA + PAGE_SIZE} - {*missing}:
        bare.map(page)
    lazy(bare, *missing)
    bare.user(code)
    bare["rbx"] = DATA + PAGE_SIZE - 3
    events = heard(bare, "access")
    bare.run()
    assert len(bare.frames) == len(missing) + 1
    told = [event.kind for event in events if event.va == DATA + PAGE_SIZE - 3]  # type: ignore[attr-defined]
    assert told == {"mov [rbx], rax": ["write"], "mov rax, [rbx]": ["read"]}.get(code, ["read", "write"])


@pytest.mark.parametrize("name", ["tlb_miss", "page_walk"])
def test_what_the_processor_touches_to_enter_the_kernel_is_the_supervisors(name: str) -> None:
    """IDT, GDT, TSS and the stack of the handler; what the program touched is the user's."""
    bare = Bare()
    bare.map(DATA)
    bare.gate(0x20, ist=2)
    bare.user("mov rax, [rbx]")
    bare["rbx"] = DATA
    events = heard(bare, name)
    bare.run()
    found = {event.va & -PAGE_SIZE: event.cpl for event in events}  # type: ignore[attr-defined]
    own = {KERNEL + page: 0 for page in (IDT, TSS)} | {ISTS[2] - PAGE_SIZE: 0, DATA: 3, USER_CODE: 3}
    assert own.items() <= found.items()


# --- stopping ---------------------------------------------------------------------------------------------------


def test_a_machine_that_was_stopped_before_it_runs_does_not_run() -> None:
    bare = Bare()
    bare.user("inc eax")
    bare.machine.stop()
    assert bare.machine.run() is Halt.STOPPED
    assert (bare.cpu.rip, bare.machine.retired(3)[0]) == (USER_CODE, 0)
    assert bare.run().name == "int 0x20"
    assert bare["rax"] == 1


@pytest.mark.parametrize("name", ["instruction", "exception"])
def test_a_stop_that_a_listener_asked_for_is_over_when_the_machine_has_stopped(name: str) -> None:
    bare = Bare()
    bare.user("ud2")
    stop: Callable[[object], None] = lambda _: bare.machine.stop()  # noqa: E731
    bare.machine.events.on(name, stop, once=True)
    assert bare.machine.run() is Halt.STOPPED
    assert bare.run().name == "#UD"
