"""Draw the pictures of the manual, each from a run: python docs/pictures/draw.py [NAME...]

Nothing in them is made up: a picture that shows a number asked the machine for it.
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import FuncFormatter

from emu import Machine, Pte
from emu.state import TlbKind
from kernel.policies import policy_names
from lab.policies import compare as compare_policies
from lab.policies import record
from lab.reference_strings import PATTERNS
from lab.session import Options, Session

HERE = Path(__file__).parent
PROGRAMS = HERE.parent.parent / "programs"
BLUE, ORANGE, RED, GREY, LIGHT = "#4e79a7", "#f28e2b", "#e15759", "#6b6b6b", "#e9eef5"
PICTURES: dict[str, Callable[[], Figure]] = {}

rcParams.update({"svg.hashsalt": "cr3", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})


def picture(name: str) -> Callable[[Callable[[], Figure]], Callable[[], Figure]]:
    """Decorator: give a picture the name of its file."""

    def register(draw: Callable[[], Figure]) -> Callable[[], Figure]:
        PICTURES[name] = draw
        return draw

    return register


def session(program: str, **options: Any) -> Session:
    """A session that runs a shipped program."""
    return Session(Options(programs=(str(PROGRAMS / f"{program}.asm"),), **options), stdout=io.BytesIO())


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """A sheet without axes, in units of its own size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str = LIGHT) -> None:
    """A box with text in it."""
    style = "round,pad=0,rounding_size=0.06"
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=colour, edgecolor=GREY, linewidth=0.8)
    )
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center")


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow from one point to another."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": GREY, "shrinkA": 0, "shrinkB": 2})


@picture("paging")
def paging() -> Figure:
    """The walk of the lecture's address, entry by entry."""
    run = session("lecture_walk")
    run.run(before_exit=True)
    process = run.kernel.processes[0]
    walk = run.kernel.page_walk(process, 0x1_8000_1008)
    figure, axes = blank(10, 3.6)
    axes.text(0.1, 3.3, "0x180001008", family="monospace", weight="bold")
    for number, step in enumerate(walk.steps):
        x = 0.9 + 2.0 * number
        name = ("PGD", "PUD", "PMD", "PTE")[number]
        axes.text(x + 0.7, 2.95, f"{name} index {step.index}", ha="center", color=BLUE)
        arrow(axes, (x + 0.7, 2.85), (x + 0.7, 2.3))
        for row, colour in ((1.8, LIGHT), (1.3, "white"), (0.8, "white")):
            box(axes, x, row, 1.4, 0.5, "", colour)
        axes.text(
            x + 0.7, 2.05, f"{step.entry & 0xFFFFFFFFFF:#x}", ha="center", va="center", family="monospace", size=9
        )
        axes.text(x + 0.7, 0.5, f"table at {step.pa & ~0xFFF:#x}", ha="center", color=GREY, size=8)
        arrow(axes, (x - 0.6 if number else 0.3, 2.05), (x, 2.05))
    axes.text(0.0, 2.15, "CR3", weight="bold")
    arrow(axes, (8.3, 2.05), (8.75, 2.05))
    box(axes, 8.75, 1.55, 1.2, 1.0, f"page\n{walk.pa & ~0xFFF:#x}\nbyte 0x8", "#fdebd7")
    return figure


@picture("tlb")
def tlb() -> Figure:
    """How many walks a second round over some pages takes, on one machine with and one without a TLB."""
    pages = [2**n for n in range(2, 13)]
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, settings, colour in (
        ("without a TLB", {"tlb": False}, RED),
        ("Skylake's TLBs", {"tlb_policy": "lru"}, BLUE),
    ):
        axes.plot(pages, [entry_reads(count, settings) for count in pages], marker="o", color=colour, label=name)
    for entries, what in ((64, "L1 DTLB"), (1536, "STLB")):
        axes.axvline(entries, color=GREY, linewidth=0.8, linestyle="dotted")
        axes.text(entries * 1.05, 3.55, f"{what}: {entries} entries", color=GREY, size=9)
    axes.set_xscale("log", base=2)
    axes.set_xticks(pages, [f"{count:,}" for count in pages])
    axes.set(xlabel="pages that a loop uses in turn", ylabel="page-table entries read an access", ylim=(-0.1, 4.3))
    axes.legend(loc="center right", frameon=False)
    return figure


def entry_reads(pages: int, settings: dict[str, Any]) -> float:
    """Entries that are read an access when so many pages are used in turn, from the second round on."""
    machine = Machine(ram="32M", **settings)
    rights = Pte.P | Pte.W | Pte.U
    for table in (0x1000, 0x2000):
        machine.ram.store64(table, table + 0x1000 | rights)
    for number in range(8):
        machine.ram.store64(0x3000 + 8 * number, 0x4000 + 0x1000 * number | rights)
    for page in range(512 * 8):
        machine.ram.store64(0x4000 + 8 * page, page << 12 | rights)
    machine.write_cr3(0x1000)
    for _ in range(2):
        before = sum(machine.state.entry_reads)
        for page in range(pages):
            machine.mmu.translate(page << 12)
    return (sum(machine.state.entry_reads) - before) / pages


@picture("sharing")
def sharing() -> Figure:
    """What the data TLB holds of the two programs' page, under each answer."""
    figure, axes = blank(9, 1.9)
    for column, asid in enumerate(("stale", "flush", "pcid")):
        programs = tuple(str(PROGRAMS / f"tlb_sharing_{letter}.asm") for letter in "ab")
        run = Session(Options(programs=programs, asid=asid, pti=False), stdout=io.BytesIO())
        held: list[list[tuple[int, int]]] = []

        def look(event: Any, run: Session = run, held: list[list[tuple[int, int]]] = held) -> None:
            if event.pid == 2:
                dtlb = run.machine.mmu.entries(TlbKind.DTLB)
                held.append([(entry.pcid, entry.pa) for entry in dtlb if entry.va == 0x1000_0000])

        run.kernel.on("syscall", look)
        run.run()
        x = 0.1 + 3 * column
        axes.text(x, 1.65, f"--asid {asid}", weight="bold", family="monospace")
        axes.text(x, 1.35, "PCID   page       frame", family="monospace", size=9, color=GREY)
        rows = held[0]
        for row, (pcid, pa) in enumerate(rows):
            box(axes, x, 0.8 - 0.5 * row, 2.5, 0.45, f"{pcid}   0x10000   {pa >> 12:#x}")
        if not rows:
            box(axes, x, 0.8, 2.5, 0.45, "nothing", "white")
    axes.text(0.1, 0.4, "what the data TLB holds for address 0x10000000 when b makes its first system call", color=GREY)
    return figure


@picture("faults")
def faults() -> Figure:
    """Page faults of a growing stack, in time."""
    run = session("stack_growth")
    found: list[tuple[int, int]] = []
    run.kernel.on("page_fault", lambda event: found.append((event.cycle, event.address)))
    run.run()
    stack = [(cycle, address) for cycle, address in found if address > 0x7FFF_0000_0000]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    top = 0x7FFF_FFFF_F000
    axes.plot(
        [cycle for cycle, _ in stack], [(address - top) / 1024 for _, address in stack], ".", color=BLUE, markersize=3
    )
    axes.set(xlabel="cycles", ylabel="KiB below the top of the stack")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_title(f"{len(stack)} page faults, one for each page that the recursion needs", loc="left", size=10)
    return figure


@picture("swap")
def swap() -> Figure:
    """Faults of one recorded program, by frames and policy."""
    run = session("quicksort", max_instructions=300_000)
    with record(run) as recording:
        run.run()
    counts = list(range(4, 33, 2))
    names = ("fifo", "clock", "lru", "opt")
    counted = compare_policies(recording, names, counts)
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, marker, colour in zip(names, "osv^", (RED, ORANGE, BLUE, GREY), strict=True):
        axes.plot(counts, counted[name], marker=marker, markersize=4, color=colour, label=name)
    axes.set(xlabel="frames", ylabel="page faults", ylim=(0, None))
    axes.set_title("quicksort, replayed under four policies", loc="left", size=10)
    axes.legend(frameon=False)
    return figure


@picture("policies")
def policies() -> Figure:
    """Who wins where: faults of each policy on each pattern, as multiples of OPT's."""
    names = [name for name in policy_names() if name != "opt"]
    faults = {title: pattern.faults(["opt", *names]) for title, pattern in PATTERNS.items()}
    ratios = [[counts[name] / counts["opt"] for name in names] for counts in faults.values()]
    figure = Figure(figsize=(8.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(ratios, cmap="Oranges", norm=LogNorm(1, 12), aspect="auto")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(faults)), list(faults))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for row, values in enumerate(ratios):
        for column, value in enumerate(values):
            best = value == min(values) < max(values)
            colour = "white" if value > 5 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", size=9, color=colour)
            if best:
                axes.add_patch(Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, fill=False, color=BLUE, linewidth=2))
    axes.set_title("page faults, as multiples of OPT's; the best of each row is framed", loc="left", size=10)
    return figure


@picture("huge_pages")
def huge_pages() -> Figure:
    """Page walks and page faults of one program, with pages of 4 KiB and of 2 MiB."""
    counted = {
        name: session("huge_pages", thp=thp).run().stats for name, thp in (("4 KiB", "never"), ("2 MiB", "madvise"))
    }
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, title, numbers in (
        (left, "page walks for data", [stats["walk"]["by"]["user"]["data"] for stats in counted.values()]),
        (right, "page faults", [stats["faults"]["minor"] for stats in counted.values()]),
    ):
        axes.barh(list(counted), numbers, height=0.55, color=[ORANGE, BLUE])
        for row, number in enumerate(numbers):
            axes.text(number, row, f" {number:,}", va="center")
        axes.invert_yaxis()
        axes.set_xlim(0, 1.25 * max(numbers))
        axes.set_title(title, loc="left", size=10)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return figure


@picture("kernel_memory")
def kernel_memory() -> Figure:
    """The kernel's half as its PGD maps it."""
    from kernel.layout import CPU_ENTRY_AREA, DIRECT_MAP, KERNEL_TEXT, VMALLOC, VMEMMAP

    rows = (
        (0x0000_0000_0040_0000, "program: text, data, heap ... stack", "#fdebd7"),
        (DIRECT_MAP, "direct map: all RAM once more", LIGHT),
        (VMALLOC, "vmalloc: kernel stacks", LIGHT),
        (VMEMMAP, "vmemmap: a struct page a frame", LIGHT),
        (CPU_ENTRY_AREA, "cpu_entry_area: IDT, GDT, TSS, entry stacks", "#dcefdc"),
        (KERNEL_TEXT, "kernel text; its entry code", "#dcefdc"),
    )
    figure, axes = blank(8.6, 3.6)
    for number, (address, what, colour) in enumerate(rows):
        y = 0.15 + 0.55 * number + (0.15 if number else 0)
        box(axes, 2.3, y, 6.1, 0.48, what, colour)
        axes.text(2.15, y + 0.24, f"{address:016x}", ha="right", va="center", family="monospace", size=9)
    axes.axhline(0.74, color=GREY, linewidth=0.8, linestyle="dotted")
    axes.text(0.05, 0.55, "user half", color=GREY, size=8, va="top")
    axes.text(0.05, 0.8, "kernel half", color=GREY, size=8, va="bottom")
    return figure


@picture("pti")
def pti() -> Figure:
    """Where the cycles of a null system call go, on three machines."""
    from lab.statistics import cause_name

    names = ("PTI off", "PTI, PCID", "PTI, no PCID")
    machines: tuple[dict[str, Any], ...] = ({"pti": False}, {"pti": True}, {"pti": True, "pcid": False})
    causes: dict[str, list[float]] = {}
    for number, options in enumerate(machines):
        stats = session("null_syscall", **options).run().stats
        calls = sum(stats["syscalls"].values())
        for cause, cycles in stats["cycles"]["by_cause"].items():
            causes.setdefault(cause, [0.0] * len(machines))[number] = cycles / calls
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(machines)
    palette = (BLUE, ORANGE, RED, "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#9c755f")
    shown = [cause for cause, values in causes.items() if max(values) > 5]
    for cause, colour in zip(shown, palette, strict=False):
        axes.barh(names, causes[cause], left=left, height=0.6, color=colour, label=cause_name(cause))
        left = [a + b for a, b in zip(left, causes[cause], strict=True)]
    for number, total in enumerate(left):
        axes.text(total + 8, number, f"{total:.0f}", va="center")
    axes.invert_yaxis()
    axes.set(xlabel="cycles a getpid()", xlim=(0, max(left) * 1.08))
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.45, -0.22))
    return figure


@picture("meltdown")
def meltdown() -> Figure:
    """How long the 256 loads of the last byte take, with page-table isolation off and on."""
    from lab.meltdown import PROGRAM, attack, figure

    machine: dict[str, Any] = {"caches": "on", "secret": "The kernel maps all of memory."}
    return figure([attack(Options((str(PROGRAM),), pti=pti, **machine)) for pti in (False, True)])


@picture("pti_curve")
def pti_curve() -> Figure:
    """Overhead by rate of system calls, for several working sets, with the published points."""
    from lab.compare_curve import measure_curves
    from lab.compare_plot import curve_figure

    figure: Figure = curve_figure(measure_curves(Options(programs=()), jobs=1))
    return figure


def photograph_debugger() -> None:
    """The screen of `cr3 debug` in the middle of a page fault, as Textual exports it, without its fonts."""
    from lab.debugger.app import DebuggerApp

    app = DebuggerApp(Options(programs=(str(PROGRAMS / "page_cross.asm"),)))

    async def photograph() -> None:
        async with app.run_test(size=(140, 40)) as pilot:
            for key in "sssbSiiiiii":
                await pilot.press(key)
            await pilot.pause()
            await app.workers.wait_for_complete()
            await pilot.pause()
            drawn = app.export_screenshot(title="cr3 debug programs/page_cross.asm")
            (HERE / "debug.svg").write_text(re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL))

    try:
        asyncio.run(photograph())
    finally:
        app.close()


def main(names: list[str]) -> None:
    """Draw some pictures, or all."""
    for name in names or (*PICTURES, "debug"):
        if name == "debug":
            photograph_debugger()
        else:
            PICTURES[name]().savefig(HERE / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1:])
