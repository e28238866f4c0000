"""Recordings: they have what the events have, as many rows as the machine counts, and say what they dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bare import Bare, geometry, part
from conftest import MakeKernel
from memory_programs import memory_program
from tlb_model import PlainTlb

from emu import Access, Halt, InputError, Machine, event_names
from emu.assembler import assemble_source
from emu.columns import CODES, NATIVE, decoded
from kernel import Kernel

PAGE = 4096
BOOT_CR3_WRITES = 1
PROGRAM = memory_program(
    "three; mov byte ptr [rbx], 1; in_child; mov word ptr [rbx + 4095], 2; child_ends; mov byte ptr [rbx + 4096], 3; "
    "mov ecx, 50; lea rdi, [rbx + 8192]; rep stosb; add [rbx + 4096], rax; show 5"
)
WANDER = """
_start: mov r8d, 400; mov r9d, 12345
1:  imul r9d, r9d, 1103515245; add r9d, 12345; mov eax, r9d; shr eax, 16; and eax, 63; shl eax, 12
    mov rdx, [area + rax + 8]; inc qword ptr [area + rax]; push rdx; pop rdx; test eax, 4096; jz 2f
    mov [area + rax + 16], r9d
2:  dec r8d; jnz 1b
done: mov eax, 60; xor edi, edi; syscall
.bss; .balign 4096; area: .skip 64 * 4096
"""


def run(make_kernel: MakeKernel, *names: str, program: str = PROGRAM, **options: Any) -> tuple[Kernel, Any]:
    """A program that has run while some kinds of events were recorded."""
    kernel = make_kernel({"engine": "access"}, pti=True)
    recording = kernel.record(*names, **options)
    kernel.spawn(assemble_source(program))
    kernel.run()
    recording.stop()
    return kernel, recording


def as_told(event: Any) -> tuple[Any, ...]:
    """An event's values as its row has them."""
    name, same = type(event).__name__, (event.cycle, event.pid)
    match name:
        case "AccessEvent":
            return (*same, event.va, event.size, event.cpl, event.kind, event.pa)
        case "InstructionEvent":
            return (*same, event.va, event.size, event.cpl)
        case "PageWalk":
            steps = [(step.pa, step.entry) for step in event.steps]
            return (*same, event.va, len(steps), event.cpl, event.access, event.ok, steps)
        case "Cr3Write":
            return (*same, event.value, event.pcid, event.flush)
        case "ModeSwitch":
            return (*same, event.rip, event.cpl)
    return (*same, event.va, event.tlb, event.cpl, event.access)


def as_recorded(name: str, row: Any) -> tuple[Any, ...]:
    """A row's values in the same order."""
    values = {
        column: row[column].item() if row[column].ndim == 0 else row[column].tolist() for column in row.dtype.names
    }
    for column in CODES.keys() & values.keys():
        values[column] = CODES[column][values[column]]
    same = (values["cycle"], values["pid"])
    match name:
        case "page_walk":
            steps = list(zip(values["step_pa"], values["step_entry"], strict=True))[: values["reads"]]
            ok = values["leaf"] != 0
            return (*same, values["va"], values["reads"], values["cpl"], values["access"], ok, steps)
        case "cr3_write":
            return (*same, values["value"], values["pcid"], values["flush"])
    return (*same, *(value for column, value in values.items() if column not in ("seq", "cycle", "pid")))


def test_a_row_is_what_a_listener_is_told(make_kernel: MakeKernel) -> None:
    """Of every kind that native code records: the clock, the process, the values, and the order over all kinds."""
    kernel = make_kernel({"engine": "access"}, pti=True)
    told: list[tuple[str, Any]] = []
    for name in sorted(NATIVE):
        kernel.on(name, lambda event, name=name: told.append((name, as_told(event))))
    recording = kernel.record(*NATIVE)
    kernel.spawn(assemble_source(PROGRAM))
    kernel.run()
    rows = [(int(row["seq"]), name, as_recorded(name, row)) for name in NATIVE for row in recording[name]]
    recorded = [(name, values) for _, name, values in sorted(rows, key=lambda row: row[0])]
    assert {name for name, _ in recorded} == NATIVE
    assert [seq for seq, *_ in sorted(rows, key=lambda row: row[0])] == list(range(1, len(rows) + 1))
    # An instruction that Unicorn reads only in part has no size in its row, because native code does not decode.
    unsized = [(name, values[:3]) if name == "instruction" else (name, values) for name, values in told]
    assert [(name, values[:3]) if name == "instruction" else (name, values) for name, values in recorded] == unsized


def test_recording_alone_gives_the_same_rows_and_changes_no_counter(make_kernel: MakeKernel) -> None:
    """With listeners CR3 is written, and page faults are delivered, by Python; without, by native code."""
    quiet, _ = run(make_kernel, "exit")
    kernel, recording = run(make_kernel, *NATIVE - {"tlb_hit", "mode_switch"})
    told = make_kernel({"engine": "access"}, pti=True)
    for name in ("cr3_write", "tlb_miss"):
        told.on(name, lambda _: None)
    both = told.record("cr3_write", "tlb_miss", "access")
    told.spawn(assemble_source(PROGRAM))
    told.run()
    for name in both:
        assert np.array_equal(
            recording[name][list(recording[name].dtype.names)[1:]], both[name][list(both[name].dtype.names)[1:]]
        )
    assert _statistics(kernel) == _statistics(quiet) == _statistics(told)


def _statistics(kernel: Kernel) -> dict[str, Any]:
    from kernel.statistics import statistics

    return statistics(kernel)


def test_there_are_as_many_rows_as_the_machine_counts(make_kernel: MakeKernel) -> None:
    """An instruction that faults has a row for every time that it begins."""
    booted = make_kernel({"engine": "access"}, pti=True).machine.state  # not recorded, because nothing was spawned yet
    kernel, recording = run(make_kernel, *NATIVE, "page_fault")
    counted, s = _statistics(kernel), kernel.machine.state
    rows = recording["access"]
    counts = (rows["size"].astype(int) + 7) // 8  # a copy of the kernel's is one row, and counts every 8 bytes
    assert [int(counts[rows["kind"] == kind].sum()) for kind in (Access.READ, Access.WRITE)] == [
        s.reads - booted.reads,
        s.writes - booted.writes,
    ]
    user = rows[rows["cpl"] == 3]
    assert [int(np.sum(user["kind"] == kind)) for kind in (Access.READ, Access.WRITE)] == [
        counted["accesses"]["user"]["read"],
        counted["accesses"]["user"]["write"],
    ]
    begun = int(np.sum(recording["instruction"]["cpl"] == 3))
    faults = recording["page_fault"][recording["page_fault"]["rip"] < 1 << 47]  # the others are the kernel's
    repeated = int(np.sum(faults["error_code"] & 0x10 == 0))
    assert begun == counted["instructions"]["user"] + repeated > repeated > 0
    assert [int(np.sum(recording["tlb_miss"]["tlb"] == tlb)) for tlb in (0, 1)] == [
        s.misses[tlb] - booted.misses[tlb] for tlb in (0, 1)
    ]
    assert len(recording["page_walk"]) == counted["walk"]["count"] - sum(booted.walks_by)
    assert int(recording["page_walk"]["reads"].sum()) == sum(s.entry_reads) - sum(booted.entry_reads)
    assert len(recording["cr3_write"]) == sum(counted["cr3_writes"].values()) - BOOT_CR3_WRITES
    stlb_hits = int(np.sum(recording["tlb_hit"]["tlb"] == 2))
    assert stlb_hits == counted["tlb"]["stlb"]["hits"] - (sum(booted.misses[:2]) - booted.misses[2])
    modes = recording["mode_switch"]["cpl"]
    assert len(modes) > 10 and set(np.diff(modes.astype(int))) == {3, -3}


def test_hits_are_accesses_that_did_not_miss() -> None:
    """Without faults, and with no access across two pages."""
    bare = Bare(engine="access")
    for page in range(80):
        bare.map(0x50_0000 + PAGE * page)
    code = "mov ecx, 79; 1: mov rax, [rbx]; add [rbx], rax; add rbx, 4096; push rax; pop rax; dec ecx; jnz 1b"
    bare.user(f"mov edx, 2; 2: mov ebx, 0x500000; {code}; dec edx; jnz 2b; nop")
    recording = bare.machine.record("tlb_hit", "access", mode="user")
    bare.run()
    s = bare.machine.state
    missed = bare.machine.state.misses
    instructions, reads, writes = bare.machine.retired(3)
    hits = [int(np.sum(recording["tlb_hit"]["tlb"] == tlb)) for tlb in (0, 1, 2)]
    assert len(recording["access"]) == reads + writes
    kernel_misses = [1, int(s.misses[1]) - _user_misses(bare)]
    assert hits[0] == instructions - (missed[0] - kernel_misses[0])
    assert hits[1] == reads + writes - (missed[1] - kernel_misses[1])


def _user_misses(bare: Bare) -> int:
    """DTLB misses that are not of the interrupt with which a program of `Bare` ends."""
    other = Bare(engine="access")
    other.user("nop")
    other.run()
    return int(bare.machine.state.misses[1]) - int(other.machine.state.misses[1])


@pytest.mark.parametrize("policy", ["fifo", "lru", "plru"])
def test_the_accesses_replayed_through_a_textbooks_tlb_miss_where_the_machine_missed(
    policy: str, make_kernel: MakeKernel
) -> None:
    small, large = geometry(8, "4K", ways=4), geometry(4, "2M")
    stlb = geometry(24, "4K", ways=3)
    cpu = part(dtlb=(small, large), stlb=(stlb,), itlb=(small, large))
    kernel = make_kernel({"cpu": cpu, "tlb_policy": policy, "engine": "access"}, populate=True)
    process = kernel.spawn(assemble_source(WANDER))
    kernel.run(until="_start")
    kernel.machine.stop_before(process.image.address_of("done"))
    kernel.machine.invpcid(2, 0, 0)
    before = list(kernel.machine.state.misses)
    recording = kernel.record("access", "instruction", "cr3_write")
    assert kernel.run().halt is Halt.BREAKPOINT
    recording.stop()
    s = kernel.machine.state
    assert len(recording["access"]) > 1500 and not len(recording["cr3_write"])

    rows = [(int(row["seq"]), int(row["va"]) // PAGE, False) for row in recording["access"]]
    rows += [(int(row["seq"]), int(row["va"]) // PAGE, True) for row in recording["instruction"]]
    models = {True: PlainTlb(small, policy), False: PlainTlb(small, policy)}
    second = PlainTlb(stlb, policy)
    missed = [0, 0, 0]
    for _, page, is_fetch in sorted(rows):
        if not models[is_fetch].access(page):
            missed[0 if is_fetch else 1] += 1
            missed[2] += not second.access(page)
    assert missed == [now - then for now, then in zip(s.misses, before, strict=True)]
    assert missed[1] > 300


# --- how much is kept ---------------------------------------------------------------------------------------------


def test_a_ring_keeps_the_last_rows_and_says_how_many_it_dropped(make_kernel: MakeKernel) -> None:
    _, everything = run(make_kernel, "access", "syscall", "page_walk")
    _, ring = run(make_kernel, "access", "syscall", "page_walk", last=7)
    for name in everything:
        rows = everything[name]
        assert ring[name]["cycle"].tolist() == rows["cycle"][-7:].tolist()
        assert ring.dropped[name] == max(len(rows) - 7, 0)
    assert ring.count == everything.count
    assert everything.dropped == dict.fromkeys(everything, 0)


def test_chunks_come_in_order_and_only_once(make_kernel: MakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emu.recording.CHUNK", 100)
    _, everything = run(make_kernel, "access", "syscall")
    chunks: dict[str, list[Any]] = {"access": [], "syscall": []}
    _, handed_on = run(make_kernel, "access", "syscall", sink=lambda name, some: chunks[name].append(some.copy()))
    assert len(chunks["access"]) > 5
    assert np.array_equal(np.concatenate(chunks["access"]), everything["access"])
    assert len(handed_on["access"]) == 0 and handed_on.count == everything.count


def test_a_limit_stops_the_run_after_exactly_so_many_rows(make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"engine": "access"})
    recording = kernel.record("access", "syscall", limit=1000)
    kernel.spawn(assemble_source(PROGRAM))
    assert kernel.run().halt is Halt.STOPPED
    recording.stop()
    assert recording.count == len(recording["access"]) + len(recording["syscall"]) == 1000
    assert kernel.run().halt is Halt.STOPPED  # to its end


def test_what_a_sink_raises_comes_out_of_run_as_it_is(make_kernel: MakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emu.recording.CHUNK", 50)

    def full(_name: str, _rows: object) -> None:
        raise OSError(28, "No space left on device")

    kernel = make_kernel()
    recording = kernel.record("access", sink=full)
    kernel.spawn(assemble_source(PROGRAM))
    with pytest.raises(OSError, match="No space left"):
        kernel.run()
    kernel.machine.notices.record("access", False)
    assert recording.count > 0


def test_a_recording_can_begin_and_end_while_the_program_runs(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    recordings: list[Any] = []
    kernel.on("syscall", lambda _: recordings.append(kernel.record("instruction")), once=True)
    kernel.on("exit", lambda _: recordings[0].stop(), once=True)
    kernel.spawn(assemble_source("_start: mov eax, 39; syscall; mov edi, 7; mov eax, 60; syscall"))
    kernel.run()
    assert len(recordings[0]["instruction"]) > 10
    assert kernel.machine.state.recorded == 0 and not kernel.machine.notices.recorded


def test_impossible_recordings_are_refused() -> None:
    machine = Machine(ram="1M")
    recording = machine.record("access")
    for names, options, message in (
        (("access",), {}, "'access' is being recorded already"),
        (("acess",), {}, "did you mean access"),
        ((), {}, "nothing to record"),
        (("tlb_miss",), {"last": 0}, "at least one row"),
    ):
        with pytest.raises(InputError, match=message):
            machine.record(*names, **options)
    with pytest.raises(InputError, match="'tlb_miss' was not recorded; there are access"):
        recording["tlb_miss"]


# --- as columns ---------------------------------------------------------------------------------------------------


def test_every_kind_of_event_has_columns_and_an_arrow_table_that_agree(make_kernel: MakeKernel) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    names = event_names()
    _, recording = run(make_kernel, *names, mode="user")
    for name in names:
        rows, table = recording[name], recording.to_arrow(name)
        assert table.column_names == list(rows.dtype.names)
        assert table.num_rows == len(rows)
        for column in table.column_names:
            values = [list(value) if isinstance(value, tuple) else value for value in decoded(name, rows, column)]
            assert table[column].to_pylist() == values
    assert isinstance(recording.to_arrow("access")["kind"].type, pyarrow.DictionaryType)
    faults = recording["page_fault"]
    assert faults["outcome"][0] == "FILE" and faults["address"].dtype == np.uint64
    assert recording["syscall_exit"]["result"].dtype == np.int64
