"""Comparisons as pictures: bars by cause, and overhead by rate of system calls.

matplotlib draws them; it is an extra, because a table needs none of it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emu import InputError

from .compare import Comparison
from .compare_view import causes
from .statistics import CAUSES, cause_name

if TYPE_CHECKING:
    from .compare_curve import Curves
    from .compare_suite import Suite

__all__ = ["PALETTE", "check_plot", "draw_bars", "draw_curves", "draw_suite", "figure_of", "picture"]

FORMATS: Final = (".svg", ".png", ".html")
PALETTE: Final = (
    *("#4e79a7", "#f28e2b", "#e15759", "#b07aa1", "#76b7b2", "#59a14f"),
    *("#edc948", "#9c755f", "#ff9da7", "#86bcb6", "#d37295", "#499894", "#8cd17d", "#bab0ac", "#79706e", "#d0d0d0"),
)
COLOURS: Final = dict(zip(CAUSES, PALETTE, strict=True))
"""A cause has the same colour in every picture."""
PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<body style="margin: 2em; font-family: sans-serif"><img alt="{title}" src="data:image/svg+xml;base64,{picture}"></body>
</html>
"""


def check_plot(name: str, formats: Sequence[str] = FORMATS) -> None:
    """Refuse a file that cannot become a picture. Raises InputError."""
    if Path(name).suffix not in formats:
        raise InputError(f"--plot {name}: the name must end in {', '.join(formats[:-1])} or {formats[-1]}")
    if find_spec("matplotlib") is None:
        raise InputError("--plot needs matplotlib: pip install 'cr3-lab[plot]'")


def draw_bars(comparison: Comparison, suffix: str) -> bytes:
    """Draw a stacked bar for each run: where its cycles went."""
    title = " ".join(Path(program).name for program in comparison.program)
    bars = [
        (_two_lines(run.name), {cause: run.stats["cycles"]["by_cause"].get(cause, 0) for cause in causes(comparison)})
        for run in comparison.runs
    ]
    notes = ["", *(f"{comparison.overhead(run):+.1%}" for run in comparison.runs[1:])]
    calls = [sum(run.stats["syscalls"].values()) for run in comparison.runs]
    per_call = min(calls) > 0
    scaled = [
        (name, {cause: cycles / (count if per_call else 1) for cause, cycles in parts.items()})
        for (name, parts), count in zip(bars, calls, strict=True)
    ]
    return _stacked(scaled, notes, title, "cycles a system call" if per_call else "cycles", suffix)


def draw_suite(suite: Suite, suffix: str) -> bytes:
    """Draw the suite: for each workload its bars, as a share of its first run."""
    bars: list[tuple[str, dict[str, float]]] = []
    notes = []
    for comparison in suite.comparisons:
        baseline = comparison.runs[0].cycles
        for number, run in enumerate(comparison.runs):
            name = f"{comparison.program[0]}: {run.name}" if number == 0 else run.name
            by_cause = run.stats["cycles"]["by_cause"]
            bars.append((name, {cause: cycles / baseline for cause, cycles in by_cause.items() if cycles}))
            notes.append(f"{comparison.overhead(run):+.1%}" if number else "")
    return _stacked(bars, notes, "the suite", "cycles, as a multiple of the first machine's", suffix)


def _two_lines(name: str) -> str:
    return name.replace(" ", "\n") if "=" in name else name


def _stacked(
    bars: Sequence[tuple[str, dict[str, float]]], notes: Sequence[str], title: str, unit: str, suffix: str
) -> bytes:
    """Draw horizontal bars with a colour for each cause, and a note behind each bar."""
    named = {cause for _name, parts in bars for cause in parts}
    found = [cause for cause in CAUSES if cause in named] + sorted(named - CAUSES.keys())
    drawing, axes = figure(height=1.9 + 0.42 * len(bars))
    places = range(len(bars))
    left = [0.0] * len(bars)
    most = max(sum(parts.values()) for _name, parts in bars)
    for cause in found:
        widths = [parts.get(cause, 0) for _name, parts in bars]
        if max(widths) < most / 500:  # too thin to see
            continue
        colour = COLOURS.get(cause, PALETTE[-1])
        axes.barh(places, widths, left=left, color=colour, label=cause_name(cause), height=0.7)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, end, note in zip(places, left, notes, strict=True):
        axes.annotate(note, (end, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(places, [name for name, _parts in bars], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.2)
    axes.margins(y=0.02)
    axes.set_xlabel(unit)
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return picture(drawing, title, suffix)


CURVES: Final = "What page-table isolation costs"


def draw_curves(curves: Curves, suffix: str) -> bytes:
    """Draw overhead by rate of system calls, in the format that a file's suffix asks for."""
    return picture(curve_figure(curves), CURVES, suffix)


def curve_figure(curves: Curves) -> Any:
    """Return the figure: a line for each machine and working set, and the published points."""
    drawing, axes = figure(height=5.2)
    for number, (working_set, points) in enumerate(curves.by_working_set().items()):
        for machine, line in points.items():
            dashed = "--" if "no PCID" in machine else "-"
            rates, overheads = zip(*((rate, 100 * overhead) for rate, overhead in line if overhead > 0), strict=True)
            name = f"{machine}, {working_set}"
            axes.plot(rates, overheads, dashed, color=PALETTE[number], label=name, marker=".", markersize=4)
    for point in curves.published:
        axes.plot(point.rate, 100 * point.overhead, point.marker, color="black", markersize=7, label=point.name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(True, which="major", alpha=0.3)
    axes.set_xlabel("system calls a second and CPU, at 3 GHz")
    axes.set_ylabel("overhead of page-table isolation, %")
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.set_title(CURVES, loc="left", fontsize=11)
    return drawing


def figure(height: float) -> tuple[Any, Any]:
    """Return a figure with one plain plot in it, drawn without any window."""
    drawing, (axes,) = figure_of(1, height)
    return drawing, axes


def figure_of(rows: int, height: float) -> tuple[Any, list[Any]]:
    """Return a figure with plain plots one below the other, drawn without any window."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(9, height), layout="constrained")
    plots = list(drawing.subplots(rows, squeeze=False)[:, 0])
    for axes in plots:
        axes.spines[["top", "right"]].set_visible(False)
    return drawing, plots


def picture(drawing: Any, title: str, suffix: str) -> bytes:
    """Return a figure as the bytes of a file; the same figure is the same bytes."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    kind = "png" if suffix == ".png" else "svg"
    with rc_context({"svg.hashsalt": "cr3"}):
        drawing.savefig(buffer, format=kind, dpi=144, metadata={"Date": None} if kind == "svg" else None)
    if suffix != ".html":
        return buffer.getvalue()
    return PAGE.format(title=title, picture=base64.b64encode(buffer.getvalue()).decode()).encode()
