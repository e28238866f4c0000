"""Pages of the reference that are written when the site is built, from the code itself: events and statistics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import kernel  # noqa: F401 - it registers the kernel's events
from emu import event_names
from emu.events import Event, event_class

ROOT = Path(__file__).parent.parent


def events_page() -> str:
    """Every event, with what it means and its fields."""
    lines = [
        "# Events",
        "",
        'Every kind of event, for `kernel.on("NAME")`, `kernel.record("NAME")` and `cr3 trace --events`. All',
        "have `cycle`, the clock of the model, and `pid`, the process (0: none).",
        "",
    ]
    common = {field.name for field in fields(Event)}
    for name in event_names():
        cls = event_class(name)
        own = ", ".join(f"`{field.name}`: {_type(field.type)}" for field in fields(cls) if field.name not in common)
        lines += [f"## {name}", "", _paragraphs(cls.__doc__), "", own or "No further fields.", ""]
    return "\n".join(lines)


def _type(annotation: Any) -> str:
    return str(annotation).replace("|", "or")


def _paragraphs(text: str | None) -> str:
    return re.sub(r"\n +", "\n", (text or "").strip())


def statistics_page() -> str:
    """Every number of the statistics, from their schema."""
    schema = json.loads((ROOT / "lab" / "schemas" / "stats-1.json").read_text())
    lines = [
        "# Statistics",
        "",
        schema["description"],
        "",
        "`result.stats` has the same content, without `schema`, `program` and `config`.",
        "",
        "| number | what it counts |",
        "|---|---|",
        *(f"| `{name}` | {text} |" for name, text in _described(schema, schema, "")),
    ]
    return "\n".join(lines)


def _described(schema: dict[str, Any], node: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, child in node.get("properties", {}).items():
        target = schema["$defs"][child["$ref"].rpartition("/")[2]] if "$ref" in child else {}
        text = child.get("description") or target.get("description") or ""
        path = f"{prefix}{name}"
        if text:
            yield path, text
        if not path.startswith("config."):
            yield from _described(schema, {**target, **child}, f"{path}.")
