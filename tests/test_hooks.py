"""Hooks: who hears of what, and what a hook may do to the run: look, change, stop it, break it."""

from __future__ import annotations

from typing import Any

import pytest
from bare import USER_CODE, Bare
from conftest import MakeKernel
from memory_programs import memory_program

from emu import Event, Halt, HookError, InputError
from emu.assembler import assemble_source
from emu.events import Cr3Write, PageWalk
from kernel import Kernel

DATA = 0x50_0000
ENGINES = ("trap", "access")
RMW = "mov eax, 3; add [rbx], eax; mov eax, 4; add [rbx], eax; lock xadd [rbx], eax; mov eax, [rbx]; nop"
LOOP = "mov ecx, 3; 1: mov eax, [rbx]; add rbx, 4096; push rcx; pop rcx; dec ecx; jnz 1b; mov eax, 9"
REP = "mov ecx, 40; rep stosb; mov eax, 9"
FAULTS = (
    "_start: mov byte ptr [page], 1; mov eax, 39; syscall; mov eax, 60; mov edi, 1; syscall; .bss; page: .skip 4096"
)
GETPIDS = "_start: mov eax, 39; syscall; mov eax, 39; syscall; mov edi, eax; mov eax, 60; syscall"


def bare(code: str, **options: Any) -> Bare:
    """A machine with four pages of data, and a program that uses them."""
    machine = Bare(**options)
    for page in range(4):
        machine.map(DATA + 4096 * page)
    machine.user(code)
    machine["rbx"], machine["rdi"] = DATA, DATA + 4096 - 16
    return machine


def outcome(machine: Bare) -> tuple[object, ...]:
    """What a run leaves behind."""
    last = machine.run().name
    counted = machine.machine.retired(3)
    return last, counted, machine["rax"], machine["rcx"], machine.machine.guest.read(DATA, 4 * 4096)


# --- which events -----------------------------------------------------------------------------------------------


@pytest.fixture
def forked(make_kernel: MakeKernel) -> Kernel:
    """A kernel with a program that forks, and writes to a page in parent and child."""
    kernel = make_kernel()
    program = "three; mov byte ptr [rbx], 1; in_child; mov byte ptr [rbx], 2; child_ends; mov byte ptr [rbx + 4096], 3"
    kernel.spawn(assemble_source(memory_program(program)))
    return kernel


def test_a_hook_hears_of_the_processes_addresses_and_kinds_that_it_asked_for(forked: Kernel) -> None:
    everything: list[Any] = []
    chosen: dict[str, list[Any]] = {}
    pages = range(0x1000_0000, 0x1000_1000)
    for name in ("page_fault", "access", "syscall", "tlb_miss", "exec"):
        forked.on(name, everything.append)
    for label, name, choice in (
        ("child", "page_fault", {"pid": 2}),
        ("both", "page_fault", {"pid": (1, 2)}),
        ("page", "page_fault", {"range": pages}),
        ("copies", "page_fault", {"kind": ("COPY_ON_WRITE", "REUSE")}),
        ("writes", "access", {"range": pages, "kind": "write"}),
        ("forks", "syscall", {"kind": "fork"}),
        ("fetches", "tlb_miss", {"kind": "fetch", "pid": 1}),
        ("first", "page_fault", {"pid": 2, "once": True}),
    ):
        forked.on(name, chosen.setdefault(label, []).append, **choice)
    forked.run()

    def told(name: str, **values: object) -> list[Any]:
        return [
            e for e in everything if type(e).__name__ == name and all(getattr(e, k) == v for k, v in values.items())
        ]

    faults = told("PageFaultEvent")
    assert chosen["child"] == told("PageFaultEvent", pid=2) != []
    assert chosen["both"] == faults
    assert chosen["page"] == [event for event in faults if event.address in pages] != []
    assert {event.outcome for event in chosen["copies"]} == {"COPY_ON_WRITE", "REUSE"}
    assert [(event.pid, event.kind) for event in chosen["writes"]][:2] == [(1, "write"), (2, "write")]
    assert [event.name for event in chosen["forks"]] == ["fork"]
    assert chosen["fetches"] == told("TlbMiss", access="fetch", pid=1) != []
    assert chosen["first"] == chosen["child"][:1]


def test_a_range_is_touched_by_an_access_that_begins_before_it() -> None:
    machine = bare("mov rax, [rbx + 4]; mov rax, [rbx + 12]; mov rax, [rbx]", engine="access")
    seen: list[Any] = []
    machine.machine.events.on("access", seen.append, range=range(DATA + 8, DATA + 12))
    machine.run()
    assert [event.va - DATA for event in seen] == [4]


@pytest.mark.parametrize(
    ("name", "choice", "message"),
    [
        ("syscall", {"range": range(4)}, "'syscall' has no va or address, so it cannot be chosen by range="),
        ("context_switch", {"kind": "read"}, "'context_switch' has no kind or"),
        ("acces", {}, "unknown event 'acces': did you mean access"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(name: str, choice: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Bare().machine.events.on(name, print, **choice)


def test_an_event_without_listeners_is_not_built(make_kernel: MakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before the first one comes nor after the last one went."""
    built: list[str] = []
    monkeypatch.setattr(Event, "happen", lambda event, _guest: built.append(type(event).__name__))
    kernel = make_kernel()
    listeners = [kernel.on(name, print) for name in ("page_fault", "page_walk", "tlb_miss", "syscall", "cr3_write")]
    assert kernel.machine.state.listeners != 0
    for listener in listeners:
        listener.off()
    kernel.on("exit", lambda _: None)
    kernel.spawn(assemble_source(GETPIDS))
    kernel.run()
    assert (built, kernel.machine.state.listeners) == (["ExitEvent"], 0)


# --- looking and changing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_hook_changes_registers_flags_and_where_the_program_goes_on(engine: str) -> None:
    code = "mov eax, 1; cmp eax, 2; jz 1f; mov ecx, 5; 1: add eax, 10; nop; add eax, 100; nop"
    own = range(USER_CODE, USER_CODE + 64)
    plain, changed = bare(code, engine=engine), bare(code, engine=engine)
    at: list[int] = []
    plain.machine.events.on("instruction", lambda event: at.append(event.va), range=own)
    plain.run()
    jump, add, last = at[2], at[4], at[7]

    @changed.machine.events.on("instruction", range=own)
    def change(event: Any) -> None:
        registers = event.guest.registers
        if event.va == jump:
            registers["rflags"] |= 1 << 6  # ZF: the jump is taken
        elif event.va == add and registers["rax"] == 1:
            registers["rax"] = 1000
        elif event.va == last and registers["rax"] == 1110:
            registers["rip"] = add

    changed.run()
    assert (plain["rax"], plain["rcx"], plain.machine.retired(3)[0]) == (111, 5, 9)
    assert (changed["rax"], changed["rcx"], changed.machine.retired(3)[0]) == (1220, 0, 11)


def test_registers_cannot_be_changed_in_the_middle_of_an_instruction() -> None:
    machine = bare(RMW, engine="access")

    @machine.machine.events.on("access", kind="write", range=range(DATA, DATA + 8))
    def change(event: Any) -> None:
        event.guest.registers["rax"] = 1

    with pytest.raises(HookError, match="in the middle of an instruction") as caught:
        machine.machine.run()
    assert isinstance(caught.value.__cause__, InputError)


def test_a_hook_reads_and_writes_memory_and_code_by_virtual_address() -> None:
    """A page that has not been touched costs nothing to look at; code that was changed executes as it is now."""
    code = "nop; mov eax, [rbx]; jmp 1f; 1: mov edx, 5; nop"
    machine, plain = bare(code), bare(code)

    @machine.machine.events.on("instruction", range=range(USER_CODE, USER_CODE + 1))
    def change(event: Any) -> None:
        guest = event.guest
        guest.write(DATA + 4094, b"\x11\x22\x33\x44")
        guest.write(DATA, guest.read(DATA + 4094, 4))
        where = USER_CODE + guest.read(USER_CODE, 64).index(b"\xba\x05")
        guest.write(where + 1, b"\x06")

    plain.run(), machine.run()
    assert (machine["rax"], machine["rdx"]) == (0x44332211, 6)
    assert list(machine.machine.state.misses) == list(plain.machine.state.misses)
    with pytest.raises(InputError, match="0x12345000 is not mapped"):
        machine.machine.guest.read(0x1234_5000, 1)


def test_the_guest_has_the_registers_of_the_processor_and_no_others() -> None:
    guest = bare("nop").machine.guest
    assert len(dict(guest.registers)) == 18
    for use in (lambda: guest.registers["eax"], lambda: guest.registers.update(r16=1), guest.registers.clear):
        with pytest.raises(InputError, match=r"no register|cannot be deleted"):
            use()
    with pytest.raises(InputError, match="not told by a machine"):
        Cr3Write(1, 1, 2, 3, True).stop()


def test_a_process_finds_what_a_hook_wrote_into_its_saved_registers(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    process = kernel.spawn(assemble_source(GETPIDS))
    seen: list[dict[str, int]] = []

    @kernel.on("syscall_exit", kind="getpid", pid=process.pid)
    def lie(event: Any) -> None:
        seen.append(dict(kernel.user_registers(event.pid)))
        kernel.user_registers(event.pid)["rax"] = 7 * len(seen)

    @kernel.on("instruction", range=range(process.image.entry + 7, process.image.entry + 8))
    def user(event: Any) -> None:
        seen.append(dict(kernel.user_registers(event.pid)))

    assert kernel.run().exit_code == 21
    assert [registers["rip"] - process.image.entry for registers in seen] == [7, 7, 14]
    assert seen[1]["rax"] == 7 and seen[1]["eflags"] & 0x202 == 0x202
    with pytest.raises(InputError, match="no registers"):
        kernel.user_registers(process.pid)["rax"]


# --- stopping and failing -----------------------------------------------------------------------------------------


def stops() -> list[tuple[str, str, str, int]]:
    """(engine, program, event, which one) of every stop that the next test makes."""
    programs = {"rmw": RMW, "loop": LOOP, "rep": REP}
    cases = [("trap", program, name) for program in programs for name in ("instruction", "tlb_miss", "page_walk")]
    cases += [("access", program, name) for program in programs for name in ("instruction", "access", "page_walk")]
    return [(engine, programs[program], name, number) for engine, program, name in cases for number in (1, 2, 3, 5)]


@pytest.mark.parametrize(("engine", "code", "name", "number"), stops())
def test_a_run_that_a_hook_stopped_goes_on_as_if_nothing_had_been(
    engine: str, code: str, name: str, number: int
) -> None:
    """Same registers, same memory, same counters: nothing is executed twice, and nothing counted twice."""
    plain, stopped = bare(code, engine=engine), bare(code, engine=engine)
    seen: dict[str, list[Event]] = {"plain": [], "stopped": []}
    plain.machine.events.on(name, seen["plain"].append)
    stopped.machine.events.on(name, seen["stopped"].append)

    @stopped.machine.events.on(name)
    def stop(event: Event) -> None:
        if len(seen["stopped"]) == number:
            event.stop()

    halt = stopped.machine.run()
    expected = outcome(plain)
    assert halt is Halt.STOPPED
    assert outcome(stopped) == expected
    assert list(stopped.machine.state.misses) == list(plain.machine.state.misses)
    assert len(seen["stopped"]) == len(seen["plain"])


@pytest.mark.parametrize(
    "name", ["instruction", "access", "tlb_miss", "page_walk", "page_fault", "syscall", "exception", "cr3_write"]
)
def test_what_a_hook_raises_stops_the_run_cleanly_with_the_guests_state(name: str, make_kernel: MakeKernel) -> None:
    """Afterwards the run can be gone on with, and nothing leaks (the fixture looks)."""
    kernel = make_kernel(pti=True)
    kernel.spawn(assemble_source(FAULTS))
    kernel.run(until="_start")
    kernel.machine.stop_before()
    seen: list[Any] = []

    @kernel.on(name, once=True)
    def fail(event: Any) -> None:
        seen.append(event)
        raise ValueError("no")

    with pytest.raises(HookError, match=r"a hook raised ValueError: no \(rip 0x") as caught:
        kernel.run()
    error = caught.value
    assert isinstance(error.__cause__, ValueError)
    assert error.event is seen[0]
    assert (error.guest.cycle, error.guest.pid) == (seen[0].cycle, 1)
    assert error.guest.rip == error.guest.registers["rip"] != 0
    assert kernel.run().exit_code == 1


def test_what_a_hook_raises_before_the_run_comes_out_of_run(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    kernel.on("exec", lambda _: 1 // 0)
    kernel.spawn(assemble_source(GETPIDS))
    with pytest.raises(HookError, match="ZeroDivisionError"):
        kernel.run()
    assert kernel.run().exit_code == 1


def test_ctrl_c_in_a_hook_is_no_failure_of_the_hook(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()

    def interrupt(_event: object) -> None:
        raise KeyboardInterrupt

    kernel.on("page_walk", interrupt, once=True)
    kernel.spawn(assemble_source(GETPIDS))
    with pytest.raises(KeyboardInterrupt):
        kernel.run()
    assert kernel.run().exit_code == 1


def test_an_event_is_compared_and_shown_without_its_guest() -> None:
    machine = bare(LOOP)
    walks: list[PageWalk] = []
    machine.machine.events.on("page_walk", walks.append)
    machine.run()
    first = walks[0]
    assert first == PageWalk(first.cycle, first.pid, first.va, first.access, first.cpl, first.ok, first.steps)
    assert "guest" not in repr(first)
    assert first.guest is machine.machine.guest
