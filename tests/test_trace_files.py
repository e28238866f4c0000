"""`cr3 trace --out`: tables that other libraries read, timelines of Perfetto's schema, and files that are whole."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command import cr3, program, source
from small_programs import small_program

from emu import InputError, Machine, event_names
from emu.columns import arrow_type, decoded, rows
from emu.elf import load_program
from kernel import Kernel
from lab.perfetto import packets

polars = pytest.importorskip("polars")
KINDS = ("access", "page_fault", "syscall", "exec")
SWAPPING = """
    anonymous 1024 * 4096, 3, NORESERVE
    mov     rbx, rax
    mov     r14d, 2
again:
    xor     ecx, ecx
1:  mov     rdx, rcx
    shl     rdx, 12
    inc     qword ptr [rbx + rdx]
    inc     rcx
    cmp     rcx, 1024
    jne     1b
    dec     r14d
    jnz     again
    show    rcx
"""


def recorded(name: str) -> Any:
    """The same run in Python."""
    kernel = Kernel(Machine(), pti=True)
    recording = kernel.record(*KINDS, mode="user")
    image = load_program(str(program(name)))
    kernel.spawn(image, [image.path])
    kernel.run()
    recording.stop()
    kernel.close()
    return recording


# --- tables -----------------------------------------------------------------------------------------------------


def test_a_table_has_what_was_recorded_whoever_reads_it(tmp_path: Path) -> None:
    """Parquet through polars, CSV through the csv module."""
    recording = recorded("sum_loop")
    parquet, text = tmp_path / "trace.parquet", tmp_path / "trace.csv"
    for file in (parquet, text):
        outcome = cr3("trace", program("sum_loop"), "--events", ",".join(KINDS), "--user", "--out", file)
        assert (outcome.exit_code, outcome.stderr) == (45, "")
    table, lines = polars.read_parquet(parquet), list(csv.DictReader(text.read_text().splitlines()))
    for name in KINDS:
        some = table.filter(polars.col("event") == name)
        own = [line for line in lines if line["event"] == name]
        for column in rows(name).names or ():
            values = [
                list(value) if isinstance(value, tuple) else value for value in decoded(name, recording[name], column)
            ]
            assert some[column].to_list() == values
            shown = [" ".join(map(str, value)) if isinstance(value, list) else str(value) for value in values]
            assert [line[column] for line in own] == shown
    assert sorted(table["seq"]) == list(range(1, len(table) + 1))
    assert table.filter(polars.col("event") == "exec")["va"].to_list() == [None]
    assert sorted(tmp_path.iterdir()) == [text, parquet]


def test_a_column_means_the_same_in_every_kind_of_event() -> None:
    """Else they would not fit into one table."""
    pytest.importorskip("pyarrow")
    types: dict[str, set[str]] = defaultdict(set)
    for name in event_names():
        for column in rows(name).names or ():
            types[column].add(str(arrow_type(name, column)))
    assert {column: kinds for column, kinds in types.items() if len(kinds) > 1} == {}


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl", "txt"])
def test_the_last_events_are_kept_and_the_others_counted(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"trace.{suffix}"
    everything = cr3("trace", program("sum_loop"), "--events", "access", "--json").stdout.count("\n")
    outcome = cr3("trace", program("sum_loop"), "--events", "access", "--last", 5, "--out", file)
    assert outcome.stderr == f"cr3: {everything - 5:,} events dropped: the trace has only the last ones (--last 5)\n"
    kept = len(polars.read_parquet(file)) if suffix == "parquet" else file.read_text().count("\n") - (suffix == "csv")
    assert kept == 5


def test_a_table_has_exactly_as_many_rows_as_were_wanted(tmp_path: Path) -> None:
    file = tmp_path / "trace.parquet"
    outcome = cr3("trace", program("sum_loop"), "--events", "insn,access", "--limit", 50, "--out", file)
    assert outcome.stderr == "cr3: stopped after 50 events (--limit)\n"
    assert polars.read_parquet(file)["seq"].sort().to_list() == list(range(1, 51))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl", "perfetto-trace"])
def test_a_run_that_fails_leaves_no_file(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a half-written one nor a temporary one; what was there before stays."""
    file = tmp_path / f"trace.{suffix}"
    file.write_bytes(b"precious")

    def fail(*_arguments: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr("kernel.syscalls.memory.sys_brk", fail, raising=False)
    monkeypatch.setattr("kernel.traps.finish_syscall", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        _run_without_reports(file)
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == b"precious"


def _run_without_reports(file: Path) -> None:
    """A trace whose errors are not turned into messages."""
    from lab.trace_command import trace

    trace.main([str(program("hello")), "--out", str(file)], standalone_mode=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x.perfetto-trace", "--events", "insn"], "a timeline (.perfetto-trace) has events of its own"),
        (["--out", "x.csv", "--json"], "a table (.csv) is not JSON"),
        (["--out", "x.csv", "--events", "access", "--engine", "trap"], "the trap engine does not see every access"),
        (["--out", "nowhere/x.parquet"], "nowhere/x.parquet: cannot write this file"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = cr3("trace", program("hello"), *arguments)
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (2, 1)
    assert message in outcome.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "suffix"), [("pyarrow", "parquet"), ("perfetto.protos.perfetto.trace", "perfetto-trace")]
)
def test_a_missing_library_is_named(package: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    outcome = cr3("trace", program("hello"), "--out", tmp_path / f"x.{suffix}")
    assert outcome.exit_code == 2
    assert "pip install 'cr3-lab[trace]'" in outcome.stderr
    assert list(tmp_path.iterdir()) == []


# --- timelines --------------------------------------------------------------------------------------------------


class Schema:
    """A trace as its packets say: tracks by name, slices with their depth, counters, arrows. Checks what must hold."""

    def __init__(self, data: bytes) -> None:
        self.names: dict[int, str] = {}
        self.parents: dict[int, int] = {}
        self.processes: dict[int, str] = {}
        self.slices: dict[str, list[tuple[int, int, str, int]]] = defaultdict(list)
        self.counters: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.flows: dict[int, list[str]] = defaultdict(list)
        self._open: dict[int, list[tuple[int, str]]] = defaultdict(list)
        last: dict[int, int] = defaultdict(int)
        for packet in packets(data):
            assert packet.trusted_packet_sequence_id
            if packet.HasField("track_descriptor"):
                self._describe(packet.track_descriptor)
                continue
            event = packet.track_event
            assert event.track_uuid in self.names, "a track is described before it is used"
            assert packet.timestamp >= last[event.track_uuid], f"time goes back on {self.names[event.track_uuid]}"
            last[event.track_uuid] = packet.timestamp
            self._happens(event, packet.timestamp)
        assert not any(self._open.values()), "every slice ends"

    def _describe(self, track: Any) -> None:
        if track.HasField("process"):
            self.processes[track.process.pid] = track.process.process_name
        self.names[track.uuid] = track.name or f"process {track.process.pid}"
        if track.parent_uuid:
            assert track.parent_uuid in self.names
            self.parents[track.uuid] = track.parent_uuid

    def _happens(self, event: Any, time: int) -> None:
        track, kinds = event.track_uuid, type(event)
        name = "/".join(filter(None, (self.names.get(self.parents.get(track, 0), ""), self.names[track])))
        if event.type == kinds.TYPE_COUNTER:
            self.counters[name].append((time, event.counter_value))
        elif event.type == kinds.TYPE_SLICE_BEGIN:
            self._open[track].append((time, event.name))
            for flow in event.flow_ids:
                self.flows[flow].append(event.name)
        elif event.type == kinds.TYPE_SLICE_END:
            begin, what = self._open[track].pop()
            self.slices[name].append((begin, time, what, len(self._open[track])))


def timeline(tmp_path: Path, *arguments: object) -> Schema:
    """The timeline of a run."""
    pytest.importorskip("perfetto")
    file = tmp_path / "run.perfetto-trace"
    assert cr3("trace", *arguments, "--out", file).exit_code == 0
    return Schema(file.read_bytes())


def test_a_timeline_has_tracks_for_every_process_with_what_it_did(tmp_path: Path) -> None:
    trace = timeline(tmp_path, program("sigchld"))
    assert set(trace.processes) == {1, 2, 3, 4}
    for pid in trace.processes:
        assert {what for *_, what, _ in trace.slices[f"process {pid}/CPU mode"]} == {"user", "kernel"}
        assert "do_syscall_64" in {what for *_, what, _ in trace.slices[f"process {pid}/kernel functions"]}
        assert trace.slices[f"process {pid}/page faults"]
        assert trace.counters[f"process {pid}/resident pages"]
    calls = [what for *_, what, _ in trace.slices["process 1/system calls"]]
    assert calls.count("fork") == 3 or calls.count("clone") == 3
    assert trace.counters["free frames"] and trace.counters["TLB misses"]


def test_the_modes_of_a_process_follow_each_other_without_a_gap_while_it_runs_alone(tmp_path: Path) -> None:
    trace = timeline(tmp_path, program("hello"))
    modes = trace.slices["process 1/CPU mode"]
    assert all(before[1] == after[0] and before[2] != after[2] for before, after in pairwise(modes[1:]))
    (write,) = [call for call in trace.slices["process 1/system calls"] if call[2] == "write"]
    assert any(begin <= write[0] and write[1] <= end for begin, end, mode, _ in modes if mode == "kernel")
    (fault,) = [fault for fault in trace.slices["process 1/page faults"] if write[0] <= fault[0] <= write[1]] or [None]
    assert fault is None or fault[1] <= write[1]


def test_arrows_lead_from_a_fault_to_the_swap_device_that_it_waits_for(tmp_path: Path) -> None:
    path = source(small_program(SWAPPING))
    trace = timeline(tmp_path, path, "--ram", "2M", "--swap", "16M")
    device = trace.slices["swap device"]
    assert {what for *_, what, _ in device} == {"read", "write"}
    assert all(before[1] <= after[0] for before, after in pairwise(device)), "one request at a time"
    assert len(trace.flows) > 100
    assert {tuple(ends) for ends in trace.flows.values()} == {("read", "swap in")}
    free = [value for _, value in trace.counters["free frames"]]
    assert min(free) < max(free) // 2


def test_without_the_package_a_timeline_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "perfetto.protos.perfetto.trace", None)
    with pytest.raises(InputError, match="needs the package perfetto"):
        packets(b"")
