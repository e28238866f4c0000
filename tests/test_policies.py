"""Replacement policies: what theory promises of them, and how one's own is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command import cr3, source
from conftest import RunImage
from hypothesis import given
from hypothesis import strategies as st
from small_programs import small_program

from emu import InputError, assemble
from kernel.policies import find_policy, policy_names
from lab.options import Options
from lab.policies import Recording, frame_counts, record, replay
from lab.reference_strings import PATTERNS
from lab.session import Session

PROGRAMS = Path(__file__).parent.parent / "programs"
BELADY = [0, 1, 2, 3, 0, 1, 4, 0, 1, 2, 3, 4]
runs = st.lists(st.integers(0, 9), min_size=1, max_size=120).map(Recording.of)
each_policy = pytest.mark.parametrize("name", policy_names())

NEWEST = '''
from kernel.policies import ReplacementPolicy

class Newest(ReplacementPolicy):
    """Last in, first out."""
    def __init__(self, bits, seed=1):
        super().__init__(bits, seed)
        self.stack = []
    def added(self, page):
        self.stack.append(page)
    def removed(self, page):
        self.stack.remove(page)
    def victim(self):
        return self.stack[-1]
'''


# --- theory ---------------------------------------------------------------------------------------


@each_policy
@given(recording=runs, frames=st.integers(1, 10))
def test_opt_is_never_beaten(name: str, recording: Recording, frames: int) -> None:
    faults = replay(name, recording, frames)
    assert replay("opt", recording, frames) <= faults
    assert recording.distinct <= faults <= len(recording.pages)


@pytest.mark.parametrize("name", ["lru", "opt"])
@given(recording=runs)
def test_more_frames_are_never_worse_for_a_stack_algorithm(name: str, recording: Recording) -> None:
    faults = [replay(name, recording, frames) for frames in range(1, 11)]
    assert faults == sorted(faults, reverse=True)


@given(recording=runs, frames=st.integers(1, 10))
def test_lru_faults_where_the_stack_distance_is_too_large(recording: Recording, frames: int) -> None:
    stack: list[int] = []
    expected = 0
    for page in recording.pages:
        distance = stack.index(page) if page in stack else frames
        expected += distance >= frames
        stack = [page, *(other for other in stack if other != page)]
    assert replay("lru", recording, frames) == expected


@each_policy
def test_with_enough_frames_every_page_faults_once(name: str) -> None:
    assert replay(name, Recording.of(BELADY), 5) == 5


def test_fifo_has_beladys_anomaly_on_the_shipped_program() -> None:
    session = Session(Options(programs=(str(PROGRAMS / "belady.asm"),)))
    with record(session) as recording:
        assert session.run().exit_code == 0
    first = min(recording.pages)
    assert [page - first for page in recording.pages] == BELADY
    assert [replay("fifo", recording, frames) for frames in (3, 4)] == [9, 10]
    assert [replay("opt", recording, frames) for frames in (3, 4)] == [7, 6]


def test_a_cycle_that_is_one_page_too_large_is_the_worst_of_lru() -> None:
    cycle = Recording.of([*range(9)] * 10)
    assert replay("lru", cycle, 8) == 90
    assert replay("opt", cycle, 8) < 30


def test_a_scan_does_not_drive_out_what_the_active_list_holds() -> None:
    hot = [page for _ in range(20) for page in range(4)]
    recording = Recording.of(hot + [page for cold in range(100, 140) for page in (cold, cold % 4)])
    assert replay("active_inactive", recording, 12) < replay("fifo", recording, 12)


@pytest.fixture(scope="module")
def faults() -> dict[str, dict[str, int]]:
    """Page faults by pattern and policy."""
    return {name: pattern.faults(policy_names()) for name, pattern in PATTERNS.items()}


@each_policy
def test_each_policy_has_a_pattern_where_it_wins_and_one_where_it_loses(
    name: str, faults: dict[str, dict[str, int]]
) -> None:
    """OPT loses nowhere; it gains nothing where every page is used once."""
    ranks = []
    for counts in faults.values():
        rivals = [count for other, count in counts.items() if other not in (name, "opt")]
        ranks.append((counts[name] < min(rivals), counts[name] > 1.2 * min(rivals)))
    assert any(wins for wins, _ in ranks)
    assert any(loses for _, loses in ranks) == (name != "opt")
    assert len(set(faults["every page once"].values())) == 1


# --- choosing one ---------------------------------------------------------------------------------


def test_a_policy_of_ones_own_runs_in_the_kernel_and_in_a_replay(run_image: RunImage, tmp_path: Path) -> None:
    path = tmp_path / "newest.py"
    path.write_text(NEWEST)
    name = f"{path}:Newest"
    assert replay(name, Recording.of([0, 1, 2, 0, 1]), 2) == 4
    ended = run_image(assemble(PROGRAMS / "hello.asm"), swap="1M", swap_policy=name)
    assert ended.result.exit_code == 0
    assert ended.kernel.reclaim.anonymous.policy.name == "Newest"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", "SyntaxError"),
        ("Newest = 3", "no class Newest"),
        ("from kernel.policies import ReplacementPolicy\nclass Newest(ReplacementPolicy): pass", "has no added"),
    ],
)
def test_a_file_that_has_no_policy_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        find_policy(f"{path}:Newest")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("return self.stack[9999999]", r"newest.py:14: Newest.victim\(\) failed: IndexError: list index out of range"),
        ("return None", "victim None is no page that"),
        ("return 'first'", "victim 'first' is no page that"),
        ("return -1", "victim -1 is no page that"),
    ],
)
def test_a_policy_that_fails_while_it_runs_is_told_as_its_writers_mistake(
    tmp_path: Path, wrong: str, message: str
) -> None:
    path = tmp_path / "newest.py"
    path.write_text(NEWEST.replace("return self.stack[-1]", wrong))
    hog = "anonymous 2 << 20; 1: mov [rax], rax; add rax, 4096; jmp 1b"
    program = source(small_program(hog))
    outcome = cr3("run", program, "--ram", "2M", "--swap", "4M", "--swap-policy", f"{path}:Newest")
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (2, 1)
    assert re.search(message, outcome.stderr)
    with pytest.raises(InputError, match=message):
        replay(f"{path}:Newest", Recording.of([*range(9)]), 4)


def test_a_policy_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"there are .*fifo"):
        find_policy("second")


@pytest.mark.parametrize("text", ["", "0", "5..", "5..3", "a", "-1..4"])
def test_frames_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        frame_counts(text)
