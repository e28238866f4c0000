"""`cr3 compare`: the same program on several machines, and what is said about it."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from command import cr3, cr3_process, source
from rich.console import Console

from lab import compare, statistics
from lab.compare import Comparison, Outcome, Run, crossed, standard
from lab.compare_curve import measure_curves, workload_at
from lab.compare_plot import check_plot
from lab.compare_suite import measure_suite
from lab.options import Options
from lab.workloads import forks, pipe_tokens, working_set

FEW_CALLS = """
    .bss
    .balign 4096
pages: .zero 16384
    .text
_start:
    mov     ebx, 200
again:
    mov     eax, 39
    syscall
    mov     [rip + pages], eax
    mov     [rip + pages + 8192], eax
    dec     ebx
    jnz     again
    mov     edi, 3
    mov     eax, 60
    syscall
"""
TIME_OF_DAY = """
_start:
    rdtsc
    mov     edi, eax
    shr     edi, 4
    mov     eax, 60
    syscall
"""
ECHO_ONE_BYTE = """
_start:
    push    0
    mov     rsi, rsp
    mov     edx, 1
    xor     edi, edi
    xor     eax, eax
    syscall
    mov     edi, [rsp]
    mov     eax, 60
    syscall
"""


def compared(*arguments: object) -> dict[str, Any]:
    """The document of a comparison, without processes of its own."""
    done = cr3("compare", "--jobs", 1, "--json", "-", *arguments)
    assert done.exit_code == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return compared(source(FEW_CALLS))


# --- what is counted ----------------------------------------------------------------------------------------------


def test_the_document_fits_its_schema_and_that_of_the_statistics(document: dict[str, Any]) -> None:
    jsonschema.validate(document, compare.schema())
    for run in document["runs"]:
        jsonschema.validate(run["stats"], statistics.schema())


def test_the_standard_machines_are_off_pcid_and_no_pcid(document: dict[str, Any]) -> None:
    assert [(run["pti"], run["pcid"]) for run in document["runs"]] == [("off", "on"), ("on", "on"), ("on", "off")]


def test_overhead_is_a_fraction_of_the_first_runs_cycles(document: dict[str, Any]) -> None:
    cycles = [run["stats"]["cycles"]["total"] for run in document["runs"]]
    assert [run["overhead"] for run in document["runs"]] == [each / cycles[0] - 1 for each in cycles]
    assert 0 < document["runs"][1]["overhead"] < document["runs"][2]["overhead"]


def test_a_system_call_writes_cr3_twice_and_flushes_only_without_pcids(document: dict[str, Any]) -> None:
    off, pcid, no_pcid = (run["stats"]["cr3_writes"] for run in document["runs"])
    assert sum(off.values()) < 10
    assert pcid["noflush"] - off["noflush"] > 400 and pcid["flush"] < 10
    assert no_pcid["flush"] > 400 and no_pcid["noflush"] == 0


def test_without_pcids_the_user_walks_again_after_every_call(document: dict[str, Any]) -> None:
    off, pcid, no_pcid = (sum(run["stats"]["walk"]["by"]["user"].values()) for run in document["runs"])
    assert off <= pcid < 20
    assert no_pcid > 3 * 200  # code, and two pages of data


def test_processes_of_their_own_count_the_same(document: dict[str, Any]) -> None:
    done = cr3_process("compare", "--jobs", 2, "--json", "-", source(FEW_CALLS))
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == document


def test_every_run_gets_the_same_input(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"*")
    runs = compared(source(ECHO_ONE_BYTE), "--stdin", tmp_path / "input")["runs"]
    assert [run["stats"]["exit"]["code"] for run in runs] == [ord("*")] * 3


def test_a_seed_more_is_another_run_and_the_median_stands_for_all() -> None:
    run = compared(source(FEW_CALLS), "--repeat", 3, "--seed", 5, "--pti", "on", "--pcid", "on")["runs"][0]
    assert run["spread"]["seeds"] == [5, 6, 7]
    assert run["spread"]["min"] <= run["spread"]["median"] == run["stats"]["cycles"]["total"] <= run["spread"]["max"]


# --- which machines -----------------------------------------------------------------------------------------------


def test_options_leave_out_the_machines_that_do_not_fit() -> None:
    options = Options(programs=("x",), pti=True)
    assert [(one.pti, one.pcid) for one in standard(options)] == [(True, True), (True, False)]


def test_a_processor_without_pcids_has_two_machines() -> None:
    options = Options(programs=("x",), cpu="zen2")
    assert [(one.pti, one.pcid) for one in standard(options)] == [(False, False), (True, False)]


def test_a_matrix_crosses_what_there_can_be() -> None:
    axes = {"cpu": ["haswell", "zen2"], "pcid": [True, False]}
    names = [name for name, _ in crossed(Options(programs=("x",)), axes)]
    assert names == ["cpu=haswell pcid=on", "cpu=haswell pcid=off", "cpu=zen2 pcid=off"]


def test_the_first_of_a_matrix_is_the_baseline() -> None:
    runs = compared(source(FEW_CALLS), "--matrix", "pti=on,off", "--matrix", "cpu=skylake,broadwell")["runs"]
    assert [(run["pti"], run["cpu"]) for run in runs] == [
        ("on", "skylake"),
        ("on", "broadwell"),
        ("off", "skylake"),
        ("off", "broadwell"),
    ]
    assert runs[0]["overhead"] == 0 > runs[2]["overhead"]


def test_a_combination_is_called_as_it_is_typed() -> None:
    axes = {"seed": [1, 2], "thp": ["always"], "pti": [True]}
    names = [name for name, _ in crossed(Options(programs=("x",)), axes)]
    assert names == ["seed=1 thp=always pti=on", "seed=2 thp=always pti=on"]


def test_huge_pages_are_an_axis_like_any_other() -> None:
    """Two aligned pieces of 2 MiB: with huge pages two faults, and hardly a miss, whatever the isolation."""
    touching = """
        .bss
        .balign 4096
    memory: .zero 6 << 20
        .text
    _start:
        lea     rbx, [rip + memory + 0x1fffff]
        and     rbx, -0x200000
        mov     ecx, 1024
    1:  mov     byte ptr [rbx], 1
        add     rbx, 4096
        dec     ecx
        jnz     1b
        xor     edi, edi
        mov     eax, 60
        syscall
    """
    runs = compared(source(touching), "--matrix", "thp=never,always", "--matrix", "pti=off,on")["runs"]
    assert [(run["stats"]["config"]["thp"], run["pti"]) for run in runs] == [
        *(("never", "off"), ("never", "on"), ("always", "off"), ("always", "on")),
    ]
    faults = [run["stats"]["faults"]["minor"] for run in runs]
    assert faults[0] == faults[1] > 1024 > 100 > faults[2] == faults[3]
    assert runs[3]["overhead"] < 0


def test_a_key_alone_takes_all_values() -> None:
    runs = compared(source(FEW_CALLS), "--matrix", "tlb-policy,pti")["runs"]
    assert [run["stats"]["config"]["tlb_policy"] for run in runs] == [
        policy for policy in ("fifo", "random", "lru", "plru") for _pti in "ab"
    ]


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--matrix", "speed=1,2", "x.asm"], "speed"),
        (["--matrix", "pti=maybe", "x.asm"], "maybe"),
        (["--matrix", "ram", "x.asm"], "ram=A,B"),
        (["--curve", "x.asm"], "--curve"),
        (["--plot", "bars.bmp", "x.asm"], "bars.bmp"),
        (["--cpu", "skylark", "x.asm"], "skylark"),
        (["--jobs", "1", "nowhere.asm"], "nowhere.asm"),
        (["--jobs", "2", "nowhere.asm"], "nowhere.asm"),
        (["--cpu", "zen2", "--matrix", "pcid=on", "x.asm"], "no PCIDs"),
        (["--file", "a:/a:rw", "x.asm"], ":rw"),
        (["--csv", "/nowhere/at/all.csv", "x.asm"], "/nowhere/at/all.csv"),
        (["--", "argument"], "suite"),
        (["--matrix", "pti=on", "--matrix", "pcid,pti", "x.asm"], "pti twice"),
        (["--matrix", "thp=sometimes", "x.asm"], "sometimes"),
        (["--matrix", "ram=1M,2M"], "leave out ram"),
        (["--json", "-", "--csv", "-", "x.asm"], "only one"),
        (["--repeat", "0", "x.asm"], "--repeat"),
        (["--json", "/proc/x.json", "x.asm"], "/proc/x.json"),
    ],
)
def test_what_cannot_be_is_one_message_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = cr3_process("compare", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr and "Traceback" not in done.stderr


def test_an_error_in_the_source_is_told_with_its_line_by_a_process_too() -> None:
    done = cr3_process("compare", source("_start:\n    mov eax, nonsense(\n"))
    assert done.exit_code == 2
    assert "program.asm:2" in done.stderr and "Traceback" not in done.stderr


def test_a_program_that_notices_the_machine_is_told_with_exit_code_70() -> None:
    done = cr3("compare", "--jobs", 1, source(TIME_OF_DAY))
    assert done.exit_code == 70
    assert "does not do the same everywhere" in done.stderr


def test_different_output_is_a_difference_and_the_same_is_none() -> None:
    stats = {"exit": {"code": 0, "signal": None}, "cycles": {"total": 1}}
    same, other = Outcome(stats, b"a", True), Outcome(stats, b"b", True)
    assert Comparison(("x",), (Run("1", (same,)), Run("2", (same,)))).difference() is None
    assert "2" in str(Comparison(("x",), (Run("1", (same,)), Run("2", (other,)))).difference())


def test_a_run_that_reaches_the_limit_is_exit_code_124() -> None:
    done = cr3("compare", "--jobs", 1, "--max-instructions", 1000, source("_start: jmp _start"))
    assert done.exit_code == 124


# --- what is written ----------------------------------------------------------------------------------------------


def test_people_get_the_causes_and_the_price_of_a_call() -> None:
    shown = cr3("compare", "--jobs", 1, source(FEW_CALLS)).stdout
    for line in ("overhead", "cycles each system call", "CR3 writes", "page walks of the user", "exit code 3"):
        assert line in shown


def test_rows_on_standard_output_are_alone_there() -> None:
    done = cr3("compare", "--jobs", 1, "--pti", "off", "--csv", "-", source(FEW_CALLS))
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [(row["machine"], row["pti"], row["thp"]) for row in rows] == [("PTI off", "off", "madvise")]
    assert "cycles by cause" in done.stderr


def test_a_row_for_each_run_and_seed(tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    document = compared(source(FEW_CALLS), "--csv", file, "--repeat", 2)
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["seed"] for row in rows] == ["1", "2"] * 3
    cycles = {int(row["cycles.total"]) for row in rows}
    assert {run["stats"]["cycles"]["total"] for run in document["runs"]} <= cycles


@pytest.mark.parametrize(("suffix", "begins"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("html", b"<!doctype html>")])
def test_a_plot_is_a_file_of_its_kind(suffix: str, begins: bytes, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    compared(source(FEW_CALLS), "--plot", tmp_path / f"bars.{suffix}")
    assert (tmp_path / f"bars.{suffix}").read_bytes().startswith(begins)


def test_without_matplotlib_a_plot_is_refused_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("lab.compare_plot.find_spec", lambda _name: None)
    with pytest.raises(Exception, match=r"pip install 'cr3-lab\[plot\]'"):
        check_plot("bars.svg")


# --- the suite and the curves -------------------------------------------------------------------------------------


def test_pcids_save_what_a_token_between_two_processes_costs() -> None:
    machines = [(compare.label(one), one) for one in standard(Options(programs=("",)))]
    suite = measure_suite(machines, jobs=1, workloads=[pipe_tokens(20), forks(3)])
    assert suite.is_complete and suite.difference() is None
    for comparison in suite.comparisons:
        _off, pcid, no_pcid = (comparison.overhead(run) for run in comparison.runs)
        assert 0 < pcid < no_pcid
    for run in suite.comparisons[0].runs:
        assert run.stats["context_switches"] == 2 * 20


def test_several_seeds_show_how_far_they_are_apart() -> None:
    machines = [(compare.label(one), one) for one in standard(Options(programs=("",), pti=True, pcid=True))]
    scattered = working_set(2, 2000, 1, 2000)
    suite = measure_suite(machines, jobs=1, repeat=3, workloads=[scattered])
    spread = suite.comparisons[0].runs[0].spread()
    assert spread["min"] < spread["median"] < spread["max"]  # which entry of the STLB gives way is a matter of chance
    shown = Console(file=io.StringIO(), width=200)
    shown = io.StringIO()
    suite.render(Console(file=shown, width=200))
    assert "fewest and most of 3 seeds" in shown.getvalue()
    assert f"{spread['min'] / 2:,.1f} {spread['max'] / 2:,.1f}" in shown.getvalue()


def test_a_workload_makes_about_as_many_calls_a_second_as_it_says() -> None:
    curves = measure_curves(Options(programs=()), rates=[100_000], sizes=[0, 1], jobs=1)
    assert len(curves.points) == 4
    assert all(80_000 < point.rate < 120_000 for point in curves.points)
    assert workload_at(100_000, 1).ram == "64M"


def test_curves_are_drawn_with_the_published_points() -> None:
    pytest.importorskip("matplotlib")
    curves = measure_curves(Options(programs=()), rates=[100_000, 200_000], sizes=[0], jobs=1)
    picture = curves.draw(".svg").decode()
    assert picture.count("<!-- Gregg") == len(curves.published)
