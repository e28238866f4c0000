"""What `cr3 profiles` shows: the CPU profiles in one line each, or one profile with all its sources.

The same rows come in three forms: data for `--json`, tables fitted to a terminal, and plain lines for pipes.
A plain line has a value with its source in full, so `cr3 profiles skylake | grep cr3` is an answer.

>>> [row["name"] for row in profiles_overview()]
['broadwell', 'haswell', 'skylake', 'zen2']
>>> next(row for row in profile_rows("skylake") if row["key"] == "cpu.model")["value"]
94
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emu.profile import Profile, TlbGeometry, array_for, load_profile, profile_names
from emu.provenance import Value

__all__ = [
    "overview_as_dict",
    "profile_as_dict",
    "profile_rows",
    "profiles_overview",
    "render_overview",
    "render_profile",
]

ASSUMED = "yellow"
"""How an assumption looks on a terminal; what is cited is plain."""


def profiles_overview() -> list[dict[str, Any]]:
    """Return a row for each shipped profile: what tells them apart, and how much in them is assumed."""
    return [_overview_row(load_profile(name)) for name in profile_names()]


def profile_rows(name_or_path: str | Path) -> list[dict[str, Any]]:
    """Return every value of a profile as {"key", "value", "unit", "source"}. Raises ProfileError."""
    return _rows(load_profile(name_or_path))


def overview_as_dict() -> dict[str, Any]:
    """Return what `cr3 profiles --json` prints."""
    return {"schema": "cr3.profiles/1", "profiles": profiles_overview()}


def profile_as_dict(name_or_path: str | Path) -> dict[str, Any]:
    """Return what `cr3 profiles NAME --json` prints. Raises ProfileError."""
    profile = load_profile(name_or_path)
    return {"schema": "cr3.profile/1", "name": profile.name, "title": profile.title, "values": _rows(profile)}


def render_overview(console: Console) -> None:
    """Print the overview: a table on a terminal, aligned lines elsewhere."""
    heads = ["profile", "part", "MHz", "ITLB", "DTLB", "STLB", "PCID", "Meltdown", "assumed"]
    rows = [_overview_cells(row) for row in profiles_overview()]
    if not console.is_terminal:
        _print_lines(console, [heads, *rows])
        return
    table = _table()
    for head in heads:
        words = head in ("profile", "part")
        table.add_column(head, justify="left" if words else "right", no_wrap=head != "part")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def render_profile(name_or_path: str | Path, console: Console) -> None:
    """Print one profile: tables on a terminal, a line for each value elsewhere. Raises ProfileError."""
    profile = load_profile(name_or_path)
    if not console.is_terminal:
        lines = [[value.key, _measure(value), value.source] for value in profile.values]
        _print_lines(console, lines)
        return
    console.print(Text(profile.title, style="bold"))
    console.print()
    console.print(_values_table(profile))
    console.print(_sources_table(profile))


def _rows(profile: Profile) -> list[dict[str, Any]]:
    return [
        {"key": value.key, "value": value.value, "unit": value.unit, "source": value.source} for value in profile.values
    ]


def _overview_row(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "title": profile.title,
        "frequency_mhz": profile.cpu.frequency_mhz,
        "itlb_4k": _entries_4k(profile.tlb.itlb),
        "dtlb_4k": _entries_4k(profile.tlb.dtlb),
        "stlb_4k": _entries_4k(profile.tlb.stlb),
        "pcid": profile.features.pcid,
        "meltdown": profile.vulnerabilities.meltdown,
        "values": len(profile.values),
        "assumptions": sum(value.is_assumption for value in profile.values),
    }


def _overview_cells(row: dict[str, Any]) -> list[str]:
    assumed = f"{row['assumptions']} of {row['values']}"
    return [*(_shown(row[key]) for key in row if key not in ("values", "assumptions")), assumed]


def _entries_4k(level: tuple[TlbGeometry, ...]) -> int:
    array = array_for(level, "4K")
    return array.entries if array else 0


def _values_table(profile: Profile) -> Table:
    """All values, with their sources as short as the file has them: the sources table has the long ones."""
    table = _table()
    table.add_column("value", no_wrap=True)
    table.add_column("", max_width=20, overflow="fold")
    table.add_column("source", ratio=1, overflow="fold")
    for group, values in groupby(profile.values, key=lambda value: value.key.partition(".")[0]):
        table.add_row(Text(group, style="bold"))
        for value in values:
            key = Text(f"  {value.key.partition('.')[2]}")
            source = Text(value.reference, style=ASSUMED if value.is_assumption else "")
            table.add_row(key, Text(_measure(value)), source)
        table.add_row()
    return table


def _sources_table(profile: Profile) -> Table:
    table = _table()
    table.add_column("source", no_wrap=True)
    table.add_column("", ratio=1, overflow="fold")
    for key, text in profile.sources.items():
        table.add_row(Text(key), Text(text))
    table.add_row(Text("assumption", style=ASSUMED), Text("nobody measured it; the reason is with the value"))
    return table


def _table() -> Table:
    return Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))


def _measure(value: Value) -> str:
    return f"{_shown(value.value)} {value.unit}".rstrip()


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _print_lines(console: Console, rows: list[list[str]]) -> None:
    """Print aligned columns, neither wrapped nor cut."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.print(Text(line.rstrip()), soft_wrap=True)
