"""Tables for notebooks: what objects with `_repr_html_` are made of. A notebook brings its own style.

>>> table("Two numbers", ("name", "value"), [("<a>", 1000), ("b", "0x20")])
'<table><caption>Two numbers</caption><thead><tr><th>name</th><th>value</th></tr></thead><tbody><tr><td \
style="text-align:left">&lt;a&gt;</td><td>1,000</td></tr><tr><td style="text-align:left">b</td><td \
style="text-align:left"><code>0x20</code></td></tr></tbody></table>'
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["table"]


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """A table. Whole numbers are on the right, addresses (0x...) in the type of code."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: str | int) -> str:
    if isinstance(value, int):
        return f"<td>{value:,}</td>"
    text = f"<code>{escape(value)}</code>" if value.startswith("0x") else escape(value)
    return f'<td style="text-align:left">{text}</td>'
