"""`cr3 validate`: published numbers beside ours, and no number of ours that was not measured."""

from __future__ import annotations

import json
import re

import pytest
from command import ROOT, cr3

from emu.profile import load_profile
from lab import validate
from lab.validate import CHECKS, Row


def row(ours: float) -> Row:
    return Row("what", "10", 9, 11, "cycles", "who", False, ours)


def test_a_row_is_right_within_its_bounds() -> None:
    assert row(9).is_right and row(11).is_right
    assert not row(8.9).is_right and not row(11.1).is_right


def test_every_check_has_a_source_and_bounds_around_something() -> None:
    for check in CHECKS:
        assert check.source and check.published and check.low < check.high


def test_no_check_of_what_isolation_adds_is_fitted() -> None:
    for check in CHECKS:
        if "adds" in check.what or "calls a second" in check.what or "100 MB" in check.what:
            assert not check.fitted


def test_what_was_fitted_says_so_in_the_profiles() -> None:
    fitted = {
        name: {value.key for value in load_profile(name).values if "fitted" in value.reference}
        for name in ("skylake", "broadwell", "haswell", "zen2")
    }
    assert fitted == {
        "skylake": {"costs.swapgs", "costs.invlpg"},
        "broadwell": {"costs.swapgs"},
        "haswell": {"costs.swapgs"},
        "zen2": set(),
    }


def test_the_manual_tells_every_check_that_misses_in_its_table() -> None:
    page = (ROOT / "docs" / "validation.md").read_text()
    shown = re.findall(r"^(.*?)  .*(fitted|validated), (ok|misses) ", page, re.MULTILINE)
    assert [(what, kind) for what, kind, _verdict in shown] == [
        (check.what, "fitted" if check.fitted else "validated") for check in CHECKS
    ]


@pytest.mark.slow
def test_the_null_call_and_the_linear_overhead_are_as_published() -> None:
    done = cr3("validate", "--json", "-", "--jobs", 1)
    assert done.exit_code == 0
    rows = {row["what"]: row for row in json.loads(done.stdout)["rows"]}
    for what, one in rows.items():
        if "null call" in what or "linear" in one["published"] or "page fault" in what:
            assert one["verdict"] == "ok", one


def test_a_measured_number_changes_with_the_cost_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolation costs what CR3 writes and walks cost: nothing of it is a constant."""
    monkeypatch.setattr(validate, "RUNS", ((validate.NULL, "skylake", validate.ALL),))
    added = [check for check in CHECKS if check.what == "null call, skylake, PTI with PCID adds"]
    monkeypatch.setattr(validate, "CHECKS", added)
    ours = validate.measure(jobs=1)[0].ours
    costs = load_profile("skylake").costs
    assert 2 * costs.mov_to_cr3_noflush < ours < 2 * costs.mov_to_cr3_noflush + 40
