"""A report as one HTML file that needs nothing else: no network, no fonts, no other file.

What can be said in words and tables is written by the template (`templates/`), so it is there without JavaScript, too.
The pictures are drawn by the scripts, which read the embedded JSON.
"""

from __future__ import annotations

from importlib import metadata, resources
from typing import Final

import jinja2

from ..statistics import cause_name
from .document import Report

__all__ = ["render"]

SCRIPTS: Final = ("model", "dom", "chart", "time", "pages", "tables", "tlb", "faults", "reload", "main")
"""In this order: what others use comes first."""


def render(report: Report) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lab.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters |= {"number": _number, "share": _share, "cause_name": cause_name, "size": _size, "bar": _bar}
    return environment.get_template("report.html").render(
        report=report,
        data=report.as_dict(),
        version=_version(),
        style=_text("report.css"),
        scripts=[_text(f"{name}.js") for name in SCRIPTS],
    )


def _text(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")


def _version() -> str:
    try:
        return metadata.version("cr3-lab")
    except metadata.PackageNotFoundError:
        return ""


def _number(count: float) -> str:
    return f"{count:,}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _bar(part: float, whole: float) -> str:
    """A width in percent, as CSS wants it."""
    return f"{100 * part / whole:.3f}%" if whole else "0"


def _size(size: int) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << shift:
            return f"{size / (1 << shift):.4g} {unit}"
    return f"{size} B"
