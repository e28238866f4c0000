"""The panels of the full-screen debugger: each turns a `View` into lines of text, with what changed marked.

Drawing is done by pure functions of a `Scene` and the columns of room there are. A line may stand for an address, which
is where a click on it leads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from textual.content import Content

from emu.pte import Pte, Rflags

from .commands import COMMANDS
from .scout import Happened
from .view import Access, CodeLine, View

__all__ = ["DRAWN", "Line", "Scene", "help_lines"]

USER: Final = 3
CHANGED: Final = "bold $warning"
DIM: Final = "dim"
NAME: Final = "$text-secondary"
PRESENT: Final = "$success"
ABSENT: Final = "bold $error"
KEYS: Final = (
    ("s  S", "step, and back: the program's instructions; the kernel is passed over"),
    ("i  I", "the same with every instruction of the machine, through the kernel"),
    ("n  N", "step over calls, and back"),
    ("c  C", "continue to the next stop, and back to the last one"),
    ("u  B", "run until, or back to, a symbol, an address or an event such as page_fault"),
    ("b", "breakpoint at this instruction; a click on any other line does it there"),
    ("w  p", "watch memory, or a page-table entry"),
    ("m", "look at memory"),
    ("g  G", "to the start, to the end"),
    ("1 ... 6", "panels, where there is not room for all; Tab and arrows scroll"),
    (":", "type a command"),
    ("Esc", "interrupt what takes long"),
    ("q", "quit"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line; `va` is what it is about."""

    content: Content
    va: int | None = None


@dataclass(frozen=True)
class Scene:
    """What is drawn: the view and the one where the run was before, and what was set, happened and written."""

    now: View
    before: View | None
    breakpoints: frozenset[int]
    events: tuple[Happened, ...]
    output: str
    stops: tuple[str, ...]

    def changed(self, name: str) -> bool:
        """Whether a register is not what it was."""
        return self.before is not None and self.before.registers.get(name) != self.now.registers.get(name)


WIDE: Final = 56
"""Columns from which a panel of code has room for whole addresses."""
WORDS: Final = re.compile(r"[A-Za-z_]\w*")
LEAST: Final = 10
"""Columns in which a comment can say anything."""
TWO_WALKS: Final = 74
"""Columns in which two page walks have room side by side."""

Draw = Callable[[Scene, int], Iterator[Line]]


def _line(*parts: str | tuple[str, str], va: int | None = None) -> Line:
    return Line(Content.assemble(*parts), va)


def short(va: int, width: int = 16) -> str:
    """An address without what can be spared: `…81000000` for one of the kernel's, where there is little room."""
    text = f"{va:x}"
    return text if len(text) <= width else f"…{text[-width + 1 :]}"


# --- code and registers -----------------------------------------------------------------------------------------------


def code(scene: Scene, width: int) -> Iterator[Line]:
    """Labels and instructions; beside them the source, where there is room."""
    rip = scene.now.registers["rip"]
    longest = max((len(f"{one.va:x}") for one in scene.now.code), default=0)
    digits = min(longest, 16 if width >= WIDE else 9)
    for one in scene.now.code:
        if one.label:
            yield _line((f"{'':3}{one.label}:", NAME))
        here = one.va == rip
        mark = "●" if one.va in scene.breakpoints else " "
        style = ("bold reverse $success" if scene.now.cpl == USER else "bold reverse $error") if here else ""
        text = f"{'▶' if here else ' '} {short(one.va, digits):>{digits}}  {_instruction(one.text, width)}"
        room = width - len(text) - 3
        yield _line((mark, "bold $error"), (text, style), (_source(one, room), DIM), va=one.va)


def _instruction(text: str, width: int) -> str:
    """An instruction in columns; where there is little room, without what the registers say too."""
    name, _, operands = text.partition(" ")
    if width < WIDE:
        operands = operands.replace(" ptr", "").partition("  #")[0]
    return f"{name:<6} {operands}".rstrip()


def _source(one: CodeLine, room: int) -> str:
    """What the source adds: its comment, or else names for numbers."""
    code, has_comment, comment = one.source.partition("#")
    said = f"# {comment.strip()}" if has_comment else " ".join(code.split())
    known = set(WORDS.findall(one.text))
    has_names = any(word not in known for word in WORDS.findall(code.partition(" ")[2]))
    if not (has_comment or has_names) or room < LEAST:
        return ""
    return "  " + (said if len(said) <= room else said[: room - 1] + "…")


def registers(scene: Scene, _width: int) -> Iterator[Line]:
    """Two in a line; flags by name; what the kernel and the memory hardware use."""
    names = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)))
    pairs = zip(names[::2], names[1::2], strict=True)
    for left, right in (*pairs, ("rip", "cr2"), ("cr3", "cr4"), ("gs", "kgs")):
        yield _line(*_register(scene, left), "  ", *_register(scene, right))
    flags = Rflags(scene.now.registers["rflags"])
    named = [flag.name or "" for flag in flags if flag is not Rflags.FIXED]
    style = CHANGED if scene.changed("rflags") else ""
    yield _line(("rflags ", NAME), (" ".join(named) or "none", style))
    yield _line(("pcid   ", NAME), (f"{scene.now.registers['pcid']}", CHANGED if scene.changed("pcid") else ""))


def _register(scene: Scene, name: str) -> tuple[tuple[str, str], tuple[str, str]]:
    value = f"{scene.now.registers[name]:x}"
    return (f"{name:<4}", NAME), (f"{value:>16}", CHANGED if scene.changed(name) else "")


# --- translation ------------------------------------------------------------------------------------------------------


def walk(scene: Scene, width: int) -> Iterator[Line]:
    """The addresses that the instruction uses, each with its way through the tables."""
    walks = [list(_walk(access)) for access in scene.now.accesses]
    if width < TWO_WALKS:
        yield from (line for lines in walks for line in lines)
        return
    for number in range(0, len(walks), 2):
        left, right = walks[number], walks[number + 1] if number + 1 < len(walks) else []
        for one, other in zip_longest(left, right, fillvalue=_line("")):
            half = one.content.pad_right(width // 2 - one.content.cell_length)
            yield Line(Content.assemble(half, other.content), one.va)


def _walk(access: Access) -> Iterator[Line]:
    report = access.walk
    held = " ".join(access.held).lower() or "no TLB has it"
    yield _line((f"{access.kind:6}", "bold"), f"{report.va:x}  ", (held, PRESENT if access.held else DIM), va=report.va)
    for step in report.steps:
        flags = " ".join(flag.name or "" for flag in Pte if step.entry & flag)
        entry = f"{(step.entry >> 12) & 0xFF_FFFF_FFFF:x}" if step.entry & Pte.P else f"{step.entry:x}"
        style = "" if step.entry & Pte.P else ABSENT
        yield _line(
            f"  {step.name:5}", (f"[{step.index:3}] ", DIM), (f"{entry:>7} ", style), (flags or "not present", style)
        )
    if report.pa is not None:
        yield _line(f"  {'':12}", ("= ", DIM), (f"{report.pa:x}", PRESENT))


def tlb(scene: Scene, _width: int) -> Iterator[Line]:
    """What the TLBs hold; entries that were not there before are marked."""
    yield _line((f"{'':5}{'address':>13} {'physical':>8} pcid rights", DIM))
    known = set(scene.before.translations) if scene.before else set(scene.now.translations)
    shown: dict[str, int] = {}
    for one in scene.now.translations:
        kind = one.kind.name.lower().replace("paging_structure", "psc")
        shown[kind] = shown.get(kind, 0) + 1
        if shown[kind] > MOST_OF_A_TLB:
            continue
        flags = "".join((flag.name or "")[0] if flag is not Pte.NX else "x" for flag in one.flags if flag is not Pte.P)
        size = {12: "", 21: " 2M", 30: " 1G"}.get(one.page_size.bit_length() - 1, "")
        style = "" if one in known else CHANGED
        text = f"{short(one.va, 13):>13} {one.pa:>8x} {one.pcid:>4} {flags}{size}"
        yield _line((f"{kind:5}", NAME), (text, style), va=one.va)
    for kind, count in shown.items():
        if count > MOST_OF_A_TLB:
            yield _line((f"{kind:5}", NAME), (f"and {count - MOST_OF_A_TLB} more", DIM))


MOST_OF_A_TLB: Final = 64
"""Entries of one TLB that are shown."""


# --- memory -----------------------------------------------------------------------------------------------------------


def memory(scene: Scene, _width: int) -> Iterator[Line]:
    """Eight bytes a line, as they lie there."""
    now, before = scene.now, scene.before
    for number, word in enumerate(now.memory):
        va = now.memory_va + 8 * number
        if word is None:
            yield _line((f"{short(va, 12):>12} ", DIM), ("no page", ABSENT), va=va)
            continue
        same = before is None or _at(before, va) in (None, word)
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in word)
        style = "" if same else CHANGED
        yield _line((f"{short(va, 12):>12} ", DIM), (word.hex(" ", 4), style), " ", (text, DIM), va=va)


def _at(view: View, va: int) -> bytes | None:
    number, offset = divmod(va - view.memory_va, 8)
    return view.memory[number] if not offset and 0 <= number < len(view.memory) else None


def vmas(scene: Scene, _width: int) -> Iterator[Line]:
    """The VMAs with the pages that are there, of those that were promised."""
    yield _line((f"{'from':>12} may      in/of", DIM))
    known = {(row["start"], row["end"]): row for row in scene.before.vmas} if scene.before else None
    for row in scene.now.vmas:
        style = "" if known is None or known.get((row["start"], row["end"])) == row else CHANGED
        pages = f"{row['resident'] + row['zero']}/{row['pages']}"
        place = f"{row['start']:>12x} {row['rights']} {pages:>9} "
        yield _line((place, style), (row["name"].rpartition("/")[2], DIM), va=row["start"])


# --- what happened ----------------------------------------------------------------------------------------------------

COLOURS: Final = {
    **{
        "page_fault": "$warning",
        "cow": "$warning",
        "signal": "$error",
        "syscall": "$primary",
        "syscall_exit": "$primary",
    },
    **{"cr3_write": "$accent", "context_switch": "$accent", "exec": "$success", "fork": "$success", "exit": "$success"},
}


def log(scene: Scene, _width: int) -> Iterator[Line]:
    """The last events before this position, the newest first."""
    for event in reversed(scene.events):
        yield _line((f"{event.position:>9} ", DIM), (f"{event.name} ", COLOURS.get(event.name, NAME)), event.what)


def output(scene: Scene, _width: int) -> Iterator[Line]:
    """What the program has written, and what it shall stop at."""
    for number, label in enumerate(scene.stops, 1):
        yield _line((f"stop {number}  ", NAME), label)
    for text in scene.output.splitlines():
        yield _line(text)


DRAWN: Final[dict[str, tuple[str, Draw]]] = {
    "code": ("Code", code),
    "registers": ("Registers", registers),
    "tlb": ("TLBs", tlb),
    "walk": ("Page walk", walk),
    "vmas": ("VMAs", vmas),
    "log": ("Events", log),
    "memory": ("Memory", memory),
    "output": ("Output", output),
}
"""Every panel: its title, and what draws it; in the order in which they fill the screen (app.tcss)."""


def help_lines() -> Sequence[Line]:
    """What the keys and the commands do."""
    width = max(len(command.usage) for command in COMMANDS.values())
    keys = [_line((f"{keys:>9}  ", "bold $accent"), meaning) for keys, meaning in KEYS]
    typed = [_line((f"{one.usage:<{width}}  ", "bold $accent"), one.help) for one in COMMANDS.values()]
    return [*keys, _line(""), _line(("Commands, after :", "bold")), *typed]
