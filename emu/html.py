"""Tables for notebooks: what objects with `_repr_html_` are made of. A notebook brings its own style.

>>> table("Two numbers", ("name", "value"), [("<a>", 1000), ("b", 7)])
'<table><caption>Two numbers</caption><thead><tr><th style="text-align:left">name</th><th>value</th></tr></thead>\
<tbody><tr><td style="text-align:left">&lt;a&gt;</td><td>1,000</td></tr>\
<tr><td style="text-align:left">b</td><td>7</td></tr></tbody></table>'
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

__all__ = ["table"]

LEFT: Final = ' style="text-align:left"'


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """A table. Whole numbers and percentages are on the right, addresses (0x...) in the type of code."""
    rows = list(rows)
    sides = ["" if all(_is_number(row[column]) for row in rows) else LEFT for column in range(len(heads))]
    head = "".join(f"<th{side}>{escape(name)}</th>" for name, side in zip(heads, sides, strict=True))
    cells = ([f"<td{side}>{_text(cell)}</td>" for cell, side in zip(row, sides, strict=True)] for row in rows)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _is_number(value: str | int) -> bool:
    return isinstance(value, int) or value.endswith("%")


def _text(value: str | int) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"<code>{escape(value)}</code>" if value.startswith("0x") else escape(value)
