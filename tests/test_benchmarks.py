"""The benchmark runs, and what it writes are numbers. It never says what they must be."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.engines import ENGINES
from benchmarks.huge_pages import CASES
from benchmarks.huge_pages import measure as touch
from benchmarks.kernel import BENCHES, measure
from benchmarks.programs import PROGRAMS
from benchmarks.swap import SCANS, scan_rate, swap_ins
from benchmarks.watching import WATCHED
from benchmarks.watching import measure as watch

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    file = tmp_path_factory.mktemp("bench") / "numbers.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(file)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return json.loads(file.read_text())


@pytest.mark.slow
def test_every_engine_runs_every_program_at_some_speed(numbers):
    assert [entry["program"] for entry in numbers["programs"]] == [program.name for program in PROGRAMS]
    for entry in numbers["programs"]:
        assert entry["mips"].keys() == ENGINES.keys()
        assert min(entry["mips"].values()) > 0


@pytest.mark.slow
def test_means_system_calls_faults_and_start_up_are_positive(numbers):
    assert min(numbers["means"].values()) > 0
    assert min(numbers["single"].values()) > 0


@pytest.mark.slow
def test_the_benches_of_the_kernel_do_what_they_count():
    for bench in BENCHES:
        rate, growth = measure(bench, repetitions=1, share=64)
        assert rate > 0 and (growth is None) != bench.linear


@pytest.mark.slow
def test_the_benches_of_swapping_do_what_they_count():
    assert swap_ins("fifo", 256, repetitions=1) > 0
    for scan in SCANS.values():
        assert scan_rate(scan, 256, repetitions=1) > 0


@pytest.mark.slow
def test_the_benches_of_watching_see_what_they_watch():
    for watched in WATCHED:
        _, (_, told), (_, recorded) = watch(watched, repetitions=1, share=200)
        assert (told > 0) == (watched.span is None) and (recorded > 0) == (watched.many > 0)


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--json", str(tmp_path / "missing" / "numbers.json")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: ") and "numbers.json: cannot write this file" in ended.stderr
    assert ended.stdout == ""


@pytest.mark.slow
def test_larger_pages_take_fewer_faults_and_shorter_walks():
    small, huge, _, largest = (touch(case, 4 << 20) for case in CASES.values())
    assert (small.faults, huge.faults, largest.faults) == (1024, 2, 1)
    assert (small.levels, huge.levels, largest.levels) == (4, 3, 2)
