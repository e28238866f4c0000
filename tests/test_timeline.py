"""The time line of a run: every position is the same machine, however it is reached."""

from __future__ import annotations

import ctypes
import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from command import program, source
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from random_programs import random_program

from emu import InputError
from emu.state import State
from kernel.statistics import statistics
from lab.debugger import TICK, AtAddress, Debugger, Hit, Interrupted, OnAccess, OnEntry, OnEvent, Timeline
from lab.options import Options
from lab.session import Session

MakeTimeline = Callable[..., Timeline]


@pytest.fixture
def make_timeline() -> Iterator[MakeTimeline]:
    """Make time lines of programs; all their processes end with the test."""
    made: list[Timeline] = []

    def make(*programs: object, stdin: bytes = b"", stdout: Any = None, **options: Any) -> Timeline:
        chosen = Options(programs=tuple(map(str, programs)), ram="8M", **options)
        made.append(Timeline(chosen, io.BytesIO(stdin), stdout))
        return made[-1]

    yield make
    for timeline in made:
        timeline.close()


def everything(session: Session) -> tuple[dict[str, int], dict[str, Any], str]:
    """Registers, all that was counted, and a digest of RAM, TLBs, floating-point registers and hardware state."""
    machine, counted = session.machine, statistics(session.kernel)  # which closes the account of the current mode
    digest = hashlib.sha256(machine.ram.bytes.tobytes())
    state = State.from_buffer_copy(machine.state)
    state.deadline = state.iteration_limit = state.stall_limit = 0  # how far the debugger let it run
    digest.update(bytes(state) + machine.cpu.fpu.fxsave())
    for array in machine.state.arrays[: machine.state.array_count]:
        digest.update(ctypes.string_at(array.entries, 24 * array.sets * array.ways))
        digest.update(ctypes.string_at(array.trees, 8 * array.sets))
    registers = machine.cpu.registers() | {"cr3": machine.control.cr3, "cpl": machine.cpl}
    return registers, counted, digest.hexdigest()


def rip(session: Session) -> int:
    return session.machine.cpu.rip


def address(session: Session, name: str) -> int:
    return session.images[0].address_of(name)


def pass_by(timeline: Timeline, positions: list[int]) -> list[Any]:
    """What is at some positions, visited one after the other."""
    seen = []
    for position in positions:
        timeline.go(position)
        seen.append(timeline.ask(everything))
    return seen


MACHINES = [{}, {"tlb_policy": "plru", "pti": True}, {"tlb": False}, {"asid": "flush", "engine": "access"}]


@settings(
    max_examples=3, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # shrinking takes minutes
@given(
    seed=st.integers(0, 10_000),
    machine=st.sampled_from(MACHINES),
    steps=st.lists(st.integers(1, 4000), min_size=1, max_size=4),
)
def test_so_far_forwards_and_so_far_back_is_the_same_machine(
    seed: int, machine: dict[str, Any], steps: list[int]
) -> None:
    """Registers, memory, TLBs and counters are the same on the way back, and when a new run comes there directly."""
    options = Options(programs=(str(source(random_program(seed))),), ram="8M", **machine)
    positions = [sum(steps[:n]) for n in range(len(steps) + 1)]
    with Timeline(options) as there, Timeline(options) as directly:
        forwards = pass_by(there, positions)
        assert pass_by(there, positions[::-1]) == forwards[::-1]
        assert pass_by(directly, positions[-1:])[0][:2] == forwards[-1][:2]


@pytest.mark.slow
@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=st.integers(0, 10_000), machine=st.sampled_from(MACHINES), steps=st.integers(1, 12))
def test_steps_of_the_program_are_taken_back_one_by_one(seed: int, machine: dict[str, Any], steps: int) -> None:
    """Over page faults and system calls: so many steps forwards and back come by the same positions."""
    options = Options(programs=(str(source(random_program(seed, size=4))),), ram="8M", **machine)
    with Debugger(options) as debugger:
        debugger.start()
        there = [debugger.moment]
        there += [debugger.step_user().moment for _ in range(steps)]
        back = [debugger.moment, *(debugger.reverse_step_user().moment for _ in range(steps))]
        assert back == there[::-1]
        assert [moment.cpl for moment in there] == [3] * len(there)


@pytest.mark.slow
def test_a_long_way_back_and_forth_is_exact_too(make_timeline: MakeTimeline) -> None:
    """Over many snapshots, with timer interrupts, several processes, and a search in between."""
    timeline = make_timeline(program("sieve"), program("quicksort"), program("sigchld"), aslr=True, pti=True)
    end = timeline.go(1 << 60).position
    positions = [7, TICK - 1, TICK, TICK + 1, end // 3, end // 2, end - 1, end, end // 2 + 1, 12345]
    there = dict(zip(positions, pass_by(timeline, positions), strict=True))
    switch = timeline.find_last([OnEvent("context_switch")], before=end)
    assert switch is not None
    back = sorted(positions, reverse=True)
    assert pass_by(timeline, back) == [there[position] for position in back]


def test_a_run_of_the_time_line_is_the_run_of_the_command(make_timeline: MakeTimeline) -> None:
    """It ends after as many instructions, with the same output and exit code."""
    shown = io.BytesIO()
    timeline = make_timeline(program("quicksort"), stdout=shown)
    end = timeline.go(1 << 60)
    alone = Session(Options(programs=(str(program("quicksort")),), ram="8M"), stdout=io.BytesIO())
    result = alone.run()
    assert (end.ended, end.exit_code, end.position) == (True, result.exit_code, alone.machine.state.instructions)
    before = timeline.go(timeline.before(end.position))
    assert (before.ended, timeline.go(before.position + 1)) == (False, end), "exit(2) is one step"
    assert shown.getvalue() == alone.kernel.stdout.getvalue() == timeline.output()[0]


# --- searching ----------------------------------------------------------------------------------------------------


LOOP = """
_start: lea rbx, [rip + cell]
        mov ecx, 5
again:  mov [rbx], ecx
        call touch
        dec ecx
        jnz again
done:   mov edi, 3
        mov eax, 60
        syscall
touch:  mov rax, [rbx + 4096]
        ret
        .bss
        .balign 4096
cell:   .skip 8192
"""


def visited(timeline: Timeline, first: int, last: int) -> dict[int, int]:
    """RIP at every position of a stretch."""
    return {position: timeline.go(position).rip for position in range(first, last)}


def forwards(timeline: Timeline, *stops: Any) -> list[Hit]:
    """All hits from the start."""
    hits, after = [], 0
    while (hit := timeline.find_first(stops, after=after)) is not None:
        hits.append(hit)
        after = hit.position
    return hits


def backwards(timeline: Timeline, *stops: Any) -> list[Hit]:
    """All hits from the end, the first one first."""
    hits: list[Hit] = []
    before = timeline.go(1 << 60).position
    while (hit := timeline.find_last(stops, before=before)) is not None:
        hits.append(hit)
        before = hit.back
    return hits[::-1]


def test_an_address_is_found_wherever_it_executes(make_timeline: MakeTimeline) -> None:
    timeline = make_timeline(source(LOOP))
    stops = [AtAddress(timeline.ask(address, name)) for name in ("again", "touch")]
    found = forwards(timeline, *stops)
    assert [hit.number for hit in found] == [0, 1] * 5, "a load that faulted and is tried again counts once"
    assert backwards(timeline, *stops) == found
    first, last = (hit.position for hit in found[-3:-1])
    way = visited(timeline, first, last + 1)
    tries = [at for at, va in way.items() if va in (stops[0].va, stops[1].va)]
    assert tries == [first, last], "a hit is a position at which the address is next, and there is no other"


def test_data_are_watched_and_a_search_backwards_stops_before_the_access(make_timeline: MakeTimeline) -> None:
    timeline = make_timeline(source(LOOP))
    cell = timeline.ask(address, "cell")
    writes = forwards(timeline, OnAccess(1, cell, 8, "write"))
    assert [hit.what for hit in writes] == [f"write {cell:#x} 4 bytes"] * 5
    assert backwards(timeline, OnAccess(1, cell, 8, "write")) == writes
    assert {timeline.go(hit.back).rip for hit in writes} == {timeline.ask(address, "again")}
    assert forwards(timeline, OnAccess(1, cell + 3, 1, "access")) == writes, "the last byte of the store"
    assert not forwards(timeline, OnAccess(1, cell, 8, "read"))


def test_the_kernel_writes_data_as_well(make_timeline: MakeTimeline) -> None:
    timeline = make_timeline(program("echo"), stdin=b"one\n")
    hit = timeline.find_first([OnEvent("syscall")])
    assert hit is not None and hit.what.startswith("syscall read(0, ")
    buffer = int(hit.what.split(", ")[1], 16)
    written = timeline.find_first([OnAccess(1, buffer, 4)])
    assert written is not None and written.what == "written by the kernel"
    assert timeline.go(written.position).ended is False


def test_an_entry_changes_by_the_kernel_and_by_the_walker(make_timeline: MakeTimeline) -> None:
    timeline = make_timeline(source(LOOP))
    cell = timeline.ask(address, "cell")
    found = forwards(timeline, OnEntry(1, cell))
    assert backwards(timeline, OnEntry(1, cell)) == found
    assert "W U A D NX" in found[-1].what, "written at last"


def test_events_are_found_and_logged(make_timeline: MakeTimeline) -> None:
    timeline = make_timeline(program("hello"))
    faults, calls = forwards(timeline, OnEvent("page_fault")), forwards(timeline, OnEvent("syscall"))
    assert [hit.what.split("(")[0] for hit in calls] == ["syscall write", "syscall exit"]
    end = timeline.go(1 << 60).position
    logged = timeline.events(["page_fault", "syscall"], since=0)
    assert [event.position for event in logged] == sorted(hit.back for hit in faults + calls)
    assert all(event.position < end for event in logged)
    with pytest.raises(InputError, match="did you mean page_fault"):
        timeline.find_first([OnEvent("page_falt")])


# --- the host -----------------------------------------------------------------------------------------------------


def test_input_is_read_once_and_output_shown_once(make_timeline: MakeTimeline) -> None:
    shown = io.BytesIO()
    timeline = make_timeline(program("echo"), stdin=b"to be echoed\n", stdout=shown)
    end = timeline.go(1 << 60).position
    timeline.go(0)
    assert timeline.output() == (b"", b"")
    timeline.go(end)
    assert shown.getvalue() == timeline.output()[0] == b"to be echoed\n"


def set_rdi(session: Session, value: int) -> None:
    session.machine.cpu.gprs[7] = value


def test_a_change_of_the_past_makes_another_future_that_stays(make_timeline: MakeTimeline) -> None:
    timeline = make_timeline(source(LOOP))
    hit = timeline.find_first([OnEvent("syscall")])
    assert hit is not None
    call = timeline.find_last([AtAddress(timeline.ask(address, "done"))], before=hit.back)
    assert call is not None
    timeline.go(call.position + 2)
    timeline.edit(set_rdi, 9)
    assert timeline.go(1 << 60).exit_code == 9
    timeline.go(0)
    assert timeline.go(1 << 60).exit_code == 9
    timeline.go(call.position + 2)
    timeline.edit(set_rdi, 4)
    assert timeline.go(1 << 60).exit_code == 4


def test_files_and_swap_of_the_host_do_not_change(make_timeline: MakeTimeline, tmp_path: Any) -> None:
    note = tmp_path / "note"
    note.write_bytes(b"before")
    write = """
    _start: lea rdi, [rip + path]; mov esi, 1; mov eax, 2; syscall
            mov edi, eax; lea rsi, [rip + path]; mov edx, 4; mov eax, 1; syscall
            mov edi, eax; mov eax, 60; syscall
            .data
    path:   .asciz "/note"
    """
    swap = tmp_path / "swap"
    options = {"files": (f"{note}:/note:rw",), "swap": "1M", "swap_file": str(swap)}
    timeline = make_timeline(source(write), **options)
    assert timeline.go(1 << 60).exit_code == 4
    assert note.read_bytes() == b"before"


def test_a_guest_that_loops_for_ever_is_left_when_somebody_interrupts() -> None:
    wants = threading.Event()
    options = Options(programs=(str(source("_start: jmp _start")),), ram="8M")
    with Timeline(options, is_interrupted=lambda: wants.is_set()) as timeline:
        threading.Timer(0.5, wants.set).start()
        with pytest.raises(Interrupted) as caught:
            timeline.find_first([OnEvent("exit")])
        wants.clear()
        assert timeline.go(caught.value.position).position > 0


@pytest.mark.slow
def test_without_fork_everything_is_executed_again(make_timeline: MakeTimeline, monkeypatch: Any) -> None:
    positions = [30, 150, 70]
    with_fork = pass_by(make_timeline(program("hello")), positions)
    for module in ("replica", "timeline"):
        monkeypatch.setattr(f"lab.debugger.{module}.can_fork", lambda: False)
    without = pass_by(make_timeline(program("hello")), positions)
    assert [seen[:2] for seen in without] == [seen[:2] for seen in with_fork], "only addresses in the host differ"


def test_a_program_that_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="nowhere"):
        Timeline(Options(programs=("nowhere.asm",)))


def test_a_kernel_that_cannot_go_on_is_an_end_with_a_reason(make_timeline: MakeTimeline) -> None:
    timeline = make_timeline(source("_start: jmp _start"), max_instructions=5000)
    end = timeline.go(1 << 60)
    assert (end.ended, end.position) == (True, 5000)
    assert timeline.go(4999).ended is False
