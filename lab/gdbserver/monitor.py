"""The commands behind `monitor`: what cr3 can show that GDB has no words for.

A command is a function with the decorator; its docstring is the help.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rich.console import Console

from emu import InputError
from emu.state import TlbKind
from kernel import Process

from ..debugger import look
from ..session import Session

if TYPE_CHECKING:
    from .server import GdbServer

__all__ = ["run"]

Command = Callable[["GdbServer", list[str]], str]
_COMMANDS: dict[str, tuple[str, Command]] = {}
WIDTH: Final = 120


def command(usage: str) -> Callable[[Command], Command]:
    """Register a command; its name is the first word of its usage."""

    def register(function: Command) -> Command:
        _COMMANDS[usage.split()[0]] = (usage, function)
        return function

    return register


def run(server: GdbServer, line: str) -> str:
    """Run a command line; returns what it prints. What is wrong with it is said, too."""
    name, *words = line.split() or ["help"]
    if name not in _COMMANDS:
        near = difflib.get_close_matches(name, _COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "try monitor help"
        return f"there is no command {name!r}: {hint}\n"
    try:
        return _COMMANDS[name][1](server, words)
    except InputError as error:
        return f"{error}\n"


@command("help")
def show_help(_server: GdbServer, _words: list[str]) -> str:
    """What there is."""
    width = max(len(usage) for usage, _ in _COMMANDS.values())
    return "".join(f"{usage:{width}}  {function.__doc__}\n" for _, (usage, function) in sorted(_COMMANDS.items()))


@command("walk ADDRESS")
def walk(server: GdbServer, words: list[str]) -> str:
    """The page walk of an address or symbol, level by level."""
    if len(words) != 1:
        raise InputError("expected one address: monitor walk 0x401000, monitor walk _start+4")
    return str(server.debugger.ask(walk_text, words[0]))


@command("tlb [itlb|dtlb|stlb|paging_structure]")
def tlb(server: GdbServer, words: list[str]) -> str:
    """What the TLBs and paging-structure caches hold."""
    names = [kind.name.lower() for kind in TlbKind]
    for word in words:
        if word not in names:
            raise InputError(f"there is no TLB {word!r}; there are {', '.join(names)}")
    return str(server.debugger.ask(tlb_text, words or names))


@command("maps")
def maps(server: GdbServer, _words: list[str]) -> str:
    """The VMAs of the current process, and their pages by kind."""
    return str(server.debugger.ask(maps_text))


@command("position")
def position(server: GdbServer, _words: list[str]) -> str:
    """Where in the run this is, and whose instructions these are."""
    at = server.debugger.moment
    mode = "user" if at.cpl else "kernel"
    return f"{at.position} instructions have retired, {at.user} of them in user mode; {mode} mode, pid {at.pid}\n"


@command("scope [user|machine]")
def scope(server: GdbServer, words: list[str]) -> str:
    """Whether stepi passes over the kernel (user), or goes through it (machine)."""
    if words not in ([], ["user"], ["machine"]):
        raise InputError("expected monitor scope user, or monitor scope machine")
    if words:
        server.passes_kernel = words == ["user"]
    return f"stepi {'passes over' if server.passes_kernel else 'goes through'} the kernel\n"


# --- at the replica ---------------------------------------------------------------------------------------------------


def _process(session: Session) -> Process:
    """Whose address space it is; at the end the first one's. Raises InputError if its memory is gone."""
    process = session.kernel.scheduler.current
    if process is None or not process.alive:
        raise InputError("no process is running here")
    return process


def walk_text(session: Session, address: str) -> str:
    """The walk as `cr3 walk` shows it, in the page tables of CR3."""
    from ..walk_view import parse_address, render

    machine, kernel = session.machine, session.kernel
    va = parse_address(address, kernel, session.images[0])
    return render(look.walk(session, va), kernel.symbolize(va), f"cr3 {machine.control.cr3:#x}") + "\n"


def tlb_text(session: Session, names: list[str]) -> str:
    """Every entry on a line."""
    lines = [f"{'':18}{'address':20}{'physical':14}{'size':8}{'pcid':6}flags"]
    for one in look.translations(session):
        if one.kind.name.lower() in names:
            size = f"{one.page_size >> 10}K" if one.page_size < 1 << 20 else f"{one.page_size >> 20}M"
            flags = " ".join(flag.name or "" for flag in one.flags)
            kind = one.kind.name.lower()
            lines.append(f"{kind:18}{one.va:<#20x}{one.pa:<#14x}{size:8}{one.pcid:<6}{flags}".rstrip())
    return "\n".join(lines) + "\n"


def maps_text(session: Session) -> str:
    """The table of `cr3 maps`."""
    from ..maps_view import vma_table

    output = io.StringIO()
    vma_table(session.kernel, _process(session), Console(file=output, width=WIDTH, highlight=False))
    return output.getvalue()
