"""The names that programs outside this project rely on: they stay."""

from __future__ import annotations

import json

import click
import pytest
from command import cr3, program

from lab.cli import cli

EVENTS = (
    *(
        "instruction",
        "access",
        "tlb_hit",
        "tlb_miss",
        "page_walk",
        "page_fault",
        "cow",
        "swap_in",
        "swap_out",
        "reclaim",
        "huge_page",
        "syscall",
        "syscall_exit",
    ),
    *(
        "cr3_write",
        "tlb_flush",
        "context_switch",
        "signal",
        "exec",
        "fork",
        "exit",
        "interrupt",
        "exception",
        "transient",
        "cache_fill",
    ),
)
COMMANDS = (
    *("run", "compare", "trace", "walk", "maps", "meltdown", "report", "debug"),
    *("asm", "profiles", "policies", "validate", "gdb", "tlb", "check"),
)
MACHINE = (
    *("--cpu", "--ram", "--swap", "--swap-policy", "--pti", "--pcid", "--thp"),
    *("--tlb-policy", "--tlb", "--asid", "--engine", "--populate", "--max-instructions", "--seed"),
)
STATISTICS = {
    "exit": ("code", "signal"),
    "instructions": ("user", "kernel"),
    "accesses": ("user", "kernel"),
    "cycles": ("total", "by_cause"),
    "tlb": ("itlb", "dtlb", "stlb", "flushes"),
    "walk": ("count", "entry_reads"),
    "faults": ("minor", "major", "cow", "protection", "spurious"),
    "swap": ("in", "out"),
    "frames": ("peak", "leaked"),
    "cr3_writes": ("flush", "noflush"),
}


def test_the_python_interface_begins_like_this(capfd: pytest.CaptureFixture[str]) -> None:
    from emu import Machine, assemble
    from kernel import Kernel

    machine = Machine(cpu="skylake", ram="64M")
    kernel = Kernel(machine, pti=True, pcid=True)

    @kernel.on("page_fault")  # also usable as kernel.on("page_fault", callback)
    def show(event: object) -> None:
        print(event)

    process = kernel.spawn(assemble(str(program("hello"))))
    result = kernel.run()
    assert (result.exit_code, result.stats["frames"]["leaked"]) == (0, 0)
    assert process.mm.maps() is not None
    assert "PageFaultEvent" in capfd.readouterr().out


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_can_be_subscribed(name: str) -> None:
    import kernel  # noqa: F401 - it registers its events
    from emu.events import event_class

    fields = event_class(name).__dataclass_fields__
    assert {"cycle", "pid"} <= set(fields)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_there_and_explains_itself(name: str) -> None:
    outcome = cr3(name, "--help")
    assert outcome.exit_code == 0
    assert "Examples" in outcome.stdout


@pytest.mark.parametrize("name", ["run", "compare", "trace", "report", "debug"])
def test_a_command_that_runs_programs_takes_every_option_of_the_machine(name: str) -> None:
    command = cli.commands[name]
    options = {option for parameter in command.get_params(click.Context(command)) for option in parameter.opts}
    assert set(MACHINE) <= options


def test_the_statistics_have_the_schema_that_was_agreed() -> None:
    document = json.loads(cr3("run", program("null_syscall"), "--json", "-", "--stats").stdout)
    assert document["schema"] == "cr3.stats/1"
    for name, parts in STATISTICS.items():
        assert set(parts) <= set(document[name]), name
    assert sum(document["cycles"]["by_cause"].values()) == document["cycles"]["total"]
    assert set(document["accesses"]["user"]) >= {"fetch", "read", "write"}
    assert set(document["processes"][0]) >= {"pid", "exit", "minor", "major", "instructions"}
    assert document["syscalls"]["getpid"] == 10_000
