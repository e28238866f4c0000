"""What `cr3 walk` shows: how one address is taken apart, and every page-table entry on its way.

>>> rights([0x67, 0x8000000000000065])
{'user': True, 'writable': False, 'executable': False}
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Final

from emu import Halt, InputError, PageWalkReport, Pte, Step
from emu.control import is_canonical
from emu.image import Image
from emu.pte import ADDRESS_MASK, INDEX_MASK, PAGE_SHIFT
from emu.tlb_contents import size_name
from kernel import Kernel, Process, Result

__all__ = ["as_dict", "moment", "parse_address", "render", "rights"]

LINUX_NAMES: Final = ("PTE", "PMD", "PUD", "P4D")
"""What Linux calls the entries of each level below the top, from PT upwards; the top level is the PGD."""


def parse_address(text: str, kernel: Kernel, image: Image) -> int:
    """An address from a number (0x401000, 4198400), a symbol, or symbol+0x10. Raises InputError.

    Symbols are those of the program, then those of the kernel.
    """
    address = _number(text)
    if address is None:
        name, plus, offset = text.partition("+")
        distance = _number(offset) if plus else 0
        if distance is None:
            raise InputError(f"{text!r} is no address: {offset!r} is not a number")
        address = _symbol(name.strip(), kernel, image) + distance
    if not 0 <= address < 1 << 64:
        raise InputError(f"{text!r} is no address: it has more than 64 bits")
    if not is_canonical(address, kernel.machine.state.levels):
        raise InputError(f"{address:#x} is not canonical: the processor refuses it (#GP) and does not walk")
    return address


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


def _symbol(name: str, kernel: Kernel, image: Image) -> int:
    symbols = {**kernel.text.symbols, **image.symbols}
    if name not in symbols:
        near = difflib.get_close_matches(name, symbols, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; expected 0x401000, a symbol, or symbol+0x10"
        raise InputError(f"{image.path} has no symbol {name!r}{hint}")
    return symbols[name]


def rights(entries: Iterable[int]) -> dict[str, bool]:
    """What the entries of a walk allow together: an access needs that of every one (SDM Vol. 3A 4.6)."""
    entries = list(entries)
    return {
        "user": all(entry & Pte.U for entry in entries),
        "writable": all(entry & Pte.W for entry in entries),
        "executable": not any(entry & Pte.NX for entry in entries),
    }


def moment(result: Result, until: str | None) -> str:
    """When the page tables looked as they are shown."""
    if result.halt is Halt.BREAKPOINT:
        return f"before {until} executes"
    if result.halt is Halt.INSTRUCTION_LIMIT:
        return "at the instruction limit"
    return "when the program ends"


def as_dict(walk: PageWalkReport, process: Process, symbol: str) -> dict[str, Any]:
    """What `cr3 walk --json` prints. `pa` and the rights are null where no page is present."""
    allowed: dict[str, bool | None] = dict(rights(step.entry for step in walk.steps))
    if walk.pa is None:
        allowed = dict.fromkeys(allowed)
    return {
        "schema": "cr3.walk/1",
        "program": process.image.path,
        "pid": process.pid,
        "va": walk.va,
        "symbol": symbol,
        "cr3": walk.cr3,
        "levels": [_level(step) for step in walk.steps],
        "pa": walk.pa,
        "page_size": walk.page_size if walk.pa is not None else None,
        "offset": walk.offset if walk.pa is not None else None,
        **allowed,
    }


def _level(step: Step) -> dict[str, Any]:
    present = bool(step.entry & Pte.P)
    return {
        "level": step.level,
        "table": step.name,
        "index": step.index,
        "pa": step.pa,
        "entry": step.entry,
        "present": present,
        "pfn": (step.entry & ADDRESS_MASK) >> PAGE_SHIFT if present else None,
        "flags": [flag.name for flag in Pte if step.entry & flag] if present else [],
    }


def render(walk: PageWalkReport, symbol: str, moment: str) -> str:
    """The walk for people. `moment` says when the page tables looked like this."""
    name = "" if symbol == f"{walk.va:#x}" else f" ({symbol})"
    lines = [f"{walk.va:#x}{name}, {moment}", "", *_split_lines(walk), "", *_entry_lines(walk), ""]
    return "\n".join([*lines, _conclusion(walk)])


def _split_lines(walk: PageWalkReport) -> list[str]:
    """The address, cut into the bits that choose an entry of each level, and the offset in the page."""
    top = walk.steps[0].level
    leaf = walk.steps[-1].level if walk.pa is not None else 1
    columns = [("bits", "", "")]
    for level in range(top, leaf - 1, -1):
        low = PAGE_SHIFT + 9 * (level - 1)
        name = "PGD" if level == top else LINUX_NAMES[level - 1]
        columns.append((f"{low + 8}-{low}", name, str(walk.va >> low & INDEX_MASK)))
    size = 1 << PAGE_SHIFT + 9 * (leaf - 1)
    columns.append((f"{size.bit_length() - 2}-0", "offset", f"{walk.va & (size - 1):#x}"))
    return _aligned([list(row) for row in zip(*columns, strict=True)], right=True)


def _entry_lines(walk: PageWalkReport) -> list[str]:
    rows = [["table", "index", "entry at", "entry", "meaning"]]
    for step in walk.steps:
        rows.append([step.name, str(step.index), f"{step.pa:#x}", f"{step.entry:#018x}", step.decoded])
    return _aligned(rows)


def _conclusion(walk: PageWalkReport) -> str:
    """Where the walk led: to a physical address with its rights, or to a page fault."""
    if walk.pa is None:
        return f"not present: the walk ends in the {walk.steps[-1].name}, and an access is a page fault"
    allowed = rights(step.entry for step in walk.steps)
    words = [
        "user" if allowed["user"] else "kernel only",
        "read-write" if allowed["writable"] else "read-only",
        "executable" if allowed["executable"] else "not executable",
    ]
    return f"physical address {walk.pa:#x}, in a page of {size_name(walk.page_size)}: {', '.join(words)}"


def _aligned(rows: list[list[str]], *, right: bool = False) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    side = ">" if right else "<"
    lines = ("  ".join(f"{cell:{side}{n}}" for cell, n in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]
