"""Random programs: the real kernel, the trap engine and the access engine agree, output and every counter."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import RunImage
from hypothesis import HealthCheck, given, settings
from native import requires_native, run_native
from random_programs import PLACES, programs, random_program

from emu.assembler import assemble_source
from emu.profile import load_profile

PAGES = (1, 3, 16, 64, 200)
POLICIES = ("random", "fifo")
TINY = Path(__file__).with_name("tiny.toml")
CPUS = ("skylake", "zen2", "haswell", "broadwell", str(TINY))


def check(source: str, run_image: RunImage, *, cpu: str, policy: str, native: bool = True) -> None:
    """Run a program on both engines and natively."""
    image = assemble_source(source)
    trap, access = (
        run_image(image, {"engine": engine, "cpu": cpu, "tlb_policy": policy}) for engine in ("trap", "access")
    )
    assert trap.result.stats == access.result.stats
    assert trap.stdout == access.stdout
    assert trap.result.exit_code == access.result.exit_code == 0
    if native:
        assert trap.stdout == run_native(source).stdout


def of_seed(seed: int) -> dict[str, str]:
    """A different mixture of everything for each seed."""
    return {"cpu": CPUS[seed % len(CPUS)], "policy": POLICIES[seed % 2]}


def source_of_seed(seed: int) -> str:
    places = list(PLACES)
    return random_program(seed, pages=PAGES[seed // 2 % len(PAGES)], place=places[seed % len(places)])


def test_the_tiny_profile_has_very_small_tlbs() -> None:
    assert max(array.entries for array in load_profile(TINY).tlb.dtlb) <= 4


@requires_native
@pytest.mark.native
@pytest.mark.parametrize("seed", range(40))
def test_a_random_program_agrees_everywhere(seed: int, run_image: RunImage) -> None:
    check(source_of_seed(seed), run_image, **of_seed(seed))


@requires_native
@pytest.mark.native
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40, 220))
def test_many_more_random_programs_agree(seed: int, run_image: RunImage) -> None:
    check(source_of_seed(seed), run_image, **of_seed(seed))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(source=programs(max_pages=40, max_size=30))
def test_programs_that_hypothesis_writes_agree(source: str, run_image: RunImage) -> None:
    check(source, run_image, cpu="skylake", policy="fifo", native=False)
