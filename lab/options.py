"""The options that say which machine there is and what runs on it: as typed, and as one frozen value.

>>> Options(programs=("hello.asm",), ram="128M").cpu
'skylake'

A command that runs programs takes them with decorators, and gets all of them as one `Options`:

>>> @click.command(cls=ProgramCommand)
... @programs_argument
... @machine_options
... def show(options):
...     click.echo(f"{options.programs} {options.arguments} {options.engine}")
>>> show(["a.asm", "--engine", "trap", "--", "-n", "5"], standalone_mode=False)
('a.asm',) ('-n', '5') trap
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

import click
from click.shell_completion import CompletionItem

__all__ = [
    "ARGUMENTS",
    "MAX_INSTRUCTIONS",
    "ExampleCommand",
    "Options",
    "ProgramCommand",
    "WholeNumber",
    "count_option",
    "machine_options",
    "program_argument",
    "programs_argument",
    "syntax_option",
    "until_option",
]

MAX_INSTRUCTIONS: Final = 10_000_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """A machine and what runs on it. `programs` are files; all of them get the same `arguments`.

    `pti` None means: if the processor needs it, `pcid` None: if the processor has it. `until` is a
    symbol of the first program. `root` is a folder that the programs see as `/`, `files` are HOST:GUEST pairs.
    """

    programs: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    syntax: Literal["intel", "att"] = "intel"
    cpu: str = "skylake"
    ram: str = "64M"
    engine: str = "auto"
    tlb: bool = True
    tlb_policy: str = "random"
    caches: str = "off"
    pti: bool | None = None
    pcid: bool | None = None
    asid: str = "pcid"
    populate: bool = False
    aslr: bool = False
    thp: str = "madvise"
    root: str | None = None
    files: tuple[str, ...] = ()
    swap: str = "0"
    swap_file: str | None = None
    swap_device: str = "nvme"
    swap_policy: str = "active_inactive"
    secret: str | None = None
    pte_inversion: bool = True
    seed: int = 1
    until: str | None = None
    max_instructions: int = MAX_INSTRUCTIONS


class ExampleCommand(click.Command):
    """A command whose `--help` ends with examples: pairs of a command line and what it does."""

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; whatever is wrong with it, this command's help is the one to read."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, each on lines of its own: a command line is there to be copied."""
        if not self.examples:
            return
        with formatter.section("Examples"):
            for line, meaning in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
                with formatter.indentation():
                    formatter.write_text(meaning)


class ProgramCommand(ExampleCommand):
    """A command that takes programs, and after `--` the arguments for them.

    `--caches` means `--caches on`, so that a program may follow it.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set aside what follows the first `--`: those words are the guest's."""
        if "--" in args:
            end = args.index("--")
            ctx.meta[ARGUMENTS] = tuple(args[end + 1 :])
            args = args[:end]
        following = zip(args, [*args[1:], ""], strict=False)
        args = [f"{arg}=on" if arg == "--caches" and after not in CACHES else arg for arg, after in following]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Show where the arguments go."""
        return [*super().collect_usage_pieces(ctx), "[-- ARGS]"]


CACHES: Final = ("off", "on", "flush")
"""Values of `--caches`."""

ARGUMENTS: Final = f"{__name__}.arguments"
"""Where `ProgramCommand` leaves the arguments for the programs in the context."""


class WholeNumber(click.IntRange):
    """A whole number from a minimum on, by the name that people give it."""

    name = "whole number"


class Count(click.ParamType):  # type: ignore[type-arg]
    """A number, also with a decimal unit: 1000, 500k, 20M, 10G."""

    name = "number"
    units: Final = {"k": 1000, "m": 1000**2, "g": 1000**3}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the number; refuse all but whole positive ones."""
        if isinstance(value, int):
            return value
        digits, unit = (value[:-1], value[-1].lower()) if value[-1:].lower() in self.units else (value, "")
        if not (digits.isascii() and digits.isdecimal()) or not int(digits):
            self.fail(f"{value!r} is not a number from 1 on; write it as 5000, 20M or 10G", param, ctx)
        return int(digits) * self.units.get(unit, 1)


def count_option(*names: str, **settings: Any) -> Callable[[Any], Any]:
    """A click option whose value is a `Count`."""
    return click.option(*names, type=Count(), **settings)


def _switch(_ctx: click.Context, _param: click.Parameter, value: str | None) -> bool | None:
    """`on` and `off` as truth, anything else as "decide yourself"."""
    return {"on": True, "off": False}.get(value or "")


def _files(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """What the shell may complete: names of files, which it knows best itself."""
    return [CompletionItem(begun, type="file")]


def _profiles(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """The CPU profiles, or a file."""
    from emu import profile_names

    names = [name for name in profile_names() if name.startswith(begun)]
    return [CompletionItem(name) for name in names] or _files(_ctx, _param, begun)


programs_argument: Final = click.argument(
    "programs", nargs=-1, required=True, metavar="PROGRAM...", shell_complete=_files
)
program_argument: Final = click.argument("programs", metavar="PROGRAM", shell_complete=_files)
until_option: Final = click.option("--until", metavar="SYMBOL", help="Stop before the first process executes SYMBOL.")
syntax_option: Final = click.option(
    "--syntax",
    type=click.Choice(["intel", "att"]),
    default="intel",
    help="What an assembly source begins with.",
)

_MACHINE: Final = (
    click.option(
        "--cpu",
        default="skylake",
        metavar="NAME",
        shell_complete=_profiles,
        help="CPU profile: a name (see cr3 profiles), or a file.",
    ),
    click.option("--ram", default="64M", metavar="SIZE", help="Size of the memory, such as 64M or 1G."),
    click.option(
        "--engine",
        type=click.Choice(["auto", "trap", "access"]),
        default="auto",
        help="See every access, or only those that miss the TLB; the counters are the same.",
    ),
    click.option(
        "--tlb",
        type=click.Choice(["on", "none"]),
        default="on",
        callback=lambda _ctx, _param, value: value == "on",
        help="none: every access walks the page table.",
    ),
    click.option(
        "--tlb-policy",
        type=click.Choice(["fifo", "random", "lru", "plru"]),
        default="random",
        help="Which entry of a full TLB set gives way.",
    ),
    click.option(
        "--caches",
        type=click.Choice(CACHES),
        default="off",
        metavar="[off|on|flush]",
        help="Model data and instruction caches; flush: the kernel empties them whenever it returns to user mode.",
    ),
    click.option(
        "--pti",
        type=click.Choice(["auto", "off", "on"]),
        default="auto",
        callback=_switch,
        help="Page-table isolation; auto: if the CPU is vulnerable to Meltdown.",
    ),
    click.option(
        "--pcid",
        type=click.Choice(["on", "off"]),
        callback=_switch,
        help="Tag TLB entries with their address space; by default if the CPU can.",
    ),
    click.option(
        "--asid",
        type=click.Choice(["pcid", "flush", "stale"]),
        default="pcid",
        help="What a process switch does: keep what is tagged, flush all, or nothing at all (and be wrong).",
    ),
    click.option("--aslr", is_flag=True, help="Put stack, mmap area and heap at random places (see --seed)."),
    click.option("--populate", is_flag=True, help="Give memory its frames at once: no demand paging."),
    click.option(
        "--thp",
        type=click.Choice(["always", "madvise", "never"]),
        default="madvise",
        help="Transparent huge pages: for all memory, for what the program asks for (MADV_HUGEPAGE), or never.",
    ),
    click.option("--swap", default="0", metavar="SIZE", help="Size of the swap area, such as 256M; none by default."),
    click.option("--swap-file", metavar="FILE", help="Keep the swap area in FILE; by default it is a temporary file."),
    click.option(
        "--swap-device",
        type=click.Choice(["nvme", "ssd", "disk"]),
        default="nvme",
        help="How long the swap area takes.",
    ),
    click.option(
        "--swap-policy",
        default="active_inactive",
        metavar="NAME",
        help="Which page gives way: a policy of docs/policies.md, or FILE.py:CLASS for your own.",
    ),
    click.option(
        "--pte-inversion",
        type=click.Choice(["on", "off"]),
        default="on",
        callback=_switch,
        help="off: page-table entries that are not present name their frames, as before L1TF was known.",
    ),
    click.option("--secret", metavar="TEXT", help="Put TEXT into the kernel's memory (see cr3 meltdown)."),
    click.option("--root", metavar="DIR", help="A folder that the programs see as /; it is read, never written."),
    click.option(
        "--file",
        "files",
        multiple=True,
        metavar="HOST:GUEST[:rw]",
        help="A file that the programs see under the path GUEST, read-only unless :rw follows. Can be repeated.",
    ),
    click.option("--seed", type=WholeNumber(0), default=1, metavar="N", help="Seed of all that is random."),
    count_option(
        "--max-instructions",
        default=MAX_INSTRUCTIONS,
        metavar="N",
        help="Give up after so many instructions, with exit code 124 (default 10G).",
    ),
    syntax_option,
)


def machine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the programs and all options of the machine, as its first argument, an `Options`."""
    names = {field.name for field in fields(Options)}

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        machine = {name: given.pop(name) for name in names & given.keys()}
        machine["arguments"] = click.get_current_context().meta.get(ARGUMENTS, ())
        if isinstance(machine["programs"], str):
            machine["programs"] = (machine["programs"],)
        return function(Options(**machine), **given)

    for option in reversed(_MACHINE):
        command = option(command)
    return command
