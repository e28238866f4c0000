"""What a run counted: as a document for machines (schema `cr3.stats/1`), and as a table for people.

The schema is a JSON Schema file beside this one, `schemas/stats-1.json`, and says what each number means.

>>> schema()["title"]
'cr3.stats/1'
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from kernel import Result

from .session import Session

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["CAUSES", "as_json", "cause_name", "document", "render", "schema"]

SCHEMA: Final = "cr3.stats/1"

CAUSES: Final = {
    "instructions": "instructions",
    "entry_exit": "entry and exit",
    "cr3_writes": "CR3 writes",
    "control_registers": "other control registers",
    "itlb_misses": "ITLB misses that the STLB has",
    "dtlb_misses": "DTLB misses that the STLB has",
    "page_walks": "page walks (STLB misses)",
    "ad_assists": "A and D bits",
    "tlb_invalidations": "INVLPG and INVPCID",
    "exceptions": "exceptions and interrupts",
    "copies": "pages cleared and copied",
    "data_caches": "loads that miss the L1D",
    "instruction_caches": "code that misses the L1I",
    "kernel_work": "kernel work",
    "swap_io": "swap device",
    "idle": "idle",
}
"""The causes of `cycles.by_cause` as people call them, in the order of tables and plots."""


def schema() -> dict[str, Any]:
    """The JSON Schema of the document."""
    text = resources.files(__package__).joinpath("schemas", "stats-1.json").read_text("utf-8")
    return dict(json.loads(text))


def document(session: Session, result: Result) -> dict[str, Any]:
    """Everything about a run: its programs, its options, and what was counted."""
    return {
        "schema": SCHEMA,
        "program": list(session.options.programs),
        "config": session.config(),
        **result.stats,
    }


def as_json(statistics: Mapping[str, Any]) -> str:
    """The document as text that a person can read, too."""
    return json.dumps(statistics, indent=2) + "\n"


def cause_name(cause: str) -> str:
    """What people call a cause."""
    return CAUSES.get(cause, cause.replace("_", " "))


def render(statistics: Mapping[str, Any], console: Console) -> None:
    """Print the tables."""
    translation = _hits({name: statistics["tlb"][name] for name in ("itlb", "dtlb", "stlb")})
    caches = [_hits(statistics["caches"])] if "caches" in statistics else []
    for table in (_modes(statistics), translation, *caches, _cycles(statistics), _counts(statistics)):
        console.print()
        console.print(table)


def _modes(statistics: Mapping[str, Any]) -> Table:
    """What user code and the kernel did, side by side."""
    table = _table("", "user", "kernel")
    modes = ("user", "kernel")
    walk = statistics["walk"]

    def row(name: str, values: Iterable[int]) -> None:
        table.add_row(name, *map(_number, values))

    row("instructions", (statistics["instructions"][mode] for mode in modes))
    for kind, name in (("fetch", "fetches"), ("read", "reads"), ("write", "writes")):
        row(name, (statistics["accesses"][mode][kind] for mode in modes))
    for kind, name in (("fetch", "of fetches"), ("data", "of data")):
        row(f"page walks {name}", (walk["by"][mode][kind] for mode in modes))
    for kind, name in (("fetch", "for fetches"), ("data", "for data")):
        row(f"entry reads {name}", (walk["entry_reads"][mode][kind] for mode in modes))
    return table


def _hits(arrays: Mapping[str, Mapping[str, int]]) -> Table:
    """What each TLB or cache had, and what it lacked."""
    table = _table("", "hits", "misses", "miss rate", "evictions")
    for name, counts in arrays.items():
        asked = counts["hits"] + counts["misses"]
        rate = f"{counts['misses'] / asked:.2%}" if asked else "-"
        hits, misses, evictions = (_number(counts[key]) for key in ("hits", "misses", "evictions"))
        table.add_row(name.upper(), hits, misses, rate, evictions)
    return table


def _cycles(statistics: Mapping[str, Any]) -> Table:
    """Where the time went, the largest part first."""
    table = _table("", "cycles", "share")
    total = statistics["cycles"]["total"]
    causes = statistics["cycles"]["by_cause"]
    for name, cycles in sorted(causes.items(), key=lambda cause: -cause[1]):
        if cycles:
            table.add_row(cause_name(name), _number(cycles), f"{cycles / total:.1%}")
    table.add_row("total", _number(total), f"{1:.1%}")
    return table


def _counts(statistics: Mapping[str, Any]) -> Table:
    """Everything that happened a number of times."""
    table = _table("", "")
    swap = {f"{way} pages": count for way, count in statistics["swap"].items()}
    for name, counts in (
        ("page faults", statistics["faults"]),
        ("swap", swap),
        ("frames", statistics["frames"]),
        ("CR3 writes", statistics["cr3_writes"]),
        ("TLB flushes", statistics["tlb"]["flushes"]),
        ("system calls", statistics["syscalls"]),
        ("context switches", {"": statistics["context_switches"]}),
        *_transient(statistics),
    ):
        happened = [f"{kind} {_number(count)}".strip() for kind, count in counts.items() if count]
        table.add_row(name, ", ".join(happened) or "none")
    table.columns[1].justify = "left"
    return table


def _transient(statistics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, int]]]:
    """What transient windows did, if there can be any."""
    if "transient" not in statistics:
        return []
    counts = dict(statistics["transient"])
    return [("transient windows", counts.pop("windows")), ("transient", counts)]


def _table(*heads: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0), show_header=any(heads))
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", min_width=24 if number == 0 else None)
    return table


def _number(count: int) -> str:
    return f"{count:,}"
